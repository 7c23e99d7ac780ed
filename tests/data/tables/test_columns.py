"""The columns of a table: names of groups, and lengths that must agree."""

import csv
from pathlib import Path

import numpy as np
import pytest

from imbalance.data.tables.columns import array_columns, group_name, parquet_arrays, read_columns
from imbalance.errors import BadInput


@pytest.mark.parametrize("values", [("cat", "indoor"), ("cat, wild", "indoor"), ('the "big" one', "a,b", "c")])
def test_the_name_of_a_group_is_a_line_of_csv(values):
    assert next(csv.reader([group_name(values)], skipinitialspace=True)) == list(values)


def test_arrays_of_different_lengths_are_named_with_their_lengths():
    with pytest.raises(BadInput, match=r"file.npz: columns of different lengths \(age 3, target 2\)"):
        array_columns(Path("file.npz"), {"age": np.arange(3), "target": np.arange(2)})


def test_a_parquet_column_with_fields_is_refused(tmp_path):
    """Each struct became the text of a dictionary, and thereby a category."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for kind, value in (
        (pyarrow.struct([("a", pyarrow.int64())]), {"a": 1}),
        (pyarrow.map_(pyarrow.string(), pyarrow.int64()), [("a", 1)]),
    ):
        parquet.write_table(pyarrow.table({"x": pyarrow.array([value], kind)}), tmp_path / "t.parquet")
        with pytest.raises(BadInput, match="column 'x' has the type .*a column of its own"):
            parquet_arrays(tmp_path / "t.parquet")
    parquet.write_table(pyarrow.table({"x": [[1.0, 2.0]], "y": ["a"]}), tmp_path / "t.parquet")
    assert list(parquet_arrays(tmp_path / "t.parquet")[0]) == ["x", "y"]


def test_a_file_with_another_separator_is_told():
    columns = array_columns(Path("t.csv"), {"x;target": np.array(["1;a"])})
    with pytest.raises(
        BadInput, match="no column 'target'.*separate the columns by commas, or set config.data.delimiter=';'"
    ):
        columns["target"]
    with pytest.raises(BadInput, match="the columns are x$"):
        array_columns(Path("t.csv"), {"x": np.array([1.0])})["target"]


def test_commas_where_the_config_says_another_separator_are_told(tmp_path):
    (tmp_path / "t.csv").write_text("x,target\n1,a\n")
    with pytest.raises(
        BadInput, match="only column is 'x,target'; separate the columns by ';', or set config.data.delimiter=','$"
    ):
        read_columns(tmp_path / "t.csv", ";")["target"]
