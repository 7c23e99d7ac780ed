"""Published sets of images: made-up files in their layouts, their published counts, and one line for whatever is wrong."""

import csv
import gzip
import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers.data_files import link_images

from imbalance.data import DATASETS, LISTINGS, load
from imbalance.data.sets import breeds as breeds_module
from imbalance.data.sets import chest as chest_module
from imbalance.data.sets import civilcomments, multinli, waterbirds
from imbalance.data.sets import subpopbench as subpop_module
from imbalance.data.sets.breeds import SUBSETS, list_breeds
from imbalance.data.sets.chest import CHEXPERT, MIMIC, list_chexpert, list_cxr_multisite, list_mimic_cxr
from imbalance.data.sets.long_tailed_lists import list_imagenet_lt, list_inaturalist2018, list_places_lt
from imbalance.data.sets.published import PublishedSet, count_problems, draw_stratified
from imbalance.data.sets.spurious import (
    CAMELYON_COUNTS,
    IWILDCAM_COUNTS,
    URBANCARS,
    list_camelyon17,
    list_iwildcam,
    list_spuco,
    list_urbancars,
)
from imbalance.data.sets.subpopbench import METASHIFT, list_imagenet_bg, list_metashift, list_nico_pp
from imbalance.errors import BadInput

LOOSE = dict(size=14, check_counts=False, images_from="store", augment=())
STRICT = dict(size=14, check_counts=True, images_from="store", augment=())


def make(root: Path, names) -> None:
    """Write a small image under each name."""
    link_images(root, list(names), (24, 20))


def by_split(listing) -> list[list[int]]:
    """Return the number of images of each group in each split."""
    return [
        np.bincount(listing.groups[listing.splits == s], minlength=len(listing.group_names)).tolist() for s in range(3)
    ]


def write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def expect_counts(listing) -> None:
    """Check that made-up files are told from the published ones, and that nothing else is wrong with them."""
    (problem,) = map(str, listing.problems)
    assert "not the published" in problem and "config.data.check_counts=False" in problem


def test_the_counts_are_those_of_the_papers():
    """Of SubpopBench (table 1), WILDS, Waterbirds and Whac-A-Mole: examples of train, val and test."""
    totals = {
        civilcomments.PUBLISHED: (269038, 45180, 133782),
        multinli.PUBLISHED: (206175, 82462, 123712),
        CHEXPERT.counts: (167093, 22280, 33419),
        MIMIC.counts: (303591, 17859, 35717),
        subpop_module.IMAGENET_9.counts: (183006, 7200, 4050),
        METASHIFT.counts: (2276, 349, 874),
        subpop_module.NICO_COUNTS: (62657, 8726, 17483),
        tuple(map(sum, waterbirds.PUBLISHED)): (4795, 1199, 5794),
        tuple(map(sum, URBANCARS.counts)): (8000, 1000, 1000),
    }
    assert list(totals) == list(totals.values())


# SubpopBench


def make_metashift(root: Path, n: int = 10) -> Path:
    folder = root / "metashift" / "MetaShift-Cat-Dog-indoor-outdoor"
    make(folder, [f"{part}/{i}.jpg" for part, *_ in subpop_module.METASHIFT_FOLDERS for i in range(n)])
    return folder


def test_metashift_joins_the_folders_and_draws_the_published_splits(tmp_path):
    folder = make_metashift(tmp_path)
    listing = list_metashift(str(tmp_path), metadata="", **LOOSE)
    assert listing.problems == [] and listing.folder == folder
    assert listing.group_names == ("dog, outdoor", "dog, indoor", "cat, outdoor", "cat, indoor")
    assert [sum(counts) for counts in by_split(listing)] == [26, 4, 10]
    for path, group in zip(listing.paths, listing.groups):
        animal, place = path.split("/")[2].removesuffix(")").split("(")
        assert listing.group_names[group] == f"{animal}, {place}"
    # As SubpopBench draws them: the test images first.
    rng = np.random.RandomState(42)
    test = rng.choice(np.arange(40), size=10, replace=False)
    assert sorted(np.flatnonzero(listing.splits == 2)) == sorted(test)
    expect_counts(list_metashift(str(tmp_path), metadata="", **STRICT))


