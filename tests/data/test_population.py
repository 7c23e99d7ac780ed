"""What a data set must have to be trained and evaluated on, and what it may lack with a word on it."""

import gzip
import io
import os
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from ml_collections.config_dict import create

from imbalance.data import load
from imbalance.data.population import check_population, missing_examples, name_problems
from imbalance.data.sets.fashion import read_idx
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput
from imbalance.training.loop import train
from imbalance.utils.memory import available_memory

COLORED = dict(
    name="colored_digits", train_per_group=(60, 4, 4, 30), saturation=0.5, val_fraction=0.1, test_fraction=0.1
)
DIGITS = dict(
    name="digits",
    classes=(0, 1, 2),
    imbalance="none",
    imbalance_ratio=1.0,
    total=0,
    val_fraction=0.2,
    test_fraction=0.2,
)
GAUSSIAN = dict(
    name="gaussian", dim=3, means=((1.0,), (0.0, 1.0)), scale=1.0, radius=0.0,
    train_per_class=(5, 5), val_per_class=(5, 5), test_per_class=(5, 5),
)  # fmt: skip


def dataset_of(*splits: list[tuple[int, int]], classes=("a", "b", "c"), groups=("x", "y")) -> Dataset:
    """Splits of (class, group)."""
    parts = []
    for pairs in splits:
        targets, of_groups = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
        parts.append(Split(torch.zeros(len(pairs), 1), targets, of_groups, torch.arange(len(pairs))))
    return Dataset(*parts, classes, groups)


WHOLE = [(0, 0), (1, 1), (2, 0)]


def test_a_whole_data_set_needs_no_word():
    data = dataset_of(WHOLE, WHOLE, WHOLE)
    assert check_population(data) is data and missing_examples(data) == []


@pytest.mark.parametrize(
    ("splits", "reason"),
    [
        ((WHOLE[:2], WHOLE, WHOLE), "config.data: the train split has no example of class 'c'"),
        (([], WHOLE, WHOLE), "the train split has no example; it needs two classes or more"),
        ((WHOLE, [], WHOLE), "the val split has no example; it needs two classes"),
        ((WHOLE, WHOLE, WHOLE[:1]), "the test split has only class 'a'; it needs two classes"),
    ],
)
def test_what_cannot_be_learnt_or_measured_is_refused(splits, reason):
    with pytest.raises(BadInput, match=reason):
        check_population(dataset_of(*splits))


def test_what_a_config_may_ask_for_gets_a_remark():
    data = check_population(dataset_of([(0, 0), (1, 0), (2, 0)], WHOLE[:2], WHOLE))
    assert missing_examples(data) == [
        "the train split has no example of group 'y'",
        "the val split has no example of class 'c'",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("b", "appears 2 times"),
        ("", "is empty, or begins or ends with a space"),
        (" c", "begins or ends with a space"),
        ("a\nb", "cannot be printed"),
        ("\x1b[31mred", "cannot be printed"),
        ("a\u202eb", "cannot be printed"),
        ("a\u2028b", "cannot be printed"),
        ("a\u200bb", "cannot be printed"),
        ("a\u00a0b", "cannot be printed"),
        ("\udcff", "cannot be printed"),
        ("\0", "cannot be printed"),
    ],
)
def test_names_that_would_mislead_are_refused(name, reason):
    (problem,) = name_problems("here", ("a", "b", name), ("x", "y"))
    assert reason in str(problem) and str(problem).isprintable()
    assert name_problems("here", ("a", "b"), ("x", "b", name) if name == "b" else ("x", name))
    with pytest.raises(BadInput, match=reason):
        check_population(dataset_of(WHOLE, WHOLE, WHOLE, classes=("a", "b", name)))
    assert name_problems("here", ("größe", "猫", "a b", "x/y", "=1", "$\\frac{"), ("x",)) == []


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (COLORED | dict(train_per_group=(0, 0, 0, 0)), r"config.data.train_per_group: .* 'even' needs a training example"),
        (COLORED | dict(train_per_group=(9, 9, 0, 0)), r"config.data.train_per_group: .* 'odd' needs a training example"),
        (DIGITS | dict(val_fraction=1e-9), "the val split has no example"),
        (DIGITS | dict(test_fraction=1e-9), "the test split has no example"),
        (DIGITS | dict(val_fraction=0.5, test_fraction=0.4999999), r"leave \[0, 0, 0\] training examples of the classes, and each class needs one"),
        (GAUSSIAN | dict(dim=10**12), r"config.data.dim, …_per_class: 30 examples of 1,000,000,000,000 numbers: 240,000.0 GB"),
        (GAUSSIAN | dict(train_per_class=(10**15, 1)), r"GB are needed"),
        (dict(name="class_map", source=create(**DIGITS), train_map=(("0", "a\n"), ("1", "b")), eval_map=(("2", "b"), ("1", "a\n"))),
         "cannot be printed"),
        (dict(name="class_map", source=create(**DIGITS), train_map=(("0", "a"), ("1", "b")), eval_map=(("2", "b"), ("1", "b"))),
         "labels .* given; at least two"),
    ],
)  # fmt: skip
def test_sections_that_leave_nothing_to_learn_are_one_line(section, reason):
    with pytest.raises(BadInput, match=reason) as error:
        load(section, "", 0)
    assert "\n" not in str(error.value)


