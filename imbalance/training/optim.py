"""Optimisers."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from imbalance.config.schema import Count, Fraction, NonNegative, Positive, Probability, Share
from imbalance.config.tags import tagged
from imbalance.errors import BadInput
from imbalance.methods.losses import share
from imbalance.training.distributed.sharding import is_sharded, local, sum_of_ranks
from imbalance.training.lbfgs import Solver

Parameters = Iterable[nn.Parameter]
Decayed = Literal["all", "weights"]  # parameters with weight decay; "weights": all but biases and normalisation layers
Kind = TypeVar("Kind", bound=type[torch.optim.Optimizer])
Descent = TypeVar("Descent", bound=torch.optim.SGD)


def uncompiled(optimizer: Kind) -> Kind:
    """Return a subclass of `optimizer` without the wrappers that torch puts around its methods for torch.compile.

    The wrappers import torch's compiler, which takes as long as everything else before the first step. Optimisers are
    not compiled here, so they need no wrappers.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return cast(Kind, type(optimizer.__name__, (optimizer,), methods))


def by_decay(parameters: Parameters, weight_decay: float, decayed: Decayed) -> list[dict[str, Any]]:
    """Split parameters into parameter groups of an optimiser: one with weight decay, and one without.

    If `decayed` is "all", all parameters are in the group with weight decay.

    Parameters with one dimension are biases, or the gains and shifts of normalisation layers. Weights of layers and
    embeddings have two or more. Loshchilov and Hutter decay all parameters; Devlin et al. (2019) decay only weights.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        decay = weight_decay if decayed == "all" or parameter.dim() > 1 else 0.0
        groups.setdefault(decay, []).append(parameter)
    return [{"params": members, "weight_decay": decay} for decay, members in groups.items()]


def by_part(
    parameters: Parameters,
    head_parameters: Parameters,
    head_factor: float,
    layer_decay: float,
    layers_above: Callable[[], Mapping[nn.Parameter, int]],
    weight_decay: float,
    decayed: Decayed,
) -> list[dict[str, Any]]:
    """Split parameters as `by_decay` does, and give each layer its own learning rate.

    Args:
        head_parameters: parameters of the last layer.
        head_factor: factor on the learning rate of the last layer.
        layer_decay: factor on the learning rate from a layer to the layer below it.
        layers_above: function that returns, for each parameter, the number of layers above the parameter's layer.

    Raises:
        BadInput: the model has no last layer called `head`, or no other layer.
    """
    head = list(head_parameters)
    head_ids = set(map(id, head))
    body = [parameter for parameter in parameters if id(parameter) not in head_ids]
    if not (head and body):
        missing = "called head" if body else "before its last one"
        raise BadInput(
            f"config.optim.head_factor: the factor is for a last layer called head that follows other layers; the model has no layer "
            f"{missing}; use optim.name='sgd' or 'adamw', which have no head_factor"
        )
    above = dict.fromkeys(body, 0) if layer_decay == 1 else layers_above()
    by_layer: dict[int, list[nn.Parameter]] = {}
    for parameter in body:
        by_layer.setdefault(above[parameter], []).append(parameter)
    layers = [(layer_decay**number, members) for number, members in sorted(by_layer.items(), reverse=True)]
    return [
        group | {"factor": factor}
        for factor, members in (*layers, (head_factor, head))
        for group in by_decay(members, weight_decay, decayed)
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Set the learning rate of every parameter group to `rate`, times the factor of the group if the group has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"] if "factor" in group else rate


def gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the gradients of all parameters of an optimiser that have a gradient."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of all `gradients` together; every rank must call this function if they are sharded.

    Squares are summed in float64, in which those of float32 do not overflow.
    """
    parts = list(map(local, gradients))
    norms = torch._foreach_norm(parts, 2, dtype=torch.float64)  # pyright: ignore[reportPrivateImportUsage] (torch's stubs lack it)
    norm = torch.stack(norms).norm()
    return sum_of_ranks(norm.square()).sqrt() if is_sharded(gradients[0]) else norm


