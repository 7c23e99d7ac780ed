"""Measure the ratio of the time of an epoch in the paper's training loop to its time in this project's loop.

The paper is Wang et al., ICLR 2022. Both loops train its ConvNet in float32, on batches of 64 images of 32×32 pixels. Each loop
runs in a process of its own, so that the paper's loop runs without `imbalance.utils.malloc`. The first epoch is a warm-up. The
paper's loop is written here from a description. It passes every image through Pillow and torchvision's transforms, and
collates the images to a batch. After every step it evaluates the model on the same batch again, for the training metrics.

A second row has the project's loop in bf16 and channels_last, if the machine computes faster in bf16 than in float32. A CPU
without bf16 instructions is several times slower in bf16, so the row is left out.
"""

from collections.abc import Iterator
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

BATCH = 64  # images in a batch
BATCHES = 6  # batches in an epoch


class Transformed(torch.utils.data.Dataset):
    """Data set of the training images; every access converts one image to Pillow, and then to a normalised tensor."""

    def __init__(self, dataset: Dataset):
        transforms = import_torchvision().transforms
        steps = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
        self.transform = transforms.Compose(steps)
        assert isinstance(dataset.train.inputs, Tensor), "random images are in memory"
        self.images = dataset.train.inputs.permute(0, 2, 3, 1).cpu().numpy()
        self.targets = dataset.train.targets.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(np.ascontiguousarray(self.images[row]))), self.targets[row]


def papers_epoch(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, class_weights: Tensor
) -> list[tuple[float, float]]:
    """Train an epoch by the loop of Wang et al. (ICLR 2022), and return a loss and an accuracy for each batch.

    After each step the loss and the accuracy are computed on the same batch with the new network weights.

    Args:
        class_weights: (K,) weights of the classes, on the device of the model.
    """
    measured = []
    for images, targets in loader:
        images, targets = images.to(class_weights.device), targets.to(class_weights.device)
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
    taken, device = {}, "cuda" if torch.cuda.is_available() else "cpu"
    for dtype in (torch.float32, torch.bfloat16):
        convolution = nn.Conv2d(64, 64, 3).to(device, dtype)
        images = torch.ones(8, 64, 16, 16, dtype=dtype, device=device)
        convolution(images)
        taken[dtype] = seconds(partial(convolution, images))
    return taken[torch.bfloat16] < taken[torch.float32]


def measure(whose: str, batches: int, bf16: bool = False) -> float:
    """Train two epochs, and return the seconds of the second.

    Args:
        whose: "ours" for the project's loop, "theirs" for the paper's.
        batches: number of batches in the epoch.
        bf16: compute in bf16 and channels_last; only for the project's loop.
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
            papers_epoch(learner.model, loader, optimizer, torch.ones(2, device=learner.accelerator.device))

    epoch()
    return seconds(epoch)


def rows(repeats: int, batches: int = BATCHES) -> Iterator[Row]:
    """Measure the paper's loop and this project's loop, and yield the rows of the benchmark's table.

    Args:
        batches: number of batches in an epoch.
    """

    def ratios(**ours: bool) -> list[float]:
        def turn(whose: str, **options: bool) -> float:
            return measure_in_process(__name__, whose=whose, batches=batches, **options)

        return in_turns(lambda: turn("theirs"), lambda: turn("ours", **ours), halved(repeats))

    yield Row("paper: its loop / ours", "ConvNet, 32×32 images, batch 64", ratios(), "≥ 1.35")
    if gains_from_bf16():
        yield Row("paper: its loop / ours", "the same, ours in bf16, channels_last", ratios(bf16=True), "≥ 2.5")
