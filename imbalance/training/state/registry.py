"""Registry of the stateful parts of a run: copy the states of all parts, and restore them.

A stateful part is any object with `state_dict` and `load_state_dict`. The registry is `Learner.parts` together with
`Run.parts`: every part whose state must be kept, by its name. Checkpoints, the finite check, going back and forensics
iterate over the registry, so a new stateful part needs only an entry there.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from imbalance.utils.torch_state import random_state, set_random_state


class Stateful(Protocol):
    """Part of a run whose state must be kept.

    The two methods are those of `torch.distributed.checkpoint.stateful.Stateful`. Importing that protocol takes two
    seconds, as long as all other imports before the first step, so it is declared here again.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as nested dictionaries and lists of tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Restore a state that `state_dict` returned."""
        ...


class RandomState:
    """Stateful part for the random state of this process, from which dropout draws."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of torch's global generators."""
        return random_state()

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Set the state of torch's global generators."""
        set_random_state(state_dict)


def snapshot(parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Return a deep copy of the state of every part, on the CPU, by the name of the part."""
    return copied({name: part.state_dict() for name, part in parts.items()})


def restore(parts: Mapping[str, Stateful], states: Mapping[str, Any], last_use: bool = False) -> None:
    """Load the state of every part from `states`, which is not changed.

    Args:
        last_use: whether nothing reads `states` after this call. Then modules load `states` without a further copy,
            because a module copies the values that it loads.
    """
    for name, part in parts.items():
        # An optimiser keeps the tensors that it loads, and changes them in its next step, so load a copy.
        is_copied_anyway = last_use and isinstance(part, torch.nn.Module)
        part.load_state_dict(states[name] if is_copied_anyway else copied(states[name]))


def tensors_in(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the path, such as "layer.weight", and the tensor, for every tensor in nested dictionaries and lists.

    Args:
        path: path of `state`, with which every path starts.
    """
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, Mapping | list | tuple):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from tensors_in(value, f"{path}.{key}" if path else str(key))


def copied(value: Any, device: str | torch.device = "cpu") -> Any:
    """Return a deep copy of nested dictionaries and lists, with their tensors on `device`; tuples become lists.

    The default device is the CPU, because a GPU may have no memory left. Copies from a GPU run in parallel, and the
    host waits once for all of them. Copies on the CPU are in pinned memory, so copying them back to the GPU needs no
    wait.
    """
    from_device = []

    def copy(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item) for item in value]
        if not isinstance(value, Tensor):
            return value
        if value.device.type != "cpu":
            from_device.append(value)
        return value.detach().to(device, non_blocking=True, copy=True)

    copies = copy(value)
    if from_device and torch.device(device).type == "cpu":
        torch.cuda.synchronize()
    return copies
