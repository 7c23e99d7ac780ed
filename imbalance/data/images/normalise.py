"""Turn batches of a data set into inputs of the model: normalise images, and leave other inputs unchanged."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from imbalance.data.splits import Dataset

CACHED_PIXELS = 2**19  # 2 MB of float32, which the cache of a core holds


def normaliser(
    dataset: Dataset, device: torch.device, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format
) -> Callable[[Tensor], Tensor]:
    """Return the function that turns a batch of `dataset` into the model's input.

    The function normalises uint8 images by `dataset.mean` and `dataset.std`, and returns them as `dtype` in the memory
    format `layout`. It does not change the values of floats and tokens.
    """
    if dataset.train.inputs.is_floating_point() and len(dataset.input_shape) == 3:
        return lambda batch: batch.contiguous(memory_format=layout)
    if dataset.train.inputs.is_floating_point() or dataset.vocabulary:
        return lambda batch: batch
    return pixel_normaliser(dataset.mean, dataset.std, device, dtype, layout)


def pixel_normaliser(
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    dtype: torch.dtype,
    layout: torch.memory_format = torch.contiguous_format,
) -> Callable[[Tensor], Tensor]:
    """Return the function that normalises uint8 images on `device`.

    Args:
        mean, std: the mean and standard deviation of each channel, as fractions of 255.
        layout: the memory format of the normalised images.
    """
    means, stds = (torch.tensor(value, dtype=dtype, device=device).view(-1, 1, 1) * 255 for value in (mean, std))

    def normalise(batch: Tensor) -> Tensor:
        if batch.device.type != "cpu" or layout != torch.contiguous_format or not batch.is_contiguous():
            return batch.to(dtype, memory_format=layout).sub_(means).div_(stds)
        # On a CPU, memory access dominates, so NumPy does this in small chunks. NumPy asks the kernel for huge pages,
        # where torch would fault in every 4 KB; a chunk stays in the cache; and torch's threads would have to
        # synchronise after each of these short steps.
        raw, images = batch.numpy(), np.empty(batch.shape, str(dtype).removeprefix("torch."))
        chunk_size = max(1, CACHED_PIXELS // max(1, raw[:1].size))
        for i in range(0, len(raw), chunk_size):
            chunk = images[i : i + chunk_size]
            np.subtract(raw[i : i + chunk_size], means.numpy(), out=chunk)
            np.divide(chunk, stds.numpy(), out=chunk)
        return torch.from_numpy(images)

    return normalise
