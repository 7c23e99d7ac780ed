"""Samplers: which training examples an epoch draws, and in which order.

A sampler is a function of the training set, the epoch, a generator that the loop seeds from (seed, epoch), and its
section's values. It keeps nothing from one epoch to the next, so a resumed run and every process draw the same indices.
`labels(by)` are each example's class or group, and how many examples each class or group has.
"""

import math

import torch
from torch import Generator, Tensor

from imbalance.config.schema import By, NonNegative, Positive
from imbalance.config.tags import tagged
from imbalance.data import Labels
from imbalance.utils import seeds


def shuffled(rows: Tensor, generator: Generator) -> Tensor:
    """`rows` in random order."""
    return rows[torch.randperm(len(rows), generator=generator)]


def rows_of_each(labels: Tensor, counts: Tensor) -> list[Tensor]:
    """The rows of every class or group that has any."""
    return [torch.nonzero(labels == label)[:, 0] for label in torch.nonzero(counts)[:, 0]]


def keep_chance(counts: Tensor) -> Tensor:
    """n_min / n of each class or group: kept with this probability, all are as large as the smallest."""
    return counts[counts > 0].min() / counts.clamp(min=1).double()


@tagged(batched=True)
def shuffle(groups: Tensor, generator: Generator) -> Tensor:
    """Every example once."""
    return torch.randperm(len(groups), generator=generator)


@tagged(balances=True, batched=True)
def undersample(labels: Labels, seed: int, generator: Generator, *, by: By, redraw: bool) -> Tensor:
    """As many examples of each class or group as the smallest has, without replacement.

    Args:
        by: whether classes or groups are balanced.
        redraw: choose anew every epoch, instead of keeping to the same examples.
    """
    of_example, counts = labels(by)
    size = counts[counts > 0].min()
    chooser = generator if redraw else seeds.generator(seed, "undersample")
    chosen = [shuffled(rows, chooser)[:size] for rows in rows_of_each(of_example, counts)]
    return shuffled(torch.cat(chosen), generator)


@tagged(balances=True)
def reject(labels: Labels, seed: int, generator: Generator, *, by: By, redraw: bool) -> Tensor:
    """Undersampling by rejection, as in the paper's code: an example is kept with probability n_min / n of its label.

    The smallest class or group is kept whole, the others are as large as it on average.

    Args:
        by: whether classes or groups are balanced.
        redraw: choose other examples in every epoch, instead of the same ones.
    """
    of_example, counts = labels(by)
    chooser = generator if redraw else seeds.generator(seed, "reject")
    return kept(keep_chance(counts)[of_example], chooser, generator)


def kept(chance: Tensor, chooser: Generator, generator: Generator) -> Tensor:
    """The rows that are kept, each with its `chance`, shuffled."""
    uniform = torch.rand(len(chance), generator=chooser, dtype=torch.float64)
    return shuffled(torch.nonzero(uniform < chance)[:, 0], generator)


@tagged(balances=True, batched=True)
def oversample(labels: Labels, generator: Generator, *, by: By) -> Tensor:
    """As many examples of each class or group as the largest has; every example is drawn, as equally often as can be.

    Args:
        by: whether classes or groups are balanced.
    """
    of_example, counts = labels(by)
    size = int(counts.max())
    drawn = [cycled(rows, size, generator) for rows in rows_of_each(of_example, counts)]
    return shuffled(torch.cat(drawn), generator)


@tagged(balances=True, batched=True)
def balanced(labels: Labels, generator: Generator, *, by: By) -> Tensor:
    """As many draws as there are examples, from every class or group in turn, so that each batch has all of them.

    Each goes through its own examples in random order, and then again (class-aware sampling, Shen, Lin and Huang,
    ECCV 2016).

    Args:
        by: whether classes or groups are balanced.
    """
    of_example, counts = labels(by)
    each = rows_of_each(of_example, counts)
    size = math.ceil(len(of_example) / len(each))
    return torch.stack([cycled(rows, size, generator) for rows in each], dim=1).flatten()[: len(of_example)]


