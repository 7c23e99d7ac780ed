"""Long-tailed CIFAR: the published counts, and where val comes from."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from imbalance.data import cifar10lt, cifar100lt
from imbalance.errors import BadInput

LONG_TAILED = dict(imbalance="exp", imbalance_ratio=100.0, val_from="test", val_fraction=0.1, augment=("flip",))


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