def test_a_group_without_training_examples_is_trained_with_a_warning(config, capfd):
    config.data = create(**COLORED | dict(train_per_group=(60, 0, 4, 30)))
    summary = train(config)
    assert "WARNING: the train split has no example of group 'even green'" in capfd.readouterr().out
    assert summary["groups"]["train"]["even green"] == 0 and summary["metrics"]["test/group_accuracy/even green"] >= 0


def npz_bomb(path, size: int) -> None:
    """An archive of which each array says that it has `size` bytes, all zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (size, 1, 1)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in ("train", "val", "test"):
            for kind in ("images", "labels"):
                archive.writestr(f"{split}_{kind}.npy", header.getvalue() + bytes(100))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir(), lambda path: npz_bomb(path, 10**14)])
@pytest.mark.parametrize("name", ["medmnist", "arrays"])
def test_arrays_that_are_no_file_or_take_all_memory_are_one_line(tmp_path, make, name):
    path = tmp_path / ("pneumoniamnist.npz" if name == "medmnist" else "data.npz")
    make(path)
    section = dict(name="medmnist", flag="pneumoniamnist", augment=())
    if name == "arrays":
        section = dict(name="arrays", file=path.name, delimiter=",", numeric=(), categorical=(), missing=(), target="y",
                       classes=("0", "1"), attributes=(), split="", val_fraction=0.2, test_fraction=0.2)  # fmt: skip
    with pytest.raises(BadInput) as error:
        load(section, str(tmp_path), 0)
    assert "\n" not in str(error.value) and str(error.value)


def test_an_archive_larger_than_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("imbalance.utils.memory.available_memory", lambda: 100)
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", train_images=np.zeros((200, 80, 80), dtype=np.uint8))
    with pytest.raises(BadInput, match=r"pneumoniamnist.npz: 0.0 GB are needed, and 0.0 GB are free"):
        load(dict(name="medmnist", flag="pneumoniamnist", augment=()), str(tmp_path), 0)


def test_a_gzip_file_is_unpacked_no_further_than_it_can_be_good(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[read_idx.__module__], "MAX_BYTES", 2**16)
    with gzip.open(tmp_path / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">BBBBI", 0, 0, 8, 1, 2**17))
        file.write(bytes(2**17))
    with pytest.raises(BadInput, match="not an IDX file of 1 dimensions, or damaged"):
        read_idx(tmp_path / "t10k-labels-idx1-ubyte", dims=1)


def test_there_is_memory_and_less_than_a_petabyte():
    assert 2**20 < available_memory() < 2**50
