"""Data sets in which nearly all training images of a class have the same attribute: corrupted CIFAR-10 and colored Fashion-MNIST.

Both follow Nam et al., "Learning from Failure: Training Debiased Classifier from Biased Classifier", NeurIPS 2020.
"""

import functools
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from imbalance.config.schema import Fraction, Natural
from imbalance.data.files import find_path, load_array
from imbalance.data.images.augment import Augmentation
from imbalance.data.images.corruptions import TYPE_1, corrupted
from imbalance.data.sets import fashion
from imbalance.data.sets.cifar10 import CLASSES, MEAN, STD, published
from imbalance.data.sets.long_tailed import channels_first
from imbalance.data.splits import Dataset, Split, stratified_split
from imbalance.errors import BadInput

Conflicting = Annotated[float, Field(gt=0, lt=1)]
Severity = Literal[1, 2, 3, 4]
# The corruptions of type 0, in the order of the published code.
TYPE_0 = (
    "snow", "frost", "fog", "brightness", "contrast", "spatter", "elastic", "JPEG", "pixelate", "saturate",
)  # fmt: skip
COLOURS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "magenta": (255, 0, 255),
    "cyan": (0, 255, 255), "orange": (255, 128, 0), "violet": (128, 0, 255), "lime": (128, 255, 0), "grey": (160, 160, 160),
}  # fmt: skip
COLOUR_NOISE = (0.05, 0.02, 0.01, 0.005)  # standard deviation of a colour by severity
PER_CLASS = {"train": 5000, "valid": 1000}
LABELS_SHAPE = 2  # columns of attrs.npy: class and attribute


def corrupted_cifar10(
    data_dir: str,
    seed: int,
    *,
    source: Literal["made", "type0", "type1"],
    conflicting: Conflicting,
    severity: Severity,
    draw_seed: Natural,
    val_fraction: Fraction,
    augment: tuple[Augmentation, ...],
    download: bool,
) -> Dataset:
    """Return CIFAR-10; nearly all training images of a class have the same corruption, a different one for each class.

    The group is 10 · class + corruption. In val and test each class has each of the ten corruptions equally often.

    Args:
        source: "made" makes the corruptions of type 1 (noise and blur) from CIFAR-10. "type0" and "type1" read the
            files that the published code writes, CorruptedCIFAR10-Type<t>-Skewed<conflicting>-Severity<severity>/.
        conflicting: the share of each class's training images that have one of the nine other corruptions; 0.05, 0.02,
            0.01 and 0.005 in the literature.
        severity: 1 to 4, as in the names of the published files. The images have level
            severity + 1 of the levels 1 to 5 of CIFAR-10-C.
        draw_seed: the seed of the noise of "made"; config.seed does not change the images.
        val_fraction: the share of every group of the 10,000 test images that becomes val. The published protocol
            evaluates the test set after every epoch, and has no val.
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
        download: download CIFAR-10 if it is missing and source is "made" (170 MB).
    """
    names = TYPE_0 if source == "type0" else tuple(TYPE_1)
    if source == "made":
        parts = make_corrupted(data_dir, conflicting, severity, draw_seed, download)
    else:
        folder = f"CorruptedCIFAR10-Type{source[-1]}-Skewed{conflicting:g}-Severity{severity}"
        parts = read_published(data_dir, folder, conflicting)
    return biased_dataset(parts, CLASSES, names, MEAN, STD, seed, val_fraction, augment)


def colored_fashion(
    data_dir: str,
    seed: int,
    *,
    conflicting: Conflicting,
    severity: Severity,
    draw_seed: Natural,
    val_fraction: Fraction,
    augment: tuple[Augmentation, ...],
) -> Dataset:
    """Return Fashion-MNIST; nearly all training images of a class have the same colour, a different one for each class.

    This is colored MNIST of Nam et al., made from Fashion-MNIST. The group is 10 · class + colour. In val and test each
    class has each of the ten colours equally often.

    Args:
        conflicting: the share of each class's training images that have one of the nine other colours; 0.05, 0.02,
            0.01 and 0.005 in the literature.
        severity: 1 to 4: an image's colour varies around its nominal colour with a standard deviation of 0.05, 0.02, 0.01
            or 0.005 of the full range.
        draw_seed: the seed of the variations of colour; config.seed does not change the images.
        val_fraction: the share of every group of the 10,000 test images that becomes val.
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
    """
    folder = find_path(
        data_dir,
        fashion.FOLDERS,
        "Fashion-MNIST",
        "run imbalance data download fashion, or apt-get install dataset-fashion-mnist",
    )
    rng, parts = np.random.default_rng(draw_seed), []
    means = np.array(list(COLOURS.values()), dtype=np.float32) / 255
    for part, share in (("train", conflicting), ("t10k", None)):
        images, targets = fashion.read(folder, part)
        attributes = assign_attributes(targets, share)
        colours = means[attributes] + rng.normal(scale=COLOUR_NOISE[severity - 1], size=(len(targets), 3))
        tinted = images * np.clip(colours, 0, 1).astype(np.float32)[:, :, None, None]
        parts.append((tinted.round().astype(np.uint8), targets, attributes))
    mean, std = (0.174, 0.134, 0.126), (0.284, 0.26, 0.264)
    return biased_dataset(parts, fashion.CLASSES, tuple(COLOURS), mean, std, seed, val_fraction, augment)


