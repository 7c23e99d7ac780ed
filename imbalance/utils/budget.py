"""Refuse a model that is too large for the free memory, before the memory is allocated."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from imbalance.errors import BadInput


class MemoryBudget(TorchFunctionMode):
    """Context manager that adds up the memory of all layers that are built inside it, and refuses a model too large.

    Layers allocate their weights by `torch.empty` and fill them afterwards, so every call of `torch.empty` is counted
    before it allocates. Building the model on the meta device first would show its size too, but torch would import
    its compiler, which takes three seconds.

    Args:
        what: config key of the model, such as "config.model"; the message starts with it.
        available: number of free bytes.

    Raises:
        BadInput: the network weights, and gradients of the same size, need more bytes than `available`.
    """

    def __init__(self, what: str, available: int):
        super().__init__()
        self.what, self.available, self.needed = what, available, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            try:
                planned = func(*args, **kwargs | {"device": "meta"})
            except (RuntimeError, TypeError) as error:  # 64 bits cannot count the elements
                raise BadInput(
                    f"{self.what}: too large ({str(error).splitlines()[0]}); choose a smaller model"
                ) from None
            self.needed += 2 * planned.numel() * planned.element_size()
            if self.needed > self.available:
                raise BadInput(
                    f"{self.what}: weights and gradients take {self.needed / 1e9:,.1f} GB or more, and "
                    f"{self.available / 1e9:,.1f} GB are free; choose a smaller model"
                )
        return func(*args, **kwargs)
