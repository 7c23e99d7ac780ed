"""Augment batches of images on their device, with random numbers hashed from (seed, epoch, example, draw number).

A sampler can draw an example several times in an epoch. The draw number counts how often it has drawn the example
before. No generator is used, so the random numbers do not depend on how an epoch is divided into batches and
processes, or on where a run was resumed.
"""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from imbalance.data.images.policies import (
    auto_augment_cifar10,
    auto_augment_imagenet,
    rand_augment,
    trivial_augment,
)
from imbalance.utils.seeds import derived_seed

Augmentation = Literal[
    "flip",
    "pad_crop",
    "random_resized_crop",
    "inception_crop",
    "auto_augment_cifar10",
    "auto_augment_imagenet",
    "rand_augment",
    "trivial_augment",
    "color_jitter",
    "random_erasing",
    "cutout",
]
TRIES = 10  # random crops to try before the whole image is used, as in torchvision


# Each augmentation takes (B, C, H, W) images and `uniform`, (B, count) random numbers in [0, 1).


def flip(images: Tensor, uniform: Tensor) -> Tensor:
    """Flip each image horizontally with probability one half.

    Args:
        images: (B, C, H, W).
        uniform: (B, 1) random numbers from 0 to 1.
    """
    return torch.where(uniform[:, 0, None, None, None] < 0.5, images.flip(3), images)


def pad_crop(images: Tensor, uniform: Tensor) -> Tensor:
    """Pad each image with four black pixels on every side, and crop it to the original size at a random position.

    He et al., CVPR 2016.

    Args:
        images: (B, C, H, W).
        uniform: (B, 2) random numbers from 0 to 1.
    """
    count, _, height, width = images.shape
    top, left = (uniform[:, :2] * 9).long().unbind(1)
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, :]
    examples = torch.arange(count, device=images.device)[:, None, None]
    return F.pad(images, (4, 4, 4, 4))[examples, :, rows, columns].movedim(3, 1)


def random_resized_crop(images: Tensor, uniform: Tensor) -> Tensor:
    """Keep a random crop with 70 to 100 % of the area and an aspect ratio of 3/4 to 4/3, resized to the original size.

    The result has floating-point values on the same scale as `images`. See `crop_boxes`.

    Args:
        images: (B, C, H, W).
        uniform: (B, count) random numbers from 0 to 1; `AUGMENTATIONS` has the count.
    """
    return resized_crop(images, uniform, 0.7)


def inception_crop(images: Tensor, uniform: Tensor) -> Tensor:
    """Keep a random crop with 8 to 100 % of the area, as `random_resized_crop` does; this is torchvision's RandomResizedCrop.

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015. Published runs on ImageNet-LT, Places-LT and iNaturalist
    use these crops.

    Args:
        images: (B, C, H, W).
        uniform: (B, count) random numbers from 0 to 1; `AUGMENTATIONS` has the count.
    """
    return resized_crop(images, uniform, 0.08)


def resized_crop(images: Tensor, uniform: Tensor, least_area: float) -> Tensor:
    """Crop each image to its box of `crop_boxes`, and resize the crop to the original size; return floating-point values.

    Args:
        images: (B, C, H, W).
        uniform, least_area: as for `crop_boxes`.
    """
    height, width = images.shape[2:]
    left, top, wide, tall = crop_boxes(uniform, width, height, least_area)
    # The affine map takes coordinates of the crop (−1 to 1) to coordinates of the whole image (−1 to 1).
    zero = torch.zeros_like(left)
    across = torch.stack([wide / width, zero, (2 * left + wide) / width - 1], 1)
    down = torch.stack([zero, tall / height, (2 * top + tall) / height - 1], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images.to(grid.dtype), grid, padding_mode="border", align_corners=False)


