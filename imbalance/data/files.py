"""Find and read the files of data sets: CSV, Parquet and NumPy, with an error that names the file."""

import csv
import gzip
import io
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from imbalance.data.problems import Problem
from imbalance.errors import BadInput, Damaged
from imbalance.utils.optional import optional
from imbalance.utils.read import open_regular, read_arrays


def find_path(data_dir: str, candidates: Sequence[str], name: str, hint: str) -> Path:
    """Return the first path of `candidates` that exists.

    Args:
        candidates: paths of a file or folder of the data set, relative to `data_dir`.
        name: the name of the data set, for the message.
        hint: how a user can get the data set, as the end of the message.

    Raises:
        BadInput: no path exists; the message lists all of them.
    """
    for candidate in candidates:
        if (Path(data_dir) / candidate).exists():
            return Path(data_dir) / candidate
    raise BadInput(
        f"config.data_dir: {name} is not in {Path(data_dir).absolute()}; it must be at {' or '.join(candidates)} in this folder; {hint}"
    )


def read_csv(
    file: Path, columns: Sequence[str], delimiter: str = ","
) -> tuple[list[str], list[list[str]], list[int], list[Problem]]:
    """Read a CSV file whose first line names the columns; if the file name ends in `.gz`, unzip it.

    A byte-order mark and the line ends of Unix and Windows are accepted.

    Args:
        columns: names that the first line must have exactly once; it may have other names, too.
        delimiter: the character between two fields.

    Returns:
        The names of all columns; the rows, each with one field for each column; the line number of each of these rows in
        the file; and a problem for each row with more or fewer fields; such rows are left out.
    """
    rows, lines, problems = [], [], []
    records = csv_records(file, delimiter)
    _, heading = next(records, (1, []))
    check_columns(file, heading, columns)
    for line, row in records:
        if len(row) == len(heading):
            rows.append(row)
            lines.append(line)
        else:
            problems.append(width_problem(file, line, len(row), len(heading)))
    return heading, rows, lines, problems


def csv_records(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record of a CSV file, the heading first, as (number of the line on which it ends, its fields).

    Empty lines are left out. Fields may have any length.

    Raises:
        BadInput: the file is missing or damaged, or is not valid CSV in UTF-8.
    """
    csv.field_size_limit(sys.maxsize)  # by default 131,072 characters, which is less than a long document has
    reader = None
    try:
        with (
            open_regular(file) as content,
            gzip.open(content) if file.suffix == ".gz" else content as unzipped,
            io.TextIOWrapper(cast(BinaryIO, unzipped), encoding="utf-8-sig", newline="") as text,
        ):
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise BadInput(
            f"{file} line {reader.line_num if reader else 1}: not valid CSV ({error}); mend this line"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(
            f"{file}: {getattr(error, 'strerror', None) or error}; name a CSV file that can be read"
        ) from None


def width_problem(file: Path, line: int, width: int, needed: int) -> Problem:
    """Return the problem of a line that has `width` fields, although the heading of the file has `needed` fields."""
    return Problem(f"{file} line {line}", f"{width} fields, but the heading has {needed}; each line needs as many")


def check_columns(file: Path, heading: Sequence[str], columns: Sequence[str]) -> None:
    """Raise `BadInput` unless `heading`, the column names in a file, has each of `columns` exactly once."""
    counts = Counter(heading)
    for column in columns:
        if counts[column] != 1:
            number = f"{counts[column]} columns" if counts[column] else "no column"
            raise BadInput(
                f"{file} line 1: {number} {column!r}, but exactly one is needed; the heading has {', '.join(heading) or 'no column'}"
            )


def load_array(path: Path) -> Any:
    """Read an .npy file as an array, or an .npz file as a mapping from names to arrays.

    Raises:
        BadInput: the file is missing or damaged, holds pickled objects, or is larger than the free memory.
    """
    try:
        return read_arrays(path)
    except Damaged as error:
        raise BadInput(f"{path}: {error.reason}") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; name a file that can be read") from None


def read_parquet_table(path: Path) -> Any:
    """Return a Parquet file as a pyarrow table."""
    install = "reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
    with optional("pyarrow", message=f"{path}: {install}"):
        import pyarrow
        import pyarrow.parquet
    try:
        with open_regular(path) as file:
            return pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadInput(f"{path}: {reason}; name a Parquet file that can be read") from None
