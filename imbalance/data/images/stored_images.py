"""Read batches from a store of decoded images, and copy them to the device."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from imbalance.errors import BadInput
from imbalance.utils.memory import free_memory

IMAGES_PER_COPY = 256  # images that are copied at a time when all images move to the device


@dataclass(frozen=True)
class StoredImages:
    """N images of a store, used in `Split.inputs` like a tensor: indexing copies a batch to the device.

    images: (M, C, H, W) uint8, the read-only memory map of the store.
    checksums: (M,) uint32, the CRC-32 of each image of the store.
    rows: (N,) int64, on the CPU: the positions of these N images among the M images of the store.
    target: the device that batches are copied to.
    """

    images: np.ndarray
    checksums: np.ndarray
    rows: Tensor
    target: torch.device
    dtype, device = torch.uint8, torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (N, C, H, W)."""
        return (len(self.rows), *self.images.shape[1:])

    def dim(self) -> int:
        """Return the number of dimensions, like a tensor."""
        return 4

    def __len__(self) -> int:
        return len(self.rows)

    def is_floating_point(self) -> bool:
        """Return False, because pixels are uint8."""
        return False

    def to(self, device: torch.device, dtype: torch.dtype) -> "StoredImages":
        """Return these images with `device` as the device that batches are copied to.

        `dtype` is ignored, because images stay uint8; it is an argument because `torch.Tensor.to` has one.
        """
        return replace(self, target=device)

    @property
    def nbytes(self) -> int:
        """The size of all images in bytes."""
        return int(np.prod(self.shape))

    def as_tensor(self) -> Tensor:
        """Copy all images to the target device as one (N, C, H, W) uint8 tensor.

        Raises:
            BadInput: the device has too little free memory.
        """
        free = free_memory(self.target)
        if self.nbytes > free:
            raise BadInput(
                f"config.trainer.images_on_device: {len(self):,} images need {self.nbytes / 1e9:,.1f} GB, and {self.target} "
                f"has {free / 1e9:,.1f} GB free; set config.trainer.images_on_device=False to read them from the disk"
            )
        images = torch.empty(self.shape, dtype=torch.uint8, device=self.target)
        for start in range(0, len(self), IMAGES_PER_COPY):
            images[start : start + IMAGES_PER_COPY] = self[start : start + IMAGES_PER_COPY]
        return images

    def subset(self, index: Tensor) -> "StoredImages":
        """Return the images at the positions `index`, without reading pixels."""
        return replace(self, rows=self.rows[index])

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return the (B, C, H, W) uint8 images at `index` on the target device; `index` must be on the CPU."""
        rows = self.rows[index].numpy()

        def gather(batch: Tensor) -> None:
            np.take(
                self.images, rows, axis=0, out=batch.numpy(), mode="clip"
            )  # the default mode "raise" would copy twice

        shape = (len(rows), *self.images.shape[1:])
        if self.target.type != "cpu":
            return pinned_copier().copy(shape, gather, self.target)
        batch = torch.empty(shape, dtype=torch.uint8)
        gather(batch)
        return batch

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return `self[index]`; `dim` is always 0. Callers use this method, because for tensors it is faster than indexing."""
        return self[index]


class PinnedCopier:
    """Copier of batches to a GPU through two blocks of pinned memory: one is filled while the GPU copies the other.

    The GPU copies pinned memory while the program continues. The number of blocks is limited to two, because a program
    that never waits for the GPU would otherwise pin the memory of a whole split.
    """

    def __init__(self):
        self.blocks = [(torch.empty(0, dtype=torch.uint8), torch.cuda.Event()) for _ in range(2)]

    def copy(self, shape: Sequence[int], fill: Callable[[Tensor], None], device: torch.device) -> Tensor:
        """Let `fill` write to a uint8 tensor of `shape` in pinned memory, and return a copy of this tensor on `device`."""
        memory, copied = self.blocks.pop(0)
        copied.synchronize()  # the GPU may still copy this block, two batches later; usually it has ended
        size = int(np.prod(shape))
        if size > len(memory):
            memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        batch = memory[:size].view(shape)
        fill(batch)
        on_device = batch.to(device, non_blocking=True)
        copied.record()
        self.blocks.append((memory, copied))
        return on_device


@functools.cache
def pinned_copier() -> PinnedCopier:
    """Return the one `PinnedCopier` of this process."""
    return PinnedCopier()
