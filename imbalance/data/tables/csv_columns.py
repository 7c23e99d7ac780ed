"""Read the columns of a CSV file as numbers or categories.

pyarrow reads a file several times as fast as Python's module csv, but accepts misplaced quotation marks as text. So
pyarrow reads a file only if it is installed and all quotation marks are in place; the module csv reads all other files.
A test checks that both give the same columns.
"""

import codecs
import gzip
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.data.files import check_columns, csv_records, width_problem
from imbalance.data.problems import Problem, raise_first
from imbalance.data.tables.values import CODE, Categories, number, parse_numbers
from imbalance.errors import BadInput

BLOCK_BYTES = 32 << 20
SCANNED_BYTES = 2 << 20
BLOCK_CELLS = 100_000
QUOTE, LINE_ENDS = 34, (10, 13)

Column = np.ndarray | Categories
Block = Sequence[Any]  # a part of each column: a sequence of texts, or a pyarrow array of texts


def read_csv_columns(
    file: Path, delimiter: str, text: Collection[str], missing: Collection[str]
) -> tuple[dict[str, Column], int, dict[str, str]]:
    """Return the columns of a CSV file by name: (N,) float64 if all values are numbers or missing, else `Categories`.

    A missing value of a column of numbers is nan. A column without any number is `Categories`.

    Args:
        text: the columns to read as `Categories` even if all values are numbers.
        missing: texts that stand for a missing value.

    Returns:
        The columns, the number of rows, and for each column of numbers with codes such as 00123 the first code.

    Raises:
        BadInput: the file is missing or damaged, is not valid CSV, or has lines with different numbers of fields.
    """
    _, names = next(csv_records(file, delimiter), (1, []))
    check_columns(file, names, names)
    missing, (lines, plain) = frozenset(missing), scan(file, delimiter)
    if plain and find_spec("pyarrow"):
        import pyarrow

        try:
            return collect(names, lines, text, missing, lambda chosen: arrow_blocks(file, delimiter, names, chosen))
        except pyarrow.ArrowInvalid:  # module csv says what is wrong, and where
            pass
        finally:
            pyarrow.default_memory_pool().release_unused()
    return collect(names, lines, text, missing, lambda chosen: text_blocks(file, delimiter, names, chosen))


def collect(
    names: Sequence[str],
    lines: int,
    text: Collection[str],
    missing: frozenset[str],
    blocks: Callable[[list[str]], Iterator[Block]],
) -> tuple[dict[str, Column], int, dict[str, str]]:
    """Join the blocks of a CSV file (some rows each) into columns; see `read_csv_columns`.

    Args:
        names: the columns of the file.
        lines: an upper bound on the number of rows.
        text: the columns to read as `Categories` even if all values are numbers.
        missing: texts that stand for a missing value.
        blocks: function from a list of names to an iterator over the blocks of these columns. It is called again for
            columns that begin with numbers and go on with text.
    """
    columns: dict[str, Column] = {}
    codes: dict[str, str] = {}
    rest, length = list(names), 0
    positions = {name: {} for name in names if name in text}  # the position of each distinct text, by column
    while rest:
        # Memory that is not written to is not used, and parts that are joined at the end would need it twice.
        parts = {name: np.empty(lines, dtype=np.int32 if name in positions else np.float64) for name in rest}
        mixed, length = set(), 0
        for block in blocks(rest):
            end = length + len(block[0])
            for name, part in zip(rest, block):
                if name in mixed:
                    continue
                numbers = None if name in positions else block_numbers(part, missing)
                if numbers is None and name not in positions:
                    if length:
                        mixed.add(name)
                        del parts[name]
                        continue
                    positions[name], parts[name] = {}, np.empty(lines, dtype=np.int32)
                parts[name][length:end] = block_codes(part, positions[name]) if numbers is None else numbers
                if numbers is not None and name not in codes and (code := first_code(part, numbers)):
                    codes[name] = code
            length = end
        for name, part in parts.items():
            if name in positions:
                columns[name] = Categories(part[:length], list(positions[name]))
            elif not np.isnan(part[:length]).all():
                columns[name] = part[:length]
        rest = [name for name in rest if name not in columns]
        positions |= {name: {} for name in rest}
    return {name: columns[name] for name in names}, length, codes


