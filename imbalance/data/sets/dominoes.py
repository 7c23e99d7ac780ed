"""Data set Dominoes: an image of Fashion-MNIST or MNIST above an image of CIFAR-10, which alone decides the class.

Shah et al., "The Pitfalls of Simplicity Bias in Neural Networks", NeurIPS 2020; Pagliardini et al., "Agree to Disagree",
ICLR 2023.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from imbalance.config.schema import Count, Name, Probability
from imbalance.data.files import find_path
from imbalance.data.images.augment import Augmentation
from imbalance.data.sets import cifar10, fashion
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput
from imbalance.utils.torchvision_import import import_torchvision

DIGITS = tuple(str(digit) for digit in range(10))


def dominoes(
    data_dir: str,
    seed: int,
    *,
    top: Literal["fashion", "mnist"],
    top_classes: tuple[Name, Name],
    classes: tuple[Name, Name],
    correlation: Probability,
    val_per_group: Count,
    augment: tuple[Augmentation, ...],
    download: bool,
) -> Dataset:
    """Return 64×32 images whose lower half decides the class; the upper half is easier, and predicts the class in train.

    The group is 2 · class + kind of the upper half. In val and test the two halves are independent: all groups have
    equally many images. No image is in two splits.

    Args:
        top: "fashion" for Fashion-MNIST in the upper half, "mnist" for MNIST. Each image gets a black edge of 2 pixels.
        top_classes: the kind of upper half that goes with the first class, and that of the second class: ("coat", "dress")
            or ("0", "1") in the literature.
        classes: the two classes of CIFAR-10 in the lower half: ("automobile", "truck") in the literature.
        correlation: the share of each class's training images whose upper half is of the kind that goes with the class.
            1.0 in the literature, which leaves two of the four groups without training images.
        val_per_group: the number of val images of each group, which are taken from the training images.
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
        download: download CIFAR-10 (170 MB), and MNIST if it is used (12 MB), if they are missing.
    """
    names = fashion.CLASSES if top == "fashion" else DIGITS
    for key, chosen, known in (("top_classes", top_classes, names), ("classes", classes, cifar10.CLASSES)):
        if chosen[0] == chosen[1] or set(chosen) - set(known):
            raise BadInput(f"config.data.{key}: {chosen} given; name two different ones of {', '.join(known)}")
    lower = cifar10.published("CIFAR10", data_dir, download)
    upper = read_top(top, data_dir, download)
    rng = np.random.default_rng(seed)
    splits = []
    for part, images in enumerate(upper):
        labels = np.array(lower[part].targets)
        bottom_rows = [rng.permutation(np.flatnonzero(labels == cifar10.CLASSES.index(name))) for name in classes]
        top_rows = [rng.permutation(np.flatnonzero(images[1] == names.index(name))) for name in top_classes]
        n = min(map(len, bottom_rows))
        if part == 0:
            if 2 * val_per_group >= n:
                raise BadInput(
                    f"config.data.val_per_group: {val_per_group} given; twice this number must be below {n}, the number "
                    "of training images of a class"
                )
            aligned = round((n - 2 * val_per_group) * correlation)
            sizes = {
                "val": ((val_per_group,) * 2,) * 2,
                "train": ((aligned, n - 2 * val_per_group - aligned), (n - 2 * val_per_group - aligned, aligned)),
            }
        else:
            half = min(n // 2, *(len(rows) // 2 for rows in top_rows))
            sizes = {"test": ((half,) * 2,) * 2}
        for group_sizes in sizes.values():
            chosen = []
            for label in range(2):
                for kind in range(2):
                    count = group_sizes[label][kind]
                    bottom, bottom_rows[label] = np.split(bottom_rows[label], [count])
                    above, top_rows[kind] = np.split(top_rows[kind], [count])
                    if len(above) < count:
                        raise BadInput(
                            f"config.data.top: {top!r} has {len(images[1]):,} images of all classes, and too few of {top_classes[kind]!r} "
                            "for these groups; make config.data.correlation larger"
                        )
                    chosen += [(b, a, label, kind) for b, a in zip(bottom.tolist(), above.tolist())]
            splits.append(stacked_split(torch.tensor(chosen), lower[part].data, images[0]))
    val, train, test = splits
    group_names = tuple(f"{label} below {kind}" for label in classes for kind in top_classes)
    return Dataset(
        train, val, test, classes, group_names, mean=(0.366, 0.359, 0.355), std=(0.335, 0.332, 0.335), augmentations=tuple(augment)
    )  # fmt: skip


def read_top(top: str, data_dir: str, download: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (images (N, 28, 28), labels (N,)) of the training set, and the same of the test set.

    Args:
        top: "fashion" for Fashion-MNIST, "mnist" for MNIST.
        download: download MNIST if it is missing.
    """
    if top == "fashion":
        hint = "run imbalance data download fashion, or apt-get install dataset-fashion-mnist"
        folder = find_path(data_dir, fashion.FOLDERS, "Fashion-MNIST", hint)
        return [(images[:, 0], labels) for images, labels in (fashion.read(folder, part) for part in fashion.PER_CLASS)]
    try:
        sets = [import_torchvision().datasets.MNIST(data_dir, train=part, download=download) for part in (True, False)]
    except (RuntimeError, OSError) as error:
        raise BadInput(
            f"config.data_dir: MNIST is missing in {data_dir}, or damaged ({str(error).splitlines()[0]}); put its four files into "
            "MNIST/raw/, or set config.data.download=True"
        ) from None
    return [(each.data.numpy(), each.targets.numpy()) for each in sets]


def stacked_split(chosen: Tensor, lower: np.ndarray, upper: np.ndarray) -> Split:
    """Return the split of examples made of two images.

    Args:
        chosen: (N, 4) for each example the row of its lower image, the row of its upper image, its class, and the kind
            of its upper image.
        lower: (M, 32, 32, 3) uint8 images of CIFAR-10.
        upper: (L, 28, 28) uint8 images.
    """
    below, above, targets, kinds = chosen.unbind(1)
    colour = torch.from_numpy(lower[below.numpy()]).permute(0, 3, 1, 2)
    grey = torch.nn.functional.pad(torch.from_numpy(upper[above.numpy()]), (2, 2, 2, 2))
    images = torch.cat([grey[:, None].expand(-1, 3, -1, -1), colour], 2).contiguous()
    return Split(images, targets, 2 * targets + kinds, below)
