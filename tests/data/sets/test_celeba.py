"""CelebA: both layouts, the published counts and subset, and one line for whatever is wrong with its files."""

from pathlib import Path

import numpy as np
import pytest
from helpers.data_files import link_images, make_celeba

from imbalance.data.sets.celeba import FINGERPRINT, PAPERS_TRAIN, celeba, draw_train, list_celeba
from imbalance.errors import BadInput


def counts(listing) -> list[list[int]]:
    groups = len(listing.group_names)
    return [np.bincount(listing.groups[listing.splits == split], minlength=groups).tolist() for split in range(3)]


PAPER = dict(
    target="Blond_Hair",
    confounders=("Male",),
    train_fraction=0.02,
    val_fraction=1.0,
    test="balanced",
    subset_seed=0,
    size=8,
    images_from="store",
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
        (dict(confounders=("Male", "Blond_Hair")), "must all differ"),
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
    assert any(f"{attributes} line 31: 42 fields, but 41 are needed" in problem for problem in problems)
    assert any(f"{partition} line 41: the split is not 0, 1 or 2" in problem for problem in problems)
    assert any(f"{partition} line 51: 1 fields, but 2 are needed" in problem for problem in problems)
    assert sum("is not listed" in problem for problem in problems) == 1


def test_half_of_celeba_is_not_celeba(tmp_path):
    attributes = make_celeba(tmp_path, "txt")
    content = attributes.read_bytes()
    attributes.write_bytes(content[: len(content) // 2])
    problems = list(map(str, list_celeba(str(tmp_path), **PAPER).problems))
    assert any("line 1: says '202599' images, but 101" in problem for problem in problems)


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
    with pytest.raises(BadInput, match=r"list_attr_celeba.* line \d+: \d+.jpg: no such file \(and [\d,]+ more\)"):
        celeba(celeba_dir, **small)
    link_images(listing.folder, listing.paths, (178, 218))
    dataset = celeba(celeba_dir, **small)
    assert dataset.input_shape == (3, 8, 8) and len(dataset.train) == 488
    assert dataset.group_counts(dataset.test).tolist() == [180] * 4