def crop_boxes(uniform: Tensor, width: int, height: int, least_area: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a random box in each of B images of one size, and return the boxes as (B,) left, top, width and height.

    A box has `least_area` to 1 of the image's area, and an aspect ratio of 3/4 to 4/3. As in torchvision, the first of
    ten random boxes that fits into the image is used. If none fits, the box is the largest one in the middle of the
    image that has such an aspect ratio.

    Args:
        uniform: (B, 2 · TRIES + 2) random numbers from 0 to 1.
        width, height: the size of the images.
        least_area: the least area of a box, as a share of the image.
    """
    low, high = torch.tensor([3 / 4, 4 / 3]).log().tolist()
    area = height * width * (least_area + (1 - least_area) * uniform[:, :TRIES])
    ratio = (low + (high - low) * uniform[:, TRIES : 2 * TRIES]).exp()
    wide, tall = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.byte().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    widest, tallest = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    wide = torch.where(any_fits, wide.gather(1, first).squeeze(1), widest)
    tall = torch.where(any_fits, tall.gather(1, first).squeeze(1), tallest)
    left = (uniform[:, 2 * TRIES] * (width - wide + 1)).floor()
    top = (uniform[:, 2 * TRIES + 1] * (height - tall + 1)).floor()
    left = torch.where(any_fits, left, (width - widest) // 2)
    top = torch.where(any_fits, top, (height - tallest) // 2)
    return left, top, wide, tall


def color_jitter(images: Tensor, uniform: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by factors from 0.6 to 1.4, in a random order.

    This is torchvision's ColorJitter(0.4, 0.4, 0.4), which published runs on ImageNet-LT use. Grey images have no
    saturation. The result has floating-point values.

    Args:
        images: (B, C, H, W) of values from 0 to 255.
        uniform: (B, 4) random numbers from 0 to 1: column 0 selects the order, columns 1 to 3 the factors of brightness,
            contrast and saturation.
    """
    images = images.float() if not images.is_floating_point() else images
    factors = 0.6 + 0.8 * uniform[:, 1:].to(images.dtype)
    orders = torch.tensor(list(permutations(range(3))), device=images.device)
    order = orders[(uniform[:, 0] * len(orders)).long()]
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    for step in range(3):
        grey = (images * weights).sum(1, keepdim=True) if images.shape[1] == 3 else images
        change = order[:, step, None, None, None]
        # In float64, so that the mean of an image does not depend on the batch size.
        mean = grey.double().mean((1, 2, 3), keepdim=True).to(images.dtype)
        other = torch.where(change == 0, torch.zeros_like(grey), torch.where(change == 1, mean, grey))
        factor = factors.gather(1, order[:, step : step + 1])[:, :, None, None]
        images = torch.lerp(other.expand_as(images), images, factor.expand_as(images)).clamp(0, 255)
    return images


def random_erasing(images: Tensor, uniform: Tensor) -> Tensor:
    """Make a random rectangle of the image black, for half of the images on average.

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, with torchvision's defaults: 2 to 33 % of the area, an
    aspect ratio of 0.3 to 3.3, and the first of ten random rectangles that is smaller than the image. If none of the
    ten is smaller, the image stays unchanged.

    Args:
        images: (B, C, H, W).
        uniform: (B, count) random numbers from 0 to 1; `AUGMENTATIONS` has the count.
    """
    height, width = images.shape[2:]
    low, high = torch.tensor([0.3, 3.3]).log().tolist()
    area = height * width * (0.02 + 0.31 * uniform[:, :TRIES])
    ratio = (low + (high - low) * uniform[:, TRIES : 2 * TRIES]).exp()
    tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide < width) & (tall < height)
    first = fits.byte().argmax(1, keepdim=True)
    tall, wide = tall.gather(1, first).squeeze(1), wide.gather(1, first).squeeze(1)
    top = (uniform[:, 2 * TRIES] * (height - tall + 1)).floor()
    left = (uniform[:, 2 * TRIES + 1] * (width - wide + 1)).floor()
    tall = torch.where(fits.any(1) & (uniform[:, 2 * TRIES + 2] < 0.5), tall, 0)
    return images.masked_fill(inside(torch.stack([top, left, top + tall, left + wide], 1), height, width), 0)


