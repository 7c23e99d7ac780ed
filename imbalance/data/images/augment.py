"""Augmentation of whole batches on their device, a function of (seed, epoch, example, which draw of it) alone.

The random numbers are not drawn from a generator but hashed from those four, so they do not depend on how an epoch is
divided into batches and processes, nor on where a run was resumed.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from imbalance.utils.seeds import derived_seed

Augmentation = Literal["flip", "pad_crop", "random_resized_crop"]
TRIES = 10  # of a random resized crop, as torchvision has it


def flip(images: Tensor, uniform: Tensor) -> Tensor:
    """Left and right exchanged, with probability one half."""
    return torch.where(uniform[:, 0, None, None, None] < 0.5, images.flip(3), images)


def pad_crop(images: Tensor, uniform: Tensor) -> Tensor:
    """Four black pixels on every side, and a crop of the old size out of that (He et al., CVPR 2016)."""
    count, _, height, width = images.shape
    top, left = (uniform[:, :2] * 9).long().unbind(1)
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, :]
    examples = torch.arange(count, device=images.device)[:, None, None]
    return F.pad(images, (4, 4, 4, 4))[examples, :, rows, columns].movedim(3, 1)


def random_resized_crop(images: Tensor, uniform: Tensor) -> Tensor:
    """0.7 to 1 of the area in an aspect ratio of 3/4 to 4/3, resized to the old size; floats on the scale of `images`.

    Drawn as by torchvision: the first of ten tries that fits, else the whole image.
    """
    height, width = images.shape[2:]
    low, high = torch.tensor([3 / 4, 4 / 3]).log().tolist()
    area = height * width * (0.7 + 0.3 * uniform[:, :TRIES])
    ratio = (low + (high - low) * uniform[:, TRIES : 2 * TRIES]).exp()
    wide, tall = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide <= width) & (tall <= height)
    first = fits.byte().argmax(1, keepdim=True)
    some = fits.any(1)
    wide = torch.where(some, wide.gather(1, first).squeeze(1), width)
    tall = torch.where(some, tall.gather(1, first).squeeze(1), height)
    left = (uniform[:, 2 * TRIES] * (width - wide + 1)).floor()
    top = (uniform[:, 2 * TRIES + 1] * (height - tall + 1)).floor()
    # From the output's coordinates, −1 to 1 over the crop, to the input's, −1 to 1 over the whole image.
    zero = torch.zeros_like(left)
    across = torch.stack([wide / width, zero, (2 * left + wide) / width - 1], 1)
    down = torch.stack([zero, tall / height, (2 * top + tall) / height - 1], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images.to(grid.dtype), grid, padding_mode="border", align_corners=False)


# How many random numbers an image takes, and what it does with them.
AUGMENTATIONS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "flip": (1, flip),
    "pad_crop": (2, pad_crop),
    "random_resized_crop": (2 * TRIES + 2, random_resized_crop),
}


def draws(indices: Tensor, when: Tensor, names: Sequence[Augmentation], seed: int) -> list[Tensor]:
    """For each of `names` the (N, count) random numbers of N draws of an example.

    Args:
        indices: (N,) which example each is.
        when: (N,) on which occasion it is drawn, see `draw_ids`.
    """
    return [uniforms(derived_seed(seed, name), indices, when, AUGMENTATIONS[name][0]) for name in names]


def augment(images: Tensor, names: Sequence[Augmentation], drawn: Sequence[Tensor]) -> Tensor:
    """(B, C, H, W) `images`, augmented by `names` one after the other.

    Args:
        drawn: for each of them the (B, count) random numbers, see `draws`.
    """
    for name, uniform in zip(names, drawn, strict=True):
        images = AUGMENTATIONS[name][1](images, uniform).contiguous()
    return images


def draw_ids(epoch: int, drawn: Tensor) -> Tensor:
    """(N,) for each entry of the epoch's order a number of the epoch and of how often its example was drawn before it."""
    return (epoch << 32) + draw_numbers(drawn)


def uniforms(seed: int, indices: Tensor, draws: Tensor, count: int) -> Tensor:
    """(B, count) float32 in [0, 1), hashed from (seed, index, draw, column): the finaliser of splitmix64 (Steele, 2014)."""
    state = torch.full_like(indices, seed)
    for word in (indices[:, None], draws[:, None], torch.arange(count, device=indices.device)[None]):
        state = state if state.dim() == 2 else state[:, None]
        state = mixed(state ^ mixed(word + 1))
    return shifted(state, 40).float() / 2**24


def mixed(x: Tensor) -> Tensor:
    """A bijection of the 64-bit integers that scatters neighbours; products wrap around."""
    x = x + signed(0x9E3779B97F4A7C15)
    x = (x ^ shifted(x, 30)) * signed(0xBF58476D1CE4E5B9)
    x = (x ^ shifted(x, 27)) * signed(0x94D049BB133111EB)
    return x ^ shifted(x, 31)


def shifted(x: Tensor, bits: int) -> Tensor:
    """int64 shifted right with zeros coming in, as torch's shift of signed numbers does not."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def signed(x: int) -> int:
    """The int64 with the bits of a 64-bit `x`."""
    return x - (1 << 64) if x >= 1 << 63 else x


def draw_numbers(order: Tensor) -> Tensor:
    """For each entry of an epoch's (N,) `order`, how many equal ones came before it."""
    by_value = order.argsort(stable=True)
    values = order[by_value]
    place = torch.arange(len(order), device=order.device)
    starts = torch.where(values == values.roll(1), 0, place)
    starts[:1] = 0
    return torch.empty_like(order).scatter_(0, by_value, place - starts.cummax(0).values)