def test_metashift_takes_the_splits_that_subpopbench_wrote_elsewhere(tmp_path):
    make_metashift(tmp_path)
    rows = [
        {
            "filename": f"/scratch/data/MetaShift-Cat-Dog-indoor-outdoor/train/cat/cat(indoor)/{i}.jpg",
            "y": 1,
            "a": 1,
            "split": i % 3,
        }
        for i in range(6)
    ]
    rows += [
        {"filename": "/elsewhere/1.jpg", "y": 1, "a": 1, "split": 0},
        {"filename": "x", "y": 2, "a": 0, "split": 0},
    ]
    write_csv(tmp_path / "metashift" / "metadata_metashift.csv", rows)
    listing = list_metashift(str(tmp_path), metadata="metashift/metadata_metashift.csv", **LOOSE)
    assert listing.paths[0] == "train/cat/cat(indoor)/0.jpg" and listing.splits.tolist() == [0, 1, 2] * 2
    assert [str(problem).split(": ", 1)[1] for problem in listing.problems] == [
        "filename is '/elsewhere/1.jpg', a path without the folder MetaShift-Cat-Dog-indoor-outdoor",
        "y is '2', not a number from 0 to 1",
    ]
    assert listing.where(1).endswith("metadata_metashift.csv line 3")


def test_metashift_trains_from_its_store(tmp_path):
    make_metashift(tmp_path)
    dataset = load(dict(name="metashift", metadata="", **LOOSE), str(tmp_path), 0)
    assert dataset.input_shape == (3, 14, 14) and len(dataset.train) == 26


@pytest.mark.parametrize("test", ["original", "mixed_rand", "no_fg", "only_fg"])
def test_imagenet_9_has_the_chosen_test_images(tmp_path, test):
    parts = (
        "in9l/train",
        "in9l/val",
        *(f"bg_challenge/{kind}/val" for kind in ("original", "mixed_rand", "no_fg", "only_fg")),
    )
    classes = subpop_module.IMAGENET_9.classes
    root = tmp_path / "backgrounds_challenge"
    make(
        root, [f"{part}/0{k}_{name}/{part.split('/')[1]}_{k}.JPEG" for part in parts for k, name in enumerate(classes)]
    )
    listing = list_imagenet_bg(str(tmp_path), test=test, **LOOSE)
    assert listing.problems == listing.split_problems() == []
    assert by_split(listing) == [[1] * 9] * 3 and listing.class_names == listing.group_names == classes
    assert all(f"bg_challenge/{test}/" in listing.paths[row] for row in np.flatnonzero(listing.splits == 2))
    expect_counts(list_imagenet_bg(str(tmp_path), test=test, **STRICT))


def make_nico(root: Path, counts: dict[tuple[str, str], int], labels: dict[str, int]) -> None:
    folder = root / "nicopp"
    make(
        folder / "public_dg_0416",
        [f"train/{a}/{label}/{i:03}.jpg" for (a, label), n in counts.items() for i in range(n)],
    )
    (folder / "dg_label_id_mapping.json").write_text(json.dumps(labels))


def test_nico_holds_out_75_images_of_each_group(tmp_path):
    make_nico(tmp_path, {("autumn", "bear"): 80, ("autumn", "ant"): 20, ("water", "ant"): 77}, {"bear": 1, "ant": 0})
    listing = list_nico_pp(str(tmp_path), metadata="", **LOOSE)
    assert listing.problems == listing.split_problems() == []  # groups without training images are as published
    assert listing.class_names == ("ant", "bear") and listing.group_names[5] == "ant, water"
    train, val, test = by_split(listing)
    assert train == [0, 0, 0, 0, 0, 2, 5, 0, 0, 0, 0, 0]
    assert (val[0], test[0]) == (6, 14) and (val[6], test[6]) == (val[5], test[5]) == (25, 50)
    # As SubpopBench draws them: the groups in the order in which they appear.
    random.seed(666)
    rows = np.arange(80)
    random.shuffle(rows)
    assert sorted(np.flatnonzero(listing.splits == 1)[:25]) == sorted(rows[:25])