@torch.no_grad()
def clip(gradients: list[Tensor], limit: float, stacked: int = 0) -> None:
    """Scale the gradients down in place, so that their joint norm is at most `limit` (Pascanu et al., ICML 2013).

    Norms are in float64, because an overflow would make the scale, and so the step, zero. A norm that is not finite makes
    the gradients nan, which the finite check then reports.

    Args:
        stacked: number of leading dimensions that index stacked models, each of which is clipped alone; 0 for one
            model.
    """
    if not stacked:
        scale = (limit / joint_norm(gradients)).clamp(max=1)
        torch._foreach_mul_(list(map(local, gradients)), scale)  # pyright: ignore[reportPrivateImportUsage] (torch's stubs lack it)
        return
    norms = [gradient.flatten(stacked).double().norm(dim=-1) for gradient in gradients]
    scales = (limit / torch.stack(norms).norm(dim=0)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(per_model(scales, gradient).to(gradient.dtype))


def per_model(numbers: Tensor, like: Tensor) -> Tensor:
    """Reshape `numbers`, one for each stacked model, to broadcast against `like`, a tensor of all stacked models."""
    return numbers.view(*numbers.shape, *[1] * (like.dim() - numbers.dim()))


# All optimisers are fused, so one kernel updates all parameters: a step of a small model is mostly overhead, on a CPU
# too.


@tagged(batched=True)
def sgd(
    parameters: Parameters, *, lr: Positive, momentum: Fraction, weight_decay: NonNegative, decayed: Decayed
) -> torch.optim.SGD:
    """Build stochastic gradient descent with (heavy-ball) momentum.

    Args:
        lr: the learning rate.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
    """
    return sgd_from_groups(by_decay(parameters, weight_decay, decayed), lr, momentum)


def sgd_from_groups(
    groups: list[dict[str, Any]], lr: float, momentum: float, kind: type[Descent] = torch.optim.SGD
) -> Descent:
    """Build stochastic gradient descent for parameter groups that `by_decay` or `by_part` returned.

    Args:
        kind: the Python class of the optimiser.
    """
    optimizer = uncompiled(kind)(groups, lr=lr, momentum=momentum, fused=True)
    # torch 2.13 leaves the momentum uninitialised if float16 gradients overflow in the first step. So start it at zero,
    # from which the first step is the same.
    for group in optimizer.param_groups if momentum else ():
        for parameter in (parameter for parameter in group["params"] if parameter.requires_grad):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


class StackedSGD:
    """Optimiser for stacked models that updates each model as `sgd` would, with a learning rate for each.

    param_groups: a single group, whose "lr" is a tensor with the learning rate of each model.
    """

    stacked = 2

    def __init__(
        self, parameters: Sequence[nn.Parameter], momenta: Sequence[Tensor], decays: Sequence[float], momentum: float
    ):
        """Store the stacked tensors, which steps change in place.

        Args:
            parameters: parameters, stacked along two leading dimensions.
            momenta: momentum of each parameter, stacked in the same way; empty without momentum.
            decays: weight decay of each parameter.
        """
        self.param_groups: list[dict[str, Any]] = [{"params": parameters, "lr": None}]
        self.momenta, self.decays, self.momentum = momenta, decays, momentum

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters of every stacked model."""
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
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
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
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
    """
    groups = by_decay(parameters, weight_decay, decayed)
    return uncompiled(torch.optim.AdamW)(groups, lr=lr, betas=betas, fused=True)


# These optimisers have other learning rates for the last layer, which is new if all other layers are pretrained, and for
# lower layers. Runs with them cannot be stacked, because a stack has one learning rate for each model.


def sgd_apart(
    parameters: Parameters,
    head_parameters: Parameters,
    layers_above: Callable[[], Mapping[nn.Parameter, int]],
    *,
    lr: Positive,
    head_factor: Positive,
    layer_decay: Share,
    momentum: Fraction,
    weight_decay: NonNegative,
    decayed: Decayed,
) -> torch.optim.SGD:
    """Build `sgd` with its own learning rate for each layer: head_factor · lr for the last layer, less for lower layers.

    A layer with n layers above it has the learning rate layer_decay^n · lr; see `imbalance.models.depth.layers_above`.

    Args:
        lr: the learning rate that the factors multiply.
        head_factor: factor on the learning rate of the last layer. 10 is usual for a pretrained network (Long et al.,
            "Deep Adaptation Networks", ICML 2015). If head_factor and layer_decay are 1, this is `sgd`.
        layer_decay: the factor on the learning rate from a layer to the layer below it, as in Bao et al. (BEiT, ICLR 2022)
            and timm; 1 for the same learning rate in all layers before the last.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
    """
    return sgd_from_groups(
        by_part(parameters, head_parameters, head_factor, layer_decay, layers_above, weight_decay, decayed),
        lr,
        momentum,
    )


def adamw_apart(
    parameters: Parameters,
    head_parameters: Parameters,
    layers_above: Callable[[], Mapping[nn.Parameter, int]],
    *,
    lr: Positive,
    head_factor: Positive,
    layer_decay: Share,
    betas: tuple[Fraction, Fraction],
    weight_decay: NonNegative,
    decayed: Decayed,
) -> torch.optim.AdamW:
    """Build `adamw` with its own learning rate for each layer: head_factor · lr for the last layer, less for lower layers.

    A layer with n layers above it has the learning rate layer_decay^n · lr; see `imbalance.models.depth.layers_above`.
    AdamW multiplies weight decay by the learning rate, so the factors also multiply the decay of their layers.

    Args:
        lr: the learning rate that the factors multiply.
        head_factor: factor on the learning rate of the last layer. If head_factor and layer_decay are 1, this is `adamw`.
        layer_decay: the factor on the learning rate from a layer to the layer below it; 1 for the same learning rate in all
            layers before the last. Bao et al. (BEiT, ICLR 2022) use 0.65 to 0.85 for vision transformers; Sun et al. (2019)
            use 0.95 for BERT.
        betas: the decays of the moving averages of the gradient and of its square.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
    """
    groups = by_part(parameters, head_parameters, head_factor, layer_decay, layers_above, weight_decay, decayed)
    return uncompiled(torch.optim.AdamW)(groups, lr=lr, betas=betas, fused=True)


@tagged(batched=True, full_batch=True)
def lbfgs(
    head_parameters: Sequence[nn.Parameter], *, weight_decay: NonNegative, decayed: Decayed, tolerance: Positive
) -> Solver:
    """Build L-BFGS, which minimises the mean weighted loss plus ½ · weight_decay · ‖w‖² over all training examples.

    Liu and Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", Mathematical Programming, 1989.
    Each epoch is one iteration on all examples of train, so `config.trainer.batch_size` has no effect, and there is no
    learning rate. The run ends once it has converged, at the latest after `config.trainer.epochs` iterations. With
    `config.model.init="zeros"` the result does not depend on chance, because no examples and no initial weights are drawn.

    This optimiser trains the last layer only. The model must have no other trainable layer, as "linear" has none, and
    the loss must be convex. The minimum is that of scikit-learn's `LogisticRegression`: for three or more classes with
    C = 1 / (N · weight_decay), and for two classes with C = 2 / (N · weight_decay), because scikit-learn fits one weight
    vector, not two, to two classes.

    Args:
        weight_decay: the factor of the penalty; 0 for none. If a linear model can fit all examples, there is
            no minimum without the penalty: the weights grow until the gradient is small enough to end the run.
        decayed: "weights": the penalty acts on the weights, as in scikit-learn; "all": on the biases, too.
        tolerance: the run has converged when no entry of the gradient is larger in magnitude than this; 1e-4 in scikit-learn.
    """
    return uncompiled(Solver)(head_parameters, weight_decay, decayed, tolerance)


# Sharpness-aware optimisers take the gradient at displaced network weights, and update the original ones. So a step needs
# several forward and backward passes, see `imbalance.training.step.sharpness_aware_passes`. Runs with them cannot be
# stacked.


class SharpnessAware(torch.optim.SGD):
    """SGD that takes the gradient of a part of the loss at w + ρ g / ‖g‖, where g is the gradient of this part at w.

    w are all parameters together, so ‖g‖ is one number. Weight decay is no part of g.

    radius: ρ.
    shares: (K,) the share of each class's losses in this part; None if the part is the whole loss.
    """

    radius: float
    shares: Tensor | None

    @contextmanager
    def displaced(self) -> Iterator[None]:
        """Return a context manager that moves the parameters from w to w + ρ g / ‖g‖, where g are their gradients at w.

        The context starts without gradients. At its end the parameters are moved back to w.
        """
        slopes = gradients(self)
        # The smallest norm, 1e-12 as in the published code, keeps the factor finite in float32, so gradients of zeros
        # give a displacement of zero.
        factor = self.radius / joint_norm(slopes).clamp(min=1e-12)
        parts = [local(p.detach()) for group in self.param_groups for p in group["params"] if p.grad is not None]
        before = [part.clone() for part in parts]
        with torch.no_grad():
            for part, slope in zip(parts, slopes, strict=True):
                part.add_((local(slope) * factor).to(part.dtype))
        self.zero_grad()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parts, before)  # pyright: ignore[reportPrivateImportUsage] (torch's stubs lack it)


