"""Columns of a file, and labels made of them: what tables of images, arrays and data frames share."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from imbalance.data.images.listing import check_columns, read_csv
from imbalance.data.population import SPLITS
from imbalance.data.problems import raise_first
from imbalance.data.splits import stratified_split
from imbalance.errors import BadInput
from imbalance.utils.files import check_regular
from imbalance.utils.memory import check_fits

Delimiter = Annotated[str, Field(min_length=1, max_length=1)]
FORMATS = ".csv, .csv.gz, .parquet, .npz, .npy, or a folder of .npy files"


@dataclass(frozen=True)
class Columns:
    """N rows: of each column (N,) text or numbers, or (N, …) numbers.

    source: the file, for messages.
    lines: (N,) where each row is in it, counted from 1; empty where rows count from 0.
    """

    source: str
    values: Mapping[str, np.ndarray]
    lines: np.ndarray

    def __len__(self) -> int:
        return len(next(iter(self.values.values()))) if self.values else 0

    def where(self, row: int) -> str:
        """The file and line of a row, for messages."""
        return f"{self.source} line {self.lines[row]}" if len(self.lines) else f"{self.source} row {row}"

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.values:
            raise BadInput(f"{self.source}: no column {name!r}; there are {', '.join(self.values) or 'none'}")
        return self.values[name]

    def text(self, name: str) -> np.ndarray:
        """(N,) a column's values as text: as they stand, whole numbers without a point, "" for none."""
        return as_text(self[name], f"{self.source}: column {name!r}")


def as_text(values: np.ndarray, what: str) -> np.ndarray:
    """(N,) or (N, 1) values of any kind as text."""
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise BadInput(f"{what} has {values.shape[1:]} values a row; one is needed")
    if values.dtype.kind == "f" and (values[np.isfinite(values)] % 1 == 0).all():
        values = np.array([str(v) if not np.isfinite(v) else str(int(v)) for v in values], dtype=object)
    return np.array(["" if value is None else composed(str(value)) for value in values.tolist()], dtype=object)


def read_columns(path: Path, delimiter: str = ",") -> Columns:
    """All columns of a file of one of `FORMATS`.

    Raises:
        BadInput: it is missing, damaged, of another kind, or its columns have different lengths.
    """
    if path.is_dir():
        return of_arrays(path, {file.stem: load_array(file) for file in sorted(path.glob("*.npy"))})
    kinds = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kinds in (".csv", ".csv.gz", ".tsv", ".txt"):
        heading, rows, lines, problems = read_csv(path, (), delimiter)
        raise_first(problems)
        check_columns(path, heading, heading)
        texts = zip(*rows) if rows else ((),) * len(heading)
        values = {name: np.array(column, dtype=object) for name, column in zip(heading, texts)}
        return Columns(str(path), values, np.array(lines, dtype=np.int64))
    if kinds == ".parquet":
        return of_arrays(path, parquet_arrays(path))
    if kinds == ".npy":
        array = load_array(path)
        names = array.dtype.names
        return of_arrays(path, {name: array[name] for name in names} if names else {"inputs": array})
    if kinds == ".npz":
        return of_arrays(path, load_array(path))
    raise BadInput(f"{path}: no such file" if not path.exists() else f"{path}: not of a kind that is read: {FORMATS}")


def of_frame(frame: Any) -> Columns:
    """The columns of a data frame (pandas, polars, pyarrow) or of a mapping of names to arrays."""
    names = getattr(frame, "column_names", None)
    names = frame.keys() if names is None and isinstance(frame, Mapping) else names
    names = frame.columns if names is None else names
    return of_arrays(Path("data frame"), {str(name): np.asarray(frame[name]) for name in names})


def of_arrays(path: Path, values: Mapping[str, np.ndarray]) -> Columns:
    """Arrays of one length as columns."""
    lengths = {name: len(array) if array.ndim else -1 for name, array in values.items()}
    if len(set(lengths.values())) > 1:
        raise BadInput(f"{path}: columns of different lengths: {', '.join(f'{k} {v:,}' for k, v in lengths.items())}")
    return Columns(str(path), values, np.empty(0, dtype=np.int64))


