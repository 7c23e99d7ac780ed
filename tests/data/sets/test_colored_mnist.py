"""CMNIST of SubpopBench: its splits, its random numbers and its colours."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from imbalance.data.sets import colored_mnist as module
from imbalance.data.sets import dominoes
from imbalance.errors import BadInput

SECTION = dict(label_noise=0.25, color_noise=0.2, download=False)


@pytest.fixture
def mnist(monkeypatch, tmp_path):
    """A stub of MNIST with 600 training images, whose pixels have the value of the digit, and its folder."""
    seen = []

    class MNIST:
        def __init__(self, root, train, download):
            seen.append(root)
            n = 600 if train else 10
            self.targets = torch.arange(n) % 10
            self.data = (1 + self.targets)[:, None, None].expand(-1, 28, 28).to(torch.uint8)

    stub = SimpleNamespace(datasets=SimpleNamespace(MNIST=MNIST))
    monkeypatch.setattr(dominoes, "import_torchvision", lambda: stub)
    monkeypatch.setattr(module, "SIZES", (300, 100, 200))
    return seen


def test_labels_and_colours_are_those_of_subpopbench(mnist, tmp_path):
    dataset = module.colored_mnist(str(tmp_path), **SECTION)
    start = 0
    for split, size in zip((dataset.train, dataset.val, dataset.test), (300, 100, 200)):
        digits = np.arange(start, start + size) % 10
        rng = np.random.default_rng(666)
        label = np.bitwise_xor(digits >= 5, rng.random(size) < 0.25)
        colour = np.bitwise_xor(label, rng.random(size) < 0.2)
        images = np.stack(
            [np.broadcast_to((1 + digits)[:, None, None], (size, 28, 28))] * 2 + [np.zeros((size, 28, 28))], 1
        )
        images[np.arange(size), 1 - colour.astype(int)] *= 0  # as its code does
        assert split.inputs.numpy().tolist() == images.tolist()
        assert split.targets.tolist() == label.astype(int).tolist()
        assert split.groups.tolist() == (2 * label + colour).tolist()
        assert split.indices.tolist() == list(range(start, start + size))
        start += size
    assert dataset.group_names == ("below five, red", "below five, green", "five or more, red", "five or more, green")


def test_the_folder_of_subpopbench_is_found_and_another_mnist_refused(mnist, tmp_path, monkeypatch):
    module.colored_mnist(str(tmp_path), **SECTION)
    (tmp_path / "cmnist" / "MNIST").mkdir(parents=True)
    module.colored_mnist(str(tmp_path), **SECTION)
    assert mnist[0] == str(tmp_path) and mnist[-1] == str(tmp_path / "cmnist")
    monkeypatch.setattr(module, "SIZES", (30_000, 10_000, 20_000))
    with pytest.raises(BadInput, match="MNIST in .* has 600 training images, not the published 60,000"):
        module.colored_mnist(str(tmp_path), **SECTION)