def assign_attributes(targets: np.ndarray, conflicting: float | None) -> np.ndarray:
    """Return an attribute for each example: attribute k for most examples of class k, as the published code does.

    The examples of a class get attributes in the order of the files: the first of them get attribute 0, the next ones
    attribute 1, and so on. The numbers of examples are rounded.

    Args:
        targets: (N,) the class of each example, 0 to 9.
        conflicting: the share of a class's examples that have an attribute other than k; None to give all attributes
            equally often.
    """
    attributes = np.empty(len(targets), dtype=np.int64)
    for label in range(10):
        shares = np.full(10, 0.1 if conflicting is None else conflicting / 9)
        if conflicting is not None:
            shares[label] = 1 - conflicting
        rows = np.flatnonzero(targets == label)
        limits = np.round(len(rows) * np.cumsum(shares)).astype(np.int64)
        attributes[rows] = np.searchsorted(limits, np.arange(len(rows)), side="right")
    return attributes


Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # images (N, C, H, W) uint8, classes (N,), attributes (N,)


@functools.lru_cache(maxsize=1)  # saves a minute in each further run of a sweep
def make_corrupted(
    data_dir: str, conflicting: float, severity: int, draw_seed: int, download: bool
) -> tuple[Part, Part]:
    """Return two parts of CIFAR-10 with the corruptions of type 1: one for training, one for evaluation."""
    parts = []
    for number, (source, share) in enumerate(zip(published("CIFAR10", data_dir, download), (conflicting, None))):
        targets = np.array(source.targets)
        attributes = assign_attributes(targets, share)
        images = np.empty_like(source.data)
        for attribute, name in enumerate(TYPE_1):
            rows = np.flatnonzero(attributes == attribute)
            rng = np.random.default_rng([draw_seed, number, attribute])
            images[rows] = corrupted(source.data[rows], name, severity + 1, rng)
        parts.append((channels_first(images), targets, attributes))
    return parts[0], parts[1]


def read_published(data_dir: str, folder: str, conflicting: float) -> list[Part]:
    """Read the parts train and valid from {train,valid}/{images,attrs}.npy, the files that the published code writes.

    Args:
        folder: the folder of the files under `data_dir`.
        conflicting: the share that `corrupted_cifar10` describes; the counts of the files must be those of this share.

    Raises:
        BadInput: a file is missing or damaged, or its counts are not those of `conflicting`.
    """
    hint = "make them with make_dataset.py of github.com/alinlab/LfF, or set config.data.source='made'"
    root = find_path(data_dir, (folder,), "corrupted CIFAR-10", hint)
    parts = []
    for part, share in (("train", conflicting), ("valid", None)):
        images, labels = (load_array(Path(root) / part / f"{name}.npy") for name in ("images", "attrs"))
        if images.shape != (len(labels), 32, 32, 3) or images.dtype != np.uint8 or labels.shape[1:] != (LABELS_SHAPE,):
            raise BadInput(
                f"{root / part}: images.npy of shape {images.shape} and type {images.dtype}, attrs.npy of shape "
                f"{labels.shape}; these are not the published files; {hint}"
            )
        targets, attributes = labels.T.astype(np.int64)
        if targets.min() < 0 or targets.max() > 9 or attributes.min() < 0 or attributes.max() > 9:
            raise BadInput(f"{root / part}/attrs.npy: classes and attributes must be 0 to 9; {hint}")
        counts = np.bincount(10 * targets + attributes, minlength=100)
        everyone = np.repeat(np.arange(10), PER_CLASS[part])
        expected = np.bincount(10 * everyone + assign_attributes(everyone, share), minlength=100)
        # The published code may round one example to the next attribute
        wrong = np.flatnonzero(np.abs(counts - expected) > 1)
        if len(wrong):
            label = int(wrong[0]) // 10
            actual, right = (each[10 * label :][:10].tolist() for each in (counts, expected))
            raise BadInput(
                f"{root / part}: class {label}: numbers of examples with the attributes 0 to 9: {actual}, but conflicting={conflicting:g} "
                f"needs {right}; {hint}"
            )
        parts.append((channels_first(images), targets, attributes))
    return parts


def biased_dataset(
    parts: tuple[Part, ...] | list[Part],
    class_names: tuple[str, ...],
    attribute_names: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
    val_fraction: float,
    augment: tuple[Augmentation, ...],
) -> Dataset:
    """Return the data set whose train split is the first of `parts`; the second is divided into val and test.

    Args:
        val_fraction: the share of every group of the second part that becomes val.
    """
    if not val_fraction:
        raise BadInput("config.data.val_fraction: 0 given; it must be above 0, because selection needs a val split")

    def split(part: Part, rows: np.ndarray | slice = slice(None)) -> Split:
        images, targets, attributes = (torch.from_numpy(array[rows]) for array in part)
        indices = torch.arange(len(part[1]))[rows]
        return Split(images, targets, len(attribute_names) * targets + attributes, indices)

    train, evaluation = parts
    groups = len(attribute_names) * evaluation[1] + evaluation[2]
    test_rows, val_rows = stratified_split(groups, val_fraction, np.random.default_rng(seed))
    group_names = tuple(f"{label}, {attribute}" for label in class_names for attribute in attribute_names)
    return Dataset(
        split(train), split(evaluation, val_rows), split(evaluation, test_rows), class_names, group_names,
        mean=mean, std=std, augmentations=tuple(augment),
    )  # fmt: skip