def load_array(path: Path) -> Any:
    """An .npy file's array, or an .npz file's arrays by name; nothing pickled is ever loaded."""
    import zipfile
    import zlib

    try:
        check_regular(path)
        if zipfile.is_zipfile(path):  # a small archive may unpack to more than there is memory for
            with zipfile.ZipFile(path) as archive:
                check_fits(sum(member.file_size for member in archive.infolist()), str(path))
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except BadInput:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        if "pickle" in reason:
            reason = "it holds Python objects, which are never loaded; save text as fixed-width strings, astype(str)"
        raise BadInput(f"{path}: {reason}") from None


def parquet_arrays(path: Path) -> dict[str, np.ndarray]:
    """Numbers as numbers, with nan for null; everything else as objects, with None for it."""
    content = read_parquet_table(path)
    check_columns(path, content.column_names, content.column_names)
    arrays = {}
    for name, column in zip(content.column_names, content.columns):
        values = column.to_numpy()
        arrays[name] = values if values.dtype.kind in "iufb" else np.array(column.to_pylist(), dtype=object)
    return arrays


def read_parquet_table(path: Path) -> Any:
    """A Parquet file as pyarrow has it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(
            f"{path}: reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
        ) from None
    try:
        check_regular(path)
        return pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or ' '.join(str(error).split())}") from None


# Labels


def check_classes(classes: Sequence[str], groups: Sequence[str]) -> None:
    """What the schema cannot say of the classes and the columns of groups."""
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise BadInput(f"config.data.classes: {classes} given; at least two different ones are needed")
    if len(set(groups)) != len(groups):
        raise BadInput(f"config.data.groups: {groups} given; a column is there twice")


def composed(text: str) -> str:
    """`text` with its accents composed (Unicode's NFC), so that what looks the same is the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def group_name(values: Sequence[str]) -> str:
    """The values of a group's columns, joined as a line of CSV would have them: no two groups get one name."""
    if len(values) == 1:
        return values[0]
    return ", ".join('"' + v.replace('"', '""') + '"' if "," in v or '"' in v else v for v in values)


def number_groups(
    columns: Sequence[Sequence[str]], orders: Sequence[Sequence[str] | None]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N,) int64, the number of each row's combination of the columns' values, and the combinations' names.

    Args:
        columns: one or more of N values.
        orders: of each column the order of its values; None: sorted.
    """
    combinations = list(zip(*columns))
    ranks = [dict(zip(order, range(len(order)))) if order else None for order in orders]
    found = sorted(set(combinations), key=lambda values: [rank[v] if rank else v for rank, v in zip(ranks, values)])
    number = {values: i for i, values in enumerate(found)}
    return np.array([number[values] for values in combinations], dtype=np.int64), tuple(map(group_name, found))


def assign_splits(
    splits: np.ndarray, groups: np.ndarray, val_fraction: float, test_fraction: float, seed: int, where: str
) -> np.ndarray:
    """(N,) 0, 1 or 2 for train, val and test: as `splits` has it, val and test drawn from train where it has none.

    Args:
        groups: (N,) what is stratified by.
        val_fraction, test_fraction: of all of `where` that is not in the other kind of split already; 0.0 for a split
            that there is.

    Raises:
        BadInput: a fraction is missing, or is given for a split that there is.
    """
    fractions = {"val": val_fraction, "test": test_fraction}
    if not len(splits):
        return splits
    for number, (name, fraction) in enumerate(fractions.items(), 1):
        there = bool((splits == number).any())
        if there == bool(fraction):
            need = "must be 0.0: there are" if there else "must be above 0: the data says of no example that it is"
            raise BadInput(f"config.data.{name}_fraction: {fraction} given; it {need} {name} examples in {where}")
    if val_fraction + test_fraction >= 1:
        total = val_fraction + test_fraction
        raise BadInput(f"config.data.val_fraction, test_fraction: they leave no training set; their sum is {total}")
    rng, splits = np.random.default_rng(seed), splits.copy()
    rest = np.flatnonzero(splits == 0)
    for name, part in (("test", test_fraction), ("val", val_fraction / (1 - test_fraction))):
        if part:
            kept, drawn = stratified_split(groups[rest], part, rng)
            splits[rest[drawn]] = SPLITS.index(name)
            rest = rest[kept]
    return splits
