"""Read the columns of a file or data frame, and make classes, groups and splits from columns."""

import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from imbalance.data.files import check_columns, csv_records, load_array, read_parquet_table
from imbalance.data.population import SPLITS
from imbalance.data.splits import stratified_split
from imbalance.data.tables.arrow import SUFFIXES, ArrowTable, open_arrow
from imbalance.data.tables.csv_columns import read_csv_columns
from imbalance.data.tables.values import (
    Categories,
    as_categories,
    durations_in_seconds,
    factorise,
    rows_from_lists,
)
from imbalance.errors import BadInput

Delimiter = Annotated[str, Field(min_length=1, max_length=1)]
CONTAINERS = {
    list,
    tuple,
    dict,
    set,
    np.ndarray,
}  # types that a cell of a data frame must not have, because the cell would hold several values
NAMELESS = "inputs"  # name of the column of a plain array in a file .npy
FRAME = "data frame"  # the source of columns that are in no file
FORMATS = ".csv, .csv.gz, .parquet, .arrow, .npz, .npy, or a folder of .npy files"


@dataclass(frozen=True)
class Columns:
    """The columns of a table with N rows.

    source: the file, for messages.
    values: from the name of a column to its values: (N,) numbers, text or `Categories`, or (N, …) numbers.
    nan_is_missing: True if the reader has already turned missing values into nan, as for a CSV file.
    codes: for each column of numbers of a CSV file with codes such as 00123, the first code.
    categorical: names of columns whose type says that they hold categories, even if these are numbers.
    find_lines: returns the (N,) line numbers of the rows in the file, from 1. None for a file without lines: messages then
        give row numbers, from 0.
    first: the number of the first of these rows in the whole table, from 0.
    delimiter: the character between two fields of a CSV file.
    is_training_data: False for the examples of a trained model, which expects this delimiter, so that no config sets it.
    """

    source: str
    values: Mapping[str, np.ndarray | Categories]
    nan_is_missing: bool = False
    find_lines: Callable[[], np.ndarray] | None = None
    first: int = 0
    codes: Mapping[str, str] = field(default_factory=dict)
    categorical: frozenset[str] = frozenset()
    delimiter: str = ","
    is_training_data: bool = True

    def __len__(self) -> int:
        if isinstance(self.values, ArrowTable):
            return self.values.num_rows
        return len(next(iter(self.values.values()))) if self.values else 0

    @functools.cached_property
    def lines(self) -> np.ndarray | None:
        """The (N,) number of the line of each row in the file; None for a file without lines. Only messages need it."""
        return self.find_lines() if self.find_lines else None

    def where(self, row: int) -> str:
        """Return the place of `row` for messages: the file and the line; or the file and `row` if the file has no lines."""
        row += self.first
        return f"{self.source} row {row}" if self.lines is None else f"{self.source} line {self.lines[row]}"

    def part(self, start: int, stop: int) -> "Columns":
        """Return the rows from `start` to `stop` − 1."""
        if isinstance(self.values, ArrowTable):
            values = self.values.part(start, stop)
        else:
            values = {name: column_part(column, start, stop) for name, column in self.values.items()}
        return replace(self, values=values, first=self.first + start)

    def names_text(self) -> str:
        """Return the names of all columns as part of a message."""
        other = [separator for separator in ";\t|," if separator != self.delimiter]
        if len(self.values) == 1 and (separator := next((c for c in other if c in next(iter(self.values))), None)):
            needed = "commas" if self.delimiter == "," else repr(self.delimiter)
            advice = (
                f", or set config.data.delimiter={separator!r}" if self.is_training_data else " as in the training data"
            )
            return f"the only column is {next(iter(self.values))!r}; separate the columns by {needed}{advice}"
        return f"the columns are {', '.join(self.values)}" if self.values else "there is no column at all"

    def __getitem__(self, name: str) -> np.ndarray | Categories:
        if name not in self.values:
            raise BadInput(f"{self.source}: no column {name!r}, which is needed; {self.names_text()}")
        return self.values[name]

    def categories(self, name: str) -> Categories:
        """Return the N values of a column as texts, one for each row; see `as_categories`."""
        return as_categories(self[name], f"{self.source}: column {name!r}")

    def text(self, name: str) -> np.ndarray:
        """Return the (N,) values of a column as text; see `as_categories`."""
        return self.categories(name).texts()


def column_part(column: np.ndarray | Categories, start: int, stop: int) -> np.ndarray | Categories:
    """Return the values of a column in the rows from `start` to `stop` − 1, without copying them."""
    if isinstance(column, Categories):
        return Categories(column.codes[start:stop], column.values)
    return column[start:stop]


