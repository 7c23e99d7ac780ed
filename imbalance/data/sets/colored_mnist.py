"""Data set CMNIST of SubpopBench: the label says whether a digit is 5 or more; in every split the colour predicts it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from imbalance.config.schema import Fraction
from imbalance.data.sets.dominoes import read_top
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput

CLASSES, COLOURS = ("below five", "five or more"), ("red", "green")
SIZES = (30_000, 10_000, 20_000)  # images of train, val and test, in the order of MNIST's training set
DRAW_SEED = 666  # of SubpopBench


def colored_mnist(data_dir: str, *, label_noise: Fraction, color_noise: Fraction, download: bool) -> Dataset:
    """Return red and green digits of MNIST's training set, to predict whether a digit is 5 or more.

    Arjovsky et al., "Invariant Risk Minimization", 2019. Splits, labels and colours are those of Yang et al., "Change is
    Hard", ICML 2023, with the same random numbers. The colour number is 0 for red and 1 for green, and the
    group is 2 · label + colour number. Label and colour have the same correlation in all splits; in the paper of IRM the
    correlation is reversed in test. The run's seed changes nothing.

    Args:
        label_noise: the share of labels that are flipped; 0.25 in SubpopBench. The colour follows the flipped label.
        color_noise: the share of digits whose colour number is not their label; 0.2 in SubpopBench.
        download: download MNIST (12 MB) if it is missing.
    """
    root = next((folder for folder in (Path(data_dir) / "cmnist", Path(data_dir)) if (folder / "MNIST").is_dir()), None)
    images, digits = read_top("mnist", str(root or data_dir), download)[0]
    if len(digits) != sum(SIZES):
        raise BadInput(
            f"config.data_dir: MNIST in {root or data_dir} has {len(digits):,} training images, not the published {sum(SIZES):,}; "
            "remove its folder MNIST, and set config.data.download=True"
        )
    ends = np.cumsum((0, *SIZES)).tolist()
    train, val, test = (
        colored_split(images[start:end], digits[start:end], np.arange(start, end), label_noise, color_noise)
        for start, end in pairwise(ends)
    )
    names = tuple(f"{label}, {colour}" for label in CLASSES for colour in COLOURS)
    # SubpopBench normalises by these numbers, which are those of grey MNIST.
    return Dataset(train, val, test, CLASSES, names, mean=(0.1307, 0.1307, 0.0), std=(0.3081,) * 3)


def colored_split(
    images: np.ndarray, digits: np.ndarray, rows: np.ndarray, label_noise: float, color_noise: float
) -> Split:
    """Return the split of N coloured digits.

    Args:
        images: (N, 28, 28) uint8.
        digits, rows: (N,) the digits, and the positions of the images in MNIST.
        label_noise, color_noise: as for `colored_mnist`.
    """
    rng = np.random.default_rng(DRAW_SEED)  # each split begins anew, as in SubpopBench
    labels = (digits >= 5) ^ (rng.random(len(digits)) < label_noise)
    greens = labels ^ (rng.random(len(digits)) < color_noise)
    colored = np.zeros((len(digits), 3, 28, 28), dtype=np.uint8)
    colored[np.arange(len(digits)), greens.astype(np.int64)] = images  # channel 0 is red, channel 1 green
    targets = torch.from_numpy(labels.astype(np.int64))
    return Split(torch.from_numpy(colored), targets, 2 * targets + torch.from_numpy(greens), torch.from_numpy(rows))
