"""CSV files: pyarrow and Python's csv read the same columns, and numbers are what other readers take for numbers."""

import csv
import gzip
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imbalance.data.files import csv_records
from imbalance.data.tables import csv_columns
from imbalance.data.tables.columns import read_columns
from imbalance.data.tables.csv_columns import read_csv_columns, scan
from imbalance.data.tables.values import CODE, Categories, number
from imbalance.errors import BadInput

CELLS = st.one_of(
    st.sampled_from(["", "?", "nan", "-inf", "1_1", "2021_03", " 7", "+5", "007", "1e400", "1,5", "a", 'b"c', "\n", "é", "١", "-0"]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-999, 999).map(str),
    st.text(alphabet='ab", \r\n1_\u00a0', max_size=6),
)  # fmt: skip
TABLES = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), max_size=12))


def texts(column):
    """Return the values of a column as text, with numbers as Python writes them."""
    return column.texts().tolist() if isinstance(column, Categories) else [repr(value) for value in column.tolist()]


def write(path, rows, heading=None, end="\n", quoting=csv.QUOTE_MINIMAL):
    content = io.StringIO()
    writer = csv.writer(content, lineterminator=end, quoting=quoting)
    writer.writerow(heading or [f"c{i}" for i in range(len(rows[0]) if rows else 2)])
    writer.writerows(rows)
    path.write_text(content.getvalue(), encoding="utf-8", newline="")
    return path