def read_columns(
    path: Path, delimiter: str = ",", text: Collection[str] = (), missing: Collection[str] = ()
) -> Columns:
    """Read all columns of a file in one of the `FORMATS`.

    Args:
        text: columns of a CSV file whose values stay text even if all are numbers; see `read_csv_columns`.
        missing: texts that stand for a missing value in a CSV file.

    Raises:
        BadInput: the file is missing, damaged or of another format, or its columns have different lengths.
    """
    if path.is_dir():
        return array_columns(path, {file.stem: load_array(file) for file in sorted(path.glob("[!.]*.npy"))})
    kinds = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kinds in (".csv", ".csv.gz", ".tsv", ".txt"):
        values, length, codes = read_csv_columns(path, delimiter, text, missing)

        def find_lines() -> np.ndarray:
            records = csv_records(path, delimiter)
            next(records, None)  # the heading
            return np.fromiter((line for line, row in records if len(row) == len(values)), np.int64, length)

        return Columns(str(path), values, True, find_lines, codes=codes, delimiter=delimiter)
    if kinds in SUFFIXES:
        table = open_arrow(path)
        names = frozenset(name for name in table if holds_categories(table.table.column(name)))
        return Columns(str(path), table, categorical=names)
    if kinds == ".parquet":
        values, categorical = parquet_arrays(path)
        return replace(array_columns(path, values), categorical=categorical)
    if kinds == ".npy":
        array = load_array(path)
        names = array.dtype.names
        return array_columns(path, {name: array[name] for name in names} if names else {NAMELESS: array})
    if kinds == ".npz":
        return array_columns(path, load_array(path))
    raise BadInput(f"{path}: no such file" if not path.exists() else f"{path}: unknown format; give {FORMATS}")


def is_table(value: Any) -> bool:
    """Return True for `Columns`, a mapping, or a data frame of pandas, polars or pyarrow."""
    return isinstance(value, Columns | Mapping) or hasattr(value, "columns") or hasattr(value, "column_names")


def column_names(frame: Any) -> list[Any]:
    """Return the names of the columns of a table for which `is_table` is true.

    Raises:
        BadInput: two columns have the same name.
    """
    names = getattr(frame, "column_names", None)  # of pyarrow
    if names is None:
        names = frame.keys() if isinstance(frame, Mapping) else frame.columns
    names = list(names)
    for name, count in Counter(map(str, names)).items():
        if count > 1:
            raise BadInput(f"data frame: {count} columns are named {name!r}; give each column a name of its own")
    return names


def frame_columns(frame: Any) -> Columns:
    """Return the columns of a table for which `is_table` is true; durations become seconds.

    Raises:
        BadInput: two columns have the same name, the columns differ in length, or a column cannot be read as an array.
    """
    if isinstance(frame, Columns):
        return frame
    values = {}
    for name in column_names(frame):
        try:
            if str(getattr(frame[name], "dtype", "")).startswith("Struct"):  # polars; NumPy would join the fields
                raise ValueError("it has several fields; make each field a column of its own, as frame.unnest does")
            values[str(name)] = rows_from_lists(unmasked(frame[name]))
        except (
            Exception
        ) as error:  # each library raises its own errors, such as polars for a frame that is not computed
            lazy = type(frame).__name__ == "LazyFrame"
            reason = "a LazyFrame given; pass frame.collect()" if lazy else " ".join(str(error).split())[:200]
            raise BadInput(f"data frame: column {name!r} cannot be read as an array ({reason})") from None
        if not values[str(name)].ndim:
            raise BadInput(f"data frame: column {name!r} is a single value; give a list with a value for each row")
        if values[str(name)].dtype == object and (types := CONTAINERS & {*map(type, values[str(name)].flat)}):
            raise BadInput(
                f"data frame: column {name!r} has values of type {min(kind.__name__ for kind in types)}; a row must have a single "
                "value"
            )
    categorical = [str(name) for name in column_names(frame) if holds_categories(frame[name])]
    return replace(array_columns(Path(FRAME), values), categorical=frozenset(categorical))


def holds_categories(column: Any) -> bool:
    """Return whether a column has a type of categories: of pandas or polars, or a dictionary of pyarrow."""
    kind = str(getattr(column, "dtype", getattr(column, "type", "")))
    return kind.startswith(("category", "Categorical", "Enum", "dictionary"))


