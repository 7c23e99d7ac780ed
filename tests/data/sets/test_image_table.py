"""Tables of images: splits, groups, encodings, and one line for whatever is wrong with a file."""

import os

import numpy as np
import pytest
from conftest import ROOT
from helpers.data_files import make_table, rows_of_table, save_image
from PIL import Image

from imbalance.config.resolve import load
from imbalance.data import LISTINGS
from imbalance.data.sets.image_table import table
from imbalance.errors import BadInput
from imbalance.training.loop import train


def counts(listing) -> list[list[int]]:
    groups = len(listing.group_names)
    return [np.bincount(listing.groups[listing.splits == split], minlength=groups).tolist() for split in range(3)]


TABLE = dict(
    file="birds.csv", delimiter=",", folder="images", path="path", target="target", classes=("land", "water"),
    attributes=("place",), split="split", val_fraction=0.0, test_fraction=0.0, mode="RGB", convert=False, reduce=False,
    resize=20, size=16, images_from="store", augment=(),
)  # fmt: skip


@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")])
def test_a_table_is_a_data_set_whatever_its_line_ends_and_mark(tmp_path, start, end):
    make_table(tmp_path, rows_of_table(), start=start, end=2 * end)  # blank lines are none
    dataset = table(str(tmp_path), 0, **TABLE)
    assert dataset.group_names == ("land, field", "land, sea", "water, field", "water, sea")
    for name in ("train", "val", "test"):
        assert dataset.group_counts(getattr(dataset, name)).tolist() == [2] * 4
    assert dataset.train.targets.tolist() == [1] * 4 + [0] * 4
    assert dataset.test.inputs[0:2].shape == (2, 3, 16, 16)


def test_a_table_without_splits_is_divided_by_group(tmp_path):
    rows = [row.rsplit(",", 1)[0] for row in rows_of_table(10)]
    make_table(tmp_path, rows, heading="path,target,place", images=False)
    values = TABLE | dict(split="", val_fraction=0.2, test_fraction=0.1)
    listing = LISTINGS["table"](str(tmp_path), 0, **values)
    assert counts(listing) == [[21] * 4, [6] * 4, [3] * 4]
    again, other = (LISTINGS["table"](str(tmp_path), seed, **values).splits for seed in (0, 1))
    assert (again == listing.splits).all() and (other != listing.splits).any()


@pytest.mark.parametrize(
    ("attributes", "names", "size"),
    [((), ("land", "water"), 4), (("group",), ("land, a", "land, b", "water, a", "water, b"), 2)],
)
def test_groups_of_a_table_are_its_classes_or_their_combinations_with_columns(tmp_path, attributes, names, size):
    rows = [f"{row},{'ab'[i % 2]}" for i, row in enumerate(rows_of_table())]
    make_table(tmp_path, rows, heading="path,target,place,split,group", images=False)
    listing = LISTINGS["table"](str(tmp_path), 0, **TABLE | dict(attributes=attributes))
    assert listing.group_names == names and counts(listing) == [[size] * len(names)] * 3