def sharpness_aware(
    parameters: Parameters,
    lr: float,
    momentum: float,
    weight_decay: float,
    decayed: Decayed,
    radius: float,
    shares: Tensor | None,
) -> SharpnessAware:
    """Build a `SharpnessAware` optimiser, whose docstring explains `radius` and `shares`."""
    groups = by_decay(parameters, weight_decay, decayed)
    optimizer = sgd_from_groups(groups, lr, momentum, SharpnessAware)
    optimizer.radius = radius
    device = groups[0]["params"][0].device
    optimizer.shares = None if shares is None else shares.to(device)
    return optimizer


@tagged(passes=2)
def sam(
    parameters: Parameters,
    *,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
    decayed: Decayed,
    radius: Positive,
) -> torch.optim.SGD:
    """Build SGD with sharpness-aware minimisation: the gradient at w + ρ g / ‖g‖, where g is the gradient at w.

    Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR
    2021. A step has two forward and backward passes, which have the same augmentation and dropout.

    Args:
        lr: the learning rate.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
        radius: ρ; 0.05 in the paper.
    """
    return sharpness_aware(parameters, lr, momentum, weight_decay, decayed, radius, None)


@tagged(passes=3, splits=True)
def imb_sam(
    parameters: Parameters,
    class_counts: Tensor,
    *,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
    decayed: Decayed,
    radius: Positive,
    tail_below: Count,
) -> torch.optim.SGD:
    """Build SGD with sharpness-aware minimisation of the losses of rare classes alone.

    Zhou, Qu, Xu and Shen, "ImbSAM: A Closer Look at Sharpness-Aware Minimization in Class-Imbalanced Recognition", ICCV
    2023. The gradient of the losses of frequent classes is taken at w. The gradient of the losses of rare classes is taken
    at w + ρ g / ‖g‖, where g is this gradient at w. A step has three forward and backward passes.
    The authors' code (github.com/cool-xuan/Imbalanced_SAM) multiplies the losses of rare classes by 2, which the paper
    does not; use importance weights for that here.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        lr: the learning rate.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
        radius: ρ; 0.05 in the authors' code.
        tail_below: a class with fewer training examples is rare; 20 for CIFAR-100-LT in the authors' code.
    """
    shares = (class_counts < tail_below).double()
    if not shares.any():
        raise BadInput(
            f"config.optim.tail_below: {tail_below} given, but the smallest class has {int(class_counts.min())} training "
            "examples, so that no class is rare; give a larger number, or use optim.name='sgd'"
        )
    return sharpness_aware(parameters, lr, momentum, weight_decay, decayed, radius, shares)


