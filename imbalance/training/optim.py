"""Optimisers, and learning-rate schedules as functions of the epoch."""

import bisect
import inspect
import math
from collections.abc import Iterable

import torch
from torch import nn

from imbalance.methods.tags import tagged
from imbalance.schema import Fraction, Natural, NonNegative, Positive

Parameters = Iterable[nn.Parameter]


def uncompiled(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """`optimizer` without what torch wraps around its methods in case torch.compile looks into them.

    That imports the compiler, which takes as long as all else before a first step. Here only models are compiled.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)


# All fused: one kernel a step for all parameters, on a CPU too, where a small model's step is mostly overhead.


@tagged(batched=True)
def sgd(parameters: Parameters, *, lr: Positive, momentum: Fraction, weight_decay: NonNegative) -> torch.optim.SGD:
    """Stochastic gradient descent with (heavy-ball) momentum."""
    optimizer = uncompiled(torch.optim.SGD)(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    # torch leaves the momentum uninitialised where float16 gradients overflow in the first step (2.13). From zero the
    # first step is the same.
    for parameter in optimizer.param_groups[0]["params"] if momentum else ():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def adam(
    parameters: Parameters, *, lr: Positive, betas: tuple[Fraction, Fraction], weight_decay: NonNegative
) -> torch.optim.Adam:
    """Kingma and Ba, ICLR 2015; `weight_decay` is added to the gradient."""
    return uncompiled(torch.optim.Adam)(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Parameters, *, lr: Positive, betas: tuple[Fraction, Fraction], weight_decay: NonNegative
) -> torch.optim.AdamW:
    """Loshchilov and Hutter, ICLR 2019; `weight_decay` shrinks the parameters directly."""
    return uncompiled(torch.optim.AdamW)(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


# A schedule returns the factor on the learning rate at a (fractional) epoch: without state, a resume needs none.


def warm_up(epoch: float, warmup_epochs: int) -> float:
    """Linear from 0 to 1 over the first `warmup_epochs`; 1 after them."""
    return min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0


def constant(epoch: float, epochs: int, *, warmup_epochs: Natural) -> float:
    """The learning rate as it is, after warm-up."""
    return warm_up(epoch, warmup_epochs)


def cosine(epoch: float, epochs: int, *, warmup_epochs: Natural) -> float:
    """Half a cosine from 1 at the end of warm-up to 0 at the end of training (Loshchilov and Hutter, ICLR 2017)."""
    if epoch < warmup_epochs:
        return warm_up(epoch, warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)))


def step(
    epoch: float, epochs: int, *, warmup_epochs: Natural, milestones: tuple[Natural, ...], factor: Fraction
) -> float:
    """Multiplied by `factor` at each of the epochs in `milestones` (in ascending order)."""
    return warm_up(epoch, warmup_epochs) * factor ** bisect.bisect_right(milestones, epoch)


OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw}
SCHEDULES = {"constant": constant, "cosine": cosine, "step": step}
