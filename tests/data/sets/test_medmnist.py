"""MedMNIST: the published splits, and one line for a file that is wrong."""

import pickle

import numpy as np
import pytest
import torch

from imbalance.data.sets.medmnist import medmnist
from imbalance.errors import BadInput


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
        (
            changed(test_images=np.zeros((624, 7, 7), dtype=np.uint8)),
            "test_images: .*but train_images has .*; all images must have one size",
        ),
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
    with pytest.raises(BadInput, match=r"pneumoniamnist.npz.*download pneumoniamnist downloads the file"):
        medmnist(str(tmp_path), flag="pneumoniamnist", augment=())
