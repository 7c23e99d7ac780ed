"""Measure three ratios of times on a GPU; without a GPU the table says "not measured".

- The ratio of the time of a training step in the project's loop to its time in a bare PyTorch loop, both compiled.
- The ratio of the time of ten ConvNets trained one after another to their time as one stacked model.
- The ratio of the time to load batches of 224×224 images from pinned memory to the time to take them from GPU memory.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from imbalance.bench import stacked
from imbalance.bench.cases import Config, make, on_images, our_epoch
from imbalance.bench.steps import bare_epoch, bare_optimizer, digits_mlp
from imbalance.bench.timing import Row, timed_in_turns
from imbalance.config.experiment import validate
from imbalance.config.resolve import override
from imbalance.data.images.stored_images import StoredImages

STEP, STACKED, IMAGES = (
    "gpu: step, ours / bare, both compiled",
    "gpu: one by one / stacked",
    "gpu: from pinned memory / from the device",
)
STEPS: dict[str, Callable[[], ConfigDict]] = {
    "ConvNet, 32×32 images, batch 64": lambda: on_images("convnet", size=4096, batch_size=64),
    "ConvNet, 32×32 images, batch 512": lambda: on_images("convnet", size=8192, batch_size=512),
    "MLP, digits, batch 64": digits_mlp,
}
RATES, SEEDS = 5, 2  # numbers of learning rates and of seeds of the ConvNets
SHAPE, BATCH = (2048, 3, 224, 224), 64  # shape of all images, and number of images in a batch


def step_ratios(config: Config, repeats: int) -> list[float]:
    """Return ratios of the time of an epoch in the project's loop to its time in a bare loop, both compiled."""
    theirs = make(config)
    optimizer = bare_optimizer(config, theirs)
    theirs.model.compile()
    size, device = len(theirs.dataset.train), theirs.accelerator.device
    compiled = validate(override(config, {"trainer.compile": "default"}))

    def bare() -> None:
        bare_epoch(theirs, optimizer, torch.randperm(size, device=device), compiled.trainer.batch_size)

    return timed_in_turns(our_epoch(compiled, make(compiled)), bare, repeats)


def image_ratios(repeats: int) -> list[float]:
    """Return ratios of the time to load an epoch's images from pinned memory to the time with images in GPU memory."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    stored = StoredImages(images, np.zeros(len(images), np.uint32), torch.arange(len(images)), device)
    on_device = stored.as_tensor()

    def epoch(inputs: StoredImages | Tensor) -> None:
        for rows in torch.randperm(len(images)).to(inputs.device).split(BATCH):
            inputs.index_select(0, rows).float()

    return timed_in_turns(lambda: epoch(stored), lambda: epoch(on_device), repeats)


def rows(repeats: int) -> Iterator[Row]:
    """Measure the ratios if there is a GPU, and yield the rows of the benchmark's table."""

    def convnet() -> ConfigDict:
        return on_images("convnet", size=512, batch_size=64)

    convnets = f"epochs of {RATES * SEEDS} ConvNets, 32×32 images"
    measurements: list[tuple[str, str, Callable[[], list[float]], str]] = [
        # First, because sweeps stack ConvNets on a GPU, which no other measurement shows to be faster.
        (STACKED, convnets, lambda: stacked.epoch_ratios(convnet, 1, repeats, RATES, SEEDS), "≥ 4"),
        *(
            (STEP, case, lambda config=config: step_ratios(config(), repeats), "≤ 1.05")
            for case, config in STEPS.items()
        ),
        (IMAGES, f"{SHAPE[0]:,} images of 224×224, uint8", lambda: image_ratios(repeats), "≥ 5"),
    ]
    has_gpu = torch.cuda.is_available()
    for part, case, ratios, bar in measurements:
        yield Row(part, case, ratios() if has_gpu else [], bar)
