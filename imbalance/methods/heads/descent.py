"""Gradient descent for small sets of parameters: last layers, factors of logits, and shares in environments."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def minimise(
    losses: Iterable[Tensor], optimizer: torch.optim.Optimizer, check: Callable[[int, Tensor], None] | None = None
) -> None:
    """Take an optimiser step on each loss.

    Args:
        losses: an iterator over losses, which computes a loss only after the optimiser step on the previous loss.
        optimizer: the optimiser of the parameters.
        check: called after every step with the number of the step, from 0, and its loss.
    """
    for step, loss in enumerate(losses):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if check:
            check(step, loss)
