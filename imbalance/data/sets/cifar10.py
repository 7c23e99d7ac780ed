"""CIFAR-10 (Krizhevsky, 2009) from torchvision's files: all ten classes or some, balanced or imbalanced."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from imbalance.config.schema import AtLeastOne, Fraction, Natural
from imbalance.data.splits import (
    Dataset,
    Profile,
    check_classes,
    choose,
    class_split,
    imbalanced_counts,
    stratified_split,
)
from imbalance.errors import BadInput
from imbalance.utils.torchvision_import import import_torchvision

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PUBLISHED = (("cat", "dog"), "step", 10.0, 0, 0.2)  # classes, imbalance, ratio, total and val fraction of Wang et al.


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
    """The published training set, thinned out to the imbalance and then split; the published test set.

    Cat and dog with a step imbalance of 10 and a val fraction of 0.2 train on 4000/400, validate on 1000/100 and test
    on 1000/1000 images, the setting of Wang et al., ICLR 2022.

    Args:
        classes: names of the classes, the largest first.
        imbalance: "none": all examples stay; "exp": counts fall geometrically from the first class to the last;
            "step": the classes of the first half are larger than the others. The counts are of train and val
            together.
        imbalance_ratio: the count of the largest class divided by that of the smallest.
        total: the number of examples, divided among the classes in these proportions; 0 for as many as the largest
            class allows.
        val_fraction: the share of the imbalanced training set that becomes val.
        draw: "stratified": the seed decides which images stay and which are val, and val has its share of every
            class; "published": for cat against dog alone, the images that Wang et al. drew, the same at every seed.
        download: fetch the files if they are missing (170 MB).
    """
    check_classes(classes, CLASSES)
    if not val_fraction:
        raise BadInput("config.data.val_fraction: 0 given; selection and the score need a val split")
    asked = (classes, imbalance, imbalance_ratio, total, val_fraction)
    if draw == "published" and asked != PUBLISHED:
        problem = f"it is the draw of classes {PUBLISHED[0]}, imbalance 'step', ratio 10, total 0, val fraction 0.2"
        raise BadInput(f"config.data.draw: 'published' given, but {problem}; 'stratified' draws any other")
    source, tested = published("CIFAR10", data_dir, download)
    assert tuple(source.classes) == CLASSES
    rng = np.random.default_rng(seed)

    def of_classes(labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
        label_of = np.full(len(CLASSES), -1)
        label_of[[CLASSES.index(name) for name in classes]] = np.arange(len(classes))
        targets = label_of[labels]
        rows = np.flatnonzero(targets >= 0)
        return rows, targets[rows]

    rows, targets = of_classes(source.targets)
    if draw == "published":
        parts = (np.searchsorted(rows, part) for part in published_draw(source.targets))
    else:
        kept = choose(targets, imbalanced_counts(np.bincount(targets), imbalance, imbalance_ratio, total), rng)
        parts = (kept[part] for part in stratified_split(targets[kept], val_fraction, rng))

    def split(images: np.ndarray, rows: np.ndarray, targets: np.ndarray):
        return class_split(torch.from_numpy(images[rows]).permute(0, 3, 1, 2).contiguous(), targets, rows)

    train, val = (split(source.data, rows[part], targets[part]) for part in parts)
    test = split(tested.data, *of_classes(tested.targets))
    return Dataset(train, val, test, classes, classes, MEAN, STD)


def published_draw(labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of train, 3,990 cats and 410 dogs, and of val, 1,010 and 90, as the code of Wang et al. (ICLR 2022) draws them.

    Of each class, in the order in which they first appear, a random 5,000 of the first five or 500 of the others; of
    these the cats and then the dogs, of whom a random four fifths train. That split is not stratified.

    Args:
        labels: of the 50,000 training images, in the order of the files.
    """
    labels, generator = np.asarray(labels), torch.Generator().manual_seed(0)
    kept = {}
    for label in dict.fromkeys(labels.tolist()):
        rows = np.flatnonzero(labels == label)
        shuffled = rows[torch.randperm(len(rows), generator=generator).numpy()]
        kept[label] = shuffled[: 5000 if label < 5 else 500]
    pool = np.concatenate([rows for label, rows in kept.items() if CLASSES[label] in ("cat", "dog")])
    train, val = np.split(pool[np.random.default_rng(0).permutation(len(pool))], [len(pool) * 4 // 5])
    return np.sort(train), np.sort(val)


@functools.lru_cache(maxsize=1)  # reading and checking takes a second, and the seeds of a sweep share a process
def published(name: str, data_dir: str, download: bool) -> tuple[Any, Any]:
    """torchvision's training and test sets of `name`, CIFAR10 or CIFAR100, their files' checksums compared.

    Raises:
        BadInput: the files are missing or not whole, and cannot be fetched or are not to be.
    """
    kind = getattr(import_torchvision().datasets, name)
    try:
        return tuple(kind(data_dir, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError) as error:  # missing or failing its checksum; no network
        where = Path(data_dir).absolute() / kind.base_folder
        raise BadInput(
            f"config.data_dir: CIFAR-{name[5:]} is not in {where}, or not whole ({str(error).splitlines()[0]}); put the python "
            f"version of {kind.url} there, unpacked, or let --config.data.download=True fetch it"
        ) from None
