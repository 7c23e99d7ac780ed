"""Values of objects that are equal if the objects compute the same, to decide which runs can share a loss or an objective."""

from collections.abc import Hashable, Iterator
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(value: Any, stacks_buffers: bool = False, above: tuple[int, ...] = ()) -> Hashable:
    """Return a value that is equal for two objects only if their types and all that they hold are equal.

    An object that cannot be taken apart, such as an open file, is equal to itself alone.

    Args:
        value: any object, such as a loss.
        stacks_buffers: whether each run of a stack gets the buffers of its own modules, so that only names, shapes and types
            of buffers must be equal, not the numbers in them.
        above: ids of the objects that hold `value`, by which a circle is recognised.
    """
    if id(value) in above:
        return "circle", above.index(id(value))
    if isinstance(value, float):
        return float, repr(value)  # nan is equal to nan here
    if value is None or isinstance(value, bool | int | str | bytes | type):
        return type(value), value

    def inside(part: Any) -> Hashable:
        return fingerprint(part, stacks_buffers, (*above, id(value)))

    if isinstance(value, Tensor):
        return _shape(value), value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, nn.Module):
        state = dict(vars(value))
        if stacks_buffers:
            state["_buffers"] = {name: buffer is not None and _shape(buffer) for name, buffer in value._buffers.items()}
        return type(value), inside(state)
    if isinstance(value, dict):
        return type(value), tuple((inside(key), inside(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(inside, value))
    if isinstance(value, list | tuple):
        return type(value), tuple(map(inside, value))
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return value.__module__, value.__code__, inside([value.__defaults__, value.__kwdefaults__, cells])
    if isinstance(value, MethodType):
        return MethodType, inside(value.__func__), inside(value.__self__)
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # own classes may raise anything; the object is then equal to itself alone
        return type(value), id(value)
    if isinstance(reduced, str):  # the name of a built-in function or of another global object
        return type(value), id(value)
    function, arguments, *state = reduced
    state = [list(part) if isinstance(part, Iterator) else part for part in state]
    return type(value), inside([function, arguments, *state])


def _shape(tensor: Tensor) -> Hashable:
    """Return the shape and the type of a tensor."""
    return tuple(tensor.shape), str(tensor.dtype)
