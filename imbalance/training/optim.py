"""Optimisers, and learning-rate schedules as functions of the epoch."""

import bisect
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from imbalance.config.schema import Fraction, Natural, NonNegative, Positive
from imbalance.config.tags import tagged
from imbalance.errors import BadInput

Parameters = Iterable[nn.Parameter]
Decayed = Literal["all", "weights"]  # what weight decay acts on; "weights": not on biases and normalisations
Kind = TypeVar("Kind", bound=type[torch.optim.Optimizer])


def uncompiled(optimizer: Kind) -> Kind:
    """Return a subclass of `optimizer` without the wrappers that torch puts around methods for torch.compile.

    The wrappers import the compiler, which takes as long as all else before a first step. Here only models are compiled.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return cast(Kind, type(optimizer.__name__, (optimizer,), methods))


def by_decay(parameters: Parameters, weight_decay: float, decayed: Decayed) -> list[dict[str, Any]]:
    """Return parameter groups: parameters with weight decay, and parameters without.

    Parameters of one dimension are biases, and the gains and shifts of normalisations. Weights of layers, embeddings
    included, have two or more. Loshchilov and Hutter decay all parameters; Devlin et al. (2019) decay only weights.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        decay = weight_decay if decayed == "all" or parameter.dim() > 1 else 0.0
        groups.setdefault(decay, []).append(parameter)
    return [{"params": members, "weight_decay": decay} for decay, members in groups.items()]


def by_part(
    parameters: Parameters, head_parameters: Parameters, head_factor: float, weight_decay: float, decayed: Decayed
) -> list[dict[str, Any]]:
    """Return the groups of `by_decay` for all layers but the last, then for the last layer, with a factor on the rate."""
    head = list(head_parameters)
    head_ids = set(map(id, head))
    body = [parameter for parameter in parameters if id(parameter) not in head_ids]
    if not (head and body):
        missing = "that is called head" if body else "that is not its last one"
        raise BadInput(
            f"config.optim.head_factor: the model has no layer {missing}; use an optimiser without the factor"
        )
    head_groups = by_decay(head, weight_decay, decayed)
    return [*by_decay(body, weight_decay, decayed), *(group | {"factor": head_factor} for group in head_groups)]


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Set the learning rate of every group: `rate`, times the factor of a group that has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"] if "factor" in group else rate


def gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the gradients of all parameters that have one."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@torch.no_grad()
def clip(gradients: list[Tensor], limit: float, stacked: int = 0) -> None:
    """Scale the gradients down, so that the norm of all of them together is at most `limit` (Pascanu et al., ICML 2013).

    Squares are summed in float64, because an overflow would make the scale zero, and the step nothing. A norm that is
    not finite makes the gradients nan, which the finite check finds.

    Args:
        stacked: the number of first dimensions that count models; the gradients of each model are clipped alone.
    """
    if not stacked:
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float64)  # pyright: ignore[reportPrivateImportUsage]
        scale = (limit / torch.stack(norms).norm()).clamp(max=1)
        torch._foreach_mul_(gradients, scale)  # pyright: ignore[reportPrivateImportUsage]
        return
    norms = [gradient.flatten(stacked).double().norm(dim=-1) for gradient in gradients]
    scales = (limit / torch.stack(norms).norm(dim=0)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(per_model(scales, gradient).to(gradient.dtype))


def per_model(numbers: Tensor, like: Tensor) -> Tensor:
    """Return one number a model in a shape that broadcasts against `like`, which is stacked over models."""
    return numbers.view(*numbers.shape, *[1] * (like.dim() - numbers.dim()))


# All optimisers are fused: one kernel a step for all parameters. On a CPU, too, a small model's step is mostly overhead.


@tagged(batched=True)
def sgd(
    parameters: Parameters, *, lr: Positive, momentum: Fraction, weight_decay: NonNegative, decayed: Decayed
) -> torch.optim.SGD:
    """Build stochastic gradient descent with (heavy-ball) momentum.

    Args:
        lr: the learning rate.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    return sgd_from_groups(by_decay(parameters, weight_decay, decayed), lr, momentum)


def sgd_from_groups(groups: list[dict[str, Any]], lr: float, momentum: float) -> torch.optim.SGD:
    """Build stochastic gradient descent for parameter groups."""
    optimizer = uncompiled(torch.optim.SGD)(groups, lr=lr, momentum=momentum, fused=True)
    # torch 2.13 leaves the momentum uninitialised if float16 gradients overflow in the first step. So start it at zero,
    # from which the first step is the same.
    for group in optimizer.param_groups if momentum else ():
        for parameter in (parameter for parameter in group["params"] if parameter.requires_grad):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


class StackedSGD:
    """One optimiser for many models, each of which is updated as by its own `sgd`, at its own rate.

    param_groups: a single group, whose "lr" has a rate for each model.
    """

    stacked = 2

    def __init__(
        self, parameters: Sequence[nn.Parameter], momenta: Sequence[Tensor], decays: Sequence[float], momentum: float
    ):
        """Keep the stacked tensors.

        Args:
            parameters, momenta: stacked along two first dimensions, and changed in place. Without momentum, `momenta` is
                empty.
            decays: the weight decay of each parameter.
        """
        self.param_groups: list[dict[str, Any]] = [{"params": parameters, "lr": None}]
        self.momenta, self.decays, self.momentum = momenta, decays, momentum

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters of every model."""
        parameters, rates = self.param_groups[0]["params"], self.param_groups[0]["lr"]
        for i, (parameter, decay) in enumerate(zip(parameters, self.decays)):
            gradient = parameter.grad.add(parameter, alpha=decay) if decay else parameter.grad
            if self.momentum:
                gradient = torch.add(gradient, self.momenta[i], alpha=self.momentum, out=self.momenta[i])
            parameter.addcmul_(gradient, per_model(rates, parameter), value=-1)

    def zero_grad(self) -> None:
        """Remove the gradients."""
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
    """Build Adam (Kingma and Ba, ICLR 2015), which adds weight decay to the gradient.

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
    """Build AdamW (Loshchilov and Hutter, ICLR 2019), whose weight decay shrinks the parameters directly.

    Args:
        lr: the learning rate.
        betas: the decays of the moving averages of the gradient and of its square.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    groups = by_decay(parameters, weight_decay, decayed)
    return uncompiled(torch.optim.AdamW)(groups, lr=lr, betas=betas, fused=True)


# The same optimisers with a learning rate of its own for the last layer, which is new if the layers before it come from a
# pretrained network. Their runs cannot be stacked, because a stack has one rate a model.


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
    """Build `sgd` with the rate lr before the last layer and head_factor · lr in it; a schedule multiplies both.

    Args:
        lr: the learning rate before the last layer.
        head_factor: 10 is usual for a pretrained network (Long et al., "Deep Adaptation Networks", ICML 2015); at 1
            it is `sgd`.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    return sgd_from_groups(by_part(parameters, head_parameters, head_factor, weight_decay, decayed), lr, momentum)


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
    """Build `adamw` with the rate lr before the last layer and head_factor · lr in it; a schedule multiplies both.

    AdamW multiplies weight decay by the rate, and so by the factor too.

    Args:
        lr: the learning rate before the last layer.
        head_factor: at 1 it is `adamw`.
        betas: the decays of the moving averages of the gradient and of its square.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": not on biases and normalisation layers.
    """
    groups = by_part(parameters, head_parameters, head_factor, weight_decay, decayed)
    return uncompiled(torch.optim.AdamW)(groups, lr=lr, betas=betas, fused=True)


# A schedule returns the factor on the learning rate at a (fractional) epoch. It has no state, so a resume restores none.


def warm_up(epoch: float, warmup_epochs: float) -> float:
    """Return a factor that rises linearly from 0 to 1 over the first `warmup_epochs`, and then is 1."""
    return min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0


def constant(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """Return 1 after warm-up.

    Args:
        warmup_epochs: the number of epochs, or fractions of one, in which the rate rises to its full value; 0 for
            no warm-up.
    """
    return warm_up(epoch, warmup_epochs)


def cosine(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """Return half a cosine, from 1 at the end of warm-up to 0 at the end of training (Loshchilov and Hutter, ICLR 2017).

    Args:
        warmup_epochs: the number of epochs, or fractions of one, in which the rate rises to its full value; 0 for
            no warm-up.
    """
    if epoch < warmup_epochs:
        return warm_up(epoch, warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)))


def linear(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """Return a straight line, from 1 at the end of warm-up to 0 at the end of training, as BERT is fine-tuned.

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
    """Return 1 after warm-up, multiplied by `factor` at each epoch in `milestones`.

    Args:
        warmup_epochs: the number of epochs, or fractions of one, in which the rate rises to its full value; 0 for
            no warm-up.
        milestones: the epochs at which the rate is multiplied, in ascending order.
        factor: the number by which the rate is multiplied at each milestone.
    """
    return warm_up(epoch, warmup_epochs) * factor ** bisect.bisect_right(milestones, epoch)


OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw, "sgd_apart": sgd_apart, "adamw_apart": adamw_apart}
SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear, "step": step}
