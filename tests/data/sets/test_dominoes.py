"""Dominoes: what is above what, the counts of the groups, and one line for halves that do not suffice."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_fashion import write_fashion

from imbalance.data.sets import dominoes as module
from imbalance.data.sets import fashion
from imbalance.data.sets.dominoes import dominoes
from imbalance.errors import BadInput

SECTION = dict(top="fashion", top_classes=("coat", "dress"), classes=("automobile", "truck"), correlation=0.9,
               val_per_group=5, augment=(), download=False)  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return a folder with images whose value at one pixel tells their class; CIFAR-10 has 50 and 12 of each."""
    sizes = {"train": 60, "t10k": 20}
    monkeypatch.setattr(fashion, "PER_CLASS", sizes)
    write_fashion(tmp_path / "fashion-mnist", zipped=False, per_class=sizes)
    parts = []
    for n in (50, 12):
        labels = np.arange(10 * n) % 10
        parts.append(
            SimpleNamespace(
                targets=labels.tolist(), data=np.tile(labels[:, None, None, None], (1, 32, 32, 3)).astype(np.uint8)
            )
        )
    monkeypatch.setattr(module.cifar10, "published", lambda *args: parts)
    return str(tmp_path)


def test_the_upper_half_goes_with_the_class_in_train_alone(files):
    dataset = dominoes(files, 0, **SECTION)
    assert dataset.group_names[1] == "automobile below dress"
    assert dataset.group_counts(dataset.train).tolist() == [36, 4, 4, 36]
    assert dataset.group_counts(dataset.val).tolist() == [5] * 4
    assert dataset.group_counts(dataset.test).tolist() == [6] * 4
    for split in (dataset.train, dataset.val, dataset.test):
        assert split.inputs.shape[1:] == (3, 64, 32)
        assert torch.equal(split.inputs[:, 0, 40, 0].long(), torch.tensor([1, 9])[split.targets])
        # write_fashion writes the label at row 3, column 4; the black edge moves it by 2.
        assert torch.equal(split.inputs[:, 2, 5, 6].long(), torch.tensor([4, 3])[split.groups % 2])
        assert not split.inputs[:, :, :2].any()
    rows = torch.cat([dataset.train.indices, dataset.val.indices])
    assert len(rows.unique()) == len(rows) == 100


def test_full_correlation_leaves_two_groups_without_training_images(files):
    dataset = dominoes(files, 0, **SECTION | dict(correlation=1.0))
    assert dataset.group_counts(dataset.train).tolist() == [40, 0, 0, 40]


def test_the_seed_decides_which_halves_meet(files):
    first, same, other = (dominoes(files, seed, **SECTION).train.indices for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_mnist_is_read_by_torchvision(files, monkeypatch):
    class MNIST:
        def __init__(self, root, train, download):
            n = 60 if train else 20
            self.targets = torch.arange(10 * n) % 10
            self.data = self.targets[:, None, None].expand(-1, 28, 28).to(torch.uint8)

    stub = SimpleNamespace(datasets=SimpleNamespace(MNIST=MNIST))
    monkeypatch.setattr(module, "import_torchvision", lambda: stub)
    dataset = dominoes(files, 0, **SECTION | dict(top="mnist", top_classes=("0", "1")))
    assert torch.equal(dataset.test.inputs[:, 0, 10, 10].long(), dataset.test.groups % 2)


@pytest.mark.parametrize("change, words", [
    (dict(classes=("automobile", "automobile")), r"config.data.classes: .* name two different ones of airplane"),
    (dict(top_classes=("coat", "hat")), r"config.data.top_classes: .* name two different ones of T-shirt"),
    (dict(val_per_group=25), "config.data.val_per_group: 25 given; twice this number must be below 50"),
])  # fmt: skip
def test_wrong_halves_are_one_line(files, change, words):
    with pytest.raises(BadInput, match=words):
        dominoes(files, 0, **SECTION | change)
