"""Gradient descent for what methods fit besides a network: last layers, factors, assignments."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def minimise(
    losses: Iterable[Tensor], optimizer: torch.optim.Optimizer, check: Callable[[int, Tensor], None] | None = None
) -> None:
    """Take an optimiser step on each loss; `losses` computes each loss when its turn comes.

    Args:
        check: called after every step with the number of the step and its loss.
    """
    for step, loss in enumerate(losses):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if check:
            check(step, loss)