def text_blocks(file: Path, delimiter: str, names: Sequence[str], chosen: Sequence[str]) -> Iterator[Block]:
    """Yield blocks (some rows at a time) of the columns `chosen` as tuples of texts.

    Args:
        names: all columns of the file, in their order.

    Raises:
        BadInput: a line has another number of fields than `names`.
    """
    problems: list[Problem] = []
    records = csv_records(file, delimiter)
    next(records, None)  # the heading
    where = {name: i for i, name in enumerate(names)}
    while rows := list(islice(records, max(1, BLOCK_CELLS // len(names)))):
        problems += [width_problem(file, line, len(row), len(names)) for line, row in rows if len(row) != len(names)]
        if not problems:
            columns = list(zip(*(row for _, row in rows)))
            yield [columns[where[name]] for name in chosen]
    raise_first(problems)


def arrow_blocks(file: Path, delimiter: str, names: Sequence[str], chosen: Sequence[str]) -> Iterator[Block]:
    """Yield blocks (some rows at a time) of the columns `chosen` as pyarrow arrays of texts.

    Args:
        names: all columns of the file, in their order.

    Raises:
        pyarrow.ArrowInvalid: the file is not valid CSV in UTF-8, has lines with different numbers of fields, or has a
            line that is longer than a block.
    """
    import pyarrow
    from pyarrow import csv

    # Each block costs time for each column, so the bytes of a block are proportional to the columns: the number of
    # blocks does not grow with them. More than BLOCK_BYTES would need much memory, so a block gets fewer rows there.
    block_bytes = max(BLOCK_BYTES // 32, min(BLOCK_BYTES, 10_000 * len(names)), 2_500 * len(names))
    yield from csv.open_csv(
        str(file),
        read_options=csv.ReadOptions(
            column_names=names, skip_rows_after_names=1, block_size=block_bytes, use_threads=False
        ),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pyarrow.string()), include_columns=chosen, strings_can_be_null=False
        ),
    )


def scan(file: Path, delimiter: str) -> tuple[int, bool]:
    """Return an upper bound on the number of lines of a CSV file, and whether all quotation marks are in place.

    A quotation mark is in place if it opens or closes a field, or is doubled inside a field.
    """
    ends, lines, marks, start = [QUOTE, *LINE_ENDS], 1, 0, codecs.BOM_UTF8
    if not delimiter.isascii() or ord(delimiter) in ends:
        marks = None
    ends.append(ord(delimiter))
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as content:
            while block := content.read(SCANNED_BYTES):
                block = block.removeprefix(start) + content.readline()  # whole lines, so that no mark is at an end
                start = b""
                lines += block.count(b"\n") + block.count(b"\r")
                if marks is None or b'"' not in block:
                    continue
                data = np.frombuffer(b"\n" + block + b"\n", dtype=np.uint8)
                places = np.flatnonzero(data == QUOTE)
                opening = (marks + np.arange(len(places))) % 2 == 0
                neighbours = np.where(opening, data[places - 1], data[places + 1])
                marks = marks + len(places) if np.isin(neighbours, ends).all() else None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(
            f"{file}: {getattr(error, 'strerror', None) or error}; name a CSV file that can be read"
        ) from None
    return lines, marks is not None and marks % 2 == 0


def block_numbers(block: Any, missing: frozenset[str]) -> np.ndarray | None:
    """Return the N texts of a block (some rows of a column) as (N,) float64, with nan for missing values.

    Return None if a text is neither a number nor in `missing`.
    """
    if isinstance(block, tuple):
        return parse_numbers(block, missing)
    import pyarrow
    from pyarrow import compute as arrow

    compute: Any = arrow  # its functions are made when it is imported, so their types are unknown

    for masked in (False, True) if missing else (False,):
        is_missing: Any = compute.is_in(block, pyarrow.array(sorted(missing))) if masked else None
        present = compute.if_else(is_missing, None, block) if masked else block
        try:
            numbers = compute.cast(present, pyarrow.float64()).to_numpy(zero_copy_only=False)
        except pyarrow.ArrowInvalid:  # perhaps a text of `missing`, or spaces around a number
            continue
        finite = np.isfinite(numbers)
        if masked:
            finite |= is_missing.to_numpy(zero_copy_only=False)
        if finite.all() and (masked or not any(np.isfinite(number(value)) for value in missing)):
            return numbers
    encoded = block.dictionary_encode()  # for spaces around a number, which the cast refuses
    numbers = parse_numbers(tuple(encoded.dictionary.to_pylist()), missing)
    return None if numbers is None else numbers[encoded.indices.to_numpy()]


def first_code(block: Any, numbers: np.ndarray) -> str:
    """Return the first text of a block that `CODE` describes; "" if there is none.

    Args:
        numbers: the numbers that the texts stand for; codes are whole numbers.
    """
    if not len(numbers) or (np.fmod(numbers, 1) > 0).any():
        return ""
    if isinstance(block, tuple):
        return next((text for text in block if CODE.match(text)), "")
    import pyarrow.compute

    matches = pyarrow.compute.index(pyarrow.compute.match_substring_regex(block, CODE.pattern), True).as_py()  # pyright: ignore[reportAttributeAccessIssue] (made when imported)
    return "" if matches < 0 else block[matches].as_py()


def block_codes(block: Any, position: dict[str, int]) -> np.ndarray:
    """Return the (N,) `position` of each text of a block (some rows of a column); first add new texts to `position`.

    Args:
        position: from each distinct text to its position, in the order of first appearance.
    """
    if isinstance(block, tuple):
        return np.fromiter((position.setdefault(value, len(position)) for value in block), np.int32, len(block))
    encoded = block.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    codes = np.fromiter((position.setdefault(value, len(position)) for value in values), np.int32, len(values))
    return codes[encoded.indices.to_numpy()]
