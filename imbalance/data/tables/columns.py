"""Read the columns of a file or data frame, and make classes, groups and splits from columns."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from imbalance.data.files import check_columns, load_array, read_csv, read_parquet_table
from imbalance.data.population import SPLITS
from imbalance.data.problems import raise_first
from imbalance.data.splits import stratified_split
from imbalance.errors import BadInput

Delimiter = Annotated[str, Field(min_length=1, max_length=1)]
FORMATS = ".csv, .csv.gz, .parquet, .npz, .npy, or a folder of .npy files"


@dataclass(frozen=True)
class Columns:
    """The columns of a table with N rows.

    source: the file, for messages.
    values: from the name of a column to its values: (N,) text or numbers, or (N, …) numbers.
    lines: (N,) the line of each row in a text file, from 1. Empty for other files; messages then give the number of the
        row, from 0.
    """

    source: str
    values: Mapping[str, np.ndarray]
    lines: np.ndarray

    def __len__(self) -> int:
        return len(next(iter(self.values.values()))) if self.values else 0

    def where(self, row: int) -> str:
        """Return the file and the line of row number `row`, for messages; if `lines` is empty, the file and `row`."""
        return f"{self.source} line {self.lines[row]}" if len(self.lines) else f"{self.source} row {row}"

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.values:
            raise BadInput(
                f"{self.source}: no column {name!r}, which is needed; the columns are {', '.join(self.values) or 'missing'}"
            )
        return self.values[name]

    def text(self, name: str) -> np.ndarray:
        """Return the (N,) values of the column `name` as text; see `as_text`."""
        return as_text(self[name], f"{self.source}: column {name!r}")


def as_text(values: np.ndarray, name: str) -> np.ndarray:
    """Return (N,) or (N, 1) values as text: whole numbers without a decimal point, None as "".

    Args:
        name: the name of the column, for messages.
    """
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise BadInput(f"{name} has values of shape {values.shape[1:]} in each row; a row must have a single value")
    if values.dtype.kind == "f" and (values[np.isfinite(values)] % 1 == 0).all():
        values = np.array([str(v) if not np.isfinite(v) else str(int(v)) for v in values], dtype=object)
    return np.array(["" if value is None else composed(str(value)) for value in values.tolist()], dtype=object)


def read_columns(path: Path, delimiter: str = ",") -> Columns:
    """Read all columns of a file in one of the `FORMATS`.

    Raises:
        BadInput: the file is missing, damaged or of another format, or its columns have different lengths.
    """
    if path.is_dir():
        return array_columns(path, {file.stem: load_array(file) for file in sorted(path.glob("[!.]*.npy"))})
    kinds = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kinds in (".csv", ".csv.gz", ".tsv", ".txt"):
        heading, rows, lines, problems = read_csv(path, (), delimiter)
        raise_first(problems)
        check_columns(path, heading, heading)
        texts = zip(*rows) if rows else ((),) * len(heading)
        values = {name: np.array(column, dtype=object) for name, column in zip(heading, texts)}
        return Columns(str(path), values, np.array(lines, dtype=np.int64))
    if kinds == ".parquet":
        return array_columns(path, parquet_arrays(path))
    if kinds == ".npy":
        array = load_array(path)
        names = array.dtype.names
        return array_columns(path, {name: array[name] for name in names} if names else {"inputs": array})
    if kinds == ".npz":
        return array_columns(path, load_array(path))
    raise BadInput(f"{path}: no such file" if not path.exists() else f"{path}: unknown format; give {FORMATS}")


def frame_columns(frame: Any) -> Columns:
    """Return the columns of a data frame (pandas, polars, pyarrow) or of a mapping from names to arrays."""
    names = getattr(frame, "column_names", None)  # of pyarrow
    if names is None:
        names = frame.keys() if isinstance(frame, Mapping) else frame.columns
    return array_columns(Path("data frame"), {str(name): np.asarray(frame[name]) for name in names})


def array_columns(path: Path, values: Mapping[str, np.ndarray]) -> Columns:
    """Return the arrays `values` of the file `path` as columns; raise `BadInput` if their lengths differ."""
    lengths = {name: len(array) if array.ndim else -1 for name, array in values.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise BadInput(f"{path}: columns of different lengths ({listed}); all must have the same length")
    return Columns(str(path), values, np.empty(0, dtype=np.int64))


def parquet_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a Parquet file; a null becomes nan in a column of numbers, and None in other columns."""
    content = read_parquet_table(path)
    check_columns(path, content.column_names, content.column_names)
    arrays = {}
    for name, column in zip(content.column_names, content.columns):
        values = column.to_numpy()
        arrays[name] = values if values.dtype.kind in "iufb" else np.array(column.to_pylist(), dtype=object)
    return arrays


