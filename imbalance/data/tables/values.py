"""Values of a column: decide which texts are numbers, and store texts as codes, each the position of a distinct text."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from imbalance.errors import BadInput

# float() reads more than this: 1_1 as 11, and the digits of all scripts. Such texts are codes or mistakes.
NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
# A whole number with leading zeros, such as 00123: most likely a code, which is not the number 123.
CODE = re.compile(r"^\s*[+-]?0[0-9]+\s*$")
# Numbers as people write them: 1,5 or 1,234 or 1.234,5 or 12 % or $5. Which number is meant depends on the writer.
FORMATTED = re.compile(
    r"\s*[+-]?[$€£¥]?\s?([0-9]{1,3}([ .,'’\u00a0\u202f][0-9]{3})+|[0-9]+)([.,][0-9]+)?\s?[%$€£¥]?\s*"
)


@dataclass(frozen=True)
class Categories:
    """A column of N texts.

    codes: (N,) int32, the position of each text in `values`.
    values: the distinct texts.
    """

    codes: np.ndarray
    values: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str:
        """Return the text of a row."""
        return self.values[int(self.codes[row])]

    def texts(self) -> np.ndarray:
        """Return the (N,) texts as Python objects; rows with equal texts share one object."""
        return np.array(self.values, dtype=object)[self.codes]

    def rows(self, rows: np.ndarray) -> "Categories":
        """Return the column of the texts at `rows`; its `values` are only the texts that occur at these rows."""
        present, codes = np.unique(self.codes[rows], return_inverse=True)
        return Categories(codes.reshape(-1), [self.values[int(code)] for code in present])

    def counts(self) -> np.ndarray:
        """Return the number of rows with each of `values`."""
        return np.bincount(self.codes, minlength=len(self.values))

    def each(self, function: Callable[[str], Any]) -> np.ndarray:
        """Return an (N,) array with the result of `function` for each row; it is called once for each distinct text."""
        return np.array([function(value) for value in self.values])[self.codes]

    def replaced(self, function: Callable[[str], str]) -> "Categories":
        """Return the column with each text replaced by `function` of the text."""
        new = factorise(map(function, self.values))
        return Categories(new.codes[self.codes], new.values)

    def sorted(self, order: Sequence[str] | None) -> "Categories":
        """Return the same column with `values` in `order`, followed by all other values in alphabetical order."""
        values = [*(order or ()), *sorted(set(self.values) - set(order or ()))]
        position = {value: i for i, value in enumerate(values)}
        codes = np.array([position[value] for value in self.values], dtype=np.int32)
        return Categories(codes[self.codes], values)


def durations_in_seconds(values: np.ndarray) -> np.ndarray:
    """Return the durations of a column as float64 seconds, nan for missing ones; a column of another kind stays unchanged."""
    if values.dtype.kind == "O" and timedelta in (
        kinds := {type(value) for value in values.flat if not is_null(value)}
    ):
        values = values.astype("timedelta64[us]") if kinds == {timedelta} else values
    return values / np.timedelta64(1, "s") if values.dtype.kind == "m" else values


def factorise(texts: Iterable[str]) -> Categories:
    """Return texts as a column; its `values` are in the order of their first appearance."""
    position: dict[str, int] = {}
    codes = np.fromiter((position.setdefault(text, len(position)) for text in texts), dtype=np.int32)
    return Categories(codes, list(position))


def composed(text: str) -> str:
    """Return `text` with composed accents (Unicode's NFC), so that texts that look the same are equal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def rows_from_lists(values: np.ndarray) -> np.ndarray:
    """Return (N,) lists of numbers, all of length D, as an (N, D) array; return other values unchanged."""
    if values.dtype != object or values.ndim != 1 or not len(values):
        return values
    if not all(isinstance(value, list | tuple | np.ndarray) for value in values):
        return values
    try:
        array = np.stack([np.asarray(value) for value in values])
    except ValueError:  # the lists differ in length
        return values
    return array if array.ndim == 2 and array.dtype.kind in "iuf" else values


def as_categories(values: np.ndarray | Categories, name: str) -> Categories:
    """Return (N,) or (N, 1) values as texts: whole numbers without a decimal point, and "" for None, nan, NA and NaT.

    The text of a value does not depend on the other values, so that a row has the same text in training and prediction.

    Args:
        name: the name of the values, for messages.
    """
    if isinstance(values, Categories):
        return values if all(map(str.isascii, values.values)) else values.replaced(composed)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.dtype.kind == "c":
        raise BadInput(f"{name} has complex numbers; make the real and the imaginary parts columns of their own")
    if values.ndim != 1:
        raise BadInput(f"{name} has values of shape {values.shape[1:]} in each row; a row must have a single value")
    if values.dtype.kind == "O":
        return factorise(map(value_text, values.tolist()))
    if values.dtype.kind == "M":
        values = values.astype(
            "datetime64[us]"
        )  # Python's dates have no nanoseconds, so NumPy would list these as integers
    distinct, codes = np.unique(values, return_inverse=True)
    new = factorise(map(value_text, distinct.tolist()))
    return Categories(new.codes[codes.reshape(-1)], new.values)


def check_unmasked(values: Any, where: str = "") -> None:
    """Raise `BadInput` if `values` is an array of `numpy.ma` with a masked value, because other arrays have no masks.

    Args:
        where: the beginning of the message, such as "targets: ".
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise BadInput(f"{where}a masked array given; every value is needed, so fill the masked ones")


def value_text(value: Any) -> str:
    """Return a value as text: a whole number without a decimal point, and "" for a missing value: None, nan, NA and NaT.

    pandas writes a null in a column of text as the number nan, so nan must have the text that other libraries' nulls have.
    """
    if isinstance(value, float | np.floating) and np.isfinite(value) and value % 1 == 0:
        return str(int(value))
    return "" if is_missing(value) else composed(str(value))


def is_missing(value: Any) -> bool:
    """Return True for None, nan, NaT and the NA of pandas."""
    return is_null(value) or bool(value != value)


def is_null(value: Any) -> bool:
    """Return True for None and for the missing values of pandas, NA and NaT, but not for the number nan."""
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def number(text: str) -> float:
    """Return the number that a text such as "-1.5e3" stands for; nan for a text that is not a number."""
    return float(text) if NUMBER.fullmatch(text) else np.nan


def label_order(labels: Sequence[str]) -> tuple[str, ...]:
    """Return distinct labels in alphabetical order, or in numerical order if all are numbers."""
    return tuple(sorted(labels, key=number if all(np.isfinite(number(label)) for label in labels) else None))


def parse_numbers(texts: Sequence[str], missing: Collection[str]) -> np.ndarray | None:
    """Return texts as (N,) float64, with nan for the texts in `missing`; None if another text is not a finite number."""
    joined = "".join(texts)
    if joined.isascii() and "_" not in joined and not any(np.isfinite(number(text)) for text in missing):
        try:
            numbers = np.fromiter(map(float, texts), np.float64, len(texts))  # quick, as most columns allow
        except ValueError:  # a text that is no number, perhaps one of `missing`: look at each text below
            pass
        else:
            if np.isfinite(numbers).all():
                return numbers
    numbers = np.array([np.nan if text in missing else number(text) for text in texts], dtype=np.float64)
    accepted = np.isfinite(numbers)
    if not accepted.all() and not all(texts[row] in missing for row in np.flatnonzero(~accepted).tolist()):
        return None
    return numbers
