"""Types of flags: each function returns the value that a text stands for, or raises an error that says what to type."""

import argparse
import math
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imbalance.config.override_flags import PREFIX, OverrideText


def integer(text: str) -> int:
    """Return `text` as an integer."""
    try:
        return int(text.replace("_", "?"))  # Python reads `1_0` as 10
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; type an integer such as 5") from None


def real_number(text: str) -> float:
    """Return `text` as a number."""
    try:
        return float(text.replace("_", "?"))  # Python reads `1_0` as 10
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; type a number such as 0.1") from None


def file_name(text: str) -> str:
    """Return `text` if it can be the name of a file or folder: not empty, no slash, no leading dot."""
    if not text.strip() or text.startswith(".") or {"/", "\\", "\0"} & set(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} given; type a name that is not empty, has no slash and starts with no dot"
        )
    return text


def positive_integer(text: str) -> int:
    """Return `text` as an integer, which must be at least 1."""
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} given; it must be at least 1")
    return value


def non_negative_integer(text: str) -> int:
    """Return `text` as an integer, which must be at least 0."""
    value = integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} given; it must be at least 0")
    return value


def fraction(text: str) -> float:
    """Return `text` as a number, which must be above 0 and at most 1."""
    value = real_number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} given; it must be above 0 and at most 1")
    return value


def positive_number(text: str) -> float:
    """Return `text` as a number, which must be above 0 and finite."""
    value = real_number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} given; it must be a number above 0")
    return value


def comma_list(kind: Callable[[str], Any] = str, valid: tuple[str, ...] = ()) -> Callable[[str], list]:
    """Return a function that converts a text with commas, such as "8,16", to a list of values.

    Args:
        kind: function that converts the text of one value.
        valid: allowed texts; () allows all.
    """

    def read_list(text: str) -> list:
        parts = [part.strip() for part in text.split(",")]
        if "" in parts:
            raise argparse.ArgumentTypeError(f"{text!r} given; type values with commas between them")
        for part in parts:
            if valid and part not in valid:
                raise argparse.ArgumentTypeError(f"{part!r} given; valid: {', '.join(valid)}")
        return [kind(part) for part in parts]

    return read_list


def class_shares(text: str) -> str | list[float]:
    """Return the numbers in `text` if it has a comma; else return `text`, a name of class shares such as "uniform"."""
    return comma_list(real_number)(text) if "," in text else text


def override_texts(text: str) -> dict[str, OverrideText]:
    """Return the overrides in a text such as "loss.name=focal loss.gamma=1" by key."""
    values = {}
    for word in shlex.split(text):
        key, equals, value = word.removeprefix(PREFIX).partition("=")
        if not equals or key in values:
            raise argparse.ArgumentTypeError(
                f"{text!r} given; type each key once, as in --variant='loss.name=focal loss.gamma=1'"
            )
        values[key] = OverrideText(value)
    if not values:
        raise argparse.ArgumentTypeError("no values given; type some, as in --variant=loss.name=balanced_softmax")
    return values


def config_list(text: str) -> list[str]:
    """Split `text` at its commas into names and paths of configs.

    A comma can also belong to a path, such as that of a run directory. So a part of `text` that is an existing path is
    not split; of several such parts with the same beginning, the longest is taken.
    """
    parts, names = text.split(","), []
    while parts:
        joined = (",".join(parts[:n]) for n in range(len(parts), 1, -1))
        name = next((path for path in joined if os.path.isfile(path)), parts[0])  # noqa: PTH113 (a Path raises if too long)
        names.append(name.strip())
        del parts[: name.count(",") + 1]
    if "" in names:
        raise argparse.ArgumentTypeError(f"{text!r} given; type names with commas between them")
    return names


def folder_to_write(text: str) -> str:
    """Return `text`, the path of a folder that need not exist; refuse a path that is a file or lies below a file."""
    try:
        parts = [Path(text), *Path(text).parents]
        is_file = next((path for path in parts if path.exists() and not path.is_dir()), None)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} given; {error.strerror}; name another folder") from None
    if is_file:
        raise argparse.ArgumentTypeError(f"{text!r} given, but {is_file} is a file; name a folder")
    return text