def unmasked(values: Any) -> np.ndarray:
    """Return the values of a column as an array without a mask: masked floats become nan, masked others None."""
    array = np.asarray(values)
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.is_masked(values):
        return array
    filled = array.copy() if array.dtype.kind == "f" else array.astype(object)
    filled[np.ma.getmaskarray(values)] = np.nan if array.dtype.kind == "f" else None
    return filled


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Return the rows of several tables with the same columns, one table after another.

    Raises:
        BadInput: a table lacks a column of the first table, or the values of a column have another shape than there.
    """
    joined = {}
    for name in parts[0].values:
        arrays = [as_array(part[name]) for part in parts]
        if len({array.shape[1:] for array in arrays}) > 1:
            raise BadInput(
                f"{parts[0].source}: column {name!r} has values of other shapes in other splits; give all splits the same shape"
            )
        is_text = any(array.dtype.kind not in "iufb" for array in arrays)
        joined[name] = np.concatenate([array.astype(object) if is_text else array for array in arrays])
    return replace(array_columns(Path(parts[0].source), joined), categorical=parts[0].categorical)


def as_array(values: np.ndarray | Categories) -> np.ndarray:
    """Return the values of a column as an array."""
    return values.texts() if isinstance(values, Categories) else values


def array_columns(path: Path, values: Mapping[str, np.ndarray]) -> Columns:
    """Return the arrays `values`, read from the file `path`, as columns; raise `BadInput` if their lengths differ."""
    lengths = {name: f"{len(array):,}" if array.ndim else "a single value" for name, array in values.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise BadInput(f"{path}: columns of different lengths ({listed}); all must have the same length")
    # torch refuses arrays in the byte order of another machine, so convert them.
    native = {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in values.items()}
    return Columns(str(path), {name: durations_in_seconds(array) for name, array in native.items()})


def parquet_arrays(path: Path) -> tuple[dict[str, np.ndarray], frozenset[str]]:
    """Read the columns of a Parquet file; return them, and the names of those whose type is that of categories.

    A null becomes nan in a column of numbers or durations, and None in other columns.
    """
    content = read_parquet_table(path)
    check_columns(path, content.column_names, content.column_names)
    arrays = {}
    for name, column in zip(content.column_names, content.columns):
        if column.type.num_fields and not hasattr(column.type, "value_type"):  # a struct, a map or a union
            raise BadInput(
                f"{path}: column {name!r} has the type {column.type}; write each of its fields as a column of its own"
            )
        values = rows_from_lists(column.to_numpy())
        arrays[name] = values if values.dtype.kind in "iufbm" else np.array(column.to_pylist(), dtype=object)
    return arrays, frozenset(name for name, column in zip(arrays, content.columns) if holds_categories(column))


# Labels


def check_label_columns(classes: Sequence[str], target: str, attributes: Sequence[str]) -> None:
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


def check_input_columns(key: str, names: Sequence[str], roles: Mapping[str, str]) -> None:
    """Raise `BadInput` if an input column is named twice, or is a column of labels or splits.

    Args:
        key: the keys of `config.data` that name the input columns, for messages.
        names: the input columns.
        roles: what each column of labels or splits is, by its name: "the target", for example.
    """
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"config.data.{key}: {name!r} appears twice; name each column once")
        if name in roles:
            raise BadInput(
                f"config.data.{key}: {name!r} is {roles[name]}, which must not be an input; name another column"
            )


def group_name(values: Sequence[str]) -> str:
    """Return the name of a group: its class and attributes, joined by commas; values with commas are quoted."""
    if len(values) == 1:
        return values[0]
    return ", ".join('"' + v.replace('"', '""') + '"' if "," in v or '"' in v else v for v in values)


def number_groups(
    targets: Sequence[str] | Categories, classes: Sequence[str], attributes: Sequence[Sequence[str] | Categories]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Assign a number to each group; every combination of a class and attributes that occurs in a row is a group.

    The groups are ordered by class, and within a class alphabetically by the values of the attributes.

    Args:
        targets: (N,) the class of each row, one of `classes`.
        classes: the names of the classes, in their order.
        attributes: for each attribute its (N,) values; () if the classes are the groups.

    Returns:
        The (N,) int64 group number of each row, and the names of the groups.
    """
    sorted_columns = [
        (column if isinstance(column, Categories) else factorise(column)).sorted(order)
        for column, order in [(targets, classes), *((attribute, ()) for attribute in attributes)]
    ]
    numbers, groups = np.zeros(len(targets), dtype=np.int64), [()]
    for column in sorted_columns:  # numbered anew after each column, so that the numbers of many columns fit 64 bits
        number_of_values = len(column.values)
        numbers = numbers * number_of_values + column.codes
        present = np.unique(numbers)
        numbers = np.searchsorted(present, numbers)
        groups = [(*groups[i // number_of_values], column.values[i % number_of_values]) for i in present.tolist()]
    return numbers, tuple(map(group_name, groups))


def assign_splits(
    splits: np.ndarray, groups: np.ndarray, val_fraction: float, test_fraction: float, seed: int, where: str
) -> np.ndarray:
    """Complete the splits: if `splits` has no val or no test examples, draw them from the training examples, the same share of each group.

    Args:
        splits: (N,) 0, 1 or 2 for train, val and test.
        groups: (N,) the groups; the draw is stratified by group.
        val_fraction, test_fraction: the shares of the training examples that become val and test; each is 0.0 if
            `splits` already has examples of its split.
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