def test_grey_images_are_taken_where_the_config_says_so(tmp_path):
    make_table(tmp_path, rows_of_table(), images=False)
    for row in rows_of_table():
        save_image(tmp_path / "images" / row.split(",")[0], mode="L")
    with pytest.raises(BadInput, match=r"birds.csv line 2: train/water/sea/0.png: an image of mode L, not RGB"):
        table(str(tmp_path), 0, **TABLE)
    assert table(str(tmp_path), 0, **TABLE | dict(mode="L")).input_shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.replace("path,target", "file,target"), r"birds.csv line 1: no column 'path', but exactly one is needed; the heading has file, target"),
        (lambda t: t.replace("target,place", "target,target"), r"line 1: 2 columns 'target'"),
        (lambda t: t.replace("0.png,land", "0.png,sky", 1), r"birds.csv line 6: target is 'sky', not one of land, water"),
        (lambda t: t.replace("sea,train", "sea,training", 1), r"line 2: split is 'training', not one of train, val, test"),
        (lambda t: t.replace("1.png,water", "1.png", 1), r"line 3: 3 fields, but the heading has 4; each line needs as many"),
        (lambda t: t.replace("water/sea/1.png", "water/sea/0.png", 1), r"line 3: 'train/water/sea/0.png' is on line 2 already"),
        (lambda t: t.replace("water/sea/1.png", "water/sea/../sea/./0.png", 1), r"line 3: '.*' is on line 2 already"),
        (lambda t: t.replace("water,sea,train", ",sea,train", 1), r"line 2: target is '', not one of land, water"),
        (lambda t: t.replace("water,sea,train", "water,,train", 1), r"line 2: place is ''; it must not be empty, or begin or end with a space"),
        (lambda t: t.replace("water,sea,train", "water,sea ,train", 1), r"line 2: place is 'sea '; it must not be empty, or begin or end with a space"),
        (lambda t: t.replace(",sea,", ",s\x1bea,"), r"group 'land, s.x1bea' has a character that cannot be printed"),
        (lambda t: t.replace(",sea,", ",s\u202eea,"), r"group 'land, s.u202eea' has a character that cannot be printed"),
        (lambda t: t.replace("0.png,water", "0\0.png,water", 1), r"0.x00.png': embedded null byte in the name|line contains NUL"),
        (lambda t: t.replace("water,sea,val", "water,field,val"), r"the val split has no example of group 'water, sea'"),
        (lambda t: t.replace(",water,", ",land,"), r"the train split has only class 'land'; it needs two"),
        (lambda t: t.replace(",test", ",val"), r"^config.data.test_fraction: 0.0 given; it must be above 0, because .* has no test examples"),
        (lambda t: t.split("\n")[0], r"the train split has no example"),
        (lambda t: t + '"unclosed,land,sea,train\n', r"line 2\d: not valid CSV .unexpected end of data.; mend"),
        (lambda t: "", r"line 1: no column 'path', but exactly one is needed; the heading has no column"),
        (lambda t: t.replace(",split", ",part"), r"line 1: no column 'split', but exactly one is needed; the heading has path, target, place, part"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_one_line(tmp_path, change, reason):
    make_table(tmp_path, rows_of_table(), images=False)
    file = tmp_path / "birds.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(BadInput, match=reason) as error:
        table(str(tmp_path), 0, **TABLE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (dict(classes=("land", "land")), "config.data.classes"),
        (dict(attributes=("place", "place")), "config.data.attributes: .* name each column once"),
        (dict(attributes=("place", "target")), "config.data.attributes: .* leave out 'target'"),
        (dict(split=""), "config.data.val_fraction: 0.0 given; it must be above 0"),
        (
            dict(delimiter=";"),
            "line 1: no column 'path', but exactly one is needed; the heading has path,target,place,split",
        ),
        (dict(attributes=("colour",)), "no column 'colour'"),
        (dict(size=21), "config.data.size: 21 given; it must be at most config.data.resize=20"),
        (dict(split="", val_fraction=0.5, test_fraction=0.5), "leaves no training set"),
        (dict(val_fraction=0.1), "config.data.val_fraction: 0.1 given; it must be 0.0, because .* has val examples"),
        (dict(file="none.csv"), "none.csv: No such file"),
    ],
)
def test_values_that_do_not_go_together_are_one_line(tmp_path, values, reason):
    make_table(tmp_path, rows_of_table(), images=False)
    with pytest.raises(BadInput, match=reason):
        table(str(tmp_path), 0, **TABLE | values)


def test_accents_are_the_same_however_they_are_written(tmp_path):
    """Composed in the config, decomposed in half of the table, as macOS writes them."""
    rows = [
        row.replace("water,sea", "Vögel,gr\u00fcn" if i % 2 else "Vo\u0308gel,gru\u0308n")
        for i, row in enumerate(rows_of_table())
    ]
    make_table(tmp_path, rows, images=False)
    listing = LISTINGS["table"](str(tmp_path), 0, **TABLE | dict(classes=("land", "water", "Vo\u0308gel")))
    assert listing.problems == [] and listing.group_names[-1] == "V\u00f6gel, gr\u00fcn"
    assert counts(listing)[0][-1] == 2


def test_groups_whose_values_have_commas_keep_names_of_their_own(tmp_path):
    rows = [f'{s}/{i}{j}.png,{t},"{a}","{b}",{s}'
            for s in ("train", "val", "test") for i, t in enumerate(("land", "water"))
            for j, (a, b) in enumerate((("x, y", "z"), ("x", "y, z"), ('""x', "z")))]  # fmt: skip
    make_table(tmp_path, rows, heading="path,target,a,b,split", images=False)
    listing = LISTINGS["table"](str(tmp_path), 0, **TABLE | dict(attributes=("a", "b")))
    names = ('"""x", z', 'x, "y, z"', '"x, y", z')
    assert listing.group_names == tuple(f"{target}, {name}" for target in ("land", "water") for name in names)
    assert listing.split_problems() == [] and counts(listing) == [[1] * 6] * 3


