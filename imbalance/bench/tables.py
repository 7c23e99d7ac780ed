"""Measure the reading of CSV files.

All times are of the processor. Both ratios need pyarrow.

- 100,000 × 50: reading by this package, which refuses what is not valid and names it, relative to pyarrow's own reader, which
  converts the columns of numbers, too. A fifth of the columns are categories.
- 4,000 × 500: ten times as many columns, relative to ten times as many rows. Time that grows faster than the number of
  columns gives a ratio above 1.
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
