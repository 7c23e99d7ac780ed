"""Data set CIFAR-10 (Krizhevsky, 2009): all ten classes or some, balanced or imbalanced."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from imbalance.config.schema import AtLeastOne, Fraction, Natural
from imbalance.data.sets.cifar_files import published
from imbalance.data.splits import (
    Dataset,
    Profile,
    Split,
    check_class_choice,
    class_split,
    draw_per_class,
    imbalanced_counts,
    stratified_split,
)
from imbalance.errors import BadInput

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Classes, imbalance, ratio, total, val fraction of Wang et al. (ICLR 2022)
PUBLISHED = (("cat", "dog"), "step", 10.0, 0, 0.2)


def cifar10(
    data_dir: str,
    seed: int,
    *,
    classes: tuple[str, ...],
    imbalance: Profile,
    imbalance_ratio: AtLeastOne,
    total: Natural,
    val_fraction: Fraction,
    draw: Literal["stratified", "published"],
    download: bool,
) -> Dataset:
    """Return all or some classes of CIFAR-10; the published training set is made imbalanced, and split into train and val.

    With cat and dog, a step imbalance of 10 and a val fraction of 0.2, train has 4000 cats and 400 dogs, val 1000 and 100,
    and test 1000 of each, as in Wang et al., ICLR 2022.

    Args:
        classes: names of the classes, the largest first.
        imbalance: "none" keeps all examples; with "exp", class counts fall geometrically from the first class to
            the last; with "step", each class of the first half is imbalance_ratio times as
            large as each class of the second half. The counts include val.
        imbalance_ratio: the count of the largest class divided by that of the smallest.
        total: the number of examples of all classes together; 0 to keep as many as the imbalance allows.
            Class counts are rounded to this sum, so small counts have another ratio than imbalance_ratio.
        val_fraction: the share of the imbalanced training set that becomes val.
        draw: "stratified" draws the images that are kept and the images of val by the run's seed, so that val has
            the same share of every class; "published" takes the images that Wang et al. drew, the same at every
            seed, and is only for cat and dog.
        download: download the files if they are missing (170 MB).
    """
    check_class_choice(classes, CLASSES)
    if not val_fraction:
        raise BadInput("config.data.val_fraction: 0 given; it must be above 0, because selection needs a val split")
    settings = (classes, imbalance, imbalance_ratio, total, val_fraction)
    if draw == "published" and settings != PUBLISHED:
        needed = f"classes {PUBLISHED[0]}, imbalance 'step', ratio 10, total 0 and val fraction 0.2"
        raise BadInput(f"config.data.draw: 'published' given, which needs {needed}; use 'stratified' for other values")
    published_train, published_test = published("CIFAR10", data_dir, download)
    assert tuple(published_train.classes) == CLASSES
    rng = np.random.default_rng(seed)

    def chosen_classes(labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the images that belong to the chosen classes, and the (N,) targets of these images.

        Args:
            labels: the label of each image of the published training or test set.
        """
        label_of = np.full(len(CLASSES), -1)
        label_of[[CLASSES.index(name) for name in classes]] = np.arange(len(classes))
        targets = label_of[labels]
        rows = np.flatnonzero(targets >= 0)
        return rows, targets[rows]

    rows, targets = chosen_classes(published_train.targets)
    if draw == "published":
        parts = (np.searchsorted(rows, part) for part in published_draw(published_train.targets))
    else:
        counts = imbalanced_counts(np.bincount(targets), imbalance, imbalance_ratio, total)
        kept = draw_per_class(targets, counts, rng)
        parts = (kept[part] for part in stratified_split(targets[kept], val_fraction, rng))

    def split(images: np.ndarray, rows: np.ndarray, targets: np.ndarray) -> Split:
        return class_split(torch.from_numpy(images[rows]).permute(0, 3, 1, 2).contiguous(), targets, rows)

    train, val = (split(published_train.data, rows[part], targets[part]) for part in parts)
    test = split(published_test.data, *chosen_classes(published_test.targets))
    return Dataset(train, val, test, classes, classes, MEAN, STD)


def published_draw(labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows of cats and dogs for train and for val exactly as the code of Wang et al. (ICLR 2022) does.

    The draw goes through the classes in the order of their first appearance. It keeps a random 5,000 images of each of
    the labels 0 to 4 and 500 of each other label. The kept cats and dogs are shuffled together, and the first four fifths
    are train. The split is not stratified: train has 3,990 cats and 410 dogs, val 1,010 and 90.

    Args:
        labels: the labels of the 50,000 training images, in the order of the files.
    """
    label_array, generator = np.asarray(labels), torch.Generator().manual_seed(0)
    kept = {}
    for label in dict.fromkeys(label_array.tolist()):
        rows = np.flatnonzero(label_array == label)
        shuffled = rows[torch.randperm(len(rows), generator=generator).numpy()]
        kept[label] = shuffled[: 5000 if label < 5 else 500]
    pool = np.concatenate([rows for label, rows in kept.items() if CLASSES[label] in ("cat", "dog")])
    train, val = np.split(pool[np.random.default_rng(0).permutation(len(pool))], [len(pool) * 4 // 5])
    return np.sort(train), np.sort(val)
