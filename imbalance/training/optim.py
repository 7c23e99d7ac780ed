"""Optimisers, and learning-rate schedules as functions of the epoch."""

import bisect
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imbalance.config.schema import Fraction, Natural, NonNegative, Positive
from imbalance.config.tags import tagged
from imbalance.errors import BadInput

Parameters = Iterable[nn.Parameter]
Decayed = Literal["all", "weights"]  # what weight decay acts on; "weights": not on biases and normalisations


def uncompiled(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """`optimizer` without what torch wraps around its methods in case torch.compile looks into them.

    That imports the compiler, which takes as long as all else before a first step. Here only models are compiled.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)


def by_decay(parameters: Parameters, weight_decay: float, decayed: Decayed) -> list[dict[str, Any]]:
    """Parameter groups: what is decayed and, apart, what is not.

    Biases and the gains and shifts of normalisations are what has one dimension; the weights of layers, embeddings
    included, have two or more (Loshchilov and Hutter decay them all; the fine-tuning of Devlin et al., 2019, only these).
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        decay = weight_decay if decayed == "all" or parameter.dim() > 1 else 0.0
        groups.setdefault(decay, []).append(parameter)
    return [{"params": of_group, "weight_decay": decay} for decay, of_group in groups.items()]


def by_part(
    parameters: Parameters, head_parameters: Parameters, head_factor: float, weight_decay: float, decayed: Decayed
) -> list[dict[str, Any]]:
    """`by_decay` of what comes before the last layer, then of the last layer, whose groups have a factor on the rate."""
    head, all_of_them = list(head_parameters), list(parameters)
    of_head = set(map(id, head))
    body = [parameter for parameter in all_of_them if id(parameter) not in of_head]
    if not (head and body):
        missing = "that is called head" if body else "that is not its last one"
        raise BadInput(
            f"config.optim.head_factor: the model has no layer {missing}; use an optimiser without the factor"
        )
    of_each = by_decay(body, weight_decay, decayed), by_decay(head, weight_decay, decayed)
    return [*of_each[0], *(group | {"factor": head_factor} for group in of_each[1])]


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Go on at this learning rate, times the factor of a group that has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"] if "factor" in group else rate


def gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Those of all parameters that have one."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@torch.no_grad()
def clip(gradients: Sequence[Tensor], limit: float, stacked: int = 0) -> None:
    """Scale gradients down, so that their norm, of all of them together, is at most `limit` (Pascanu et al., ICML 2013).

    The squares are summed in float64: where they overflowed, the scale would be zero, and the step be nothing. A norm
    that is not finite makes the gradients nan, and is found as what it is.

    Args:
        stacked: how many first dimensions number models, the gradients of each of which are clipped by themselves.
    """
    if not stacked:
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float64)
        torch._foreach_mul_(gradients, (limit / torch.stack(norms).norm()).clamp(max=1))
        return
    norms = [gradient.flatten(stacked).double().norm(dim=-1) for gradient in gradients]
    scales = (limit / torch.stack(norms).norm(dim=0)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(of_models(scales, gradient).to(gradient.dtype))


def of_models(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers, one a model, that broadcast against what is stacked of them."""
    return numbers.view(*numbers.shape, *[1] * (like.dim() - numbers.dim()))


# All fused: one kernel a step for all parameters, on a CPU too, where a small model's step is mostly overhead.


@tagged(batched=True)
def sgd(
    parameters: Parameters, *, lr: Positive, momentum: Fraction, weight_decay: NonNegative, decayed: Decayed
) -> torch.optim.SGD:
    """Stochastic gradient descent with (heavy-ball) momentum.

    Args:
        lr: the learning rate.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    return sgd_of(by_decay(parameters, weight_decay, decayed), lr, momentum)


def sgd_of(groups: list[dict[str, Any]], lr: float, momentum: float) -> torch.optim.SGD:
    """Of parameter groups."""
    optimizer = uncompiled(torch.optim.SGD)(groups, lr=lr, momentum=momentum, fused=True)
    # torch leaves the momentum uninitialised where float16 gradients overflow in the first step (2.13). From zero the
    # first step is the same.
    for group in optimizer.param_groups if momentum else ():
        for parameter in (parameter for parameter in group["params"] if parameter.requires_grad):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


class StackedSGD:
    """The optimisers that `sgd` makes of many models, as one: each model goes down at its own rate.

    param_groups: a single one, whose "lr" has a rate for each model.
    """

    stacked = 2

    def __init__(
        self, parameters: Sequence[nn.Parameter], momenta: Sequence[Tensor], decays: Sequence[float], momentum: float
    ):
        """
        Args:
            parameters, momenta: stacked along two first dimensions; both are changed in place. No momenta without momentum.
            decays: the weight decay of each parameter.
        """
        self.param_groups = [{"params": parameters, "lr": None}]
        self.momenta, self.decays, self.momentum = momenta, decays, momentum

    @torch.no_grad()
    def step(self) -> None:
        parameters, rates = self.param_groups[0]["params"], self.param_groups[0]["lr"]
        for i, (parameter, decay) in enumerate(zip(parameters, self.decays)):
            gradient = parameter.grad.add(parameter, alpha=decay) if decay else parameter.grad
            if self.momentum:
                gradient = torch.add(gradient, self.momenta[i], alpha=self.momentum, out=self.momenta[i])
            parameter.addcmul_(gradient, of_models(rates, parameter), value=-1)

    def zero_grad(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None


def adam(
    parameters: Parameters,
    *,
    lr: Positive,
    betas: tuple[Fraction, Fraction],
    weight_decay: NonNegative,
    decayed: Decayed,
) -> torch.optim.Adam:
    """Kingma and Ba, ICLR 2015; `weight_decay` is added to the gradient.

    Args:
        lr: the learning rate.
        betas: the decays of the moving averages of the gradient and of its square.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    groups = by_decay(parameters, weight_decay, decayed)
    return uncompiled(torch.optim.Adam)(groups, lr=lr, betas=betas, fused=True)


def adamw(
    parameters: Parameters,
    *,
    lr: Positive,
    betas: tuple[Fraction, Fraction],
    weight_decay: NonNegative,
    decayed: Decayed,
) -> torch.optim.AdamW:
    """Loshchilov and Hutter, ICLR 2019; `weight_decay` shrinks the parameters directly.

    Args:
        lr: the learning rate.
        betas: the decays of the moving averages of the gradient and of its square.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    groups = by_decay(parameters, weight_decay, decayed)
    return uncompiled(torch.optim.AdamW)(groups, lr=lr, betas=betas, fused=True)


# The same with a learning rate of its own for the last layer, which starts afresh where what is before it was trained on
# much else. Not to be trained at once: a stack has one rate a model.


def sgd_apart(
    parameters: Parameters,
    head_parameters: Parameters,
    *,
    lr: Positive,
    head_factor: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
    decayed: Decayed,
) -> torch.optim.SGD:
    """`sgd` at the rate lr before the last layer and head_factor · lr in it; a schedule multiplies both.

    Args:
        lr: the learning rate before the last layer.
        head_factor: 10 is usual for a pretrained network (Long et al., "Deep Adaptation Networks", ICML 2015); at 1
            it is `sgd`.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    return sgd_of(by_part(parameters, head_parameters, head_factor, weight_decay, decayed), lr, momentum)


def adamw_apart(
    parameters: Parameters,
    head_parameters: Parameters,
    *,
    lr: Positive,
    head_factor: Positive,
    betas: tuple[Fraction, Fraction],
    weight_decay: NonNegative,
    decayed: Decayed,
) -> torch.optim.AdamW:
    """`adamw` at the rate lr before the last layer and head_factor · lr in it; a schedule multiplies both.

    Weight decay is multiplied by the rate, and so by the factor too.

    Args:
        lr: the learning rate before the last layer.
        head_factor: at 1 it is `adamw`.
        betas: the decays of the moving averages of the gradient and of its square.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    groups = by_part(parameters, head_parameters, head_factor, weight_decay, decayed)
    return uncompiled(torch.optim.AdamW)(groups, lr=lr, betas=betas, fused=True)


# A schedule returns the factor on the learning rate at a (fractional) epoch: without state, a resume needs none.


def warm_up(epoch: float, warmup_epochs: float) -> float:
    """Linear from 0 to 1 over the first `warmup_epochs`, which may be a part of one; 1 after them."""
    return min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0


def constant(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """The learning rate as it is, after warm-up.

    Args:
        warmup_epochs: the number of epochs, or fractions of one, in which the rate rises to its full value; 0 for
            no warm-up.
    """
    return warm_up(epoch, warmup_epochs)


def cosine(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """Half a cosine from 1 at the end of warm-up to 0 at the end of training (Loshchilov and Hutter, ICLR 2017).

    Args:
        warmup_epochs: the number of epochs, or fractions of one, in which the rate rises to its full value; 0 for
            no warm-up.
    """
    if epoch < warmup_epochs:
        return warm_up(epoch, warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)))


def linear(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """A straight line from 1 at the end of warm-up to 0 at the end of training, as BERT is fine-tuned.

    Args:
        warmup_epochs: the number of epochs, or fractions of one, in which the rate rises to its full value; 0 for
            no warm-up.
    """
    if epoch < warmup_epochs:
        return warm_up(epoch, warmup_epochs)
    return max(0.0, (epochs - epoch) / max(epochs - warmup_epochs, math.ulp(1.0)))


def step(
    epoch: float, epochs: int, *, warmup_epochs: NonNegative, milestones: tuple[Natural, ...], factor: Fraction
) -> float:
    """Multiplied by `factor` at each of the epochs in `milestones` (in ascending order).

    Args:
        warmup_epochs: the number of epochs, or fractions of one, in which the rate rises to its full value; 0 for
            no warm-up.
        milestones: the epochs at which the rate is multiplied, in ascending order.
        factor: the number by which the rate is multiplied at each milestone.
    """
    return warm_up(epoch, warmup_epochs) * factor ** bisect.bisect_right(milestones, epoch)


OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw, "sgd_apart": sgd_apart, "adamw_apart": adamw_apart}
SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear, "step": step}
