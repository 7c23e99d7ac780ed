"""Intervals: over seeds, between methods, and over test examples. Every distribution is SciPy's or NumPy's."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Mean(NamedTuple):
    """The mean of `n` values and half the width of its 95 % t-interval, nan for fewer than two values."""

    value: float
    half: float
    n: int

    def percent(self) -> str:
        """`12.3 ± 0.4` of fractions; without an interval where there is none, and `–` where there is no value."""
        return self.text(100, 1)

    def text(self, scale: float = 1, digits: int = 3) -> str:
        """The mean, `±` half the interval's width where there is one, both times `scale`."""
        if not self.n:
            return "–"
        value = f"{scale * self.value:.{digits}f}"
        return value if self.n < 2 else f"{value} ± {scale * self.half:.{digits}f}"


class Interval(NamedTuple):
    """The ends of a 95 % interval over test examples."""

    low: float
    high: float

    def percent(self) -> str:
        """`60.2 to 64.5` of fractions."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"


def mean(values: Sequence[float]) -> Mean:
    """The mean over seeds with its 95 % interval from Student's t. nan, of a run that gave no value, is left out."""
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return Mean(float(values[0]) if n else np.nan, np.nan, n)
    return Mean(float(values.mean()), float(stats.sem(values) * stats.t.ppf((1 + LEVEL) / 2, n - 1)), n)


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Mean:
    """The mean of `values − reference` over the seeds that both have: what the seeds share cancels."""
    return mean([values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())])


def wilson(right: int, n: int) -> Interval:
    """Wilson's 95 % score interval of an accuracy, `right` of `n`: holds its level where n is small or the accuracy 1."""
    from scipy import stats

    interval = stats.binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def over_examples(
    right: Sequence[int],
    totals: Sequence[int],
    statistic: Callable[..., np.ndarray],
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """95 % percentile bootstrap interval of a statistic of the groups' accuracies, of one classifier.

    A test example counts by its group and by whether it was predicted rightly, so that to draw the examples anew with
    replacement is to draw these counts from a multinomial distribution. The interval shows how far test examples alone
    move the statistic, and knows nothing of seeds. The minimum of noisy accuracies lies below the accuracy of the worst
    group, the more so the smaller the groups are.

    Args:
        right: (G,) examples of each group that were predicted rightly.
        totals: (G,) examples of each group.
        statistic: np.nanmin for the worst group or np.nanmean for the mean of groups; nan is the accuracy of a group
            that a resample has no example of.
    """
    right, totals = np.asarray(right), np.asarray(totals)
    n = totals.sum()
    drawn = np.random.default_rng(seed).multinomial(n, np.stack([right, totals - right]).ravel() / n, resamples)
    right, wrong = drawn.reshape(resamples, 2, -1).swapaxes(0, 1)
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(statistic(right / (right + wrong), axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
