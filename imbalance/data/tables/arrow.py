"""Tables in Arrow files, which are memory-mapped: all processes on a machine share them, and no process holds a copy.

A column becomes an array only while it is in use, so a table can be larger than the memory. Both formats of Arrow are read:
the file format, which pyarrow and Feather write, and the stream format, in which the library datasets keeps its tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from imbalance.data.files import check_columns
from imbalance.data.tables.values import Categories, composed, durations_in_seconds, factorise, rows_from_lists
from imbalance.errors import BadInput
from imbalance.utils.optional import optional
from imbalance.utils.read import check_regular

SUFFIXES = (".arrow", ".feather")
BLOCK_TEXTS = 8192  # texts that are in memory at a time


class ArrowTable(Mapping[str, np.ndarray | Categories]):
    """Mapping from the name of a column to its N values, as `Columns.values` has them; each access reads the values anew.

    A null becomes nan in a column of numbers, "" in a column of text, and None in other columns.

    Args:
        table: table of pyarrow.
    """

    def __init__(self, table: Any):
        self.table = table

    def __len__(self) -> int:
        """Return the number of columns."""
        return self.table.num_columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.column_names)

    def __getitem__(self, name: str) -> np.ndarray | Categories:
        column = self.table.column(self.table.column_names.index(name))
        if is_text(column.type):
            encoded = column.dictionary_encode().combine_chunks()
            codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
            values = [*encoded.dictionary.to_pylist(), *([""] if encoded.null_count else [])]
            column = factorise(map(composed, values))
            return Categories(column.codes[codes.astype(np.int32)], column.values)
        values = rows_from_lists(column.to_numpy())
        return durations_in_seconds(
            values if values.dtype.kind in "iufbm" else np.array(column.to_pylist(), dtype=object)
        )

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self.table.num_rows

    def part(self, start: int, stop: int) -> "ArrowTable":
        """Return the rows from `start` to `stop` − 1, without reading them."""
        return ArrowTable(self.table.slice(start, stop - start))


def is_text(kind: Any) -> bool:
    """Return whether `kind`, a type of pyarrow, is a type of texts."""
    import pyarrow

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def open_arrow(path: Path) -> ArrowTable:
    """Open an Arrow file as a memory map, and check that no offset in it points outside the file.

    Raises:
        BadInput: pyarrow is not installed, or the file is missing, damaged or no Arrow file.
    """
    with optional("pyarrow", message=f"{path}: reading Arrow files needs pyarrow: pip install pyarrow"):
        import pyarrow
    try:
        check_regular(path)
        content = pyarrow.memory_map(str(path))
        try:
            table = pyarrow.ipc.open_file(content).read_all()
        except pyarrow.ArrowInvalid:
            content.seek(0)
            table = pyarrow.ipc.open_stream(content).read_all()
        table.validate(full=True)  # an offset outside the file would end the process
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadInput(f"{path}: {reason}; name an Arrow file that can be read") from None
    check_columns(path, table.column_names, table.column_names)
    return ArrowTable(table)


class ArrowTexts(Sequence[Any]):
    """N texts, or pairs of texts, in columns of an Arrow table; only those that are read are in memory.

    Args:
        table: the table.
        names: the column of the texts; two columns for pairs.
        rows: (N,) the row of each text in the table, in increasing order.
    """

    def __init__(self, table: ArrowTable, names: Sequence[str], rows: np.ndarray):
        self.table, self.names, self.rows = table, names, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        rows = self.rows[index : index + 1 or None] if isinstance(index, int) else self.rows[index]
        if not len(rows):
            if isinstance(index, int):
                raise IndexError(index)
            return []
        first = int(rows.min())
        block = self.table.table.select(list(self.names)).slice(first, int(rows.max()) + 1 - first)
        if len(block) > len(rows):
            block = block.take(rows - first)
        columns = [[composed(text or "") for text in column.to_pylist()] for column in block.columns]
        texts = columns[0] if len(columns) == 1 else list(zip(*columns))
        return texts[0] if isinstance(index, int) else texts

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), BLOCK_TEXTS):
            yield from self[start : start + BLOCK_TEXTS]

    def at(self, rows: np.ndarray) -> "ArrowTexts":
        """Return the texts at the positions `rows`, which must be in increasing order; read no text yet."""
        return ArrowTexts(self.table, self.names, self.rows[rows])
