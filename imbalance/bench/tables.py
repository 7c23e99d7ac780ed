"""Measure the time to read CSV files.

All times are processor times. Both ratios need pyarrow.

- 100,000 rows × 50 columns: the time of this package relative to that of pyarrow's reader. Both convert columns of numbers;
  this package also refuses invalid values. A fifth of the columns are categories.
- 500 rows × 4,000 columns, relative to 5,000 rows × 400 columns. The ratio is above 1 if the time grows faster than the
  number of columns.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imbalance.bench.bookkeeping import ratios
from imbalance.bench.timing import Row
from imbalance.data.tables.columns import read_columns

SHAPE = (100_000, 50)  # rows and columns of the file that is read
SMALL = (500, 400)  # rows and columns of a file of which the rows, or the columns, become ten times as many


def write_table(path: Path, rows: int, columns: int) -> Path:
    """Write a CSV file, four fifths of whose columns are numbers and a fifth categories, and return its path."""
    import pyarrow
    from pyarrow import csv

    rng, levels = np.random.default_rng(0), np.array([f"level {level}" for level in range(20)])
    values = {
        f"column {i}": rng.standard_normal(rows).round(4) if i % 5 else rng.choice(levels, rows) for i in range(columns)
    }
    csv.write_csv(pyarrow.table(values), path)
    return path


def rows(repeats: int) -> Iterator[Row]:
    """Measure the reading of CSV files, and yield the rows of the benchmark's table."""
    from pyarrow import csv

    with tempfile.TemporaryDirectory() as directory:
        table = write_table(Path(directory) / "table.csv", *SHAPE)
        ours = ratios(lambda: read_columns(table), lambda: csv.read_csv(table), repeats)
        yield Row("tables: ours / pyarrow's reader", f"CSV of {SHAPE[0]:,} × {SHAPE[1]:,}", ours, "≤ 3")
        count, width = SMALL
        long = write_table(Path(directory) / "long.csv", 10 * count, width)
        wide = write_table(Path(directory) / "wide.csv", count, 10 * width)
        grown = ratios(lambda: read_columns(wide), lambda: read_columns(long), repeats)
        case = f"CSV of {count:,} × {10 * width:,} / {10 * count:,} × {width:,}"
        yield Row("tables: more columns / more rows", case, grown, "≤ 3")
