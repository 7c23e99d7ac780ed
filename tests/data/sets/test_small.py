"""The data sets that fit in memory, and those made of others: published counts, and one line for a file that is wrong."""

import gzip
import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from imbalance.data import cifar10lt, cifar100lt, new_classes
from imbalance.data.sets.class_map import class_map
from imbalance.data.sets.fashion import CLASSES, fashion
from imbalance.data.sets.medmnist import medmnist
from imbalance.errors import BadInput

LONG_TAILED = dict(imbalance="exp", imbalance_ratio=100.0, val_from="test", val_fraction=0.1, augment=("flip",))
CLOTHES = LONG_TAILED | dict(classes=CLASSES, total=0)


@pytest.fixture
def cifar(monkeypatch):
    """CIFAR-10 and CIFAR-100 as torchvision gives them, of the published counts, black but for the class."""

    def published(name, data_dir, download):
        num_classes = int(name[5:])

        def part(n):
            targets = np.random.default_rng(n).permutation(np.repeat(np.arange(num_classes), n // num_classes))
            data = np.zeros((n, 4, 4, 3), dtype=np.uint8) + targets[:, None, None, None].astype(np.uint8)
            return SimpleNamespace(
                data=data, targets=targets.tolist(), classes=[f"class {i}" for i in range(num_classes)]
            )

        return part(50000), part(10000)

    monkeypatch.setattr("imbalance.data.sets.long_tailed.published", published)


@pytest.mark.parametrize(
    ("function", "imbalance", "ratio", "total", "smallest"),
    [
        (cifar10lt, "exp", 10.0, 20431, 500),
        (cifar10lt, "exp", 50.0, 13996, 100),
        (cifar10lt, "exp", 100.0, 12406, 50),
        (cifar10lt, "exp", 200.0, 11203, 25),
        (cifar10lt, "step", 10.0, 27500, 500),
        (cifar10lt, "step", 100.0, 25250, 50),
        (cifar100lt, "exp", 10.0, 19573, 50),
        (cifar100lt, "exp", 50.0, 12608, 10),
        (cifar100lt, "exp", 100.0, 10847, 5),
        (cifar100lt, "exp", 200.0, 9502, 2),
    ],
)
def test_long_tailed_cifar_has_the_published_counts(cifar, function, imbalance, ratio, total, smallest):
    dataset = function("", 0, **LONG_TAILED | dict(imbalance=imbalance, imbalance_ratio=ratio), download=False)
    counts = dataset.class_counts(dataset.train)
    assert (counts.sum(), counts.min(), counts.max()) == (total, smallest, 50000 // dataset.num_classes)
    assert dataset.class_counts(dataset.val).tolist() == [1000 // dataset.num_classes] * dataset.num_classes
    assert dataset.class_counts(dataset.test).tolist() == [9000 // dataset.num_classes] * dataset.num_classes
    for split in (dataset.train, dataset.val, dataset.test):
        assert torch.equal(split.inputs[:, 0, 0, 0].long(), split.targets)
    assert not set(dataset.val.indices.tolist()) & set(dataset.test.indices.tolist())


def test_val_can_come_from_the_thinned_out_training_set(cifar):
    dataset = cifar10lt("", 0, **LONG_TAILED | dict(val_from="train"), download=False)
    assert dataset.class_counts(dataset.train).tolist() == [4500, 2697, 1616, 969, 580, 348, 209, 125, 75, 45]
    assert dataset.class_counts(dataset.val).tolist() == [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]
    assert len(dataset.test) == 10000
    assert not set(dataset.train.indices.tolist()) & set(dataset.val.indices.tolist())


def test_no_val_split_is_refused(cifar):
    with pytest.raises(BadInput, match=r"config.data.val_fraction: 0 given"):
        cifar10lt("", 0, **LONG_TAILED | dict(val_fraction=0.0), download=False)


def test_a_cifar_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"^config.data_dir: CIFAR-100 is missing in .*cifar-100-python") as error:
        cifar100lt(str(tmp_path), 0, **LONG_TAILED, download=False)
    assert "\n" not in str(error.value)


# Fashion-MNIST


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
        (lambda raw, name: (raw / name).write_bytes((raw / name).read_bytes()[:-9]), r"end-of-stream|not whole|CRC"),
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


# MedMNIST


def medmnist_arrays(counts=((1214, 3494), (135, 389), (234, 390)), channels=()):
    arrays = {}
    for split, of_split in zip(("train", "val", "test"), counts):
        labels = np.repeat(np.arange(len(of_split), dtype=np.uint8), of_split)
        images = np.zeros((len(labels), 5, 5, *channels), dtype=np.uint8)
        images[:, 0, 0] = labels.reshape(-1, *(1 for _ in channels))
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None]}
    return arrays


@pytest.mark.parametrize("channels", [(), (3,)])
def test_medmnist_has_the_published_splits(tmp_path, channels):
    np.savez(tmp_path / "pneumoniamnist.npz", **medmnist_arrays(channels=channels))
    dataset = medmnist(str(tmp_path), flag="pneumoniamnist", augment=())
    assert dataset.class_counts(dataset.train).tolist() == [1214, 3494]
    assert (len(dataset.val), len(dataset.test)) == (524, 624)
    assert dataset.class_names == ("normal", "pneumonia")
    assert dataset.input_shape == (*(channels or (1,)), 5, 5)
    assert torch.equal(dataset.test.inputs[:, 0, 0, 0].long(), dataset.test.targets)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def changed(**arrays):
    return lambda before: before | arrays


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(train_images=np.array([Bomb()], dtype=object)), "holds Python objects, which are never loaded"),
        (
            changed(val_labels=np.zeros((524, 14), dtype=np.uint8)),
            r"val_labels: uint8 of shape \(524, 14\), not one whole",
        ),
        (changed(val_labels=np.zeros((523, 1), dtype=np.uint8)), r"val_labels: .*for each of 524 images"),
        (changed(test_images=np.zeros((624, 5, 5))), r"test_images: float64 of shape"),
        (changed(test_images=np.zeros((624, 7, 7), dtype=np.uint8)), "test_images: .*unlike .* of train_images"),
        (changed(val_labels=np.full((524, 1), 2)), "val_labels row 0: label 2; the 2 classes have labels 0 to 1"),
        (changed(val_labels=np.full((524, 1), 1)), "the val split has only class 'pneumonia'"),
        (lambda before: {k: v for k, v in before.items() if k != "val_images"}, "val_images"),
    ],
)
def test_what_is_wrong_with_an_npz_is_one_line(tmp_path, change, reason):
    np.savez(tmp_path / "pneumoniamnist.npz", **change(medmnist_arrays()))
    with pytest.raises(BadInput, match=f"pneumoniamnist.npz: .*{reason}") as error:
        medmnist(str(tmp_path), flag="pneumoniamnist", augment=())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["cut", "html", "pickle", "none"])
