"""Samplers: the training examples that an epoch draws, and their order.

A sampler is a function of the training set, the epoch, a generator, and the values of its section. The loop seeds the
generator from (seed, epoch). A sampler keeps no state between epochs, so a resumed run and every process draw the same
rows. `labels(by)` returns the class or group of each example, and the number of examples of each class or group.
"""

import math

import torch
from torch import Generator, Tensor

from imbalance.config.schema import By, NonNegative, Positive
from imbalance.config.tags import tagged
from imbalance.data import Labels
from imbalance.utils import seeds


def shuffled(rows: Tensor, generator: Generator) -> Tensor:
    """Return `rows` in random order."""
    return rows[torch.randperm(len(rows), generator=generator)]


def rows_by_label(labels: Tensor, counts: Tensor) -> list[Tensor]:
    """Return the rows of every class or group that has examples."""
    return [torch.nonzero(labels == label)[:, 0] for label in torch.nonzero(counts)[:, 0]]


def keep_chance(counts: Tensor) -> Tensor:
    """Return n_min / n of each class or group.

    If examples are kept with this probability, all classes or groups are as large as the smallest on average.
    """
    return counts[counts > 0].min() / counts.clamp(min=1).double()


@tagged(batched=True)
def shuffle(groups: Tensor, generator: Generator) -> Tensor:
    """Draw every example once."""
    return torch.randperm(len(groups), generator=generator)


@tagged(balances=True, batched=True)
def undersample(labels: Labels, seed: int, generator: Generator, *, by: By, redraw: bool) -> Tensor:
    """Draw as many examples of each class or group as the smallest has, without replacement.

    Args:
        by: whether classes or groups are balanced.
        redraw: choose other examples in every epoch, instead of the same ones.
    """
    example_labels, counts = labels(by)
    size = counts[counts > 0].min()
    chooser = generator if redraw else seeds.generator(seed, "undersample")
    chosen = [shuffled(rows, chooser)[:size] for rows in rows_by_label(example_labels, counts)]
    return shuffled(torch.cat(chosen), generator)


@tagged(balances=True)
def reject(labels: Labels, seed: int, generator: Generator, *, by: By, redraw: bool) -> Tensor:
    """Keep each example with probability n_min / n of its class or group, as in the paper's code.

    The smallest class or group is kept whole; the others are as large as the smallest on average.

    Args:
        by: whether classes or groups are balanced.
        redraw: choose other examples in every epoch, instead of the same ones.
    """
    example_labels, counts = labels(by)
    chooser = generator if redraw else seeds.generator(seed, "reject")
    return kept(keep_chance(counts)[example_labels], chooser, generator)


def kept(chance: Tensor, chooser: Generator, generator: Generator) -> Tensor:
    """Draw the rows to keep, each with its probability in `chance`, and shuffle them."""
    uniform = torch.rand(len(chance), generator=chooser, dtype=torch.float64)
    return shuffled(torch.nonzero(uniform < chance)[:, 0], generator)


@tagged(balances=True, batched=True)
def oversample(labels: Labels, generator: Generator, *, by: By) -> Tensor:
    """Draw as many examples of each class or group as the largest has, and all examples of one about equally often.

    Args:
        by: whether classes or groups are balanced.
    """
    example_labels, counts = labels(by)
    size = int(counts.max())
    drawn = [cycled(rows, size, generator) for rows in rows_by_label(example_labels, counts)]
    return shuffled(torch.cat(drawn), generator)


@tagged(balances=True, batched=True)
def balanced(labels: Labels, generator: Generator, *, by: By) -> Tensor:
    """Draw from all classes or groups in turn, so that each batch has all of them; an epoch has the length of train.

    Each class or group goes through its examples in random order, and then starts again (class-aware sampling, Shen,
    Lin and Huang, ECCV 2016).

    Args:
        by: whether classes or groups are balanced.
    """
    example_labels, counts = labels(by)
    rows_per_label = rows_by_label(example_labels, counts)
    size = math.ceil(len(example_labels) / len(rows_per_label))
    return torch.stack([cycled(rows, size, generator) for rows in rows_per_label], dim=1).flatten()[
        : len(example_labels)
    ]


