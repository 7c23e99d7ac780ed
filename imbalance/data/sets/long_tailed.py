"""Published training sets thinned out into an imbalance: CIFAR-10 and CIFAR-100 long-tailed, and what others share with
them.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from imbalance.config.schema import AtLeastOne, Fraction
from imbalance.data.images.augment import Augmentation
from imbalance.data.sets.cifar10 import MEAN, STD, published
from imbalance.data.splits import Dataset, Profile, Split, choose, class_split, imbalanced_counts, stratified_split
from imbalance.errors import BadInput

ValFrom = Literal["train", "test"]


def cifar10lt(
    data_dir: str,
    seed: int,
    *,
    imbalance: Profile,
    imbalance_ratio: AtLeastOne,
    val_from: ValFrom,
    val_fraction: Fraction,
    augment: tuple[Augmentation, ...],
    download: bool,
) -> Dataset:
    """CIFAR-10-LT (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019): all ten classes, airplane the largest.

    Args:
        imbalance: "none": all examples stay; "exp": counts fall geometrically from the first class to the last;
            "step": the classes of the first half are larger than the others.
        imbalance_ratio: the count of the largest class divided by that of the smallest. A ratio of 100 is called
            "imbalance factor 0.01" elsewhere.
        val_from: "test": train has exactly the published counts, and val is a share of the test set, which test
            then lacks; "train": test is whole, and val is a share of the imbalanced training set.
        val_fraction: the share of that split that becomes val.
        augment: random changes of training images: "flip" mirrors an image with probability 1/2, "pad_crop" shifts
            it by at most 4 pixels, "random_resized_crop" crops 70 to 100 % of its area; () for none. Published runs
            use flip and pad_crop.
        download: fetch the files if they are missing (170 MB).
    """
    train, test = published("CIFAR10", data_dir, download)
    return long_tailed(
        (channels_first(train.data), np.array(train.targets)),
        (channels_first(test.data), np.array(test.targets)),
        train.classes, MEAN, STD, seed, imbalance, imbalance_ratio, 0, val_from, val_fraction, augment,
    )  # fmt: skip


def cifar100lt(
    data_dir: str,
    seed: int,
    *,
    imbalance: Profile,
    imbalance_ratio: AtLeastOne,
    val_from: ValFrom,
    val_fraction: Fraction,
    augment: tuple[Augmentation, ...],
    download: bool,
) -> Dataset:
    """CIFAR-100-LT: as `cifar10lt`, in the alphabetical order of the hundred classes (170 MB).

    Args:
        imbalance: "none": all examples stay; "exp": counts fall geometrically from the first class to the last;
            "step": the classes of the first half are larger than the others.
        imbalance_ratio: the count of the largest class divided by that of the smallest. A ratio of 100 is called
            "imbalance factor 0.01" elsewhere.
        val_from: "test": train has exactly the published counts, and val is a share of the test set, which test
            then lacks; "train": test is whole, and val is a share of the imbalanced training set.
        val_fraction: the share of that split that becomes val.
        augment: random changes of training images: "flip" mirrors an image with probability 1/2, "pad_crop" shifts
            it by at most 4 pixels, "random_resized_crop" crops 70 to 100 % of its area; () for none. Published runs
            use flip and pad_crop.
        download: download the files if they are missing (170 MB).
    """
    train, test = published("CIFAR100", data_dir, download)
    return long_tailed(
        (channels_first(train.data), np.array(train.targets)),
        (channels_first(test.data), np.array(test.targets)),
        train.classes, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
        seed, imbalance, imbalance_ratio, 0, val_from, val_fraction, augment,
    )  # fmt: skip


def channels_first(images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) or (N, H, W) as (N, C, H, W)."""
    images = images if images.ndim == 4 else images[..., None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def long_tailed(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
    imbalance: Profile,
    imbalance_ratio: float,
    total: int,
    val_from: ValFrom,
    val_fraction: float,
    augment: Sequence[Augmentation],
) -> Dataset:
    """The published training set, thinned out, and a stratified val split, since the field's long-tailed sets have none.

    Args:
        train, test: images (N, C, H, W) uint8 and labels (N,), -1 where they are of a class that is left out.
        val_from: "test": the training set has exactly the published counts, and `val_fraction` of the test set is val,
            not test. "train": the test set is whole, and `val_fraction` of the thinned-out training set is val.
    """
    if not val_fraction:
        raise BadInput("config.data.val_fraction: 0 given; selection and the score need a val split")
    rng = np.random.default_rng(seed)
    counts = np.bincount(train[1][train[1] >= 0])
    rows = choose(train[1], imbalanced_counts(counts, imbalance, imbalance_ratio, total), rng)
    tested = np.flatnonzero(test[1] >= 0)
    if val_from == "train":
        kept, held = (rows[part] for part in stratified_split(train[1][rows], val_fraction, rng))
        parts = (train, kept), (train, held), (test, tested)
    else:
        kept, held = (tested[part] for part in stratified_split(test[1][tested], val_fraction, rng))
        parts = (train, rows), (test, held), (test, kept)
    splits = (array_split(*source, rows) for source, rows in parts)
    names = tuple(class_names)
    return Dataset(*splits, names, names, mean, std, augmentations=tuple(augment))


def array_split(images: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> Split:
    """The examples at `rows`; groups are classes."""
    return class_split(torch.from_numpy(images[rows]), targets[rows], rows)