def test_a_class_that_a_split_lacks_is_refused_whatever_the_groups_are(tmp_path):
    make_table(
        tmp_path,
        [row.replace(",water,", ",bog,") if "/1.png" in row else row for row in rows_of_table(2)],
        images=False,
    )
    file = tmp_path / "birds.csv"
    values = TABLE | dict(classes=("land", "water", "bog"), attributes=())
    assert LISTINGS["table"](str(tmp_path), 0, **values).split_problems() == []
    for split in ("train", "test"):
        text = file.read_text()
        file.write_text("".join(line for line in text.splitlines(True) if not ("bog" in line and f",{split}" in line)))
        with pytest.raises(BadInput, match=f"birds.csv: the {split} split has no example of class 'bog'"):
            table(str(tmp_path), 0, **values)
        file.write_text(text)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("file", ["birds.csv", "birds.csv.gz", "birds.parquet"])
def test_a_table_that_is_no_file_is_not_waited_for(tmp_path, make, file):
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow")
    make(tmp_path / file)
    with pytest.raises(
        BadInput, match=f"^{tmp_path}/{file}: a .*, not a file; name a (CSV|Parquet) file that can be read$"
    ):
        table(str(tmp_path), 0, **TABLE | dict(file=file))


def test_missing_values_of_a_parquet_column_are_no_group(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "path": ["a", "b", "c", "d", "e"],
        "target": ["land"] * 5,
        "place": [1.0, 2.0, 3.0, None, float("nan")],
        "split": ["train", "val", "test", "train", "train"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "birds.parquet")
    problems = LISTINGS["table"](str(tmp_path), 0, **TABLE | dict(file="birds.parquet")).problems
    assert [problem.place.split()[-1] for problem in problems] == ["4", "5"] and "place is ''" in problems[0].cause


def test_a_table_in_another_encoding_is_one_line(tmp_path):
    (tmp_path / "birds.csv").write_bytes("path,target,place\nVögel.png,land,sea\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"birds.csv: not UTF-8 text"):
        table(str(tmp_path), 0, **TABLE)


def test_parquet_is_read_like_csv_or_names_what_is_missing(tmp_path, monkeypatch):
    make_table(tmp_path, rows_of_table())
    values = TABLE | dict(file="birds.parquet")
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(BadInput, match=r"birds.parquet: reading Parquet needs pyarrow: pip install pyarrow"):
            table(str(tmp_path), 0, **values)
    pyarrow_csv, parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow_csv.read_csv(tmp_path / "birds.csv"), tmp_path / "birds.parquet")
    ours, theirs = (LISTINGS["table"](str(tmp_path), 0, **v) for v in (TABLE, values))
    assert list(ours.paths) == list(theirs.paths) and counts(ours) == counts(theirs)
    os.truncate(tmp_path / "birds.parquet", 100)
    with pytest.raises(BadInput, match=r"birds.parquet: "):
        table(str(tmp_path), 0, **values)


def test_a_table_says_which_columns_it_means_and_needs_no_groups(tmp_path):
    lines = ["file;kind;part"]
    for part in ("train", "val", "test"):
        for label in ("b", "a"):
            save_image(tmp_path / f"{part}{label}.png")
            lines.append(f"{part}{label}.png;{label};{part}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    values = dict(file="list.csv", delimiter=";", folder="", path="file", target="kind", classes=("a", "b"), attributes=(),
                  split="part", val_fraction=0.0, test_fraction=0.0, mode="RGB", convert=False, reduce=False, resize=20, size=16,
                  images_from="store", augment=())  # fmt: skip
    dataset = table(str(tmp_path), 0, **values)
    assert dataset.class_names == dataset.group_names == ("a", "b")
    assert dataset.train.targets.tolist() == dataset.train.groups.tolist() == [1, 0]


def test_table_small_learns_in_a_moment_from_scratch(tmp_path):
    """Light against dark noise, grey and with transparency too."""
    lines, rng = ["path,target"], np.random.default_rng(0)
    for i in range(80):
        pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8) + np.uint8(127 * (i % 2))
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).convert(("RGB", "L", "RGBA")[i % 3]).save(tmp_path / "images" / f"{i}.png")
        lines.append(f"{i}.png,{('negative', 'positive')[i % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    config = load(ROOT / "configs" / "table_small.py")
    config.update(data_dir=str(tmp_path), work_dir=str(tmp_path / "runs"))
    config.trainer.update(epochs=6, batch_size=16)
    assert train(config)["metrics"]["test/balanced_accuracy"] > 0.9