def cycled(rows: Tensor, size: int, generator: Generator) -> Tensor:
    """Draw `size` rows: all of `rows` in random order, then all of them in another order, and so on."""
    return torch.cat([shuffled(rows, generator) for _ in range(math.ceil(size / len(rows)))])[:size]


@tagged(balances=True, batched=True)
def resample(labels: Labels, generator: Generator, *, by: By, exponent: NonNegative) -> Tensor:
    """Draw with replacement, with probability ∝ (1 / count)^exponent; an epoch has the length of train.

    Exponent 0 is the bootstrap, 1 makes all classes (groups) equally likely.

    Args:
        by: whether classes or groups are balanced.
        exponent: the power of one over the count: 0 for equally likely examples, 1 for equally likely classes or
            groups.
    """
    example_labels, counts = labels(by)
    weights = counts.clamp(min=1).double() ** -exponent
    # torch.multinomial takes at most 2^24 categories, so invert the distribution function.
    cumulative = weights[example_labels].cumsum(0)
    uniform = torch.rand(len(example_labels), generator=generator, dtype=torch.float64) * cumulative[-1]
    return torch.searchsorted(cumulative, uniform, right=True).clamp(max=len(example_labels) - 1)


# Annealed undersampling, as in the paper's code, keeps an example with probability (n_min / n)^e. The exponent e falls to
# 0 with t = epoch / last epoch. Each example has one random number for the whole run, so later epochs keep what earlier
# epochs kept. With the weights "residual" the expected weighted loss is the same in every epoch.


def linear_chance(labels: Labels, epoch: int, epochs: int, *, by: By) -> Tensor:
    """Return (N,) probabilities of keeping each example, for `annealed_linear`."""
    return annealed_chance(labels, by, 1 - elapsed(epoch, epochs))


def sigmoid_chance(labels: Labels, epoch: int, epochs: int, *, by: By, steepness: float) -> Tensor:
    """Return (N,) probabilities of keeping each example, for `annealed_sigmoid`."""
    return annealed_chance(labels, by, 1 / (1 + math.exp(steepness * (elapsed(epoch, epochs) - 0.5))))


def step_chance(labels: Labels, epoch: int, epochs: int, *, by: By) -> Tensor:
    """Return (N,) probabilities of keeping each example, for `annealed_step`."""
    return annealed_chance(labels, by, float(elapsed(epoch, epochs) <= 0.5))


def elapsed(epoch: int, epochs: int) -> float:
    """Return t, which goes from 0 in the first epoch to 1 in the last."""
    return epoch / max(1, epochs - 1)


def annealed_chance(labels: Labels, by: By, exponent: float) -> Tensor:
    """Return (N,) probabilities of keeping each example."""
    example_labels, counts = labels(by)
    return keep_chance(counts)[example_labels] ** exponent


@tagged(balances=True, chance=linear_chance)
def annealed_linear(labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By) -> Tensor:
    """Keep examples with probability (n_min / n)^(1 − t): from `reject` in the first epoch to `shuffle` in the last.

    Args:
        by: whether classes or groups are balanced.
    """
    return kept(linear_chance(labels, epoch, epochs, by=by), seeds.generator(seed, "annealed"), generator)


@tagged(balances=True, chance=sigmoid_chance)
def annealed_sigmoid(
    labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By, steepness: Positive
) -> Tensor:
    """Keep examples with probability (n_min / n)^e, e = 1 / (1 + exp(steepness · (t − ½))).

    Args:
        by: whether classes or groups are balanced.
        steepness: how fast the exponent falls in the middle of training.
    """
    chance = sigmoid_chance(labels, epoch, epochs, by=by, steepness=steepness)
    return kept(chance, seeds.generator(seed, "annealed"), generator)


@tagged(balances=True, chance=step_chance)
def annealed_step(labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By) -> Tensor:
    """Keep examples as `reject` up to the middle of training, and all examples after it.

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
