"""Tables of KEEL: the format .dat, the known counts, and one line for whatever is wrong."""

from pathlib import Path

import numpy as np
import pytest

from imbalance.data import load
from imbalance.data.problems import DataProblems
from imbalance.data.sets import keel as module
from imbalance.data.sets.keel import known_tables, read_dat
from imbalance.errors import BadInput

HEAD = """@relation cars
@attribute Doors integer [2, 5]
@attribute 'Body style' {sedan, hatch back, wagon}
@attribute Price real [1.0E-4, 9.5]
@attribute Class{positive, negative}
@inputs Doors, Body style, Price
@outputs Class
@data
"""
SECTION = dict(name="keel", table="cars", val_fraction=0.25, test_fraction=0.25, check_counts=True)


def write_cars(folder: Path, positive: int = 8, negative: int = 32, head: str = HEAD, extra: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = [
        f"{rng.integers(2, 6)}, {('sedan', 'hatch back')[i % 2]}, {rng.random():.4f}, {label}"
        for label, n in (("positive", positive), ("negative", negative))
        for i in range(n)
    ]
    path = folder / "cars.dat"
    path.write_text(head + "\r\n".join(lines) + "\r\n" + extra)
    return path


def test_a_table_is_read_with_its_largest_class_first(tmp_path):
    write_cars(tmp_path / "keel" / "cars", extra="<null>, wagon, ?, negative\n\n% the end\n")
    dataset = load(SECTION, str(tmp_path), 0)
    assert dataset.class_names == ("negative", "positive")
    parts = (dataset.train, dataset.val, dataset.test)
    assert [dataset.class_counts(part).tolist() for part in parts] == [[17, 4], [8, 2], [8, 2]]
    features = dataset.preprocessing["features"]
    assert [column["column"] for column in features["numeric"]] == ["Doors", "Price"]
    assert [column["column"] for column in features["categorical"]] == ["Body style"]


@pytest.mark.parametrize("place", ["keel/cars.dat", "keel/vans/cars.dat", "cars/cars.dat", "cars.dat"])
def test_other_places_of_a_table(tmp_path, place):
    write_cars((tmp_path / place).parent)
    assert len(load(SECTION, str(tmp_path), 0).train) == 20


def test_without_outputs_the_last_column_is_the_class(tmp_path):
    head = HEAD.replace("@inputs Doors, Body style, Price\n@outputs Class\n", "")
    columns, numeric, categorical, target = read_dat(write_cars(tmp_path, head=head))
    assert (numeric, categorical, target) == (("Doors", "Price"), ("Body style",), "Class")
    assert columns.where(0) == f"{tmp_path / 'cars.dat'} line 7"
    first = HEAD.replace("@outputs Class", "@output Doors")
    assert read_dat(write_cars(tmp_path, head=first))[3] == "Doors"


def test_only_the_columns_that_inputs_names_are_inputs(tmp_path):
    head = HEAD.replace("@inputs Doors, Body style, Price", "@inputs 'Body style'")
    assert read_dat(write_cars(tmp_path, head=head))[1:3] == ((), ("Body style",))
    write_cars(tmp_path, head=head, extra="many, sedan, dear, positive\n")  # columns that are no inputs are not checked
    assert load(SECTION, str(tmp_path), 0).train.inputs.shape[1] == 2


@pytest.mark.parametrize(
    ("row", "place"),
    [("3, coupé, 1.0, negative", "Body style is 'coupé'"), ("3, sedan, 1.0, neutral", "Class is 'neutral'")],
)
def test_a_category_that_no_attribute_lists_is_refused_with_its_line(tmp_path, row, place):
    """A misspelt category became a category of its own, and a misspelt class a third class."""
    path = write_cars(tmp_path, extra=f"{row}\n")
    with pytest.raises(DataProblems) as error:
        read_dat(path)
    assert str(error.value) == (
        f"{path} line 49: {place}, which its line @attribute does not list; correct the value or the list"
    )


def test_categories_may_be_quoted_and_a_missing_one_is_none_of_them(tmp_path):
    head = HEAD.replace("{sedan, hatch back, wagon}", "{'sedan', \"hatch back\", wagon}")
    path = write_cars(tmp_path, head=head, extra="3, 'wagon', 1.0, negative\n3, ?, 1.0, negative\n")
    assert len(read_dat(path)[0]) == 42


def test_known_counts_are_compared(tmp_path, monkeypatch):
    write_cars(tmp_path)
    monkeypatch.setattr(module, "known_tables", lambda: {"cars": (32, 9)})
    with pytest.raises(DataProblems, match=r"the classes have \(32, 8\) rows, not \(32, 9\).*check_counts=False"):
        load(SECTION, str(tmp_path), 0)
    assert len(load(SECTION | dict(check_counts=False), str(tmp_path), 0).test) == 10


def test_the_known_counts_have_the_imbalance_of_the_literature():
    """The ratios are those on the pages of KEEL, as its papers quote them."""
    known = known_tables()
    assert len(known) == 133 and all(sizes == tuple(sorted(sizes, reverse=True)) for sizes in known.values())
    ratios = {"abalone19": 129.44, "glass1": 1.82, "vowel0": 9.98, "page-blocks0": 8.79, "yeast6": 41.4, "ecoli4": 15.8}
    assert {name: round(known[name][0] / known[name][-1], 2) for name in ratios} == ratios


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("@data\n", "", "no line @data"),
        ("@outputs Class", "@outputs Colour", "@outputs names 'Colour', which no line @attribute does"),
        ("@inputs Doors", "@inputs Seats", "@inputs names 'Seats', which no line @attribute does"),
        ("@attribute Doors integer", "@attribute Doors", "line 2: a line @attribute needs a name"),
        ("'Body style'", "Doors", "line 3: a line @attribute needs a name that no other line has"),
    ],
)
def test_a_damaged_head_is_one_line(tmp_path, old, new, message):
    path = write_cars(tmp_path, head=HEAD.replace(old, new))
    with pytest.raises(BadInput, match=message):
        read_dat(path)


def test_bad_rows_are_named(tmp_path):
    write_cars(tmp_path, extra="3, sedan, 1.0\n4, sedan, dear, positive\n")
    with pytest.raises(DataProblems, match="cars.dat line 49: 3 values, but the head has 4 lines @attribute"):
        load(SECTION, str(tmp_path), 0)
    write_cars(tmp_path, extra="4, sedan, dear, positive\n")
    with pytest.raises(
        DataProblems, match="cars.dat line 49: Price is 'dear', not a number; write a number, or \\? if"
    ):
        load(SECTION, str(tmp_path), 0)
    (tmp_path / "cars.dat").write_bytes(b"@relation \xff")
    with pytest.raises(BadInput, match="cars.dat: not UTF-8 text"):
        load(SECTION, str(tmp_path), 0)
    with pytest.raises(BadInput, match="the KEEL table boats is not in .*data download keel"):
        load(SECTION | dict(table="boats"), str(tmp_path), 0)