def as_module_csv_reads(monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(csv_columns, "find_spec", lambda name: None)
        return read_csv_columns(*arguments)


def outcome(read):
    """Return the columns that `read` returns as text, or the message of its error."""
    try:
        columns, length, codes = read()
    except BadInput as error:
        return str(error)
    return length, codes, {name: (type(column), texts(column)) for name, column in columns.items()}


def check_both(path, text, missing):
    with pytest.MonkeyPatch.context() as patch:
        expected = outcome(lambda: as_module_csv_reads(patch, path, ",", text, missing))
    assert outcome(lambda: read_csv_columns(path, ",", text, missing)) == expected
    return expected


@settings(max_examples=60, deadline=None)
@given(
    rows=TABLES,
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    missing=st.sampled_from([(), ("",), ("?", "nan"), ("7", "")]),
)
def test_pyarrow_and_module_csv_read_the_cells_that_were_written(tmp_path_factory, rows, end, quoting, missing):
    pytest.importorskip("pyarrow")
    if quoting == csv.QUOTE_MINIMAL:  # the module writes a lone carriage return without quotation marks
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    path = write(tmp_path_factory.mktemp("csv") / "table.csv", rows, end=end, quoting=quoting)
    length, codes, columns = check_both(path, ("c0",), missing)
    assert length == len(rows) and all(CODE.match(code) for code in codes.values())
    for i, (kind, values) in enumerate(columns.values()):
        for row, value in zip(rows, values):
            if kind is Categories:
                assert value == row[i]
            else:
                assert row[i] in missing if value == "nan" else float(value) == float(row[i])


@settings(max_examples=100, deadline=None)
@given(content=st.text(alphabet='1,"\n\r a_', max_size=30))
def test_pyarrow_and_module_csv_read_the_same_of_any_text(tmp_path_factory, content):
    pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    path.write_text("a,b\n" + content, encoding="utf-8", newline="")
    check_both(path, (), ("",))


def test_a_table_of_numbers_is_read_by_pyarrow_alone(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(csv_columns, "text_blocks", None)
    path = write(tmp_path / "table.csv", [["1", 'a "b", c'], ["2.5", "d"]], quoting=csv.QUOTE_ALL)
    columns, _, _ = read_csv_columns(path, ",", (), ())
    assert columns["c0"].tolist() == [1, 2.5] and texts(columns["c1"]) == ['a "b", c', "d"]


@pytest.mark.parametrize(
    ("content", "plain"),
    [
        ("a,b\n1,2\n", True), ('a,b\n"1","2"\n', True), ('a,b\n"x ""y""",2\n', True), ('a,b\n"",""\n', True),
        ('\ufeff"a",b\n1,2\n', True), ('a,b\n"1"x,2\n', False), ('a,b\n5" pipe,2\n', False), ('a,b\n1,"2\n3,4\n', False),
        ('a,b\n1, "2"\n', False), ('a,b\n"""",2\n', True), ('a,b\n"3\n4,5,"6\n', False),
    ],
)  # fmt: skip
def test_a_quotation_mark_out_of_place_is_noticed(tmp_path, content, plain):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    lines, found = scan(tmp_path / "a.csv", ",")
    assert found == plain and lines >= content.count("\n")


@pytest.mark.parametrize("text", ["1", "-1", "+5", " 7 ", ".5", "1.", "007", "1e5", "1E-3", "-0"])
def test_a_number_is_what_python_takes_for_one(text):
    assert number(text) == float(text)


@pytest.mark.parametrize("text", ["1_1", "10_20", "2021_03", "1,5", "1,234", "12 %", "12%", "١", "", "nan", "inf", "0x1", "1 2", "$5"])  # fmt: skip
def test_a_code_or_a_formatted_number_is_no_number(text):
    assert math.isnan(number(text))


def test_a_column_that_begins_with_numbers_and_goes_on_with_text_keeps_its_text(tmp_path, monkeypatch):
    path = write(tmp_path / "table.csv", [["01", "1"]] * 6 + [["x", "2"]] + [["02", "3"]] * 3)
    monkeypatch.setattr(csv_columns, "BLOCK_CELLS", 4)
    columns, _, _ = as_module_csv_reads(monkeypatch, path, ",", (), ())
    assert texts(columns["c0"]) == ["01"] * 6 + ["x"] + ["02"] * 3 and columns["c1"].tolist() == [1] * 6 + [2] + [3] * 3


def test_a_column_without_numbers_is_text(tmp_path):
    columns, _, _ = read_csv_columns(write(tmp_path / "table.csv", [["", "?"], ["", ""]]), ",", (), ("", "?"))
    assert texts(columns["c0"]) == ["", ""] and texts(columns["c1"]) == ["?", ""]


@pytest.mark.parametrize("kind", ["csv", "csv.gz"])
def test_a_field_may_be_longer_than_the_module_csv_allows(tmp_path, kind):
    words = "word " * 40_000  # 200,000 characters; the module stops at 131,072
    path = write(tmp_path / "table.csv", [["1", words], ["2", "short"]])
    if kind == "csv.gz":
        (tmp_path / "table.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    columns = read_columns(tmp_path / f"table.{kind}")
    assert columns.text("c1").tolist() == [words, "short"]
    assert [len(row) for _, row in csv_records(tmp_path / f"table.{kind}", ",")] == [2, 2, 2]


def test_lines_of_a_wrong_length_are_all_named(tmp_path):
    (tmp_path / "a.csv").write_text('x,y\n1,2\n3\n"a\nb",4\n5,6,7\n')
    with pytest.raises(BadInput, match="line 3: 1 fields, but the heading has 2; each line needs as many") as error:
        read_columns(tmp_path / "a.csv")
    assert [str(problem).partition(": ")[0].rpartition(" ")[2] for problem in error.value.problems] == ["3", "6"]


def test_a_row_is_named_by_its_last_line(tmp_path):
    (tmp_path / "a.csv").write_text('x,y\n1,2\n\n"a\nb",4\n5,6\n')
    columns = read_columns(tmp_path / "a.csv")
    assert [columns.where(row).rpartition(" ")[2] for row in range(3)] == ["2", "5", "6"]


def test_many_columns_take_linear_time(tmp_path):
    """Every step is linear in the columns; 20,000 of these took minutes while one was quadratic."""
    names = [f"c{i}" for i in range(20_000)]
    path = write(tmp_path / "wide.csv", [["1"] * len(names), ["2"] * len(names)], names)
    columns = read_columns(path)
    assert len(columns.values) == len(names) and np.stack(list(columns.values.values())).sum() == 3 * len(names)


def test_the_number_of_blocks_does_not_grow_with_the_columns(tmp_path, monkeypatch):
    """Each block costs time for each column; blocks of a fixed size made the time quadratic in the columns."""
    monkeypatch.setattr(csv_columns, "BLOCK_BYTES", 8_000)
    counts = []
    for width in (8, 64):
        names = [f"c{i}" for i in range(width)]
        path = write(tmp_path / f"{width}.csv", [["123456789"] * width] * 1000, names)
        counts.append(len(list(csv_columns.arrow_blocks(path, ",", names, names))))
    assert 2 <= counts[1] <= counts[0]
