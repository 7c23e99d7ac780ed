"""A training step of the project's loop over one of a bare PyTorch loop: same model, data in memory, batch, threads.

Both keep the memory that they free (see `imbalance.utils.malloc`), which makes them faster by about as much.
"""

import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor

from imbalance.bench.cases import make, on_images, our_epoch
from imbalance.bench.timing import Row, timed_in_turns
from imbalance.config.resolve import CONFIGS, load
from imbalance.training.learner import Learner
from imbalance.utils.malloc import keep_freed_memory


def digits_mlp() -> ConfigDict:
    config = load(CONFIGS / "digits_ce.py")
    config.data.update(imbalance="none", imbalance_ratio=1.0)
    config.trainer.batch_size = 64
    return config


def gaussian_linear() -> ConfigDict:
    config = load(CONFIGS / "gaussian_ce.py")
    config.objective.name = "average"
    config.data.train_per_class = (6400, 6400)
    config.trainer.update(batch_size=64, dtype="float32")
    return config


# The config, how many turns of an epoch make a ratio, and the bar.
CASES = {
    "ConvNet, 32×32 images, batch 64": (lambda: on_images("convnet", size=256, batch_size=64), 1, "≤ 1.03"),
    "ConvNet, 32×32 images, batch 512": (lambda: on_images("convnet", size=512, batch_size=512), 1, "≤ 1.03"),
    "MLP, digits, batch 64": (digits_mlp, 25, "≤ 1.25"),
    "linear, 500 dimensions, batch 64": (gaussian_linear, 9, "≤ 1.25"),
}


def bare_epoch(learner: Learner, optimizer: torch.optim.Optimizer, order: Tensor, batch_size: int) -> None:
    """An epoch as a tutorial writes it: weighted cross-entropy, and nothing measured."""
    model, train, weights = learner.model, learner.dataset.train, learner.weights(0)
    for rows in order.split(batch_size):
        logits = model(learner.normalise(train.inputs[rows]))
        loss = (F.cross_entropy(logits, train.targets[rows], reduction="none") * weights[rows]).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def bare_optimizer(config: ConfigDict, learner: Learner) -> torch.optim.Optimizer:
    return torch.optim.SGD(learner.model.parameters(), lr=config.optim.lr, momentum=config.optim.momentum)


def ratios(config: ConfigDict, turns: int, repeats: int) -> list[float]:
    """Of the seconds that an epoch takes."""
    ours, theirs = make(config), make(config)
    optimizer = bare_optimizer(config, theirs)

    def bare() -> None:
        order = torch.randperm(len(theirs.dataset.train))
        bare_epoch(theirs, optimizer, order, config.trainer.batch_size)

    return timed_in_turns(our_epoch(config, ours), bare, repeats, turns)


def rows(repeats: int) -> list[Row]:
    keep_freed_memory()
    return [
        Row("step: ours / bare", case, ratios(config(), n, repeats), bar) for case, (config, n, bar) in CASES.items()
    ]