def cycled(rows: Tensor, size: int, generator: Generator) -> Tensor:
    """`size` draws from `rows`: all of them in random order, all of them in another, and so on."""
    return torch.cat([shuffled(rows, generator) for _ in range(math.ceil(size / len(rows)))])[:size]


@tagged(balances=True, batched=True)
def resample(labels: Labels, generator: Generator, *, by: By, exponent: NonNegative) -> Tensor:
    """As many draws as there are examples, with replacement, with probability ∝ (1 / count)^exponent.

    Exponent 0 is the bootstrap, 1 makes all classes (groups) equally likely.

    Args:
        by: whether classes or groups are balanced.
        exponent: the power of one over the count: 0 for equally likely examples, 1 for equally likely classes or
            groups.
    """
    of_example, counts = labels(by)
    weights = counts.clamp(min=1).double() ** -exponent
    # By inverting the distribution function: torch.multinomial takes at most 2^24 categories.
    cumulative = weights[of_example].cumsum(0)
    uniform = torch.rand(len(of_example), generator=generator, dtype=torch.float64) * cumulative[-1]
    return torch.searchsorted(cumulative, uniform, right=True).clamp(max=len(of_example) - 1)


# Annealed undersampling, after the paper's code: kept with probability (n_min / n)^e, e falling to 0 with
# t = epoch / last epoch. Each example has one random number for the whole run, so what is kept stays. With the weights
# "residual" the expected weighted loss is the same at every epoch.


def linear_chance(labels: Labels, epoch: int, epochs: int, *, by: By) -> Tensor:
    return annealed_chance(labels, by, 1 - elapsed(epoch, epochs))


def sigmoid_chance(labels: Labels, epoch: int, epochs: int, *, by: By, steepness: float) -> Tensor:
    return annealed_chance(labels, by, 1 / (1 + math.exp(steepness * (elapsed(epoch, epochs) - 0.5))))


def step_chance(labels: Labels, epoch: int, epochs: int, *, by: By) -> Tensor:
    return annealed_chance(labels, by, float(elapsed(epoch, epochs) <= 0.5))


def elapsed(epoch: int, epochs: int) -> float:
    """t, from 0 at the first epoch to 1 at the last."""
    return epoch / max(1, epochs - 1)


def annealed_chance(labels: Labels, by: By, exponent: float) -> Tensor:
    """(N,) the probability with which each example is kept."""
    of_example, counts = labels(by)
    return keep_chance(counts)[of_example] ** exponent


@tagged(balances=True, chance=linear_chance)
def annealed_linear(labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By) -> Tensor:
    """e = 1 − t: from `reject` at the first epoch to `shuffle` at the last.

    Args:
        by: whether classes or groups are balanced.
    """
    return kept(linear_chance(labels, epoch, epochs, by=by), seeds.generator(seed, "annealed"), generator)


@tagged(balances=True, chance=sigmoid_chance)
def annealed_sigmoid(
    labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By, steepness: Positive
) -> Tensor:
    """e = 1 / (1 + exp(steepness · (t − ½))).

    Args:
        by: whether classes or groups are balanced.
        steepness: how fast the exponent falls in the middle of training.
    """
    chance = sigmoid_chance(labels, epoch, epochs, by=by, steepness=steepness)
    return kept(chance, seeds.generator(seed, "annealed"), generator)


@tagged(balances=True, chance=step_chance)
def annealed_step(labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By) -> Tensor:
    """e = 1 up to the middle of training, 0 after it.

    Args:
        by: whether classes or groups are balanced.
    """
    return kept(step_chance(labels, epoch, epochs, by=by), seeds.generator(seed, "annealed"), generator)


SAMPLERS = {
    "shuffle": shuffle,
    "undersample": undersample,
    "reject": reject,
    "oversample": oversample,
    "balanced": balanced,
    "resample": resample,
    "annealed_linear": annealed_linear,
    "annealed_sigmoid": annealed_sigmoid,
    "annealed_step": annealed_step,
}
