"""Weights: functions that return one factor on the loss of each training example, in float64 and with mean 1.

The arguments come from the run, see `imbalance.methods.context.RunContext`, and from the section `config.weights`. The
loop calls the function at the start of every epoch with the number of the epoch, so weights that change need no state.
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
from imbalance.methods.context import FirstRun, shortened_config
from imbalance.methods.samplers import SAMPLERS


def mean_one(weights: Tensor) -> Tensor:
    """Return the weights, rescaled to mean 1, so that the learning rate need not change with the weights.

    Raises:
        BadInput: the mean of the weights is 0 or infinite in float64, so the result would be nan or 0.
    """
    mean = weights.mean()
    if not 0 < mean < torch.inf:
        raise BadInput(
            f"weights: the mean of the weights is {mean.item():g}; it must be positive and finite, so use less "
            "extreme values"
        )
    return weights / mean


def effective_sample_size(weights: Tensor) -> float:
    """Return (Σw)² / Σw², the number of examples whose plain mean is as precise as this weighted mean (Kish, 1965)."""
    return (weights.sum() ** 2 / (weights**2).sum()).item()


def uniform(groups: Tensor) -> Tensor:
    """Give all examples the same weight."""
    return torch.ones(len(groups), dtype=torch.float64)


@tagged(balances=True)
def importance(labels: Labels, *, by: By, exponent: NonNegative) -> Tensor:
    """Weight an example by (1 / n)^exponent, where n is the number of training examples of its class or group.

    Exponent 1 gives the usual importance weights. Wang et al. (ICLR 2022, section 5) use 1.5 and 2 with the
    polynomially tailed loss, `poly`.

    Args:
        by: "class" to count the examples of classes, "group" to count those of groups.
        exponent: 0 for equal weights, 1 for classes or groups of equal total weight.
    """
    example_labels, counts = labels(by)
    return mean_one(counts.double()[example_labels] ** -exponent)


@tagged(balances=True)
def square_root(labels: Labels, *, by: By) -> Tensor:
    """Weight an example by 1 / √n, as `importance` with exponent ½.

    Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining", 2018.

    Args:
        by: "class" to count the examples of classes, "group" to count those of groups.
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
    """Weight as `importance`, but cut weights off at `ceiling` times the mean weight, and rescale (Ionides, 2008).

    In comparison with `importance`, the weighted loss has less variance and some bias.

    Args:
        by: "class" to count the examples of classes, "group" to count those of groups.
        exponent: 0 for equal weights, 1 for classes or groups of equal total weight before the cut.
        ceiling: the largest weight before rescaling, as a multiple of the mean weight. Rescaling to mean 1 then raises all
            weights alike.
    """
    return mean_one(importance(labels, by=by, exponent=exponent).clamp(max=ceiling))


@tagged(balances=True)
def effective_number(labels: Labels, *, by: By, beta: Fraction) -> Tensor:
    """Weight an example by (1 − β) / (1 − β^n), one over the effective number (Cui et al., CVPR 2019, equation 2).

    n is the number of training examples of its class or group.

    Args:
        by: "class" to count the examples of classes, "group" to count those of groups.
        beta: β; 0 for equal weights. As β approaches 1, the weights become proportional to 1 / n.
    """
    example_labels, counts = labels(by)
    return mean_one(inverse_effective_number(counts.double(), beta)[example_labels])


def inverse_effective_number(counts: Tensor, beta: float) -> Tensor:
    """Return (1 − β) / (1 − β^n) for each count n, one over the effective number of n examples; `beta` is β."""
    return (1 - beta) / (1 - beta**counts)


@tagged(balances=True)
def deferred(labels: Labels, groups: Tensor, epoch: int, *, by: By, beta: Fraction, start_epoch: Natural) -> Tensor:
    """Weight all examples equally before `start_epoch`, and as `effective_number` from then on.

    Cao et al., NeurIPS 2019, deferred re-weighting (DRW).

    Args:
        by: "class" to count the examples of classes, "group" to count those of groups.
        beta: β of `effective_number`. As β approaches 1, the weights become proportional to 1 / n.
        start_epoch: the first epoch with unequal weights, counted from 0.
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
    """Weight an example by the number in `values` for its class or group, and rescale the weights to mean 1.

    These weights are allowed with every sampler. Other weights are refused with a sampler that corrects the same
    imbalance; these are not, because the user has chosen the numbers.

    Args:
        by: "class" if `values` are for classes, "group" if they are for groups.
        values: one weight for each class or group; the first is that of class or group 0 of the data set.

    Raises:
        BadInput: there are more or fewer values than classes or groups.
    """
    example_labels, counts = labels(by)
    if len(values) != len(counts):
        raise BadInput(
            f"values: {len(values)} values given; these data have {len(counts)} {'classes' if by == 'class' else 'groups'}; give "
            f"one value for each, because by={by!r}"
        )
    return mean_one(torch.tensor(values, dtype=torch.float64)[example_labels])


def residual(labels: Labels, epoch: int, epochs: int, sampler: Mapping[str, Any]) -> Tensor:
    """Correct the imbalance that an annealed sampler leaves: weight by 1 / n, divided by the chance to be drawn.

    So the chance times the weight is proportional to 1 / n in every epoch, where n is the number of training examples of the
    class or group. The weights are scaled so that their mean over the examples that an epoch draws, not over all examples, is
    expected to be 1.
    """
    example_labels, counts = labels(sampler["by"])
    target = 1 / counts[example_labels].double()
    section = {key: value for key, value in sampler.items() if key != "name"}
    chance = SAMPLERS[sampler["name"]].tags.chance(labels, epoch, epochs, **section)
    return target / chance * chance.sum() / target.sum()


def jtt_first_run(config: Experiment) -> dict[str, Any]:
    """Return the config of the first run of `just_train_twice`, with equal weights and `first_epochs` epochs."""
    return shortened_config(config, config.weights.first_epochs) | {"weights": {"name": "uniform"}}


@tagged(first_run=jtt_first_run)
def just_train_twice(targets: Tensor, first: FirstRun, *, first_epochs: Repeats, upweight: AtLeastOne) -> Tensor:
    """Weight each example that a first run predicts wrongly `upweight` times as much as every other example (JTT).

    Liu et al., "Just Train Twice: Improving Group Robustness without Training Group Information", ICML 2021. The first
    run has the same config, but equal weights and `first_epochs` epochs. It is trained before this run, in the
    folder `first/` of the run directory.

    Args:
        first_epochs: the number of epochs of the first run.
        upweight: the weight of an example that the first run predicts wrongly, divided by that of any other example.
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
