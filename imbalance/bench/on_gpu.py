"""What has a bar on a GPU alone: "not measured" without one.

A compiled step over that of a loop whose model is compiled; ten ConvNets one after another over the same at once; batches of
images of 224×224 that come from pinned memory over those that are on the device.
"""

from collections.abc import Callable

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from imbalance.bench import stacked
from imbalance.bench.cases import make, on_images, our_epoch
from imbalance.bench.steps import bare_epoch, bare_optimizer, digits_mlp
from imbalance.bench.timing import Row, timed_in_turns
from imbalance.data.images.stored_images import StoredImages

STEP, AT_ONCE, IMAGES = (
    "gpu: step, ours / bare, both compiled",
    "gpu: one by one / at once",
    "gpu: from pinned memory / from the device",
)
STEPS: dict[str, Callable[[], ConfigDict]] = {
    "ConvNet, 32×32 images, batch 64": lambda: on_images("convnet", size=4096, batch_size=64),
    "ConvNet, 32×32 images, batch 512": lambda: on_images("convnet", size=8192, batch_size=512),
    "MLP, digits, batch 64": digits_mlp,
}
RATES, SEEDS = 5, 2  # of the ConvNets
SHAPE, BATCH = (2048, 3, 224, 224), 64  # of the images


def of_steps(config: ConfigDict, repeats: int) -> list[float]:
    """The ratios of the seconds that an epoch takes."""
    theirs = make(config)
    optimizer = bare_optimizer(config, theirs)
    theirs.model.compile()
    size, device = len(theirs.dataset.train), theirs.accelerator.device

    def bare() -> None:
        bare_epoch(theirs, optimizer, torch.randperm(size, device=device), config.trainer.batch_size)

    config.trainer.compile = "default"
    return timed_in_turns(our_epoch(config, make(config)), bare, repeats)


def of_images(repeats: int) -> list[float]:
    """The ratios of the seconds that an epoch's batches take, as `trainer.images_on_device` says no and yes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    stored = StoredImages(images, np.zeros(len(images), np.uint32), torch.arange(len(images)), device)
    on_device = stored.as_tensor()

    def epoch(inputs: StoredImages | Tensor) -> None:
        for rows in torch.randperm(len(images)).to(inputs.device).split(BATCH):
            inputs.index_select(0, rows).float()

    return timed_in_turns(lambda: epoch(stored), lambda: epoch(on_device), repeats)


def rows(repeats: int) -> list[Row]:
    def convnet() -> ConfigDict:
        return on_images("convnet", size=512, batch_size=64)

    found = [
        (STEP, case, lambda config=config: of_steps(config(), repeats), "≤ 1.05") for case, config in STEPS.items()
    ]
    at_once = f"epochs of {RATES * SEEDS} ConvNets, 32×32 images"
    found.append((AT_ONCE, at_once, lambda: stacked.of_epochs(convnet, 1, repeats, RATES, SEEDS), "≥ 4"))
    found.append((IMAGES, f"{SHAPE[0]:,} images of 224×224, uint8", lambda: of_images(repeats), "≥ 5"))
    there = torch.cuda.is_available()
    return [Row(part, case, ratios() if there else [], bar) for part, case, ratios, bar in found]
