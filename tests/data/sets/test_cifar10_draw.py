"""The images that Wang et al. drew of CIFAR-10, worked out anew from made-up files in the published layout."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from imbalance.data.sets.cifar10 import CLASSES, cifar10
from imbalance.errors import BadInput
from imbalance.utils.torchvision_import import import_torchvision

PAPERS = dict(classes=("cat", "dog"), imbalance="step", imbalance_ratio=10.0, total=0, val_fraction=0.2, download=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder that holds cifar-10-batches-py/: 5,000 and 1,000 images a class, which say their row in two bytes."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    # Cats come before dogs, as in the published files.
    train = next(
        labels
        for seed in range(9)
        if (labels := np.random.default_rng(seed).permutation(np.arange(50000) % 10).tolist())
        and labels.index(3) < labels.index(5)
    )
    parts = {f"data_batch_{i + 1}": train[i * 10000 : (i + 1) * 10000] for i in range(5)}
    for i, (name, labels) in enumerate((parts | {"test_batch": (np.arange(10000) % 10).tolist()}).items()):
        images, rows = np.zeros((10000, 3072), np.uint8), np.arange(i * 10000, (i + 1) * 10000)
        images[:, 0], images[:, 1] = rows >> 8, rows & 255
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": labels}, protocol=4))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))
    return root


@pytest.fixture
def checksums(files, monkeypatch):
    """torchvision compares the files' checksums; let it expect those of these files."""
    kind, folder = import_torchvision().datasets.CIFAR10, files / "cifar-10-batches-py"

    def md5(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        monkeypatch.setattr(kind, part, [[name, md5(name)] for name, _ in getattr(kind, part)])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5("batches.meta")})


def drawn_anew(folder) -> tuple[set[int], set[int]]:
    """Rows of train and of val, as the authors' steps say, one label and one row at a time."""
    labels = []
    for i in range(1, 6):
        labels += pickle.loads((folder / f"data_batch_{i}").read_bytes())["labels"]
    torch_generator, seen, cats, dogs = torch.Generator().manual_seed(0), [], [], []
    for label in labels:
        if label in seen:
            continue
        seen.append(label)
        order = torch.randperm(5000, generator=torch_generator).tolist()  # drawn for all ten, also those not used
        rows = [row for row, other in enumerate(labels) if other == label]
        if label == 3:
            cats = [rows[place] for place in order]
        if label == 5:
            dogs = [rows[place] for place in order[:500]]
    both = cats + dogs
    places = np.random.default_rng(0).permutation(5500).tolist()
    return {both[place] for place in places[:4400]}, {both[place] for place in places[4400:]}


def test_the_published_draw_is_the_authors(files, checksums):
    train, val = drawn_anew(files / "cifar-10-batches-py")
    for seed in (0, 3):
        data = cifar10(str(files), seed, **PAPERS, draw="published")
        counts = [data.class_counts(split).tolist() for split in (data.train, data.val, data.test)]
        assert counts == [[3990, 410], [1010, 90], [1000, 1000]]
        assert set(data.train.indices.tolist()) == train and set(data.val.indices.tolist()) == val
    rows = data.train.inputs[:, 0, 0, 0].long() * 256 + data.train.inputs[:, 0, 0, 1].long()
    assert torch.equal(rows, data.train.indices)


def test_a_stratified_draw_is_the_seeds_own(files, checksums):
    first, second = (cifar10(str(files), seed, **PAPERS, draw="stratified") for seed in (0, 1))
    assert first.class_counts(first.train).tolist() == [4000, 400]
    assert set(first.train.indices.tolist()) != set(second.train.indices.tolist())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", ("dog", "cat")),
        ("imbalance_ratio", 100.0),
        ("total", 2200),
        ("val_fraction", 0.1),
        ("imbalance", "exp"),
    ],
)
def test_no_other_setting_has_a_published_draw(files, key, value):
    with pytest.raises(BadInput, match="config.data.draw: 'published' given"):
        cifar10(str(files), 0, **PAPERS | {key: value}, draw="published")
