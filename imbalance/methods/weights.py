"""Weights: how much each training example counts. One float64 an example, mean 1 over the training set.

A weighting is a function of the training set, the epoch and its section's values; the loop asks for it anew at the
start of every epoch, so that a schedule needs no state.
"""

from collections.abc import Mapping
from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.schema import AtLeastOne, By, Fraction, Natural, NonNegative, Positive, Repeats
from imbalance.config.tags import tagged
from imbalance.data import Labels
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun, shortened
from imbalance.methods.samplers import SAMPLERS


def mean_one(weights: Tensor) -> Tensor:
    """Rescaled (self-normalised), so that a learning rate means the same under all weights.

    Raises:
        BadInput: their mean is 0 or infinite in float64: all would be nan or 0.
    """
    mean = weights.mean()
    if not 0 < mean < torch.inf:
        raise BadInput(f"config.weights: the weights' mean is {mean.item():g}; use less extreme values")
    return weights / mean


def effective_sample_size(weights: Tensor) -> float:
    """(Σw)² / Σw²: how many equally weighted examples have a mean as precise as these (Kish, 1965)."""
    return (weights.sum() ** 2 / (weights**2).sum()).item()


def uniform(groups: Tensor) -> Tensor:
    """Every example counts the same."""
    return torch.ones(len(groups), dtype=torch.float64)


@tagged(balances=True)
def importance(labels: Labels, *, by: By, exponent: NonNegative) -> Tensor:
    """(1 / count)^exponent of the example's class or group.

    Exponent 0 is `uniform`, 1 the usual importance weights, under which classes (groups) count equally; the paper
    raises them to 1.5 and 2 for the polynomial loss (Wang et al., ICLR 2022, section 5).

    Args:
        by: whether the counts are those of classes or of groups.
        exponent: the power of one over the count: 0 for equal weights, 1 for equal total weights of classes or
            groups.
    """
    of_example, counts = labels(by)
    return mean_one(counts.double()[of_example] ** -exponent)


@tagged(balances=True)
def square_root(labels: Labels, *, by: By) -> Tensor:
    """`importance` with exponent ½ (Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining", 2018).

    Args:
        by: whether the counts are those of classes or of groups.
    """
    return importance(labels, by=by, exponent=0.5)


@tagged(balances=True)
def truncated(
    labels: Labels,
    *,
    by: By,
    exponent: NonNegative,
    ceiling: AtLeastOne,
) -> Tensor:
    """`importance` to the `exponent`, cut off at `ceiling` times the mean and rescaled (Ionides, 2008).

    Less variance for some bias.

    Args:
        by: whether the counts are those of classes or of groups.
        exponent: the power of one over the count: 0 for equal weights, 1 for equal total weights of classes or
            groups.
        ceiling: the largest weight, as a multiple of the mean weight.
    """
    return mean_one(importance(labels, by=by, exponent=exponent).clamp(max=ceiling))


@tagged(balances=True)
def effective_number(labels: Labels, *, by: By, beta: Fraction) -> Tensor:
    """(1 − β) / (1 − β^count) of the class or group (Cui et al., CVPR 2019, equation 2).

    Args:
        by: whether the counts are those of classes or of groups.
        beta: β; 0 for uniform weights, and towards 1 they become 1/count.
    """
    of_example, counts = labels(by)
    return mean_one(inverse_effective_number(counts.double(), beta)[of_example])


def inverse_effective_number(counts: Tensor, beta: float) -> Tensor:
    """(1 − β) / (1 − β^n), the inverse of the expected volume that n examples cover."""
    return (1 - beta) / (1 - beta**counts)


@tagged(balances=True)
def deferred(labels: Labels, groups: Tensor, epoch: int, *, by: By, beta: Fraction, start_epoch: Natural) -> Tensor:
    """Deferred re-weighting (DRW): uniform before `start_epoch`, then `effective_number` of `beta` (Cao et al., 2019).

    Args:
        by: whether the counts are those of classes or of groups.
        beta: β of the effective number; towards 1 the weights become one over the count.
        start_epoch: the first epoch with weights, counted from 0.
    """
    if epoch < start_epoch:
        return uniform(groups)
    return effective_number(labels, by=by, beta=beta)


def given(
    labels: Labels,
    *,
    by: By,
    values: tuple[Positive, ...],
) -> Tensor:
    """The one of `values` that is written for the example's class or group, rescaled.

    Goes with any sampler: it is asked for by hand.

    Args:
        by: whether the values are for classes or for groups.
        values: one weight for each class or group, in their order.
    """
    of_example, counts = labels(by)
    if len(values) != len(counts):
        raise BadInput(f"config.weights.values: {values} given; this data set has {len(counts)} of by={by!r}")
    return mean_one(torch.tensor(values, dtype=torch.float64)[of_example])


def residual(labels: Labels, epoch: int, epochs: int, sampler: Mapping[str, Any]) -> Tensor:
    """What an annealed sampler leaves to correct: importance weights over the chance that it keeps an example.

    Chance times weight stays in the ratio of 1 / count at every epoch. The mean is 1 over what is drawn, not over all.
    """
    of_example, counts = labels(sampler["by"])
    target = 1 / counts[of_example].double()
    section = {key: value for key, value in sampler.items() if key != "name"}
    chance = SAMPLERS[sampler["name"]].tags.chance(labels, epoch, epochs, **section)
    return target / chance * chance.sum() / target.sum()


def shorter_unweighted(config: Experiment) -> ConfigDict:
    """The run whose errors `just_train_twice` counts more: the same, unweighted, and shorter."""
    first = shortened(config, config.weights.first_epochs)
    first.weights = ConfigDict({"name": "uniform"})
    return first


@tagged(first_run=shorter_unweighted)
def just_train_twice(targets: Tensor, first: FirstRun, *, first_epochs: Repeats, upweight: AtLeastOne) -> Tensor:
    """Just Train Twice: what a first run got wrong counts `upweight` times as much as the rest.

    Liu et al., "Just Train Twice: Improving Group Robustness without Training Group Information", ICML 2021. The
    first run is the same config without weights, for `first_epochs` epochs; it is made beforehand, in the run
    directory's `first/`.

    Args:
        first_epochs: the number of epochs of the first run.
        upweight: the weight of an example that the first run gets wrong, relative to the others.
    """
    errors = first.errors("train", targets)
    return mean_one(torch.ones(len(targets), dtype=torch.float64).masked_fill(errors, upweight))


WEIGHTS = {
    "uniform": uniform,
    "importance": importance,
    "square_root": square_root,
    "truncated": truncated,
    "effective_number": effective_number,
    "deferred": deferred,
    "given": given,
    "residual": residual,
    "just_train_twice": just_train_twice,
}