# Labels


def check_labels(classes: Sequence[str], target: str, attributes: Sequence[str]) -> None:
    """Raise `BadInput` if there are fewer than two different classes, or if a class or a column is named twice.

    Args:
        classes: `config.data.classes`, names of classes.
        target: `config.data.target`, the name of the column of classes.
        attributes: `config.data.attributes`, names of other columns.
    """
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise BadInput(f"config.data.classes: {classes} given; at least two different classes are needed")
    if len(set(attributes)) != len(attributes):
        raise BadInput(f"config.data.attributes: {attributes} given; name each column once")
    if target in attributes:
        raise BadInput(
            f"config.data.attributes: {attributes} given; leave out {target!r}, because the groups are always the "
            "combinations of the target with the attributes"
        )


def composed(text: str) -> str:
    """Return `text` with composed accents (Unicode's NFC), so that texts that look the same are equal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def group_name(values: Sequence[str]) -> str:
    """Return the name of a group: its class and attributes, joined by commas; values with commas are quoted."""
    if len(values) == 1:
        return values[0]
    return ", ".join('"' + v.replace('"', '""') + '"' if "," in v or '"' in v else v for v in values)


def number_groups(
    targets: Sequence[str] | np.ndarray, classes: Sequence[str], attributes: Sequence[Sequence[str] | np.ndarray]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Assign a number to each group; every combination of a class and attributes in at least one row is a group.

    The groups are ordered by class, and within a class alphabetically by the values of the attributes.

    Args:
        targets: (N,) the class of each row, one of `classes`.
        classes: the names of the classes, in their order.
        attributes: for each attribute its (N,) values; () if the classes are the groups.

    Returns:
        The (N,) int64 group number of each row, and the names of the groups.
    """
    combinations = list(zip(targets, *attributes))
    rank = {name: i for i, name in enumerate(classes)}
    groups = sorted(set(combinations), key=lambda values: (rank[values[0]], *values[1:]))
    number = {values: i for i, values in enumerate(groups)}
    return np.array([number[values] for values in combinations], dtype=np.int64), tuple(map(group_name, groups))


def assign_splits(
    splits: np.ndarray, groups: np.ndarray, val_fraction: float, test_fraction: float, seed: int, where: str
) -> np.ndarray:
    """Complete the splits: if `splits` has no val or no test examples, draw them from the training examples by group.

    Args:
        splits: (N,) 0, 1 or 2 for train, val and test.
        groups: (N,) the groups; the draw is stratified by group.
        val_fraction, test_fraction: the shares of the training examples that become val and test; 0.0 if `splits`
            already has examples of val or test.
        where: the file, for messages.

    Returns:
        (N,) 0, 1 or 2 for train, val and test.

    Raises:
        BadInput: the fraction of a missing split is 0, the fraction of an existing split is not 0, or the two fractions
            leave no training example.
    """
    fractions = {"val": val_fraction, "test": test_fraction}
    if not len(splits):
        return splits
    for number, (name, fraction) in enumerate(fractions.items(), 1):
        exists = bool((splits == number).any())
        if exists == bool(fraction):
            need = (
                f"0.0, because {where} has {name} examples"
                if exists
                else f"above 0, because {where} has no {name} examples"
            )
            raise BadInput(f"config.data.{name}_fraction: {fraction} given; it must be {need}")
    if val_fraction + test_fraction >= 1:
        total = val_fraction + test_fraction
        raise BadInput(
            f"config.data.val_fraction, test_fraction: their sum is {total} and leaves no training set; it must be below 1"
        )
    rng, splits = np.random.default_rng(seed), splits.copy()
    rest = np.flatnonzero(splits == 0)
    for name, part in (("test", test_fraction), ("val", val_fraction / (1 - test_fraction))):
        if part:
            kept, drawn = stratified_split(groups[rest], part, rng)
            splits[rest[drawn]] = SPLITS.index(name)
            rest = rest[kept]
    return splits
