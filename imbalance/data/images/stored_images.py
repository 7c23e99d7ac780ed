"""Images on disk, for `Split.inputs` in place of a tensor: the base class `DiskImages`, and `StoredImages` for a store."""

import functools
import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from imbalance.errors import BadInput
from imbalance.utils.memory import free_memory

D = TypeVar("D", bound="DiskImages")
IMAGES_PER_COPY = 256  # images that are copied at a time when all images move to the device


class Request(NamedTuple):
    """B images to read; an image may occur several times.

    index: (B,) int64 positions of the images, or a slice of them; on the CPU.
    crops: (V, B, R) random numbers on the CPU: R for the crop of each image in each of V views; None to read the images
        without random crops. Only `imbalance.data.images.image_files` makes random crops.
    """

    index: Tensor | slice
    crops: Tensor | None = None


class DiskImages(ABC):
    """N images on disk; indexing reads a batch and copies it to the device `target`.

    paths: the files of the M images on disk, relative to the folder of the data set; empty if nobody knows them.
    checksums: (M,) uint32, the CRC-32 of the pixels of each of the M images on disk.
    rows: (N,) int64, on the CPU: the positions of these N images among the M images on disk.
    target: the device that batches are copied to.
    image_shape: the shape (C, H, W) of an image.
    """

    paths: Sequence[str]
    checksums: np.ndarray
    rows: Tensor
    target: torch.device
    dtype, device = torch.uint8, torch.device("cpu")

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of an image."""

    @abstractmethod
    def read(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield the (V, B, C, H, W) uint8 images of each request on the target device; V is 1 without random crops.

        The images of the next requests are read while the caller uses the images of this one.

        Raises:
            BadInput: an image cannot be read.
        """

    @abstractmethod
    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return the (B, C, H, W) uint8 images at `index` on the target device; `index` must be on the CPU."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (N, C, H, W)."""
        return (len(self.rows), *self.image_shape)

    def dim(self) -> int:
        """Return the number of dimensions, like a tensor."""
        return 4

    def __len__(self) -> int:
        return len(self.rows)

    def is_floating_point(self) -> bool:
        """Return False, because pixels are uint8."""
        return False

    def to(self: D, device: torch.device, dtype: torch.dtype) -> D:
        """Return these images with `device` as the device that batches are copied to.

        `dtype` is ignored, because images stay uint8; it is an argument because `torch.Tensor.to` has one.
        """
        return replace(cast(Any, self), target=device)

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
        parts = [slice(start, start + IMAGES_PER_COPY) for start in range(0, len(self), IMAGES_PER_COPY)]
        for part, batch in zip(parts, self.batches(parts)):
            images[part] = batch
        return images

    def batches(self, indices: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        """Yield `self[index]` for each of `indices`; meanwhile read the next batches."""
        return (images[0] for images in self.read(map(Request, indices)))

    def subset(self: D, index: Tensor) -> D:
        """Return the images at the positions `index`, without reading pixels."""
        return replace(cast(Any, self), rows=self.rows[index])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return `self[index]`; `dim` is always 0. Callers use this method, because for tensors it is faster than indexing."""
        return self[index]


@dataclass(frozen=True)
class StoredImages(DiskImages):
    """N images of a store; for the other fields see `DiskImages`.

    images: (M, C, H, W) uint8, the read-only memory map of the store.
    """

    images: np.ndarray
    checksums: np.ndarray
    rows: Tensor
    target: torch.device
    paths: Sequence[str] = ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.images.shape[1:]

    def read(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield the images of each request, as `DiskImages.read` says; a thread gathers the next batch meanwhile."""
        jobs = (reader_thread().submit(self._gathered, request.index) for request in requests)
        job = next(jobs, None)
        while job is not None:
            block, job = job.result(), next(jobs, None)
            yield self._sent(block)[None]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self._sent(self._gathered(index))

    def _gathered(self, index: Tensor | slice) -> "Tensor | PinnedBlock":
        """Return the images at `index` on the CPU, in pinned memory if the target is another device."""
        rows = self.rows[index].numpy()

        def gather(batch: Tensor) -> None:
            # The default mode "raise" would copy twice.
            np.take(self.images, rows, axis=0, out=batch.numpy(), mode="clip")

        shape = (len(rows), *self.image_shape)
        if self.target.type != "cpu":
            return pinned_copier().fill(shape, gather)
        batch = torch.empty(shape, dtype=torch.uint8)
        gather(batch)
        return batch

    def _sent(self, batch: "Tensor | PinnedBlock") -> Tensor:
        """Return a result of `_gathered` on the target device."""
        return batch if isinstance(batch, Tensor) else pinned_copier().send(batch, self.target)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path of the store in place of its pixels, so that a process can send these images to another one.

        The copy has no `paths`, because only pages of examples read them.
        """
        if not isinstance(self.images, np.memmap):
            return StoredImages, (self.images, self.checksums, self.rows, self.target)
        return mapped_images, (self.images.filename, self.images.shape, self.checksums, self.rows, self.target)


def mapped_images(
    path: str | Path, shape: tuple[int, ...], checksums: np.ndarray, rows: Tensor, target: torch.device
) -> StoredImages:
    """Return `StoredImages` whose pixels are in the file `path`; raise `OSError` if this machine has no such file."""
    images = np.memmap(path, dtype=np.uint8, mode="r", shape=shape)
    return StoredImages(images, checksums, rows, target)


@functools.cache
def reader_thread() -> ThreadPoolExecutor:
    """Return the one thread of this process that gathers batches of stores ahead."""
    return ThreadPoolExecutor(1, "imbalance reader")


class PinnedBlock(NamedTuple):
    """A block of pinned memory, the event that tells when its last copy to a GPU has ended, and the batch in the block."""

    memory: Tensor
    copied: Any
    batch: Tensor


class PinnedCopier:
    """Copier of batches to a GPU through blocks of pinned memory: one block is filled while the GPU copies another.

    The GPU copies pinned memory while the program continues. A block is used again once its copy has ended, because a
    program that never waits for the GPU would otherwise pin the memory of a whole split. Two blocks are usually enough.
    """

    def __init__(self):
        self.blocks: queue.SimpleQueue[tuple[Tensor, Any]] = queue.SimpleQueue()

    def fill(self, shape: Sequence[int], fill: Callable[[Tensor], None]) -> PinnedBlock:
        """Let `fill` write to a uint8 tensor of `shape` in pinned memory, and return the block; any thread may call this."""
        try:
            memory, copied = self.blocks.get_nowait()
            copied.synchronize()  # the GPU may still copy this block, two batches later; usually it has ended
        except queue.Empty:
            memory, copied = torch.empty(0, dtype=torch.uint8), torch.cuda.Event()
        size = int(np.prod(shape))
        if size > len(memory):
            memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        batch = memory[:size].view(tuple(shape))
        fill(batch)
        return PinnedBlock(memory, copied, batch)

    def send(self, block: PinnedBlock, device: torch.device) -> Tensor:
        """Return a copy of the block's batch on `device`; the copy may still be under way."""
        on_device = block.batch.to(device, non_blocking=True)
        block.copied.record()
        self.blocks.put((block.memory, block.copied))
        return on_device


@functools.cache
def pinned_copier() -> PinnedCopier:
    """Return the one `PinnedCopier` of this process."""
    return PinnedCopier()
