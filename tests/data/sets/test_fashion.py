"""Fashion-MNIST: both layouts, pairs of classes, and one line for a file that is wrong."""

import gzip
import os

import numpy as np
import pytest
import torch

from imbalance.data.sets.fashion import CLASSES, fashion
from imbalance.errors import BadInput

LONG_TAILED = dict(imbalance="exp", imbalance_ratio=100.0, val_from="test", val_fraction=0.1, augment=("flip",))


CLOTHES = LONG_TAILED | dict(classes=CLASSES, total=0)


def write_fashion(folder, zipped=True, per_class=None):
    folder.mkdir(parents=True)
    for part, n in (per_class or {"train": 6000, "t10k": 1000}).items():
        labels = np.tile(np.arange(10, dtype=np.uint8), n)
        images = np.zeros((len(labels), 28, 28), dtype=np.uint8)
        images[:, 3, 4] = labels
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()
            path = folder / (name + ".gz" if zipped else name)
            path.write_bytes(gzip.compress(content, 1) if zipped else content)


@pytest.mark.parametrize(
    ("layout", "zipped"), [("FashionMNIST/raw", False), ("FashionMNIST/raw", True), ("fashion-mnist", True)]
)
def test_fashion_mnist_is_read_from_torchvisions_and_debians_files(tmp_path, layout, zipped):
    write_fashion(tmp_path / layout, zipped)
    dataset = fashion(str(tmp_path), 0, **CLOTHES)
    assert dataset.class_counts(dataset.train).tolist() == [6000, 3596, 2156, 1292, 774, 464, 278, 166, 100, 60]
    assert dataset.input_shape == (1, 28, 28)
    assert torch.equal(dataset.test.inputs[:, 0, 3, 4].long(), dataset.test.targets)


@pytest.mark.parametrize("val_from", ["train", "test"])
def test_two_kinds_of_clothing_are_those_that_were_asked_for(tmp_path, val_from):
    write_fashion(tmp_path / "fashion-mnist", zipped=False)
    pair = dict(classes=("shirt", "coat"), imbalance="step", imbalance_ratio=10.0, total=2200, val_from=val_from)
    dataset = fashion(str(tmp_path), 0, **CLOTHES | pair | dict(val_fraction=0.2))
    counts = {"train": [1600, 160], "val": [400, 40], "test": [1000, 1000]}
    if val_from == "test":
        counts = {"train": [2000, 200], "val": [200, 200], "test": [800, 800]}
    assert dataset.class_names == ("shirt", "coat")
    for name, of_split in counts.items():
        split = getattr(dataset, name)
        assert dataset.class_counts(split).tolist() == of_split
        # These files repeat the ten labels in turn: a row of the source says its kind.
        assert torch.equal(split.indices % 10, torch.tensor([6, 4])[split.targets])
        assert torch.equal(split.inputs[:, 0, 3, 4].long(), split.indices % 10)


@pytest.mark.parametrize("classes", [("shirt",), ("shirt", "shirt"), ("shirt", "cat")])
def test_classes_that_are_no_clothing_are_one_line(tmp_path, classes):
    with pytest.raises(BadInput, match="config.data.classes"):
        fashion(str(tmp_path), 0, **CLOTHES | dict(classes=classes))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw, name: (raw / name).write_bytes((raw / name).read_bytes()[:-9]), r"end-of-stream|incomplete|CRC"),
        (lambda raw, name: (raw / name).write_bytes(b"<html>"), r"not a gzipped file|Not a gzipped"),
        (lambda raw, name: (raw / name).write_bytes(gzip.compress(b"\0\0\x08\x03\0")), r"not an IDX file"),
        (lambda raw, name: (raw / name).unlink(), r"No such file"),
    ],
)
def test_a_damaged_fashion_mnist_is_one_line(tmp_path, damage, reason):
    raw = tmp_path / "FashionMNIST" / "raw"
    write_fashion(raw, per_class={"train": 60, "t10k": 10})
    damage(raw, "train-images-idx3-ubyte.gz")
    with pytest.raises(BadInput, match=f"train-images-idx3-ubyte.*({reason})"):
        fashion(str(tmp_path), 0, **CLOTHES)


def test_half_an_unzipped_fashion_mnist_is_refused(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    write_fashion(raw, zipped=False, per_class={"train": 60, "t10k": 10})
    os.truncate(raw / "train-images-idx3-ubyte", 1000)
    with pytest.raises(BadInput, match="train-images-idx3-ubyte: not an IDX file of 3 dimensions, or damaged"):
        fashion(str(tmp_path), 0, **CLOTHES)


def test_labels_without_images_are_no_fashion_mnist(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    write_fashion(raw, zipped=False)
    (raw / "train-images-idx3-ubyte").write_bytes(
        bytes((0, 0, 8, 3)) + np.array([9, 28, 28], ">u4").tobytes() + bytes(7056)
    )
    with pytest.raises(BadInput, match=r"not Fashion-MNIST: train has images of shape \(9, 28, 28\)"):
        fashion(str(tmp_path), 0, **CLOTHES)


def test_a_fashion_mnist_of_other_counts_is_refused(tmp_path):
    write_fashion(tmp_path / "FashionMNIST" / "raw", per_class={"train": 60, "t10k": 10})
    with pytest.raises(BadInput, match=r"not Fashion-MNIST: train has images of shape \(600, 28, 28\)"):
        fashion(str(tmp_path), 0, **CLOTHES)