@tagged(passes=3, splits=True)
def focal_sam(
    parameters: Parameters,
    class_counts: Tensor,
    *,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
    decayed: Decayed,
    radius: Positive,
    gamma: NonNegative,
    strength: Probability,
) -> torch.optim.SGD:
    """Build SGD with sharpness-aware minimisation of a share of every loss; the share is larger for rarer classes.

    Li et al., "Focal-SAM: Focal Sharpness-Aware Minimization for Long-Tailed Classification", ICML 2025. The share of
    class y is c_y = λ (1 − π_y)^γ, where π_y is the fraction of training examples of class y. As in the authors' code
    (github.com/scongl/Focal-SAM), the gradient of the losses (1 − c_y) ℓ is taken at w, and that of the losses c_y ℓ at
    w + ρ g / ‖g‖, where g is the gradient of the losses c_y ℓ at w. A step has three forward and backward passes.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        lr: the learning rate.
        momentum: the momentum; 0 for none.
        weight_decay: the factor of weight decay; 0 for none.
        decayed: "all": weight decay acts on all parameters; "weights": on all but biases and normalisation layers.
        radius: ρ; 0.2 for CIFAR-10-LT and 0.3 for CIFAR-100-LT in the authors' commands.
        gamma: γ; 3 for CIFAR-10-LT and 3.2 for CIFAR-100-LT in the authors' commands.
        strength: λ; 0.5 for CIFAR-10-LT and 0.8 for CIFAR-100-LT in the authors' commands.
    """
    shares = strength * (1 - share(class_counts)) ** gamma
    return sharpness_aware(parameters, lr, momentum, weight_decay, decayed, radius, shares)


OPTIMIZERS = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "sgd_apart": sgd_apart,
    "adamw_apart": adamw_apart,
    "lbfgs": lbfgs,
    "sam": sam,
    "imb_sam": imb_sam,
    "focal_sam": focal_sam,
}
