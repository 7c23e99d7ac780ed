"""Waterbirds, CelebA and tables: every layout, the published counts, and one line for whatever is wrong with a file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_files import link_images, make_celeba, make_table, make_waterbirds, rows_of_table, save_image

from imbalance.data import LISTINGS
from imbalance.data.sets.celeba import FINGERPRINT, PAPERS_TRAIN, celeba, draw_train, list_celeba
from imbalance.data.sets.table import table
from imbalance.data.sets.waterbirds import GROUPS, PUBLISHED, REGENERATED_TRAIN, list_waterbirds, waterbirds
from imbalance.errors import BadInput


def counts(listing) -> list[list[int]]:
    groups = len(listing.group_names)
    return [np.bincount(listing.groups[listing.splits == split], minlength=groups).tolist() for split in range(3)]


# Waterbirds


@pytest.mark.parametrize(
    "layout",
    [
        "cub/data/waterbird_complete95_forest2water2",
        "waterbirds_v1.0",
        "waterbirds",
        "waterbird_complete95_forest2water2",
    ],
)
def test_waterbirds_has_the_published_counts_in_every_layout(tmp_path, layout):
    make_waterbirds(tmp_path, layout)
    listing = list_waterbirds(str(tmp_path), size=16, regenerated=False, augment=())
    assert listing.problems == listing.split_problems() == []
    assert counts(listing) == [list(of_split) for of_split in PUBLISHED]
    assert listing.group_names == GROUPS
    assert (listing.groups // 2 == listing.targets).all()
    assert listing.where(0) == f"{tmp_path / layout / 'metadata.csv'} line 2"


def test_waterbirds_trains_from_its_store(tmp_path):
    make_waterbirds(tmp_path, counts=((4, 2, 2, 4), (2, 2, 2, 2), (2, 2, 2, 2)), images=True)
    dataset = waterbirds(str(tmp_path), size=16, regenerated=True, augment=("flip",))
    assert dataset.group_counts(dataset.train).tolist() == [4, 2, 2, 4]
    assert dataset.input_shape == (3, 16, 16) and len(dataset.test) == 8
    assert dataset.train.inputs[torch.tensor([0, 11])].shape == (2, 3, 16, 16)
    assert dataset.augmentations == ("flip",)
    assert dataset.test.indices.tolist() == list(range(20, 28))


def test_a_regenerated_waterbirds_is_named_and_taken_only_if_the_config_says_so(tmp_path):
    make_waterbirds(tmp_path, counts=(REGENERATED_TRAIN, *PUBLISHED[1:]))
    (problem,) = map(str, list_waterbirds(str(tmp_path), size=16, regenerated=False, augment=()).problems)
    assert "regenerated with another seed" in problem and "config.data.regenerated=True" in problem
    assert list_waterbirds(str(tmp_path), size=16, regenerated=True, augment=()).problems == []


def test_the_published_waterbirds_is_not_called_regenerated(tmp_path):
    make_waterbirds(tmp_path)
    (problem,) = map(str, list_waterbirds(str(tmp_path), size=16, regenerated=True, augment=()).problems)
    assert "set config.data.regenerated=False" in problem


@pytest.mark.parametrize("split", range(3))
def test_waterbirds_with_any_group_exchanged_is_refused(tmp_path, split):
    file = make_waterbirds(tmp_path)
    text = file.read_text()
    file.write_text(text.replace(f",0,{split},0,", f",0,{split},1,", 1))
    with pytest.raises(BadInput, match="not the published Waterbirds"):
        waterbirds(str(tmp_path), size=16, regenerated=False, augment=())


def test_waterbirds_names_every_bad_line(tmp_path):
    file = make_waterbirds(tmp_path)
    lines = file.read_text().splitlines()
    lines[3], lines[5], lines[8] = lines[3] + ",x", lines[5].replace(",0,0,0,", ",2,0,0,"), "9,cut"
    file.write_text("\n".join(lines))
    problems = list_waterbirds(str(tmp_path), size=16, regenerated=False, augment=()).problems
    assert list(map(str, problems)) == [
        f"{file} line 4: 7 fields, the heading has 6",
        f"{file} line 9: 2 fields, the heading has 6",
        f"{file} line 6: y is '2', not one of 0, 1",
    ]


def test_no_waterbirds_says_where_it_should_be(tmp_path):
    with pytest.raises(
        BadInput, match=r"^config.data_dir: Waterbirds is not in .*waterbirds_v1.0/metadata.csv.*download"
    ):
        list_waterbirds(str(tmp_path), size=16, regenerated=False, augment=())


# CelebA

PAPER = dict(
    target="Blond_Hair",
    confounders=("Male",),
    train_fraction=0.02,
    val_fraction=1.0,
    test="balanced",
    subset_seed=0,
    size=8,
    augment=(),
)


@pytest.fixture(scope="module")
def celeba_dir(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("celeba")
    make_celeba(root, "txt", line_end="\r\n", mark="\ufeff")
    return str(root)


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_celeba_has_the_published_counts_and_the_papers_subset_in_both_layouts(tmp_path, celeba_dir, kind):
    if kind == "csv":
        make_celeba(tmp_path, "csv", mark="\ufeff")
        celeba_dir = str(tmp_path)
    listing = list_celeba(celeba_dir, **PAPER)
    assert listing.problems == []
    assert counts(listing) == [list(PAPERS_TRAIN), list(FINGERPRINT[1]), [180] * 4]
    whole = list_celeba(celeba_dir, **PAPER | dict(train_fraction=1.0, test="full"))
    assert counts(whole) == [list(of_split) for of_split in FINGERPRINT]
    assert listing.group_names[1] == "not blond hair, male" and listing.class_names == ("not blond hair", "blond hair")


def test_celebas_subset_is_that_of_the_paper(celeba_dir):
    split = np.repeat([0, 1, 2], [162770, 19867, 19962])
    paper = np.random.default_rng(0).choice(np.where(split == 0)[0], 3255, replace=False)
    listing = list_celeba(celeba_dir, **PAPER)
    assert set(listing.indices[listing.splits == 0]) == set(paper)
    assert listing.paths[0] == f"{listing.indices[0] + 1:06}.jpg"
    other = list_celeba(celeba_dir, **PAPER | dict(subset_seed=1))
    assert set(other.indices[other.splits == 0]) != set(paper)


@pytest.mark.parametrize(("fraction", "size"), [(0.01, 1628), (0.02, 3255), (1.0, 162770)])
def test_a_fraction_of_celeba_is_rounded_as_by_the_paper_s_code(fraction, size):
    """A hundredth of 162,770 images is 1,627.7: 1,628 images, and not the same ones as 1,627 would be."""
    split = np.repeat([0, 1, 2], [162770, 19867, 19962])
    paper = np.random.default_rng(0).choice(np.where(split == 0)[0], size, replace=False)
    assert draw_train(split, fraction, 0).tolist() == sorted(paper)


def test_celebas_val_fraction_is_that_of_every_group(celeba_dir):
    listing = list_celeba(celeba_dir, **PAPER | dict(val_fraction=0.1))
    assert counts(listing)[1] == [854, 828, 287, 18]


def test_celeba_takes_any_attributes(celeba_dir):
    listing = list_celeba(
        celeba_dir, **PAPER | dict(target="Male", confounders=("Blond_Hair", "Attribute_3"), test="full")
    )
    assert len(listing.group_names) == 8 and listing.group_names[6] == "male, blond hair, not attribute 3"
    assert counts(listing)[2] == [9767, 0, 2480, 0, 7535, 0, 180, 0]
    assert "has no example of group 'not male, not blond hair, attribute 3'" in str(listing.split_problems()[0])
    alone = list_celeba(celeba_dir, **PAPER | dict(confounders=()))
    assert alone.group_names == alone.class_names and (alone.groups == alone.targets).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(target="Blonde"), r"no attribute 'Blonde' in .*Blond_Hair"),
        (dict(confounders=("Male", "Blond_Hair")), "all must differ"),
    ],
)
def test_celeba_refuses_attributes_that_are_not_there(celeba_dir, change, reason):
    with pytest.raises(BadInput, match=reason):
        list_celeba(celeba_dir, **PAPER | change)


@pytest.mark.parametrize("name", ["list_attr_celeba.csv", "list_eval_partition.csv"])
def test_celeba_with_pandas_index_is_one_line(tmp_path, name):
    """Not one for each of 202,599 images."""
    file = make_celeba(tmp_path, "csv").with_name(name)
    lines = file.read_text().splitlines()
    file.write_text("\n".join(f"{i or ''},{line}" for i, line in enumerate(lines)))
    with pytest.raises(
        BadInput, match=rf"{name} line 1: the first column has no name, most likely because pandas wrote"
    ):
        list_celeba(str(tmp_path), **PAPER)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0\0", b"5\n", b"\xff\xfe,"])
@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_celeba_of_next_to_nothing_is_one_line(tmp_path, celeba_dir, name, content):
    (tmp_path / "celeba" / "img_align_celeba").mkdir(parents=True)
    for file in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        lines = (Path(celeba_dir) / "celeba" / file).read_bytes().splitlines(True)[:30]
        (tmp_path / "celeba" / file).write_bytes(content if file == name else b"".join(lines))
    with pytest.raises(BadInput) as error:
        celeba(str(tmp_path), **PAPER)
    assert "\n" not in str(error.value)


def test_celebas_bad_lines_are_all_named(tmp_path):
    attributes = make_celeba(tmp_path, "txt")
    partition = attributes.with_name("list_eval_partition.txt")
    lines = attributes.read_text().splitlines()
    lines[10], lines[20], lines[30] = lines[10][:-2], lines[20].replace("-1", "7"), lines[30] + " 1"
    attributes.write_text("\n".join(lines))
    splits = partition.read_text().splitlines()
    splits[40], splits[50] = splits[40][:-1] + "3", splits[50][:-2]
    partition.write_text("\n".join(splits))
    problems = list(map(str, list_celeba(str(tmp_path), **PAPER).problems))
    assert any(f"{attributes} line 21: Male is not 1 or -1" in problem for problem in problems)
    assert any(f"{attributes} line 31: 42 fields, not 41" in problem for problem in problems)
    assert any(f"{partition} line 41: the split is not 0, 1 or 2" in problem for problem in problems)
    assert any(f"{partition} line 51: 1 fields, not 2" in problem for problem in problems)
    assert sum("is not listed" in problem for problem in problems) == 1


def test_half_of_celeba_is_not_celeba(tmp_path):
    attributes = make_celeba(tmp_path, "txt")
    content = attributes.read_bytes()
    attributes.write_bytes(content[: len(content) // 2])
    problems = list(map(str, list_celeba(str(tmp_path), **PAPER).problems))
    assert any("line 1: says '202599' images, 101" in problem for problem in problems)


def test_celeba_in_another_order_is_refused(tmp_path):
    attributes = make_celeba(tmp_path, "csv")
    lines = attributes.read_text().splitlines()
    values = [line.split(",", 1)[1] for line in lines[1:162771]]
    lines[1:162771] = [f"{i:06}.jpg,{value}" for i, value in enumerate(reversed(values), 1)]
    attributes.write_text("\n".join(lines))
    (problem,) = map(str, list_celeba(str(tmp_path), **PAPER).problems)
    assert "not the published CelebA" in problem


def test_celeba_trains_from_its_store(celeba_dir):
    small = PAPER | dict(train_fraction=0.003, val_fraction=0.005)
    listing = list_celeba(celeba_dir, **small)
    with pytest.raises(BadInput, match=r"list_attr_celeba.* line \d+: \d+.jpg: no such file .* more: "):
        celeba(celeba_dir, **small)
    link_images(listing.folder, listing.paths, (178, 218))
    dataset = celeba(celeba_dir, **small)
    assert dataset.input_shape == (3, 8, 8) and len(dataset.train) == 488
    assert dataset.group_counts(dataset.test).tolist() == [180] * 4


# Tables

TABLE = dict(
    file="birds.csv", delimiter=",", folder="images", path="path", target="target", classes=("land", "water"),
    groups=("target", "place"), split="split", val_fraction=0.0, test_fraction=0.0, mode="RGB", convert=False,
    resize=20, size=16, augment=(),
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


@pytest.mark.parametrize("groups", [("target",), ("group",)])
def test_groups_of_a_table_are_its_classes_or_a_column(tmp_path, groups):
    rows = [f"{row},{'ab'[i % 2]}" for i, row in enumerate(rows_of_table())]
    make_table(tmp_path, rows, heading="path,target,place,split,group", images=False)
    listing = LISTINGS["table"](str(tmp_path), 0, **TABLE | dict(groups=groups))
    assert listing.group_names == (("land", "water") if groups == ("target",) else ("a", "b"))
    assert counts(listing) == [[4, 4]] * 3


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
        (lambda t: t.replace("path,target", "file,target"), r"birds.csv line 1: no column 'path', where one is needed; there are file, target"),
        (lambda t: t.replace("target,place", "target,target"), r"line 1: 2 columns 'target'"),
        (lambda t: t.replace("0.png,land", "0.png,sky", 1), r"birds.csv line 6: target is 'sky', not one of land, water"),
        (lambda t: t.replace("sea,train", "sea,training", 1), r"line 2: split is 'training', not one of train, val, test"),
        (lambda t: t.replace("1.png,water", "1.png", 1), r"line 3: 3 fields, the heading has 4"),
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
        (lambda t: t + '"unclosed,land,sea,train\n', r"line 2\d: unexpected end of data"),
        (lambda t: "", r"line 1: no column 'path', where one is needed; there are none"),
        (lambda t: t.replace(",split", ",part"), r"line 1: no column 'split', where one is needed; there are path, target, place, part"),
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
        (dict(groups=("place", "place")), "config.data.groups"),
        (dict(split=""), "config.data.val_fraction: 0.0 given; it must be above 0"),
        (dict(delimiter=";"), "line 1: no column 'path', where one is needed; there are path,target,place,split"),
        (dict(groups=("colour",)), "no column 'colour'"),
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
    listing = LISTINGS["table"](str(tmp_path), 0, **TABLE | dict(groups=("a", "b")))
    assert listing.group_names == ('"""x", z', 'x, "y, z"', '"x, y", z')
    assert listing.split_problems() == [] and counts(listing) == [[2, 2, 2]] * 3


def test_a_class_that_a_split_lacks_is_refused_whatever_the_groups_are(tmp_path):
    make_table(
        tmp_path,
        [row.replace(",water,", ",bog,") if "/1.png" in row else row for row in rows_of_table(2)],
        images=False,
    )
    file = tmp_path / "birds.csv"
    values = TABLE | dict(classes=("land", "water", "bog"), groups=("place",))
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
    with pytest.raises(BadInput, match=f"^{tmp_path}/{file}: a .*, not a file$"):
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
