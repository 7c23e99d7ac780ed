"""scikit-learn's digits, tinted with a colour that betrays the label in training only: Waterbirds in miniature."""

import numpy as np
import torch
from torch import Tensor

from imbalance.config.schema import Fraction, Natural
from imbalance.data.sets.digits import read_digits
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput

CLASSES, COLOURS = ("even", "odd"), ("red", "green")


def colored_digits(
    seed: int,
    *,
    train_per_group: tuple[Natural, Natural, Natural, Natural],
    saturation: Fraction,
    val_fraction: Fraction,
    test_fraction: Fraction,
) -> Dataset:
    """Is the digit even or odd? Group = 2 · odd + green, as in Sagawa et al., ICLR 2020.

    In val and test each class is half red and half green, so that colour says nothing; all digits are different ones.

    Args:
        train_per_group: training examples that are even red, even green, odd red, odd green; (420, 22, 7, 127) has
            the proportions of Waterbirds, where 95 % of either class are of its usual colour.
        saturation: how much darker a digit is in the channels other than its colour's. The blue channel never tells
            the colour, so the digit can always be read without it.
        val_fraction: the share of each class's examples (about 900) that becomes val.
        test_fraction: the share of each class's examples (about 900) that becomes test.
    """
    if min(val_fraction, test_fraction) < 0.01:
        raise BadInput(
            f"config.data.val_fraction, test_fraction: {val_fraction}, {test_fraction} given; both splits need examples"
        )
    (images, digits), rng = read_digits(), np.random.default_rng(seed)
    chosen = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        rows = rng.permutation(np.flatnonzero(digits % 2 == label))
        of_train = train_per_group[2 * label : 2 * label + 2]
        sizes = {split: [int(len(rows) * f / 2)] * 2 for split, f in (("val", val_fraction), ("test", test_fraction))}
        left = len(rows) - sum(sizes["val"] + sizes["test"])
        if not sum(of_train):
            raise BadInput(
                f"config.data.train_per_group: {train_per_group} given; a class needs a training example, {name!r} has none"
            )
        if sum(of_train) > left:
            raise BadInput(
                f"config.data.train_per_group: {tuple(of_train)} {name} digits asked for; val and test leave {left}"
            )
        for split, per_colour in (sizes | {"train": of_train}).items():
            for colour, size in enumerate(per_colour):
                chosen[split] += [(row, label, colour) for row in rows[:size]]
                rows = rows[size:]

    def split(name: str) -> Split:
        rows, targets, colours = torch.tensor(np.array(chosen[name])).unbind(1)
        return Split(tinted(images[rows], colours, saturation), targets, 2 * targets + colours, rows)

    group_names = tuple(f"{name} {colour}" for name in CLASSES for colour in COLOURS)
    return Dataset(split("train"), split("val"), split("test"), CLASSES, group_names)


def tinted(images: Tensor, colours: Tensor, saturation: float) -> Tensor:
    """(N, 8, 8) grey images as (N, 3, 8, 8), full in the channel `colours` and dimmed by 1 − saturation in the others."""
    strength = torch.full((len(images), 3), 1 - saturation).scatter(1, colours[:, None], 1.0)
    return images[:, None] * strength[:, :, None, None]