def test_nico_with_a_mapping_that_is_none_is_one_line(tmp_path):
    make_nico(tmp_path, {("water", "ant"): 1}, {"bear": 3, "ant": 0})
    with pytest.raises(BadInput, match=r"dg_label_id_mapping.json: not a JSON object from each class name to a number"):
        list_nico_pp(str(tmp_path), metadata="", **LOOSE)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory) -> Path:
    """A folder `imagenet` with a thousand class folders, of which those of living17 have images."""
    root = tmp_path_factory.mktemp("data") / "imagenet"
    wnids = [f"n{number:08}" for number in range(1000)]
    for wnid in wnids:
        (root / "train" / wnid).mkdir(parents=True)
    used = [n for _, *parts in SUBSETS["living17"] for part in parts for n in part]
    make(
        root,
        [f"train/{wnids[n]}/{i}.JPEG" for n in used for i in range(5)]
        + [f"val/{wnids[n]}/{i}.JPEG" for n in used for i in range(3)],
    )
    return root


@pytest.mark.parametrize("test", ["source", "target"])
def test_living17_is_tested_on_subclasses_of_its_own(imagenet, test):
    listing = list_breeds(str(imagenet.parent), subset="living17", test=test, **LOOSE)
    assert listing.problems == listing.split_problems() == []
    assert by_split(listing) == [[9] * 17, [1] * 17, [6] * 17]
    source, target = ([int(number) for label in SUBSETS["living17"] for number in label[part]] for part in (1, 2))
    numbers = [
        {int(listing.paths[row].split("/")[1][1:]) for row in np.flatnonzero(listing.splits == s)} for s in range(3)
    ]
    assert numbers[0] == set(source) and numbers[2] == set(source if test == "source" else target)
    bears = {int(listing.paths[row].split("/")[1][1:]) for row in np.flatnonzero(listing.targets == 12)}
    assert listing.class_names[12] == "bear" and bears <= {297, 295, 296, 294}
    expect_counts(list_breeds(str(imagenet.parent), subset="living17", test=test, **STRICT))


def test_other_breeds_are_disjoint_and_of_their_size():
    for name, sizes in {"living17": (17, 2), "entity13": (13, 10), "entity30": (30, 4), "nonliving26": (26, 2)}.items():
        subset = SUBSETS[name]
        assert len(subset) == len({label for label, _, _ in subset}) == sizes[0]
        assert all(len(part) == sizes[1] for _, *parts in subset for part in parts)
        assert len({n for _, *parts in subset for part in parts for n in part}) == 2 * sizes[0] * sizes[1]


def test_an_imagenet_that_is_incomplete_is_one_line(tmp_path):
    (tmp_path / "imagenet" / "train" / "n01440764").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"train: 1 class folders n…, but ImageNet \(ILSVRC 2012\) has 1000"):
        list_breeds(str(tmp_path), subset="entity13", test="target", **LOOSE)
    assert breeds_module.PER_CLASS * 34 == 1700  # the published count of living17's test images


# Chest X-rays