def cutout(images: Tensor, uniform: Tensor) -> Tensor:
    """Make a square around a random pixel of each image black; its side is half of the image's shorter side.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017: 16×16 pixels of
    CIFAR-10's 32×32. The part of the square beyond the edge of the image is cut off, so the hole can be smaller.

    Args:
        images: (B, C, H, W).
        uniform: (B, 2) random numbers from 0 to 1, which select the row and the column of the square's middle.
    """
    height, width = images.shape[2:]
    side = min(height, width) // 2
    top = (uniform[:, 0] * height).floor() - side // 2
    left = (uniform[:, 1] * width).floor() - side // 2
    return images.masked_fill(inside(torch.stack([top, left, top + side, left + side], 1), height, width), 0)


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the (B, 1, height, width) mask of the pixels in each of B boxes.

    Args:
        boxes: (B, 4) first row, first column, row after the last, column after the last.
    """
    rows = torch.arange(height, device=boxes.device)[None, :, None]
    columns = torch.arange(width, device=boxes.device)[None, None, :]
    top, left, bottom, right = (edge[:, None, None] for edge in boxes.unbind(1))
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None]


class Drawn(NamedTuple):
    """An augmentation, a function of images and random numbers.

    count: how many random numbers one image needs.
    function: takes (B, C, H, W) images and (B, count) random numbers, and returns the augmented images.
    on_cpu: whether the random numbers stay on the CPU, because they decide which operations run. If they were on a GPU,
        each step would wait until the GPU has sent them.
    least_area: the least area of a random crop, as a share of the image; 0 for an augmentation that is no random crop.
    """

    count: int
    function: Callable[[Tensor, Tensor], Tensor]
    on_cpu: bool = False
    least_area: float = 0.0


AUGMENTATIONS: dict[str, Drawn] = {
    "flip": Drawn(1, flip),
    "pad_crop": Drawn(2, pad_crop),
    "random_resized_crop": Drawn(2 * TRIES + 2, random_resized_crop, least_area=0.7),
    "inception_crop": Drawn(2 * TRIES + 2, inception_crop, least_area=0.08),
    "auto_augment_cifar10": Drawn(5, auto_augment_cifar10, on_cpu=True),
    "auto_augment_imagenet": Drawn(5, auto_augment_imagenet, on_cpu=True),
    "rand_augment": Drawn(4, rand_augment, on_cpu=True),
    "trivial_augment": Drawn(3, trivial_augment, on_cpu=True),
    "color_jitter": Drawn(4, color_jitter),
    "random_erasing": Drawn(2 * TRIES + 3, random_erasing),
    "cutout": Drawn(2, cutout),
}


def draws(indices: Tensor, draw_ids: Tensor, names: Sequence[Augmentation], seed: int) -> list[Tensor]:
    """Return a list of random numbers, one (N, count) tensor for each augmentation in `names`, for N drawn examples.

    Args:
        indices: (N,) the index of each drawn example.
        draw_ids: (N,) a number for each drawn example, from the function `draw_ids`.
        seed: the seed of the run; for each further view of the examples, a seed derived from it.
    """
    drawn = [uniforms(derived_seed(seed, name), indices, draw_ids, AUGMENTATIONS[name].count) for name in names]
    return [numbers.cpu() if AUGMENTATIONS[name].on_cpu else numbers for name, numbers in zip(names, drawn)]


def augment(images: Tensor, names: Sequence[Augmentation], random_numbers: Sequence[Tensor]) -> Tensor:
    """Apply the augmentations `names` to (B, C, H, W) `images`, in this order.

    Args:
        random_numbers: the result of `draws` for these images: (B, count) for each augmentation.
    """
    for name, uniform in zip(names, random_numbers, strict=True):
        images = AUGMENTATIONS[name].function(images, uniform).contiguous()
    return images


def draw_ids(epoch: int, order: Tensor) -> Tensor:
    """Return (N,) ids of the examples that an epoch draws: epoch · 2³² + draw number.

    The draw number counts how often the epoch has drawn the same example before.

    Args:
        order: (N,) the examples in the order in which the epoch draws them.
    """
    return (epoch << 32) + draw_numbers(order)


def uniforms(seed: int, indices: Tensor, draws: Tensor, count: int) -> Tensor:
    """Return (B, count) random float32 in [0, 1), each hashed from the seed, index, draw id and column number.

    The hash is the finaliser of splitmix64 (Steele, 2014).

    Args:
        indices: (B,) the index of each drawn example.
        draws: (B,) the id of each drawn example, from the function `draw_ids`.
    """
    state = torch.full_like(indices, seed)
    for word in (indices[:, None], draws[:, None], torch.arange(count, device=indices.device)[None]):
        state = state if state.dim() == 2 else state[:, None]
        state = mix(state ^ mix(word + 1))
    return shift_right(state, 40).float() / 2**24


def mix(x: Tensor) -> Tensor:
    """Hash int64 values; different values get different hashes. Overflow in the multiplications is part of the hash."""
    x = x + as_signed(0x9E3779B97F4A7C15)
    x = (x ^ shift_right(x, 30)) * as_signed(0xBF58476D1CE4E5B9)
    x = (x ^ shift_right(x, 27)) * as_signed(0x94D049BB133111EB)
    return x ^ shift_right(x, 31)


def shift_right(x: Tensor, bits: int) -> Tensor:
    """Shift int64 values right by `bits`, filling with zeros, because torch's own shift fills with the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def as_signed(x: int) -> int:
    """Return the int64 that has the same bits as the unsigned 64-bit integer `x`."""
    return x - (1 << 64) if x >= 1 << 63 else x


def draw_numbers(order: Tensor) -> Tensor:
    """Return, for each entry of `order`, how many earlier entries are equal to it.

    Args:
        order: (N,) the examples in the order in which an epoch draws them.
    """
    by_value = order.argsort(stable=True)
    values = order[by_value]
    place = torch.arange(len(order), device=order.device)
    starts = torch.where(values == values.roll(1), 0, place)
    starts[:1] = 0
    return torch.empty_like(order).scatter_(0, by_value, place - starts.cummax(0).values)
