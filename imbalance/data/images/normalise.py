"""From batches as a data set has them to the model's input."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from imbalance.data.splits import Dataset

CACHED_PIXELS = 2**19  # of float32, 2 MB


def normaliser(
    dataset: Dataset, device: torch.device, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format
) -> Callable[[Tensor], Tensor]:
    """From a batch as `dataset` has it to the model's input: floats and tokens as they are, uint8 images with mean 0,
    deviation 1; images in the memory format `layout`.
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
    """`normaliser` of uint8 images, whose channels have `mean` and `std` as fractions of 255."""
    mean, std = (torch.tensor(value, dtype=dtype, device=device).view(-1, 1, 1) * 255 for value in (mean, std))

    def normalise(batch: Tensor) -> Tensor:
        if batch.device.type != "cpu" or layout != torch.contiguous_format or not batch.is_contiguous():
            return batch.to(dtype, memory_format=layout).sub_(mean).div_(std)
        # On a CPU the memory is what takes the time. NumPy asks the kernel for huge pages, where torch would fault in
        # every 4 KB of a large batch; a few images at a time stay in the cache from the first step to the last; and
        # torch's threads would meet after every one of these short steps, each waiting for the slowest.
        raw, images = batch.numpy(), np.empty(batch.shape, str(dtype).removeprefix("torch."))
        few = max(1, CACHED_PIXELS // max(1, raw[:1].size))
        for i in range(0, len(raw), few):
            part = images[i : i + few]
            np.subtract(raw[i : i + few], mean.numpy(), out=part)
            np.divide(part, std.numpy(), out=part)
        return torch.from_numpy(images)

    return normalise
