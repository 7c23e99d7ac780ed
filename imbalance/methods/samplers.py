"""Samplers: functions that return the training examples of an epoch, in the order of training.

A sampler returns (M,) rows: positions in the training split. Its arguments come from the run, see
`imbalance.methods.context.RunContext`, and from the section `config.sampler`. `labels(by)` returns the class or group
of each example, and the number of examples of each class or group. The loop seeds `generator` from (seed, epoch). A
sampler keeps no state between epochs, so a resumed run draws the same rows, and so does every process.
"""

import math

import torch
from torch import Generator, Tensor

from imbalance.config.schema import By, Count, Natural, NonNegative, Positive
from imbalance.config.tags import tagged
from imbalance.data import Labels
from imbalance.utils import seeds


def shuffled(rows: Tensor, generator: Generator) -> Tensor:
    """Return `rows` in random order."""
    return rows[torch.randperm(len(rows), generator=generator)]


def rows_by_label(labels: Tensor, counts: Tensor) -> list[Tensor]:
    """Return one tensor of rows for each class or group that has examples.

    Args:
        labels: (N,) the class or group of each row.
        counts: the number of rows of each class or group.
    """
    return [torch.nonzero(labels == label)[:, 0] for label in torch.nonzero(counts)[:, 0]]


def keep_chance(counts: Tensor) -> Tensor:
    """Return for each class or group the probability n_min / n of keeping one of its n examples.

    With these probabilities all classes or groups keep n_min examples on average, the size of the smallest.
    """
    return counts[counts > 0].min() / counts.clamp(min=1).double()


def equal_chance(labels: Labels, epoch: int, epochs: int) -> Tensor:
    """Return how often the sampler `shuffle` draws each example in an epoch, (N,): once."""
    example_labels, _ = labels("class")
    return torch.ones(len(example_labels), dtype=torch.float64)


def balanced_chance(labels: Labels, epoch: int, epochs: int, *, by: By, redraw: bool = True) -> Tensor:
    """Return, for each example, how often samplers that balance classes or groups draw it on average, (N,).

    The values are n_min / n, up to a common factor, for the size n of the example's class or group and the size n_min
    of the smallest.
    """
    example_labels, counts = labels(by)
    return keep_chance(counts)[example_labels]


def resample_chance(labels: Labels, epoch: int, epochs: int, *, by: By, exponent: float) -> Tensor:
    """Return, for each example, how often `resample` draws it on average, up to a common factor: (n_min / n)^exponent.

    n is the size of the example's class or group, and n_min the size of the smallest.
    """
    return balanced_chance(labels, epoch, epochs, by=by) ** exponent


@tagged(batched=True, chance=equal_chance)
def shuffle(groups: Tensor, generator: Generator) -> Tensor:
    """Draw every example once, in random order."""
    return torch.randperm(len(groups), generator=generator)


@tagged(balances=True, batched=True, chance=balanced_chance)
def undersample(labels: Labels, seed: int, generator: Generator, *, by: By, redraw: bool) -> Tensor:
    """Draw as many examples of each class or group as the smallest has, without replacement.

    Args:
        by: "class" to balance classes, "group" to balance groups.
        redraw: true to choose the examples anew in every epoch, false to use the same examples in all epochs.
    """
    example_labels, counts = labels(by)
    size = counts[counts > 0].min()
    chooser = generator if redraw else seeds.generator(seed, "undersample")
    chosen = [shuffled(rows, chooser)[:size] for rows in rows_by_label(example_labels, counts)]
    return shuffled(torch.cat(chosen), generator)


@tagged(balances=True, chance=balanced_chance)
def reject(labels: Labels, seed: int, generator: Generator, *, by: By, redraw: bool) -> Tensor:
    """Keep each example with probability n_min / n, for the sizes n of its class or group and n_min of the smallest.

    So the smallest is kept whole, and all others have n_min examples on average, as in the code of Wang et al. (ICLR
    2022).

    Args:
        by: "class" to balance classes, "group" to balance groups.
        redraw: true to choose the examples anew in every epoch, false to use the same examples in all epochs.
    """
    example_labels, counts = labels(by)
    chooser = generator if redraw else seeds.generator(seed, "reject")
    return kept(keep_chance(counts)[example_labels], chooser, generator)


def kept(chance: Tensor, chooser: Generator, generator: Generator) -> Tensor:
    """Keep each row with its probability in `chance`, and return the kept rows in random order.

    Args:
        chance: (N,) probabilities.
        chooser: the generator that chooses the rows.
        generator: the generator that shuffles them.
    """
    uniform = torch.rand(len(chance), generator=chooser, dtype=torch.float64)
    return shuffled(torch.nonzero(uniform < chance)[:, 0], generator)


@tagged(balances=True, batched=True, chance=balanced_chance)
def oversample(labels: Labels, generator: Generator, *, by: By) -> Tensor:
    """Draw as many examples of each class or group as the largest has.

    Within a class or group the numbers of draws of two examples differ by at most 1.

    Args:
        by: "class" to balance classes, "group" to balance groups.
    """
    example_labels, counts = labels(by)
    size = int(counts.max())
    drawn = [cycled(rows, size, generator) for rows in rows_by_label(example_labels, counts)]
    return shuffled(torch.cat(drawn), generator)


