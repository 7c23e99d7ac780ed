"""Measure the ratio of the time of a training step in the project's loop to its time in a bare PyTorch loop.

Both loops have the same model, data in memory, batch size and number of threads. In both, freed
memory stays with the process for reuse (see `imbalance.utils.malloc`), which speeds up both by about the same factor.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor

from imbalance.bench.cases import Config, make, on_images, our_epoch
from imbalance.bench.timing import Row, timed_in_turns
from imbalance.config.experiment import Experiment, validate
from imbalance.config.files import CONFIGS
from imbalance.config.resolve import load, override
from imbalance.training.learner import Learner
from imbalance.utils.malloc import keep_freed_memory


def digits_mlp() -> ConfigDict:
    """Return the config of the MLP on all digits, with batches of 64."""
    changes = {"data.imbalance": "none", "data.imbalance_ratio": 1.0, "trainer.batch_size": 64}
    return override(load(CONFIGS / "digits_ce.py"), changes)


def gaussian_linear() -> ConfigDict:
    """Return the config of a linear model on the Gaussian mixture, with batches of 64."""
    changes = {"objective.name": "average", "data.train_per_class": (6400, 6400), "trainer.batch_size": 64,
               "trainer.dtype": "float32"}  # fmt: skip
    return override(load(CONFIGS / "gaussian_ce.py"), changes)


def gaussian_dro() -> ConfigDict:
    """Return the config of group DRO with the model and data of `gaussian_linear`."""
    dro = {"name": "group_dro", "step_size": 0.01, "size_adjustment": 0.0, "adjust_absent": False}
    return override(gaussian_linear(), {"objective": dro})


# For each case: the function that makes the config, the number of measurements for each ratio, and the bar.
CASES: dict[str, tuple[Callable[[], ConfigDict], int, str]] = {
    "ConvNet, 32×32 images, batch 64": (lambda: on_images("convnet", size=256, batch_size=64), 1, "≤ 1.03"),
    "ConvNet, 32×32 images, batch 512": (lambda: on_images("convnet", size=512, batch_size=512), 1, "≤ 1.03"),
    "MLP, digits, batch 64": (digits_mlp, 25, "≤ 1.25"),
    "linear, 500 dimensions, batch 64": (gaussian_linear, 9, "≤ 1.2"),
    "group DRO, linear, 500 dimensions, batch 64": (gaussian_dro, 9, "≤ 1.2"),
}


def average(losses: Tensor, groups: Tensor) -> Tensor:
    """Return the mean loss of a batch; ignore the groups, which `bare_epoch` passes to every objective."""
    return losses.mean()


class BareGroupDRO:
    """Group DRO with the operations of its authors' code (github.com/kohpangwei/group_DRO), without the code's statistics."""

    def __init__(self, groups: int, step_size: float):
        self.numbers, self.step_size = torch.arange(groups).unsqueeze(1), step_size
        self.weights = torch.ones(groups) / groups

    def __call__(self, losses: Tensor, groups: Tensor) -> Tensor:
        members = (groups == self.numbers).float()
        counts = members.sum(1)
        means = (members @ losses) / (counts + (counts == 0).float())
        weights = self.weights * torch.exp(self.step_size * means.detach())
        self.weights = weights / weights.sum()
        return means @ self.weights


def bare_epoch(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    order: Tensor,
    batch_size: int,
    objective: Callable[[Tensor, Tensor], Tensor] = average,
) -> None:
    """Train an epoch by the loop of a PyTorch tutorial: importance-weighted cross-entropy, no metrics.

    Data and importance weights are on the model's device, and no step waits for the device.

    Args:
        order: rows of the training data in the order in which they are used, on the model's device.
        objective: function from the (B,) losses and groups of a batch to the scalar that the step minimises.
    """
    model, train, weights = learner.model, learner.dataset.train, learner.weights(0)
    assert isinstance(train.inputs, Tensor), "the cases have their inputs in memory"
    for rows in order.split(batch_size):
        logits = model(learner.normalise(train.inputs[rows]))
        losses = F.cross_entropy(logits, train.targets[rows], reduction="none") * weights[rows]
        objective(losses, train.method_groups[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()


def bare_optimizer(config: Config, learner: Learner) -> torch.optim.Optimizer:
    """Return PyTorch's SGD for the learner's model, with the config's learning rate and momentum.

    On a GPU the optimiser is the fused one, the fastest that PyTorch has.
    """
    optim, on_gpu = validate(config).optim, learner.accelerator.device.type != "cpu"
    return torch.optim.SGD(learner.model.parameters(), lr=optim.lr, momentum=optim.momentum, fused=on_gpu)


def time_ratios(config: Experiment, turns: int, repeats: int) -> list[float]:
    """Return ratios of the time of an epoch in the project's loop to its time in a bare loop.

    Args:
        turns: number of measurements of each loop for one ratio.
        repeats: number of ratios.
    """
    ours, theirs = make(config), make(config)
    optimizer = bare_optimizer(config, theirs)
    is_dro = config.objective.name == "group_dro"
    objective = BareGroupDRO(theirs.dataset.num_groups, config.objective.step_size) if is_dro else average

    def bare() -> None:
        # Rows on the CPU would make every step wait for a GPU, and the project's loop would seem fast.
        order = torch.randperm(len(theirs.dataset.train), device=theirs.accelerator.device)
        bare_epoch(theirs, optimizer, order, config.trainer.batch_size, objective)

    return timed_in_turns(our_epoch(config, ours), bare, repeats, turns)


def rows(repeats: int) -> Iterator[Row]:
    """Measure the project's loop and a bare loop, and yield the rows of the benchmark's table."""
    keep_freed_memory()
    for case, (config, n, bar) in CASES.items():
        yield Row("step: ours / bare", case, time_ratios(validate(config()), n, repeats), bar)
