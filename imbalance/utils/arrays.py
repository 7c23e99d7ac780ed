"""Check the arrays that a program passes to the public functions of metrics and theory."""

from typing import Any

import numpy as np

from imbalance.errors import BadInput


def as_array(name: str, value: Any, dims: int | tuple[int, ...]) -> np.ndarray:
    """Return a list, array or tensor as an array of numbers or bools with `dims` dimensions.

    Args:
        name: the argument, for messages.
        dims: the number of dimensions, or all numbers of dimensions that are allowed.

    Raises:
        BadInput: the value is no such array.
    """
    dims = dims if isinstance(dims, tuple) else (dims,)
    needed = f"an array of numbers with {' or '.join(map(str, dims))} dimension{'s' * (dims != (1,))}"
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except Exception:  # a class can fail in its own way, and NumPy raises many kinds of errors for ragged lists
        raise BadInput(f"{name}: {type(value).__name__} given; {needed} is needed") from None
    if array.dtype.kind not in "biuf" or array.ndim not in dims:
        raise BadInput(f"{name}: {array.dtype} of shape {array.shape} given; {needed} is needed")
    return array


def as_floats(name: str, value: Any, dims: int) -> np.ndarray:
    """Return `value` as an array of finite floats; the arguments and errors are those of `as_array`."""
    array = as_array(name, value, dims)
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:  # sums in float16 overflow
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise BadInput(f"{name}: a value is not finite; remove or replace it")
    return array


def as_nonnegative(name: str, value: Any, dims: int | tuple[int, ...] = 1) -> np.ndarray:
    """Return `value` as an array of finite numbers from 0 on; the arguments and errors are those of `as_array`."""
    array = as_array(name, value, dims)
    if len(wrong := np.argwhere(~(np.isfinite(array) & (array >= 0)))):
        place = wrong[0].tolist()
        raise BadInput(f"{name}{place}: {array[tuple(place)]} given; finite numbers from 0 on are needed")
    return array


def as_probabilities(name: str, value: Any, tolerance: float = 0.01) -> np.ndarray:
    """Return `value` as an (N, K) array of floats whose rows are probabilities.

    Args:
        tolerance: the largest difference of the sum of a row from 1, which depends on the precision of the values.

    Raises:
        BadInput: a row has a value below 0, or does not sum to 1: logits were passed, for example.
    """
    array = as_floats(name, value, 2)
    wrong = (array < 0).any(axis=1) | (np.abs(array.sum(axis=1) - 1) > tolerance)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadInput(
            f"{name}[{row}] sums to {array[row].sum():g}; probabilities are at least 0 and sum to 1, so pass "
            "logits.softmax(1) if these are logits"
        )
    return array


def as_bools(name: str, value: Any, size: int) -> np.ndarray:
    """Return `value` as `size` bools; numbers must be 0 or 1.

    Raises:
        BadInput: the value is no such array.
    """
    array = as_array(name, value, 1)
    if len(array) != size or not np.isin(array, (0, 1)).all():
        raise BadInput(f"{name}: {size:,} values True or False are needed, one for each example")
    return array.astype(bool)


def as_labels(name: str, value: Any, size: int, number: int) -> np.ndarray:
    """Return `value` as `size` integers from 0 to `number` − 1.

    Raises:
        BadInput: the value is no such array.
    """
    array = as_array(name, value, 1)
    whole = array.dtype.kind in "biu" or not len(array)
    if not whole or len(array) != size or (len(array) and not 0 <= int(array.min()) <= int(array.max()) < number):
        raise BadInput(f"{name}: {size:,} whole numbers from 0 to {number - 1} are needed, one for each example")
    return array.astype(np.int64)