@tagged(balances=True, batched=True, chance=balanced_chance)
def balanced(labels: Labels, generator: Generator, *, by: By) -> Tensor:
    """Draw from all classes or groups in turn, so that each batch has equally many examples of all of them.

    The examples of each class or group are drawn in random order, each once before any is drawn again (class-aware
    sampling, Shen, Lin and Huang, ECCV 2016). An epoch has as many draws as there are training examples.

    Args:
        by: "class" to balance classes, "group" to balance groups.
    """
    example_labels, counts = labels(by)
    rows_per_label = rows_by_label(example_labels, counts)
    size = math.ceil(len(example_labels) / len(rows_per_label))
    return torch.stack([cycled(rows, size, generator) for rows in rows_per_label], dim=1).flatten()[
        : len(example_labels)
    ]


def cycled(rows: Tensor, size: int, generator: Generator) -> Tensor:
    """Return `size` rows: all of `rows` in random order, then all of them in a new random order, and so on."""
    return torch.cat([shuffled(rows, generator) for _ in range(math.ceil(size / len(rows)))])[:size]


@tagged(balances=True, batched=True, chance=resample_chance)
def resample(labels: Labels, generator: Generator, *, by: By, exponent: NonNegative) -> Tensor:
    """Draw examples with replacement, with probability ∝ (1 / n)^exponent for the size n of the class or group.

    An epoch has as many draws as there are training examples.

    Args:
        by: "class" to balance classes, "group" to balance groups.
        exponent: 0 for equally likely examples (the bootstrap), 1 for equally likely classes or groups.
    """
    example_labels, counts = labels(by)
    return drawn((counts.clamp(min=1).double() ** -exponent)[example_labels], generator)


def drawn(chance: Tensor, generator: Generator) -> Tensor:
    """Draw N of N rows with replacement, each row with a probability ∝ its value in `chance`, (N,) float64."""
    # torch.multinomial takes at most 2^24 categories, so invert the cumulative distribution instead.
    cumulative = chance.cumsum(0)
    uniform = torch.rand(len(chance), generator=generator, dtype=torch.float64) * cumulative[-1]
    return torch.searchsorted(cumulative, uniform, right=True).clamp(max=len(chance) - 1)


def within_class_chance(targets: Tensor, groups: Tensor, powers: Tensor | None) -> Tensor:
    """Return the (N,) relative probabilities with which `within_class` draws the examples; in each class they sum to 1.

    Args:
        targets, groups: (N,) the class and the group of each example; each group is in one class.
        powers: (K,) the power λ of each class; None for 1.
    """
    sizes = torch.bincount(groups).double()[groups]
    chance = sizes ** -(torch.ones_like(sizes) if powers is None else powers.double()[targets])
    return chance / torch.bincount(targets, weights=chance)[targets]


@tagged(balances=True, batched=True, chance=within_class_chance)
def within_class(targets: Tensor, groups: Tensor, powers: Tensor | None, generator: Generator) -> Tensor:
    """Draw all classes equally often, and prefer the examples of small groups in each class (SPARE).

    Yang, Gan, Dziugaite and Mirzasoleiman, "Identifying Spurious Biases Early in Training through the Lens of
    Simplicity Bias", AISTATS 2024. The draws are with replacement. In each class an example of a group of n examples is
    drawn with a probability ∝ n^-λ. So λ = 1 makes the groups of a class equally likely, and with a larger λ small
    groups are drawn more often than large ones. Group inference such as "spare" sets λ for each class; λ is 1 without
    it. An epoch has as many draws as there are training examples.
    """
    return drawn(within_class_chance(targets, groups, powers), generator)


# Annealed undersampling, as in the code of Wang et al. (ICLR 2022), keeps an example with probability (n_min / n)^e.
# The exponent e falls to 0 as t = epoch / last epoch rises from 0 to 1. Each example has one random number for the
# whole run, so later epochs keep every example that earlier epochs kept. With the weights "residual" the expected
# weighted loss is the same in every epoch.


def linear_chance(labels: Labels, epoch: int, epochs: int, *, by: By) -> Tensor:
    """Return the (N,) probabilities with which the sampler `annealed_linear` keeps each example in an epoch."""
    return balanced_chance(labels, epoch, epochs, by=by) ** (1 - elapsed(epoch, epochs))


def sigmoid_chance(labels: Labels, epoch: int, epochs: int, *, by: By, steepness: float) -> Tensor:
    """Return the (N,) probabilities with which the sampler `annealed_sigmoid` keeps each example in an epoch."""
    rise = min(steepness * (elapsed(epoch, epochs) - 0.5), 700.0)  # math.exp raises above 709
    exponent = 1 / (1 + math.exp(rise))
    return balanced_chance(labels, epoch, epochs, by=by) ** exponent


