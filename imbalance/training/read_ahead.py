"""Read the images of an epoch's next batches from disk while a step computes.

A step needs the images of its examples, and with mixing the images of their partners. All of them are read together and
kept until the next step. So a step with micro-batches or several forward passes reads each image once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, tee
from typing import Any

import torch
from torch import Tensor

from imbalance.data.images.augment import AUGMENTATIONS, Augmentation, uniforms
from imbalance.data.images.image_files import ImageFiles
from imbalance.data.images.stored_images import DiskImages, Request
from imbalance.data.texts.tokens import Tokens
from imbalance.methods.batch import Inputs
from imbalance.utils.seeds import derived_seed


class ReadAhead:
    """Reader of the images that the steps of an epoch need.

    Args:
        images: images of all examples of the training split.
        order: (M,) rows of the training split in the order in which the epoch draws them.
        parts: the (M,) positions in `order` of the examples and, with mixing, those of their partners.
        crops: random numbers of the random crops of original images; None without such crops.
    """

    def __init__(
        self, images: DiskImages, order: Tensor, parts: Sequence[Tensor], crops: "Crops | None" = None
    ) -> None:
        self.images, self.order, self.parts, self.crops = images, order, parts, crops
        self.slices: Iterator[slice] = iter(())
        self.batches: Iterator[Tensor] = iter(())
        self.held, self.views = range(0), torch.empty(0)

    def start(self, slices: Iterable[slice]) -> None:
        """Start to read the images of the examples in each of `slices`, in this order; `advance` takes them."""
        self.slices, requested = tee(slices)
        self.batches = self.images.read(map(self.request, requested))

    def advance(self, batch_slice: slice, following: Iterable[slice] = ()) -> None:
        """Hold the images of the examples in `batch_slice`.

        If this slice is the next one, its images have been read ahead. Otherwise the reading starts anew.

        Args:
            following: slices whose images are read ahead if the reading starts anew.
        """
        # The batches end early if another reader takes the workers.
        views = next(self.batches, None) if next(self.slices, None) == batch_slice else None
        if views is None:
            self.start(chain([batch_slice], following))
            next(self.slices)
            views = next(self.batches)
        self.held, self.views = range(len(self.order))[batch_slice], views

    def request(self, batch_slice: slice) -> Request:
        """Return the request for all images that the examples in a slice need."""
        positions = torch.cat([part[batch_slice] for part in self.parts])
        return Request(self.order[positions], self.crops and self.crops.draw(positions))

    def read(self, batch_slice: slice, part: int) -> tuple[Tensor, ...]:
        """Return the (B, C, H, W) uint8 images of the examples in a slice, or of their partners: a tensor for each view.

        Without random crops, return one tensor for all views. If the slice is no part of the slice that `advance` took
        last, call `advance` first.

        Args:
            part: index into `parts`: 0 for the examples, 1 for their partners.
        """
        positions = range(len(self.order))[batch_slice]
        if len(positions) and not (
            positions[0] in self.held and positions[-1] in self.held and positions.step == self.held.step
        ):
            self.advance(batch_slice)
        first = self.held.index(positions[0]) if len(positions) else 0
        start = part * len(self.held) + first
        return tuple(self.views[:, start : start + len(positions)])


def batch_reader(
    inputs: Tensor | DiskImages | Tokens, slices: Iterable[slice], crops: "Crops | None" = None
) -> Callable[[slice], Inputs]:
    """Return a function from a slice of a split to the inputs of its examples; images on disk are read ahead.

    Args:
        inputs: inputs of all examples of the split.
        slices: slices in the order of the calls; another order is allowed, but is slower.
        crops: random numbers of the random crops of original images, for one view; None without such crops.
    """
    if not isinstance(inputs, DiskImages):
        return inputs.__getitem__
    rows = torch.arange(len(inputs))
    reader = ReadAhead(inputs, rows, [rows], crops)
    reader.start(slices)
    return lambda batch_slice: reader.read(batch_slice, 0)[0]


class Crops:
    """Random numbers of an epoch's random crops, drawn one batch at a time.

    The numbers equal those that `imbalance.data.images.augment.draws` draws for the same augmentation.

    Args:
        seeds: seed of each view.
        name: name of the random crop in `AUGMENTATIONS`.
        indices: (M,) index of each drawn example, on the CPU.
        ids: (M,) numbers from `draw_ids`, on the CPU.
    """

    def __init__(self, seeds: Sequence[int], name: str, indices: Tensor, ids: Tensor) -> None:
        self.seeds = [derived_seed(seed, name) for seed in seeds]
        self.count, self.indices, self.ids = AUGMENTATIONS[name].count, indices, ids

    def draw(self, positions: Tensor) -> Tensor:
        """Return the (V, B, R) random numbers of the examples at (B,) positions of the epoch's order."""
        indices, ids = self.indices[positions], self.ids[positions]
        return torch.stack([uniforms(seed, indices, ids, self.count) for seed in self.seeds])


def original_crop(inputs: Any, augmentations: Sequence[Augmentation]) -> Augmentation | None:
    """Return the augmentation that is a random crop of the original image files; None if there is no such crop.

    Args:
        inputs: the inputs of a split.
    """
    if not isinstance(inputs, ImageFiles):
        return None
    return next((name for name in augmentations if AUGMENTATIONS[name].least_area), None)
