"""A model that cannot fit is refused before its memory is asked for."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from imbalance.errors import BadInput


class MemoryBudget(TorchFunctionMode):
    """While it is entered, what layers allocate for their weights is added up first.

    Layers make their weights by `torch.empty`, and fill them then. (To build the model on the meta device first would
    run the filling there as well, for which torch imports its compiler: three seconds.)

    Args:
        what: is too large, for the message.
        available: bytes. Weights, and gradients of the same size, must fit.
    """

    def __init__(self, what: str, available: int):
        super().__init__()
        self.what, self.available, self.needed = what, available, 0

    def __torch_function__(self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            try:
                planned = func(*args, **kwargs | {"device": "meta"})
            except (RuntimeError, TypeError) as error:  # more elements than 64 bits can count
                raise BadInput(f"{self.what}: too large ({str(error).splitlines()[0]})") from None
            self.needed += 2 * planned.numel() * planned.element_size()
            if self.needed > self.available:
                raise BadInput(
                    f"{self.what}: weights and gradients take {self.needed / 1e9:,.1f} GB or more, and "
                    f"{self.available / 1e9:,.1f} GB are free"
                )
        return func(*args, **kwargs)
