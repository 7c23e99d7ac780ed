"""The loop that the paper's code runs, over the project's: its ConvNet, 32×32 images, batch 64, float32.

Each in a process of its own, so that theirs runs as it is: without `imbalance.utils.malloc`. The first epoch warms up. Theirs
is written here from a description: every image goes through Pillow and torchvision's transforms and is collated into a
batch, and after every step the model sees the batch again, in evaluation mode, for the training metrics.

Where the machine computes faster in bf16 there is a row for ours in bf16 and channels_last; a CPU without instructions
for bf16 is several times as slow in it, and has none.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from imbalance.bench.cases import make, on_images, our_epoch
from imbalance.bench.timing import Row, few, in_turns, measured_by, seconds
from imbalance.data import Dataset
from imbalance.utils.malloc import keep_freed_memory
from imbalance.utils.torchvision_import import import_torchvision

BATCH = 64
BATCHES = 6  # an epoch


class Transformed(torch.utils.data.Dataset):
    """The training images, one by one: to Pillow, to a tensor, normalised."""

    def __init__(self, dataset: Dataset):
        transforms = import_torchvision().transforms
        steps = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
        self.transform = transforms.Compose(steps)
        self.images = dataset.train.inputs.permute(0, 2, 3, 1).numpy()
        self.targets = dataset.train.targets.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(np.ascontiguousarray(self.images[row]))), self.targets[row]


def epoch_of_theirs(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, class_weights: Tensor
) -> list[tuple[float, float]]:
    """An epoch, and the loss and the accuracy of every batch after its step."""
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
    """Whether a convolution takes less time in bf16."""
    taken = {}
    for dtype in (torch.float32, torch.bfloat16):
        convolution, images = nn.Conv2d(64, 64, 3).to(dtype), torch.ones(8, 64, 16, 16, dtype=dtype)
        convolution(images)
        taken[dtype] = seconds(partial(convolution, images))
    return taken[torch.bfloat16] < taken[torch.float32]


def measure(whose: str, batches: int, bf16: bool = False) -> float:
    """Seconds of one epoch, in this process."""
    config = on_images("convnet", size=BATCH * batches, batch_size=BATCH)
    if bf16:
        config.trainer.update(mixed_precision="bf16", channels_last=True)
    learner = make(config)
    if whose == "ours":
        keep_freed_memory()
        epoch = our_epoch(config, learner)
    else:
        loader = DataLoader(Transformed(learner.dataset), BATCH, shuffle=True)
        optimizer = torch.optim.SGD(learner.model.parameters(), lr=config.optim.lr, momentum=config.optim.momentum)

        def epoch() -> None:
            epoch_of_theirs(learner.model, loader, optimizer, torch.ones(2))

    epoch()
    return seconds(epoch)


def rows(repeats: int, batches: int = BATCHES) -> list[Row]:
    def ratios(**ours: bool) -> list[float]:
        def turn(whose: str, **how: bool) -> float:
            return measured_by(__name__, whose=whose, batches=batches, **how)

        return in_turns(lambda: turn("theirs"), lambda: turn("ours", **ours), few(repeats))

    found = [Row("paper: its loop / ours", "ConvNet, 32×32 images, batch 64", ratios(), "≥ 1.35")]
    if gains_from_bf16():
        found.append(Row("paper: its loop / ours", "the same, ours in bf16, channels_last", ratios(bf16=True), "≥ 2.5"))
    return found
