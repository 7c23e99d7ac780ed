"""The steps of what methods fit for themselves: last layers, factors, assignments. A network's are in the loop."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def minimise(
    losses: Iterable[Tensor], optimizer: torch.optim.Optimizer, look: Callable[[int, Tensor], None] | None = None
) -> None:
    """Step down the gradient of each loss, which is computed when it is its turn.

    Args:
        look: called after every step with its number and loss.
    """
    for step, loss in enumerate(losses):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if look:
            look(step, loss)
