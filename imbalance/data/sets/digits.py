"""Data set of scikit-learn's handwritten digits: 1,797 images of 8×8, installed with scikit-learn."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imbalance.config.schema import AtLeastOne, Fraction, Natural
from imbalance.data.splits import Dataset, Profile, class_split, draw_per_class, imbalanced_counts, stratified_split
from imbalance.errors import BadInput


def digits(
    seed: int,
    *,
    classes: tuple[Natural, ...],
    imbalance: Profile,
    imbalance_ratio: AtLeastOne,
    total: Natural,
    val_fraction: Fraction,
    test_fraction: Fraction,
) -> Dataset:
    """Return handwritten digits with an imbalanced training set, and val and test splits that are stratified by class.

    Args:
        classes: the digits to use, the largest class first.
        imbalance: imbalance of the training set: "none" keeps all its examples; with "exp", its class counts fall
            geometrically from the first class to the last; with "step", each class of the first half is imbalance_ratio
            times as large as each class of the second half.
        imbalance_ratio: the training count of the largest class divided by that of the smallest.
        total: the number of training examples of all classes together; 0 to keep as many as the imbalance allows.
            Class counts are rounded to this sum, so small counts have another ratio than imbalance_ratio.
        val_fraction: the share of each digit's examples that becomes val.
        test_fraction: the share of each digit's examples that becomes test.
    """
    if len(set(classes)) != len(classes) or not set(classes) <= set(range(10)) or len(classes) < 2:
        raise BadInput(f"config.data.classes: {classes} given; at least two different digits of 0 to 9 are needed")
    if not (val_fraction and test_fraction and val_fraction + test_fraction < 1):
        raise BadInput(
            f"config.data.val_fraction, test_fraction: {val_fraction}, {test_fraction} given; both must be above 0 and their "
            "sum below 1"
        )
    images, labels = read_digits()
    rows = np.flatnonzero(np.isin(labels, classes))
    targets = np.array([classes.index(digit) for digit in labels[rows]])
    inputs = images[rows].unsqueeze(1)

    rng = np.random.default_rng(seed)
    rest, test = stratified_split(targets, test_fraction, rng)
    pool, val = (rest[part] for part in stratified_split(targets[rest], val_fraction / (1 - test_fraction), rng))
    counts = imbalanced_counts(np.bincount(targets[pool], minlength=len(classes)), imbalance, imbalance_ratio, total)
    train = pool[draw_per_class(targets[pool], counts, rng)]
    names = tuple(str(digit) for digit in classes)
    return Dataset(
        class_split(inputs[train], targets[train], rows[train]),
        class_split(inputs[val], targets[val], rows[val]),
        class_split(inputs[test], targets[test], rows[test]),
        names,
        names,
    )


@cache
def read_digits() -> tuple[Tensor, np.ndarray]:
    """Return the (1797, 8, 8) grey images, with values from 0 to 1, and the (1797,) digits.

    The scale suits torch's default initialisation. The file that scikit-learn's `load_digits` reads is read directly,
    because importing scikit-learn takes as long as importing torch. The arrays are kept for later runs in this process,
    because parsing the file takes a fifth of a small run's time; do not change them.
    """
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None  # imbalance depends on scikit-learn
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",")
    return torch.from_numpy(table[:, :-1].reshape(-1, 8, 8) / 16).float(), table[:, -1].astype(np.int64)