def test_what_is_no_npz_is_one_line(tmp_path, content):
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, **medmnist_arrays())
    if content == "none":
        path.unlink()
    else:
        path.write_bytes({"cut": path.read_bytes()[:-99], "html": b"<html>", "pickle": pickle.dumps(Bomb())}[content])
    with pytest.raises(BadInput, match=r"pneumoniamnist.npz.*download pneumoniamnist downloads it"):
        medmnist(str(tmp_path), flag="pneumoniamnist", augment=())


# Class maps

DIGITS = dict(
    name="digits",
    classes=tuple(range(10)),
    imbalance="none",
    imbalance_ratio=1.0,
    total=0,
    val_fraction=0.2,
    test_fraction=0.2,
)
PARITY = (("0", "even"), ("1", "odd"), ("2", "even"), ("3", "odd")), (("4", "even"), ("5", "odd"), ("0", "even"))


def test_a_class_map_trains_on_some_classes_and_evaluates_on_others():
    dataset = class_map("", 0, source=DIGITS, train_map=PARITY[0], eval_map=PARITY[1])
    assert dataset.class_names == ("even", "odd") and dataset.group_names == tuple("0123456789")
    assert set(dataset.train.groups.tolist()) == {0, 1, 2, 3} and set(dataset.val.groups.tolist()) == {0, 4, 5}
    for split in (dataset.train, dataset.val, dataset.test):
        assert torch.equal(split.targets, split.groups % 2)
    assert dataset.eval_dataset is dataset


def test_new_classes_keep_the_models_classes_apart_from_those_that_it_is_evaluated_on():
    maps = dict(train_map=PARITY[0], eval_map=(("6", "six"), ("7", "seven"), ("8", "eight")))
    dataset = new_classes("", 0, source=DIGITS, **maps, head_strength=1.0)
    assert dataset.class_names == ("even", "odd") and dataset.eval_dataset.class_names == ("six", "seven", "eight")
    assert set(dataset.train.groups.tolist()) == {0, 1, 2, 3}
    for split in (dataset.eval_dataset.train, dataset.eval_dataset.val, dataset.eval_dataset.test):
        assert torch.equal(split.targets, split.groups - 6)
    assert not set(dataset.eval_dataset.train.indices.tolist()) & set(dataset.eval_dataset.val.indices.tolist())


@pytest.mark.parametrize(
    ("function", "change", "reason"),
    [
        (
            class_map,
            dict(train_map=(("0", "a"), ("ten", "b"))),
            r"config.data.train_map: no class 'ten' in config.data.source",
        ),
        (class_map, dict(train_map=(("0", "a"), ("0", "b"))), r"config.data.train_map: a class is mapped twice"),
        (class_map, dict(train_map=(("0", "a"), ("1", "a"))), r"config.data.train_map: labels \('a',\) given"),
        (
            class_map,
            dict(eval_map=(("4", "even"), ("5", "prime"))),
            r"label 'prime' given, which is not a label of config.data.train_map: even, odd",
        ),
        (new_classes, {}, r"label 'even' given, which is a label of config.data.train_map, too"),
        (
            class_map,
            dict(source=DIGITS | dict(tottal=0)),
            r"config.data.source.tottal: unknown key; did you mean total",
        ),
        (class_map, dict(source=dict(name="digit")), r"config.data.source.name: 'digit' given; did you mean digits"),
    ],
)
def test_maps_that_cannot_be_are_one_line(function, change, reason):
    values = dict(source=DIGITS, train_map=PARITY[0], eval_map=PARITY[1]) | change
    with pytest.raises(BadInput, match=reason):
        function("", 0, **values, **({"head_strength": 1.0} if function is new_classes else {}))