def step_chance(labels: Labels, epoch: int, epochs: int, *, by: By) -> Tensor:
    """Return the (N,) probabilities with which the sampler `annealed_step` keeps each example in an epoch."""
    return balanced_chance(labels, epoch, epochs, by=by) ** float(elapsed(epoch, epochs) <= 0.5)


def elapsed(epoch: int, epochs: int) -> float:
    """Return the elapsed share t of training: 0 in the first epoch, 1 in the last."""
    return epoch / max(1, epochs - 1)


@tagged(balances=True, chance=linear_chance)
def annealed_linear(labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By) -> Tensor:
    """Keep each example with probability (n_min / n)^(1 − t): as `reject` in the first epoch, as `shuffle` in the last.

    t is the elapsed share of training, and n the size of the example's class or group.

    Args:
        by: "class" to balance classes, "group" to balance groups.
    """
    return kept(linear_chance(labels, epoch, epochs, by=by), seeds.generator(seed, "annealed"), generator)


@tagged(balances=True, chance=sigmoid_chance)
def annealed_sigmoid(
    labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By, steepness: Positive
) -> Tensor:
    """Keep each example with probability (n_min / n)^e, where e = 1 / (1 + exp(steepness · (t − ½))) falls with t.

    t is the elapsed share of training, and n the size of the example's class or group.

    Args:
        by: "class" to balance classes, "group" to balance groups.
        steepness: the speed with which the exponent e falls in the middle of training.
    """
    chance = sigmoid_chance(labels, epoch, epochs, by=by, steepness=steepness)
    return kept(chance, seeds.generator(seed, "annealed"), generator)


@tagged(balances=True, chance=step_chance)
def annealed_step(labels: Labels, seed: int, generator: Generator, epoch: int, epochs: int, *, by: By) -> Tensor:
    """In the first half of training keep the examples that the sampler `reject` keeps, in the second half all examples.

    Args:
        by: "class" to balance classes, "group" to balance groups.
    """
    return kept(step_chance(labels, epoch, epochs, by=by), seeds.generator(seed, "annealed"), generator)


def expansions(epoch: int, warmup_epochs: int, every: int) -> int:
    """Return the number of times that `expanding` has added examples by the beginning of `epoch`, numbered from 0.

    Args:
        warmup_epochs: the epoch of the first addition.
        every: the number of epochs from one addition to the next.
    """
    return max(0, (epoch - warmup_epochs) // every + 1)


def expanding_chance(
    labels: Labels, epoch: int, epochs: int, *, by: By, warmup_epochs: int, every: int, added: int
) -> Tensor:
    """Return, for each of the N examples, the probability that the sampler `expanding` draws it in this epoch."""
    at_start = balanced_chance(labels, epoch, epochs, by=by)
    unused = (1 - at_start).sum()
    share = (expansions(epoch, warmup_epochs, every) * added / unused.clamp(min=1)).clamp(max=1)
    return at_start + (1 - at_start) * share


@tagged(balances=True, batched=True, chance=expanding_chance)
def expanding(
    labels: Labels,
    seed: int,
    generator: Generator,
    epoch: int,
    *,
    by: By,
    warmup_epochs: Natural,
    every: Count,
    added: Count,
) -> Tensor:
    """Draw a balanced subset of the examples at first, and add a few random unused examples at regular intervals (PDE).

    Deng, Yang, Mirzasoleiman and Gu, "Robust Learning with Progressive Data Expansion Against Spurious Correlation", NeurIPS
    2023. The first `warmup_epochs` epochs have as many random examples of each class or group as the smallest has. Then
    `added` random unused examples join them, and again after every `every` epochs, until all examples are used. An epoch
    draws each of its examples once. SpuCo's code draws the further examples with replacement, so an example may be added
    twice, and the code fails once no example is unused.

    Args:
        by: "class" to balance classes, "group" to balance groups.
        warmup_epochs: the number of epochs before the first expansion; 15 in SpuCo.
        every: the number of epochs from one expansion to the next; 10 in SpuCo.
        added: the number of examples that an expansion adds; 10 in SpuCo.
    """
    example_labels, counts = labels(by)
    size, chooser = counts[counts > 0].min(), seeds.generator(seed, "expanding")
    ordered = [shuffled(rows, chooser) for rows in rows_by_label(example_labels, counts)]
    unused = shuffled(torch.cat([rows[size:] for rows in ordered]), chooser)
    joined = unused[: expansions(epoch, warmup_epochs, every) * added]
    return shuffled(torch.cat([*(rows[:size] for rows in ordered), joined]), generator)


SAMPLERS = {
    "shuffle": shuffle,
    "undersample": undersample,
    "reject": reject,
    "oversample": oversample,
    "balanced": balanced,
    "resample": resample,
    "within_class": within_class,
    "annealed_linear": annealed_linear,
    "annealed_sigmoid": annealed_sigmoid,
    "annealed_step": annealed_step,
    "expanding": expanding,
}
