"""The images of a store in use: batches of them, gathered from the memory map and brought to the device."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from imbalance.errors import BadInput
from imbalance.utils.memory import free_memory

AT_ONCE = 256  # images of a store that is brought to the device as a whole


@dataclass(frozen=True)
class Stored:
    """N images of a store, standing in for a tensor of `Split.inputs`: indexing it brings a batch to the device.

    images: (M, C, H, W) uint8, the read-only memory map.
    checksums: (M,) uint32, the CRC-32 of each.
    rows: (N,) int64, on the CPU.
    target: where batches go.
    """

    images: np.ndarray
    checksums: np.ndarray
    rows: Tensor
    target: torch.device
    dtype, device = torch.uint8, torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.images.shape[1:])

    def dim(self) -> int:
        return 4

    def __len__(self) -> int:
        return len(self.rows)

    def is_floating_point(self) -> bool:
        return False

    def to(self, device: torch.device, dtype: torch.dtype) -> "Stored":
        """The same images, with batches that go to `device`. They stay uint8: `dtype` is only what a tensor takes."""
        return replace(self, target=device)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape))

    def whole(self) -> Tensor:
        """(N, C, H, W) uint8, all of them on the device.

        Raises:
            BadInput: it has no room for them.
        """
        free = free_memory(self.target)
        if self.nbytes > free:
            raise BadInput(
                f"config.trainer.images_on_device: {len(self):,} images take {self.nbytes / 1e9:,.1f} GB, and {self.target} "
                f"has {free / 1e9:,.1f} GB free; with False they come from the disk batch by batch"
            )
        found = torch.empty(self.shape, dtype=torch.uint8, device=self.target)
        for start in range(0, len(self), AT_ONCE):
            found[start : start + AT_ONCE] = self[start : start + AT_ONCE]
        return found

    def subset(self, index: Tensor) -> "Stored":
        """The images at `index` of these."""
        return replace(self, rows=self.rows[index])

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """(B, C, H, W) uint8 on the target device, gathered on the CPU, where `index` is, and moved in one piece."""
        rows = self.rows[index].numpy()

        def gather(batch: Tensor) -> None:
            np.take(self.images, rows, axis=0, out=batch.numpy(), mode="clip")  # "raise" would copy once more

        shape = (len(rows), *self.images.shape[1:])
        if self.target.type != "cpu":
            return ferry().bring(shape, gather, self.target)
        batch = torch.empty(shape, dtype=torch.uint8)
        gather(batch)
        return batch

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The same, by the name of what is fast for a tensor; `dim` is 0."""
        return self[index]


class Ferry:
    """Brings batches to a GPU from two blocks of pinned memory, one of which is filled while the other is on its way.

    Pinned memory is what a GPU copies from while the program goes on. With a block for every batch there would be as many
    as the program is ahead: all of a split, where nothing else waits for the device.
    """

    def __init__(self):
        self.blocks = [(torch.empty(0, dtype=torch.uint8), torch.cuda.Event()) for _ in range(2)]

    def bring(self, shape: Sequence[int], fill: Callable[[Tensor], None], device: torch.device) -> Tensor:
        """A uint8 tensor of `shape` on `device`, with what `fill` writes into it."""
        memory, copied = self.blocks.pop(0)
        copied.synchronize()  # the batch before the last, which has most often arrived
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
def ferry() -> Ferry:
    """That of this process."""
    return Ferry()
