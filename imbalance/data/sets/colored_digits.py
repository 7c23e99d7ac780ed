"""Data set of scikit-learn's digits, tinted with a colour that predicts the class only in train."""

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
    """Return images of even and odd digits in red and green, to predict "odd": a miniature of Waterbirds.

    The group is 2 · odd + green, numbered as in Sagawa et al., ICLR 2020. In val and test each class is half red and half
    green, so the colour does not predict the class. No image is used twice.

    Args:
        train_per_group: the numbers of training examples that are even red, even green, odd red and odd green.
            (420, 22, 7, 127) has the proportions of Waterbirds, where 95 % of each class have the usual colour.
        saturation: a red digit has its green and blue channels multiplied by 1 − saturation, a green digit its red
            and blue channels. 0.0 leaves all digits grey.
        val_fraction: the share of each class's examples (about 900) that becomes val.
        test_fraction: the share of each class's examples (about 900) that becomes test.
    """
    if min(val_fraction, test_fraction) < 0.01:
        raise BadInput(
            f"config.data.val_fraction, test_fraction: {val_fraction}, {test_fraction} given; both must be 0.01 or more"
        )
    (images, digits), rng = read_digits(), np.random.default_rng(seed)
    chosen = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        rows = rng.permutation(np.flatnonzero(digits % 2 == label))
        train_sizes = list(train_per_group[2 * label : 2 * label + 2])
        sizes = {split: [int(len(rows) * f / 2)] * 2 for split, f in (("val", val_fraction), ("test", test_fraction))}
        left = len(rows) - sum(sizes["val"] + sizes["test"])
        if not sum(train_sizes):
            raise BadInput(
                f"config.data.train_per_group: {train_per_group} given; class {name!r} needs a training example or more"
            )
        if sum(train_sizes) > left:
            raise BadInput(
                f"config.data.train_per_group: {tuple(train_sizes)} {name} digits given, but val and test leave {left}; give "
                "fewer, or make config.data.val_fraction or test_fraction smaller"
            )
        for split_name, sizes_per_colour in (sizes | {"train": train_sizes}).items():
            for colour, size in enumerate(sizes_per_colour):
                chosen[split_name] += [(row, label, colour) for row in rows[:size]]
                rows = rows[size:]

    def split(name: str) -> Split:
        rows, targets, colours = torch.tensor(np.array(chosen[name])).unbind(1)
        return Split(tint(images[rows], colours, saturation), targets, 2 * targets + colours, rows)

    group_names = tuple(f"{name} {colour}" for name in CLASSES for colour in COLOURS)
    return Dataset(split("train"), split("val"), split("test"), CLASSES, group_names)


def tint(images: Tensor, colours: Tensor, saturation: float) -> Tensor:
    """Tint (N, 8, 8) grey images: return (N, 3, 8, 8) with two channels multiplied by 1 − `saturation`.

    Args:
        colours: (N,) the channel that stays unchanged in each image: 0 for red, 1 for green.
    """
    strength = torch.full((len(images), 3), 1 - saturation).scatter(1, colours[:, None], 1.0)
    return images[:, None] * strength[:, :, None, None]
