"""Compute 95 % intervals: over seeds, of differences between methods, and over test examples."""

from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
SMALL = 10  # with fewer examples, the accuracy of a group is unreliable
FEWEST = 3  # with fewer values there is no interval, because two values say next to nothing about their spread
BOUNDS = {"loss": (0, np.inf), "nll": (0, np.inf), "brier": (0, 2), "mcc": (-1, 1)}  # all other metrics have (0, 1)


class Mean(NamedTuple):
    """The mean of `n` values and its 95 % t-interval, whose ends are nan for fewer than three values.

    The interval of a metric with bounds is cut at the bounds. The part that is cut off cannot hold the true mean, so the
    coverage stays the same.

    values: the values themselves if they are too few for an interval, to be shown in its place.
    """

    value: float
    low: float
    high: float
    n: int
    values: tuple[float, ...] = ()

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def arms(self) -> tuple[float, float]:
        """The distances from the mean to the lower and the upper end, as matplotlib's error bars take them."""
        return self.value - self.low, self.high - self.value

    def percent(self) -> str:
        """Return fractions as percentages, such as `12.3 ± 0.4`."""
        return self.text(100, 1)

    def text(self, scale: float = 1, digits: int = 3) -> str:
        """Return the mean and interval, times `scale`, as `12.3 ± 0.4`.

        An interval that a bound cuts off is written as `12.3 (0.0 to 24.9)`; one or two values are written out; no value is
        `–`.
        """

        def rounded(value: float) -> str:
            return f"{scale * value:.{digits}f}"

        if self.n < FEWEST:
            return ", ".join(map(rounded, self.values)) or "–"
        if abs(self.low + self.high - 2 * self.value) > 1e-9:
            return f"{rounded(self.value)} ({rounded(self.low)} to {rounded(self.high)})"
        return f"{rounded(self.value)} ± {rounded(self.half)}"


class Interval(NamedTuple):
    """The ends of a 95 % interval over test examples."""

    low: float
    high: float

    def percent(self) -> str:
        """Return fractions as percentages, such as `60.2 to 64.5`."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"


def mean(values: Sequence[float] | np.ndarray, low: float = -np.inf, high: float = np.inf) -> Mean:
    """Return the mean over seeds with its 95 % interval from Student's t; nan, a missing value of a run, is left out.

    Args:
        low, high: the bounds of the values, such as 0 and 1 for an accuracy; `*bounds(name)` gives those of a metric.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    n = len(array)
    if n < FEWEST:
        return Mean(float(array.mean()) if n else np.nan, np.nan, np.nan, n, tuple(array.tolist()))
    centre, half = float(array.mean()), float(array.std(ddof=1) / np.sqrt(n) * quantiles(n)[n - 2])
    return Mean(centre, max(low, centre - half), min(high, centre + half), n)


def bounds(name: str) -> tuple[float, float]:
    """Return the bounds of a metric by its name: `brier`, `test/brier`, `val/recall/<class>`."""
    return BOUNDS.get(name.removeprefix("train/").removeprefix("val/").removeprefix("test/"), (0, 1))


def quantiles(n: int) -> np.ndarray:
    """Return Student's t quantiles of a two-sided 95 % interval, for 1 to n − 1 degrees of freedom."""
    from scipy import stats

    return stats.t.ppf((1 + LEVEL) / 2, np.arange(1, max(2, n)))


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], low: float = -np.inf, high: float = np.inf
) -> Mean:
    """Return the mean of `values − reference` over the seeds that both have; effects that a seed has on both cancel.

    Args:
        low, high: the bounds of the values, as in `mean`; the differences are between low − high and high − low.
    """
    differences = [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]
    return mean(differences, low - high, high - low)


def expected_best(values: Sequence[float]) -> np.ndarray:
    """Return the (n,) expected best of k of these n trials, drawn without replacement, for k from 1 to n.

    This is the expected validation performance of Dodge et al., "Show Your Work", EMNLP 2019, without its bias (Tang et
    al., "Showing Your Work Doesn't Always Work", ACL 2020). The i-th smallest value is the best of k in
    C(i − 1, k − 1) of C(n, k) draws.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    return np.array([sum(v * comb(i, k - 1) for i, v in enumerate(ordered)) / comb(n, k) for k in range(1, n + 1)])


def wilson(right: int, n: int) -> Interval:
    """Return Wilson's 95 % score interval of the accuracy `right` / `n`, which holds its level for small n, too."""
    from scipy import stats

    interval = stats.binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def over_examples(
    right: Sequence[int] | np.ndarray,
    totals: Sequence[int] | np.ndarray,
    statistic: Callable[..., np.ndarray],
    resamples: int = 2000,
    seed: int = 0,
    combinations: np.ndarray | None = None,
) -> Interval:
    """Return the 95 % percentile bootstrap interval of a statistic of one classifier's group accuracies.

    A test example counts by its group and by its prediction, right or wrong. So a resample of the examples with
    replacement is a draw of these counts from a multinomial distribution. The interval shows the effect of the test
    examples alone, not of seeds. The minimum of noisy accuracies is below the accuracy of the worst group, more so for
    smaller groups.

    Args:
        right: (G,) numbers of right predictions of each group.
        totals: (G,) numbers of examples of each group.
        statistic: np.nanmin for the worst group, or np.nanmean for the mean of groups. A group without an example in a
            resample has nan as its accuracy.
        combinations: (C, G) bool, for groups that overlap: `right` and `totals` are then (C,) numbers for each
            combination of groups, from `count_combinations`.
    """
    right_counts, total_counts = np.asarray(right), np.asarray(totals)
    n = total_counts.sum()
    cells = np.stack([right_counts, total_counts - right_counts]).ravel()
    drawn = np.random.default_rng(seed).multinomial(n, cells / n, resamples)
    drawn_right, drawn_wrong = drawn.reshape(resamples, 2, -1).swapaxes(0, 1)
    if combinations is not None:
        in_group = combinations.astype(np.int64)
        drawn_right, drawn_wrong = drawn_right @ in_group, drawn_wrong @ in_group
    with np.errstate(invalid="ignore"):
        accuracies = drawn_right / (drawn_right + drawn_wrong)
        low, high = np.quantile(statistic(accuracies, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def count_combinations(right: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the examples of each combination of overlapping groups.

    Args:
        right: (N,) bool, the right predictions.
        mask: (N, G) bool, the groups of each example.

    Returns:
        The (C,) numbers of right predictions and of examples of each combination, and its groups, (C, G) bool.
    """
    combinations, inverse = np.unique(mask, axis=0, return_inverse=True)
    inverse, size = inverse.reshape(-1), len(combinations)
    return np.bincount(inverse[right], minlength=size), np.bincount(inverse, minlength=size), combinations


def caveat(totals: Sequence[int], interval: Interval) -> str:
    """Return the reason why an interval over test examples is unreliable; "" if there is none.

    If all examples of a group are right, or all are wrong, all resamples agree and the bootstrap shows no uncertainty.
    """
    if interval.low == interval.high:
        return "degenerate: all resamples agree"
    few = min((int(n) for n in totals if n), default=SMALL)
    return f"only {few} example{'s' * (few != 1)}" + (" in a group" if len(totals) > 1 else "") if few < SMALL else ""
