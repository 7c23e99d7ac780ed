"""Write predictions/<split>.npz while the split is evaluated, because all logits of a split may not fit in memory."""

import zipfile
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor


class PredictionsFile:
    """File of predictions, a sink for logits: `append` writes the logits block by block, then `complete` all other arrays.

    The file has the bytes that `numpy.savez` writes. Nothing is compressed, because compressing logits takes 40 times as
    long as writing them, and saves little.

    Args:
        file: file open for reading and writing bytes; the archive is written from its beginning.
        rows: number of examples.
    """

    def __init__(self, file: BinaryIO, rows: int):
        self.rows, self._file = rows, file
        self._begin()

    def _begin(self) -> None:
        self._archive = zipfile.ZipFile(self._file, "w")
        self._logits: Any = None  # open member of the archive, once the number of classes is known
        self._start, self._classes = 0, 0

    def clear(self) -> None:
        """Empty the file, because the split is evaluated again."""
        self.close()
        self._file.seek(0)
        self._file.truncate()
        self._begin()

    def close(self) -> None:
        """End the archive as it is, because an open ZipFile would write to the file when the ZipFile is deleted."""
        with suppress(OSError, ValueError):
            if self._logits:
                self._logits.close()
            self._archive.close()

    def append(self, block: Tensor) -> None:
        """Write a block: the (B, K) float32 logits of the next B examples, on the CPU."""
        array = np.ascontiguousarray(block.numpy())
        if self._logits is None:
            self._classes = array.shape[1]
            self._logits = self._archive.open("logits.npy", "w", force_zip64=True)
            header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(self._logits, header | {"shape": (self.rows, self._classes)})
            self._start = self._file.tell()
        self._logits.write(array.data)

    def joined(self) -> Tensor:
        """Return the (N, K) logits as a memory map of the file, which `append` must have written in full."""
        self._logits.close()
        self._file.flush()
        shape = (self.rows, self._classes)
        return torch.from_numpy(np.memmap(self._file, np.float32, "c", self._start, shape))

    def complete(self, **arrays: Tensor) -> None:
        """Write all other arrays, and end the archive.

        Args:
            arrays: columns of the file, such as targets, with one row for each example.
        """
        self._logits.close()
        for name, tensor in arrays.items():
            with self._archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, tensor.cpu().numpy(), allow_pickle=False)
        self._archive.close()
