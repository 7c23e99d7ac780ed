"""Apply the learnt and random augmentation policies to batches of images: AutoAugment, RandAugment, TrivialAugment.

The operations are those of torchvision.transforms.v2. torchvision applies one operation to all images of a batch; here each
image has an operation of its own. Images with the same operation and magnitude are computed together.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from imbalance.utils.torchvision_import import import_torchvision

FILL = 128  # grey value of the pixels that a shift, shear or rotation leaves empty, as in the papers' codes; torchvision's is 0
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
SIGNED = (*GEOMETRIC, "Brightness", "Color", "Contrast", "Sharpness")  # operations whose magnitude can be negative
# The operations of RandAugment and TrivialAugment, in the order of torchvision.
OPERATIONS = ("Identity", *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")
POLICY_BINS, BINS = 10, 31  # numbers of magnitudes of AutoAugment, and of RandAugment and TrivialAugment
RAND_OPERATIONS, RAND_MAGNITUDE = 2, 9  # torchvision's default for RandAugment


class Operation(NamedTuple):
    """An operation on an image, such as ("Rotate", -20.0); the magnitude is 0 for an operation that has none."""

    name: str
    magnitude: float


IDENTITY = Operation("Identity", 0.0)


def auto_augment_cifar10(images: Tensor, uniform: Tensor) -> Tensor:
    """Apply a random one of AutoAugment's 25 policies for CIFAR-10 to each image; see `auto_augment`."""
    return auto_augment(images, uniform, "cifar10")


def auto_augment_imagenet(images: Tensor, uniform: Tensor) -> Tensor:
    """Apply a random one of AutoAugment's 25 policies for ImageNet to each image; see `auto_augment`."""
    return auto_augment(images, uniform, "imagenet")


def auto_augment(images: Tensor, uniform: Tensor, policy: str) -> Tensor:
    """Draw one of 25 policies for each image, and apply the two operations of this policy to the image.

    A policy gives each operation a probability and a magnitude. Cubuk et al., "AutoAugment", CVPR 2019.

    Args:
        images: (B, C, H, W).
        uniform: (B, 5) random numbers from 0 to 1, on the CPU: column 0 selects the policy. Two more columns for
            each of the two operations decide whether it is applied, and the sign of its magnitude.
        policy: "cifar10" or "imagenet".
    """
    policies = published_policies(policy)
    for step in range(2):
        operations = []
        for row in uniform.tolist():
            name, probability, level = policies[int(row[0] * len(policies))][step]
            applied = row[1 + 2 * step] < probability
            operations.append(operation(name, level, POLICY_BINS, row[2 + 2 * step], images) if applied else IDENTITY)
        images = apply(images, operations)
    return images


def rand_augment(images: Tensor, uniform: Tensor) -> Tensor:
    """Apply two random operations of magnitude 9 of 30 to each image (Cubuk et al., "RandAugment", 2020).

    Args:
        images: (B, C, H, W).
        uniform: (B, 4) random numbers from 0 to 1, on the CPU; two columns for each of the two operations select the
            operation and the sign of its magnitude.
    """
    for step in range(RAND_OPERATIONS):
        drawn = uniform[:, 2 * step : 2 * step + 2].tolist()
        names = [OPERATIONS[int(row[0] * len(OPERATIONS))] for row in drawn]
        images = apply(
            images, [operation(name, RAND_MAGNITUDE, BINS, row[1], images) for name, row in zip(names, drawn)]
        )
    return images


def trivial_augment(images: Tensor, uniform: Tensor) -> Tensor:
    """Apply one random operation of a random magnitude to each image.

    Müller and Hutter, "TrivialAugment", ICCV 2021, with the wide magnitudes.

    Args:
        images: (B, C, H, W).
        uniform: (B, 3) random numbers from 0 to 1, on the CPU: the columns select the operation, its magnitude, and the
            sign of the magnitude.
    """
    operations = []
    for which, level, sign in uniform.tolist():
        name = OPERATIONS[int(which * len(OPERATIONS))]
        operations.append(operation(name, int(level * BINS), BINS, sign, images, wide=True))
    return apply(images, operations)


