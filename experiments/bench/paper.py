"""The loop that the paper's code runs, over the project's: its ConvNet, 32×32 images, batch 64, float32.

Each in a process of its own, so that theirs runs as it is: without `imbalance.memory`. The first epoch warms up. Theirs
is written here from a description: every image goes through Pillow and torchvision's transforms and is collated into a
batch, and after every step the model sees the batch again, in evaluation mode, for the training metrics.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.bench.cases import make, on_images, our_epoch
from experiments.bench.timing import Row, few, in_turns, measured_by, seconds
from imbalance.data import Dataset
from imbalance.memory import keep_freed_memory
from imbalance.vision import import_torchvision

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


def measure(whose: str, batches: int) -> float:
    """Seconds of one epoch, in this process."""
    config = on_images("convnet", size=BATCH * batches, batch_size=BATCH)
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
    def turn(whose: str) -> float:
        return measured_by("experiments.bench.paper", whose=whose, batches=batches)

    found = in_turns(lambda: turn("theirs"), lambda: turn("ours"), few(repeats))
    return [Row("paper: its loop / ours", "ConvNet, 32×32 images, batch 64", found, "≥ 1.35")]
