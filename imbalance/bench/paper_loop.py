"""Measure the training loop of the paper's code over the project's: its ConvNet, 32×32 images, batch 64, float32.

Each loop runs in a process of its own, so that the paper's runs without `imbalance.utils.malloc`. The first epoch is a
warm-up. The paper's loop is written here from a description. It passes every image through Pillow and torchvision's
transforms, and collates the images to a batch. After every step it evaluates the model on the batch again, for the training
metrics.

A second row has our loop in bf16 and channels_last, on machines that compute faster in bf16. A CPU without bf16 instructions
is several times slower in bf16, and has no such row.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from imbalance.bench.cases import make, on_images, our_epoch
from imbalance.bench.steps import bare_optimizer
from imbalance.bench.timing import Row, halved, in_turns, measure_in_process, seconds
from imbalance.config.resolve import override
from imbalance.data import Dataset
from imbalance.utils.malloc import keep_freed_memory
from imbalance.utils.torchvision_import import import_torchvision

BATCH = 64
BATCHES = 6  # batches in an epoch


class Transformed(torch.utils.data.Dataset):
    """The training images one by one, converted to Pillow and to a normalised tensor."""

    def __init__(self, dataset: Dataset):
        transforms = import_torchvision().transforms
        steps = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
        self.transform = transforms.Compose(steps)
        assert isinstance(dataset.train.inputs, Tensor), "random images are in memory"
        self.images = dataset.train.inputs.permute(0, 2, 3, 1).numpy()
        self.targets = dataset.train.targets.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(np.ascontiguousarray(self.images[row]))), self.targets[row]


def papers_epoch(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, class_weights: Tensor
) -> list[tuple[float, float]]:
    """Train an epoch, and return the loss and the accuracy of every batch after its step."""
    measured = []
    for images, targets in loader:
        model.train()
        optimizer.zero_grad()
        losses = F.cross_entropy(model(images), targets, reduction="none")
        (losses * class_weights[targets]).mean().backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = model(images)
            accuracy = (logits.argmax(1) == targets).float().mean()
            measured.append((F.cross_entropy(logits, targets).item(), accuracy.item()))
    return measured


def gains_from_bf16() -> bool:
    """Return True if a convolution takes less time in bf16 than in float32."""
    taken = {}
    for dtype in (torch.float32, torch.bfloat16):
        convolution, images = nn.Conv2d(64, 64, 3).to(dtype), torch.ones(8, 64, 16, 16, dtype=dtype)
        convolution(images)
        taken[dtype] = seconds(partial(convolution, images))
    return taken[torch.bfloat16] < taken[torch.float32]


def measure(whose: str, batches: int, bf16: bool = False) -> float:
    """Return the seconds of one epoch in this process.

    Args:
        whose: "ours", or "theirs" for the paper's loop.
        batches: number of batches in the epoch.
        bf16: compute in bf16 and channels_last.
    """
    changes = {"trainer.mixed_precision": "bf16", "trainer.channels_last": True} if bf16 else {}
    config = override(on_images("convnet", size=BATCH * batches, batch_size=BATCH), changes)
    learner = make(config)
    if whose == "ours":
        keep_freed_memory()
        epoch = our_epoch(config, learner)
    else:
        loader = DataLoader(Transformed(learner.dataset), BATCH, shuffle=True)
        optimizer = bare_optimizer(config, learner)

        def epoch() -> None:
            papers_epoch(learner.model, loader, optimizer, torch.ones(2))

    epoch()
    return seconds(epoch)


def rows(repeats: int, batches: int = BATCHES) -> list[Row]:
    """Measure this part of the benchmark, and return its rows."""

    def ratios(**ours: bool) -> list[float]:
        def turn(whose: str, **options: bool) -> float:
            return measure_in_process(__name__, whose=whose, batches=batches, **options)

        return in_turns(lambda: turn("theirs"), lambda: turn("ours", **ours), halved(repeats))

    table = [Row("paper: its loop / ours", "ConvNet, 32×32 images, batch 64", ratios(), "≥ 1.35")]
    if gains_from_bf16():
        table.append(Row("paper: its loop / ours", "the same, ours in bf16, channels_last", ratios(bf16=True), "≥ 2.5"))
    return table