@functools.cache
def published_policies(policy: str) -> Sequence[Sequence[tuple[str, float, int | None]]]:
    """Return the 25 policies of AutoAugment; a policy is two operations (name, probability, level).

    The level is None for an operation without magnitude.

    Args:
        policy: "cifar10" or "imagenet".
    """
    transforms: Any = import_torchvision().transforms
    return transforms.AutoAugment(transforms.AutoAugmentPolicy(policy)).policies


def operation(name: str, level: int | None, bins: int, sign: float, images: Tensor, wide: bool = False) -> Operation:
    """Return the operation `name` with the magnitude that `level` stands for.

    Args:
        level: the number of the magnitude, from 0 to `bins` − 1; None for an operation without magnitude.
        bins: the number of magnitudes, in equal steps.
        sign: a random number from 0 to 1; below one half it makes the magnitude negative, if the operation allows that.
        images: the images, whose size limits a translation.
        wide: use the larger magnitudes of TrivialAugment.
    """
    if name in ("Identity", "AutoContrast", "Equalize", "Invert"):
        return Operation(name, 0.0)
    assert level is not None
    height, width = images.shape[2:]
    if name == "Posterize":
        return Operation(name, float(np.round(8 - level / (bins - 1) * (6 if wide else 4))))
    if name == "Solarize":
        return Operation(name, 255 * evenly(1.0, 0.0, bins)[level])
    if name in ("TranslateX", "TranslateY"):
        largest = 32.0 if wide else 150 / 331 * (width if name == "TranslateX" else height)
    elif name == "Rotate":
        largest = 135.0 if wide else 30.0
    elif name in ("ShearX", "ShearY"):
        largest = 0.99 if wide else 0.3
    else:
        largest = 0.99 if wide else 0.9
    return Operation(name, evenly(0.0, largest, bins)[level] * (-1 if sign < 0.5 else 1))


@functools.cache
def evenly(first: float, last: float, count: int) -> list[float]:
    """Return `count` numbers from `first` to `last` in equal steps, rounded to float32 as torchvision's magnitudes are."""
    return torch.linspace(first, last, count).tolist()


def apply(images: Tensor, operations: Sequence[Operation]) -> Tensor:
    """Apply operation i of `operations` to image i.

    Args:
        images: (B, C, H, W) of values from 0 to 255, which are rounded to uint8 first.
    """
    images = images if images.dtype == torch.uint8 else images.round().clamp(0, 255).to(torch.uint8)
    rows_of: dict[Operation, list[int]] = {}
    for row, each in enumerate(operations):
        rows_of.setdefault(each, []).append(row)
    if list(rows_of) == [IDENTITY]:
        return images
    # Copy the row numbers to the device once and split there, because indexing for each operation would copy each time.
    order = torch.tensor([row for rows in rows_of.values() for row in rows])
    parts = images[order.to(images.device)].split([len(rows) for rows in rows_of.values()])
    changed = torch.cat([transformed(part, *each) for each, part in zip(rows_of, parts)])
    return changed[order.argsort().to(images.device)]


def transformed(images: Tensor, name: str, magnitude: float) -> Tensor:
    """Apply one operation of torchvision to all of (B, C, H, W) uint8 `images`."""
    import_torchvision()
    from torchvision.transforms.v2 import functional

    fill: Any = [float(FILL)]
    if name == "Identity":
        return images
    if name in ("ShearX", "ShearY", "TranslateX", "TranslateY"):
        angle, pixels = math.degrees(math.atan(magnitude)), int(magnitude)
        shear = {"ShearX": [angle, 0.0], "ShearY": [0.0, angle]}.get(name, [0.0, 0.0])
        shift: Any = {"TranslateX": [pixels, 0], "TranslateY": [0, pixels]}.get(name, [0, 0])
        center: Any = [0, 0] if name.startswith("Shear") else None
        return functional.affine(images, angle=0.0, translate=shift, scale=1.0, shear=shear, center=center, fill=fill)
    if name == "Rotate":
        return functional.rotate(images, angle=magnitude, fill=fill)
    if name == "Posterize":
        return functional.posterize(images, bits=int(magnitude))
    if name == "Solarize":
        return functional.solarize(images, threshold=magnitude)
    if name in ("AutoContrast", "Equalize", "Invert"):
        return getattr(functional, name.lower())(images)
    adjust = {"Brightness": "brightness", "Color": "saturation", "Contrast": "contrast", "Sharpness": "sharpness"}[name]
    return getattr(functional, f"adjust_{adjust}")(images, 1.0 + magnitude)
