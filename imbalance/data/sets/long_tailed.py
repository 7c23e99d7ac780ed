"""Data sets CIFAR-10-LT and CIFAR-100-LT, and the subsampling that all long-tailed data sets use."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from imbalance.config.schema import AtLeastOne, Fraction
from imbalance.data.images.augment import Augmentation
from imbalance.data.sets.cifar10 import MEAN, STD
from imbalance.data.sets.cifar_files import published
from imbalance.data.splits import (
    Dataset,
    Profile,
    Split,
    class_split,
    draw_per_class,
    imbalanced_counts,
    stratified_split,
)
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
    """Return CIFAR-10-LT (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019): all ten classes, airplane the largest.

    Args:
        imbalance: "none" keeps all examples; with "exp", class counts fall geometrically from the first class to
            the last; with "step", each class of the first half is imbalance_ratio times as
            large as each class of the second half.
        imbalance_ratio: the count of the largest class divided by that of the smallest. Some
            publications call a ratio of 100 an "imbalance factor" of 0.01.
        val_from: "test" moves a share of the test set to val, so that train has exactly the published counts;
            "train" moves a share of the imbalanced training set to val, so that test is whole.
        val_fraction: the share that moves to val.
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
            Published runs use flip and pad_crop.
        download: download the files if they are missing (170 MB).
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
    """Return CIFAR-100-LT, which is made like CIFAR-10-LT; the alphabetically first of the hundred classes is the largest.

    Args:
        imbalance: "none" keeps all examples; with "exp", class counts fall geometrically from the first class to
            the last; with "step", each class of the first half is imbalance_ratio times as
            large as each class of the second half.
        imbalance_ratio: the count of the largest class divided by that of the smallest. Some
            publications call a ratio of 100 an "imbalance factor" of 0.01.
        val_from: "test" moves a share of the test set to val, so that train has exactly the published counts;
            "train" moves a share of the imbalanced training set to val, so that test is whole.
        val_fraction: the share that moves to val.
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
            Published runs use flip and pad_crop.
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
    """Return (N, H, W, C) or (N, H, W) images as (N, C, H, W)."""
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
    """Return a data set with an imbalanced subsample of a published training set, and a stratified val split.

    Args:
        train, test: images (N, C, H, W) uint8 and labels (N,); an example with label -1 is left out.
        val_from: "test" moves `val_fraction` of the test set to val, so that train has exactly the published counts.
            "train" moves `val_fraction` of the subsampled training set to val, so that the test set is whole.
    """
    if not val_fraction:
        raise BadInput("config.data.val_fraction: 0 given; it must be above 0, because selection needs a val split")
    rng = np.random.default_rng(seed)
    counts = np.bincount(train[1][train[1] >= 0])
    rows = draw_per_class(train[1], imbalanced_counts(counts, imbalance, imbalance_ratio, total), rng)
    test_rows = np.flatnonzero(test[1] >= 0)
    if val_from == "train":
        kept, held = (rows[part] for part in stratified_split(train[1][rows], val_fraction, rng))
        parts = (train, kept), (train, held), (test, test_rows)
    else:
        kept, held = (test_rows[part] for part in stratified_split(test[1][test_rows], val_fraction, rng))
        parts = (train, rows), (test, held), (test, kept)
    train_split, val_split, test_split = (array_split(*source, rows) for source, rows in parts)
    names = tuple(class_names)
    return Dataset(train_split, val_split, test_split, names, names, mean=mean, std=std, augmentations=tuple(augment))


def array_split(images: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> Split:
    """Return the split of the examples at `rows`; its groups are the classes."""
    return class_split(torch.from_numpy(images[rows]), targets[rows], rows)
