"""The columns of a table: names of groups, and lengths that must agree."""

import csv
from pathlib import Path

import numpy as np
import pytest

from imbalance.data.tables.columns import array_columns, group_name
from imbalance.errors import BadInput


@pytest.mark.parametrize("values", [("cat", "indoor"), ("cat, wild", "indoor"), ('the "big" one', "a,b", "c")])
def test_the_name_of_a_group_is_a_line_of_csv(values):
    assert next(csv.reader([group_name(values)], skipinitialspace=True)) == list(values)


def test_arrays_of_different_lengths_are_named_with_their_lengths():
    with pytest.raises(BadInput, match=r"file.npz: columns of different lengths \(age 3, target 2\)"):
        array_columns(Path("file.npz"), {"age": np.arange(3), "target": np.arange(2)})