def make_chexpert(root: Path) -> None:
    patients = [(number, sex) for number in range(1, 61) for sex in ("Male", "Female")]
    patients = [(i, sex) for i, (_, sex) in enumerate(patients, 1)]
    rows = [
        {"Path": f"CheXpert-v1.0-small/train/patient{i:05}/study1/view1_frontal.jpg", "Sex": sex, "Age": 60,
         "No Finding": ("1.0", "1")[i % 2] if i % 5 == 0 else ("", "0", "0.0")[i % 3]}
        for i, sex in patients
    ]  # fmt: skip
    write_csv(root / "chexpert" / "train.csv", rows[:100])
    unknown = {**rows[0], "Path": rows[0]["Path"].replace("00001", "00999"), "Sex": "Unknown"}
    write_csv(root / "chexpert" / "valid.csv", [*rows[100:], unknown])
    races = ["White, non-Hispanic", "Black or African American", "Asian", ""]
    table = [{"PATIENT": f"patient{i:05}", "PRIMARY_RACE": races[(i - 1) // 2 % 4]} for i, _ in patients]
    write_csv(root / "chexpert" / "CHEXPERT DEMO.csv", table)


def test_chexpert_crosses_no_finding_with_sex_and_race(tmp_path):
    make_chexpert(tmp_path)
    listing = list_chexpert(str(tmp_path), **LOOSE)
    assert listing.problems == [] and len(listing.paths) == 120  # a patient of unknown sex is left out
    assert listing.paths[0] == "train/patient00001/study1/view1_frontal.jpg"
    names = [listing.group_names[group] for group in listing.groups[:8]]
    expected = [
        "white man",
        "white woman",
        "black man",
        "black woman",
        "other man",
        "other woman",
        "other man",
        "other woman",
    ]
    assert [name.split(", ")[1] for name in names] == expected
    assert names[4].startswith("no finding") and names[3].startswith("finding")
    # scikit-learn rounds both shares up, and 0.1 / 0.85 of the 102 images is a little above 12.
    assert [sum(counts) for counts in by_split(listing)] == [89, 13, 18]
    expect_counts(list_chexpert(str(tmp_path), **STRICT))


def test_chexpert_without_its_table_of_races_says_where_it_should_be(tmp_path):
    make_chexpert(tmp_path)
    (tmp_path / "chexpert" / "CHEXPERT DEMO.csv").unlink()
    with pytest.raises(
        BadInput, match=r"CheXpert is not in .*CHEXPERT DEMO.xlsx or CHEXPERT DEMO.csv.*download chexpert"
    ):
        list_chexpert(str(tmp_path), **LOOSE)


def test_mimic_joins_its_four_tables(tmp_path):
    folder, people = tmp_path / "MIMIC-CXR-JPG", range(10_000_001, 10_000_121)
    image = [{"dicom_id": f"d{s}", "subject_id": s, "study_id": s + 1, "ViewPosition": "PA"} for s in people]
    write_csv(folder / "mimic-cxr-2.0.0-metadata.csv.gz", [*image, {**image[0], "dicom_id": "other", "study_id": 5}])
    finding = [{"subject_id": s, "study_id": s + 1, "No Finding": "1.0" if s % 3 else ""} for s in people]
    write_csv(folder / "mimic-cxr-2.0.0-negbio.csv.gz", finding)
    ages = [{"subject_id": s, "gender": "MF"[s % 2], "anchor_age": 0 if s == people[-1] else 50} for s in people]
    write_csv(folder / "patients.csv.gz", ages)
    races = [
        {"subject_id": s, "race": ("WHITE - RUSSIAN", "BLACK/AFRICAN AMERICAN", "ASIAN")[s // 2 % 3]} for s in people
    ]
    write_csv(folder / "admissions.csv.gz", [*races[:-10], {"subject_id": people[0], "race": "UNKNOWN"}])
    listing = list_mimic_cxr(str(tmp_path), **LOOSE)
    assert listing.problems == [] and len(listing.paths) == 119  # without the age of 0, and the study without labels
    assert listing.paths[0] == "files/p10/p10000001/s10000002/d10000001.jpg"
    for path, target, group in zip(listing.paths, listing.targets, listing.groups):
        subject = int(path.split("/")[2][1:])
        assert target == bool(subject % 3)
        race = 2 if subject > people[-11] else subject // 2 % 3
        assert group == 6 * target + 2 * race + subject % 2
    expect_counts(list_mimic_cxr(str(tmp_path), **STRICT))


def make_multisite(root: Path) -> tuple[list[dict], list[dict]]:
    """Write the tables of both hospitals, and return their rows."""
    texts = ("", "0.0", "-1.0", "1.0", "0.0", "1", "", "0")
    mimic = [
        {"dicom_id": f"d{i}", "subject_id": 10_000_000 + i // 2, "study_id": 50_000_000 + i, "Pneumonia": texts[i % 8]}
        for i in range(400)
    ]
    folder = root / "MIMIC-CXR-JPG"
    write_csv(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz", [{k: v for k, v in r.items() if k != "Pneumonia"} for r in mimic]
    )
    write_csv(
        folder / "mimic-cxr-2.0.0-negbio.csv.gz", [{k: v for k, v in r.items() if k != "dicom_id"} for r in mimic]
    )
    chexpert = [
        {"Path": f"CheXpert-v1.0-small/{'train' if i < 250 else 'valid'}/patient{i:05}/study1/view1.jpg", "Pneumonia": texts[(i + 3) % 8]}
        for i in range(300)
    ]  # fmt: skip
    write_csv(root / "chexpert" / "train.csv", chexpert[:250])
    write_csv(root / "chexpert" / "valid.csv", chexpert[250:])
    return mimic, chexpert


@pytest.mark.parametrize("test", ["same", "opposite"])
def test_multisite_draws_what_subpopbench_draws(tmp_path, monkeypatch, test):
    """The expected rows come from the steps of its script, in pandas."""
    pandas = pytest.importorskip("pandas")
    from sklearn.model_selection import train_test_split

    mimic, chexpert = make_multisite(tmp_path)
    monkeypatch.setattr(chest_module, "OPPOSITE", 30)
    path = "MIMIC-CXR-JPG/files/p10/p{subject_id}/s{study_id}/{dicom_id}.jpg"
    frame = pandas.DataFrame(
        [{"file": path.format(**r), "text": r["Pneumonia"], "a": 0} for r in mimic]
        + [{"file": "chexpert/" + r["Path"].split("/", 1)[1], "text": r["Pneumonia"], "a": 1} for r in chexpert]
    )
    frame["y"] = pandas.to_numeric(frame["text"]).fillna(0).astype(int).map({-1: 0, 0: 0, 1: 1})

    def mixed(rows, site, replace=False):
        usual, other = rows[rows.a == site], rows[rows.a != site]
        count = int(len(usual) / 0.9) - len(usual)
        return pandas.concat((usual, other.sample(n=count, random_state=42, replace=replace)), ignore_index=True)

    drawn = pandas.concat((mixed(frame[frame.y == 0], 0), mixed(frame[frame.y == 1], 1)), ignore_index=True)
    rest, tested = train_test_split(drawn.index, test_size=0.1, random_state=42, stratify=drawn.y)
    _, validated = train_test_split(rest, test_size=0.05 / 0.9, random_state=42, stratify=drawn.loc[rest, "y"])
    drawn["split"] = 0
    drawn.loc[validated, "split"], drawn.loc[tested, "split"] = 1, 2
    expected = [set(drawn[drawn.split == s].file) for s in range(3)]
    if test == "opposite":
        unused = frame[~frame.file.isin(drawn[drawn.split < 2].file)]
        parts = mixed(unused[unused.y == 0], 1), mixed(unused[unused.y == 1], 0, replace=True)
        deployed = pandas.concat(parts, ignore_index=True).sample(n=30, random_state=42)
        expected[2] = set(deployed.file)
        expected_test = sorted(deployed.file)
    else:
        expected_test = sorted(drawn[drawn.split == 2].file)
    listing = list_cxr_multisite(str(tmp_path), test=test, **LOOSE)
    assert listing.problems == [] and listing.folder == tmp_path
    files = [sorted(listing.paths[row] for row in np.flatnonzero(listing.splits == s)) for s in range(3)]
    assert [set(part) for part in files] == expected and files[2] == expected_test
    truth = {file: 2 * y + a for file, y, a in zip(frame.file, frame.y, frame.a)}
    assert [truth[file] for file in listing.paths] == listing.groups.tolist()
    assert listing.group_names[2] == "pneumonia, MIMIC-CXR"
    expect_counts(list_cxr_multisite(str(tmp_path), test=test, **STRICT))


def test_multisite_names_bad_cells_and_a_set_that_is_too_small(tmp_path):
    _, chexpert = make_multisite(tmp_path)
    write_csv(tmp_path / "chexpert" / "valid.csv", [{**chexpert[0], "Pneumonia": "yes"}])
    (problem,) = list_cxr_multisite(str(tmp_path), test="same", **LOOSE).problems
    assert str(problem).endswith("valid.csv line 2: Pneumonia is 'yes', not empty, -1, 0 or 1")
    write_csv(tmp_path / "chexpert" / "valid.csv", [{**row, "Pneumonia": ""} for row in chexpert[:3]])
    write_csv(tmp_path / "chexpert" / "train.csv", [{**row, "Pneumonia": "1"} for row in chexpert[:250]])
    with pytest.raises(BadInput, match="CXRMultisite needs 33 images of a class and hospital, but there are 3"):
        list_cxr_multisite(str(tmp_path), test="same", **LOOSE)


@pytest.mark.parametrize("about, val, test", [(CHEXPERT, 0.1, 0.15), (MIMIC, 0.05, 0.1)], ids=["chexpert", "mimic_cxr"])
def test_splits_of_all_images_have_the_published_sizes_and_the_shares_of_each_label(about, val, test):
    labels = np.arange(sum(about.counts)) % 6
    splits = draw_stratified(labels, val, test)
    assert tuple(np.bincount(splits)) == about.counts
    shares = np.bincount(6 * splits + labels).reshape(3, 6)
    assert (np.ptp(shares, axis=1) <= 1).all()


# Long-tailed lists


def write_lists(folder: Path, name: str, lists: dict[str, list[str]]) -> None:
    folder.mkdir(parents=True)
    for part, lines in lists.items():
        (folder / f"{name}_{part}.txt").write_text("\n".join(lines) + "\n")


def test_imagenet_lt_and_places_lt_are_read_from_their_lists(tmp_path):
    for name, number, reader, where in (
        ("ImageNet_LT", 1000, list_imagenet_lt, "train/n{0:08}"), ("Places_LT", 365, list_places_lt, "data_256/a/place {0}"),
    ):  # fmt: skip
        lists = {
            part: [f"{where.format(k)}/{part}.jpg {k}" for k in range(number)] for part in ("train", "val", "test")
        }
        write_lists(tmp_path / name, name, lists)
        listing = reader(str(tmp_path), folder=name, **LOOSE)
        assert listing.problems == listing.split_problems() == []
        assert by_split(listing) == [[1] * number] * 3
        assert listing.class_names[7] == ("n00000007" if number == 1000 else "a place 7")
        assert listing.paths[7] == f"{where.format(7)}/train.jpg"
        expect_counts(reader(str(tmp_path), folder=name, **STRICT))


def test_inaturalist_takes_one_of_three_images_of_a_species_as_val(tmp_path):
    lists = {
        "train": [f"train_val2018/Plantae/{k}/a.jpg {k}" for k in range(8142)],
        "val": [f"train_val2018/Plantae/{k}/{i}.jpg {k}" for i in range(3) for k in range(8142)],
    }
    write_lists(tmp_path / "iNaturalist18", "iNaturalist18", lists)
    listing = list_inaturalist2018(str(tmp_path), folder=".", **LOOSE)
    assert listing.class_names[12] == "Plantae 12"
    assert [len(set(counts)) for counts in by_split(listing)] == [1, 1, 1]
    assert [counts[0] for counts in by_split(listing)] == [1, 1, 2]
    assert {listing.paths[row][-5:] for row in np.flatnonzero(listing.splits == 1)} == {"0.jpg"}


def test_bad_lines_and_folders_of_a_list_are_named(tmp_path):
    lists = {part: ["train/n0/a.jpg 0", "nolabel", "train/n1/a.jpg 365"] for part in ("train", "val", "test")}
    write_lists(tmp_path / "places_lt", "Places_LT", lists)
    problems = list_places_lt(str(tmp_path), folder="places_lt", **LOOSE).problems
    assert [str(problem).partition(": ")[0].rpartition("/")[2] for problem in problems] == [
        f"Places_LT_{part}.txt line {line}" for part in lists for line in (2, 3)
    ]
    with pytest.raises(BadInput, match="config.data.folder: no folder .*nowhere"):
        list_places_lt(str(tmp_path), folder="nowhere", **LOOSE)


# Spurious attributes


def test_urbancars_crosses_car_background_and_object(tmp_path):
    names = [
        f"bg-{share}_co_occur_obj-{share}/{part}/obj-{car}_bg-{background}_co_occur_obj-{thing}/000.jpg"
        for part, share in (("train", 0.95), ("val", 0.5), ("test", 0.5))
        for car, background, thing in product(("urban", "country"), repeat=3)
    ]
    make(tmp_path / "urbancars", names)
    listing = list_urbancars(str(tmp_path), **LOOSE)
    assert listing.problems == listing.split_problems() == []
    assert by_split(listing) == [[1] * 8] * 3
    assert listing.group_names[3] == "urban car, country background, country object"
    row = int(np.flatnonzero(listing.groups == 6)[0])
    assert "obj-country_bg-country_co_occur_obj-urban" in listing.paths[row]
    expect_counts(list_urbancars(str(tmp_path), **STRICT))


def test_urbancars_names_every_folder_that_is_missing(tmp_path):
    make(tmp_path / "urbancars", ["bg-0.95_co_occur_obj-0.95/train/obj-urban_bg-urban_co_occur_obj-urban/000.jpg"])
    assert len(list_urbancars(str(tmp_path), **STRICT).problems) == 23


def test_spuco_animals_are_birds_and_dogs(tmp_path):
    names = [
        f"spuco_{half}/{part}/{animal}/{place}/{i}.jpg"
        for half, animals, places in (
            ("birds", ("landbirds", "waterbirds"), ("land", "water")), ("dogs", ("small_dogs", "big_dogs"), ("indoor", "outdoor")),
        )
        for part in ("train", "val", "test") for animal, place in product(animals, places) for i in range(2)
    ]  # fmt: skip
    make(tmp_path, names)
    for subset, groups in (("birds", [2] * 4), ("animals", [2, 2, 0, 0] * 2 + [0, 0, 2, 2] * 2)):
        listing = list_spuco(str(tmp_path), subset=subset, **LOOSE)
        assert listing.problems == listing.split_problems() == [] and by_split(listing) == [groups] * 3
        expect_counts(list_spuco(str(tmp_path), subset=subset, **STRICT))
    assert listing.class_names[2] == "small dogs" and listing.group_names[10] == "small dogs, indoor"
    (problem,) = list_spuco(str(tmp_path), subset="dogs", **STRICT).problems
    assert "((10000, 500, 500, 10000), (500, 25, 25, 500), (500, 500, 500, 500))" in str(problem)


def test_camelyon17_takes_val_from_the_fourth_hospital_or_from_those_of_train(tmp_path):
    rows = [
        {"": i, "patient": f"{i:03}", "node": 3, "x_coord": 10, "y_coord": i, "tumor": i // 10 % 2, "slide": 1, "center": i % 5,
         "split": i // 5 % 2}
        for i in range(20)
    ]  # fmt: skip
    write_csv(tmp_path / "camelyon17_v1.0" / "metadata.csv", rows)
    for val, centers in (("other hospital", {1}), ("same hospitals", {0, 3, 4})):
        listing = list_camelyon17(str(tmp_path), val=val, **LOOSE)
        hospitals = [{int(g) % 5 for g in listing.groups[listing.splits == s]} for s in range(3)]
        assert hospitals == [{0, 3, 4}, centers, {2}] and listing.split_problems() == []
        expect_counts(list_camelyon17(str(tmp_path), val=val, **STRICT))
    assert listing.paths[0] == "patches/patient_000_node_3/patch_patient_000_node_3_x_10_y_0.png"
    rows[4]["center"] = 7
    write_csv(tmp_path / "camelyon17_v1.0" / "metadata.csv", rows)
    (problem,) = list_camelyon17(str(tmp_path), val="other hospital", **LOOSE).problems
    assert str(problem).endswith("metadata.csv line 6: center is '7', not one of 0, 1, 2, 3, 4")


def test_iwildcam_is_tested_on_other_cameras_or_on_other_days(tmp_path):
    parts = list(IWILDCAM_COUNTS)
    rows = [
        {"": i, "split": parts[i // 182], "y": i % 182, "location_remapped": i // 182, "filename": f"{i}.jpg"} for i in range(910)
        if i < 182 or i % 182 < 40  # other cameras do not see all animals
    ]  # fmt: skip
    folder = tmp_path / "iwildcam_v2.0"
    write_csv(folder / "metadata.csv", rows)
    for cameras, places in (("other", ("val", "test")), ("same", ("id_val", "id_test"))):
        listing = list_iwildcam(str(tmp_path), cameras=cameras, **LOOSE)
        assert listing.problems == listing.split_problems() == []
        used = [{rows[row]["split"] for row in listing.indices[listing.splits == s]} for s in range(3)]
        assert used == [{"train"}, *({place} for place in places)]
        assert listing.paths[5] == "train/5.jpg" and listing.class_names[5] == "class 5"
        expect_counts(list_iwildcam(str(tmp_path), cameras=cameras, **STRICT))
    write_csv(
        folder / "categories.csv", [{"y": 5, "name": "jaguar"}, {"y": 6, "name": "jaguar"}, {"y": 99999, "name": "x"}]
    )
    assert list_iwildcam(str(tmp_path), cameras="other", **LOOSE).class_names[4:7] == ("class 4", "jaguar", "class 6")
    write_csv(folder / "metadata.csv", rows[:9] + rows[10:])
    (problem,) = list_iwildcam(str(tmp_path), cameras="other", **LOOSE).split_problems()
    assert "the train split has no example of class 'class 9'" in str(problem)
    write_csv(folder / "metadata.csv", [{**rows[0], "y": 182}, {**rows[1], "split": "dev"}])
    causes = [str(p).partition(": ")[2] for p in list_iwildcam(str(tmp_path), cameras="other", **LOOSE).problems]
    assert causes == [
        "y is '182', not a number from 0 to 181",
        "split is 'dev', not one of train, val, test, id_val, id_test",
    ]


# All


@pytest.mark.parametrize(
    "about",
    [METASHIFT, URBANCARS, PublishedSet("camelyon17", "Camelyon17", ("a", "b"), (), CAMELYON_COUNTS["other hospital"])],
    ids=lambda about: about.name,
)
def test_published_counts_are_accepted_and_one_image_more_is_not(about):
    by_group = [[counts] if isinstance(counts, int) else counts for counts in about.counts]
    groups = np.concatenate([np.repeat(np.arange(len(counts)), counts) for counts in by_group])
    splits = np.repeat(np.arange(3), [sum(counts) for counts in by_group])
    assert count_problems(about, Path("x"), groups, splits) == []
    assert len(count_problems(about, Path("x"), np.append(groups, 1), np.append(splits, 1))) == 1


@pytest.mark.parametrize("name", [name for name in LISTINGS if name not in ("table", "folder")])
def test_a_set_that_is_not_there_says_where_it_should_be(tmp_path, name):
    from examples import EXAMPLES

    with pytest.raises(BadInput, match=rf"^config.data_dir: .* is not in {tmp_path}; it must be at .*download"):
        DATASETS[name](str(tmp_path), **EXAMPLES["data"][name].settings)
