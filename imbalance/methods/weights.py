"""Weights: how much each training example counts, in float64 with mean 1 over the training set.

A weighting is a function of the training set, the epoch, and the values of its section. The loop calls it at the start
of every epoch, so a schedule needs no state.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.schema import AtLeastOne, By, Fraction, Natural, NonNegative, Positive, Repeats
from imbalance.config.tags import tagged
from imbalance.data import Labels
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun, shortened
from imbalance.methods.samplers import SAMPLERS


def mean_one(weights: Tensor) -> Tensor:
    """Rescale weights to mean 1, so that a learning rate means the same for all weights.

    Raises:
        BadInput: the mean of the weights is 0 or infinite in float64, so the result would be nan or 0.
    """
    mean = weights.mean()
    if not 0 < mean < torch.inf:
        raise BadInput(f"config.weights: the weights' mean is {mean.item():g}; use less extreme values")
    return weights / mean


def effective_sample_size(weights: Tensor) -> float:
    """Return (Σw)² / Σw², the number of equal weights whose weighted mean is as precise (Kish, 1965)."""
    return (weights.sum() ** 2 / (weights**2).sum()).item()


def uniform(groups: Tensor) -> Tensor:
    """Give all examples the same weight."""
    return torch.ones(len(groups), dtype=torch.float64)


@tagged(balances=True)
def importance(labels: Labels, *, by: By, exponent: NonNegative) -> Tensor:
    """Weight an example by (1 / count)^exponent of its class or group.

    Exponent 0 is `uniform`. Exponent 1 gives the usual importance weights, under which all classes (groups) count
    equally. The paper raises them to 1.5 and 2 for the polynomial loss (Wang et al., ICLR 2022, section 5).

    Args:
        by: whether the counts are those of classes or of groups.
        exponent: the power of one over the count: 0 for equal weights, 1 for equal total weights of classes or
            groups.
    """
    example_labels, counts = labels(by)
    return mean_one(counts.double()[example_labels] ** -exponent)


@tagged(balances=True)
def square_root(labels: Labels, *, by: By) -> Tensor:
    """Weight as `importance` with exponent ½.

    Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining", 2018.

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
    """Weight as `importance`, cut off at `ceiling` times the mean and rescaled (Ionides, 2008).

    The weights have less variance and some bias.

    Args:
        by: whether the counts are those of classes or of groups.
        exponent: the power of one over the count: 0 for equal weights, 1 for equal total weights of classes or
            groups.
        ceiling: the largest weight, as a multiple of the mean weight.
    """
    return mean_one(importance(labels, by=by, exponent=exponent).clamp(max=ceiling))


@tagged(balances=True)
def effective_number(labels: Labels, *, by: By, beta: Fraction) -> Tensor:
    """Weight an example by (1 − β) / (1 − β^count) of its class or group (Cui et al., CVPR 2019, equation 2).

    Args:
        by: whether the counts are those of classes or of groups.
        beta: β; 0 for uniform weights, and towards 1 they become 1/count.
    """
    example_labels, counts = labels(by)
    return mean_one(inverse_effective_number(counts.double(), beta)[example_labels])


def inverse_effective_number(counts: Tensor, beta: float) -> Tensor:
    """Return (1 − β) / (1 − β^n), one over the expected volume that n examples cover."""
    return (1 - beta) / (1 - beta**counts)


@tagged(balances=True)
def deferred(labels: Labels, groups: Tensor, epoch: int, *, by: By, beta: Fraction, start_epoch: Natural) -> Tensor:
    """Use uniform weights before `start_epoch`, then `effective_number` (deferred re-weighting, DRW, Cao et al., 2019).

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
    """Weight an example by the entry of `values` for its class or group, rescaled.

    These weights go with every sampler, also with one that corrects the same imbalance, because the user asks for them.

    Args:
        by: whether the values are for classes or for groups.
        values: one weight for each class or group, in their order.

    Raises:
        BadInput: the number of values is not that of the classes or groups.
    """
    example_labels, counts = labels(by)
    if len(values) != len(counts):
        raise BadInput(
            f"config.weights.values: {values} given; this data set has {len(counts)} of by={by!r}; give one value for each"
        )
    return mean_one(torch.tensor(values, dtype=torch.float64)[example_labels])


def residual(labels: Labels, epoch: int, epochs: int, sampler: Mapping[str, Any]) -> Tensor:
    """Divide importance weights by the chance that an annealed sampler keeps an example, to correct what the sampler leaves.

    Chance times weight is proportional to 1 / count in every epoch. The mean is 1 over the examples that the epoch
    draws, not over all.
    """
    example_labels, counts = labels(sampler["by"])
    target = 1 / counts[example_labels].double()
    section = {key: value for key, value in sampler.items() if key != "name"}
    chance = SAMPLERS[sampler["name"]].tags.chance(labels, epoch, epochs, **section)
    return target / chance * chance.sum() / target.sum()


def jtt_first_run(config: Experiment) -> dict[str, Any]:
    """Return the values of the first run of `just_train_twice`: the same run, unweighted and shorter."""
    return shortened(config, config.weights.first_epochs) | {"weights": {"name": "uniform"}}


@tagged(first_run=jtt_first_run)
def just_train_twice(targets: Tensor, first: FirstRun, *, first_epochs: Repeats, upweight: AtLeastOne) -> Tensor:
    """Weight the mistakes of a first run by `upweight`, relative to all other examples (JTT).

    Liu et al., "Just Train Twice: Improving Group Robustness without Training Group Information", ICML 2021. The first
    run is the same config without weights, for `first_epochs` epochs. It is trained before, in the folder `first/` of
    the run directory.

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
