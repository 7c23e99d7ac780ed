"""Compute 95 % intervals: over seeds, of differences between methods, and over test examples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.metric_names import in_percent
from imbalance.errors import BadInput

LEVEL = 0.95
SMALL = 10  # examples; the accuracy of a group with fewer examples is unreliable
FEWEST = 3  # values; there is no interval for fewer values, because two values hardly determine a spread
BOUNDS = {"loss": (0, np.inf), "nll": (0, np.inf), "brier": (0, 2), "mcc": (-1, 1)}  # all other metrics have (0, 1)


class Mean(NamedTuple):
    """The mean of `n` values and its 95 % t-interval, whose ends are nan for fewer than three values.

    The interval of a metric with bounds is cut off at the bounds. The true mean cannot be beyond a bound, so the coverage
    stays the same.

    values: the values themselves if they are fewer than three, to show them in place of an interval; else ().
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
        """The distances from the mean to the lower and to the upper end, for matplotlib's error bars."""
        return self.value - self.low, self.high - self.value

    def percent(self) -> str:
        """Return the mean and interval in percent, such as `12.3 ± 0.4`."""
        return self.text(100, 1)

    def of_metric(self, name: str) -> str:
        """Return the mean and interval of the metric `name`: in percent, or with three decimals if it is no fraction."""
        return self.percent() if in_percent(name) else self.text()

    def text(self, scale: float = 1, digits: int = 3) -> str:
        """Return the mean and interval as text, such as `12.3 ± 0.4`.

        If a bound has cut the interval off, the text is `12.3 (0.0 to 24.9)`. If all values are equal, it is
        `12.3 (all 3 equal)`: accuracies of small groups are often equal by chance, so an interval of width 0 would
        mislead. For one or two values the text is the list of the values, and without a value it is `–`.

        Args:
            scale: factor on all numbers, such as 100 for percent.
            digits: number of decimals.
        """

        def rounded(value: float) -> str:
            return decimals(scale * value, digits)

        if self.n < FEWEST:
            return ", ".join(map(rounded, self.values)) or "–"
        if self.high - self.low < 1e-12:
            return f"{rounded(self.value)} (all {self.n} equal)"
        if abs(self.low + self.high - 2 * self.value) > 1e-9:
            return f"{rounded(self.value)} ({rounded(self.low)} to {rounded(self.high)})"
        return f"{rounded(self.value)} ± {half_text(scale * self.half, digits)}"


class Interval(NamedTuple):
    """The ends of a 95 % interval over test examples."""

    low: float
    high: float

    def percent(self) -> str:
        """Return the interval in percent, such as `60.2 to 64.5`."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"


def decimals(value: float, digits: int) -> str:
    """Return a number as text with `digits` decimals; a negative number that rounds to zero has no minus sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"  # −0.0 + 0.0 is 0.0


def half_text(half: float, digits: int) -> str:
    """Return half the width of an interval as text with `digits` decimals, or with one significant digit instead of `0.0`."""
    text = f"{half:.{digits}f}"
    return text if float(text) or not half else f"{half:.1g}"


def mean(values: Sequence[float] | np.ndarray, low: float = -np.inf, high: float = np.inf, family: int = 1) -> Mean:
    """Return the mean over seeds with its 95 % interval from Student's t; nan values are ignored.

    Args:
        values: a value for each seed; nan for a run without the value.
        low, high: the bounds of the values, such as 0 and 1 for an accuracy; `*bounds(name)` gives the bounds of a metric.
        family: the number of intervals that are to cover their true means all at once in 95 % of cases; see `quantiles`.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    n = len(array)
    if n < FEWEST:
        return Mean(float(array.mean()) if n else np.nan, np.nan, np.nan, n, tuple(array.tolist()))
    centre, half = float(array.mean()), float(array.std(ddof=1) / np.sqrt(n) * quantiles(n, family)[n - 2])
    return Mean(centre, max(low, centre - half), min(high, centre + half), n)


def bounds(name: str) -> tuple[float, float]:
    """Return the smallest and largest possible value of the metric `name`, such as `brier` or `val/recall/<class>`."""
    return BOUNDS.get(name.removeprefix("train/").removeprefix("val/").removeprefix("test/"), (0, 1))


def mean_with_diverged(scores: Sequence[float], lowest: float) -> float:
    """Return the mean over seeds in which each diverged seed has the score `lowest`; -inf if every seed diverged.

    Settings are compared by this mean. A mean over only the seeds that did not diverge would favour a setting whose bad
    seeds diverged. A run that diverged leaves no model, so it counts as the worst possible model. A setting that rarely
    diverges can still win, if its other seeds are good enough.

    Args:
        scores: score of each seed; nan for a seed that diverged.
        lowest: smallest possible score, the first of `bounds`.
    """
    values = np.asarray(scores, float)
    if np.isnan(values).all():
        return -np.inf
    return float(np.where(np.isnan(values), lowest, values).mean())


def quantiles(n: int, family: int = 1) -> np.ndarray:
    """Return (n − 1,) quantiles of Student's t for two-sided 95 % intervals, with 1 to n − 1 degrees of freedom.

    Args:
        family: the number of intervals that are to cover their true values all at once in 95 % of cases. Each interval then
            misses in 5 % / `family` of cases (Bonferroni), so all intervals cover in at least 95 % of cases, even if
            the intervals depend on each other.
    """
    from scipy import special  # not scipy.stats, which takes half a second to import

    return special.stdtrit(np.arange(1, max(2, n)), 1 - (1 - LEVEL) / 2 / family)


def paired_difference(
    values: Mapping[int, float],
    reference: Mapping[int, float],
    low: float = -np.inf,
    high: float = np.inf,
    family: int = 1,
) -> Mean:
    """Return the mean of `values − reference` over the seeds that both have, with its 95 % interval.

    The effects that a seed has on both values cancel in their difference.

    Args:
        values, reference: from a seed to the value of its run.
        low, high: the bounds of the values, as in `mean`; the differences are between low − high and high − low.
        family: the number of differences that are to be covered all at once, as in `mean`.
    """
    differences = [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]
    return mean(differences, low - high, high - low, family)


def expected_best(values: Sequence[float]) -> np.ndarray:
    """Return, for k from 1 to n, the expected largest of k values drawn without replacement from the n `values`.

    This is the unbiased form (Tang et al., "Showing Your Work Doesn't Always Work", ACL 2020) of the expected validation
    performance of Dodge et al., "Show Your Work", EMNLP 2019. The i-th smallest value is the largest of k in
    C(i − 1, k − 1) of C(n, k) draws.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n, ranks, expected = len(ordered), np.arange(len(ordered) + 1.0), []
    below = np.ones(n + 1)  # for each i, the chance C(i, k) / C(n, k) that all k values are among the i smallest
    for k in range(1, n + 1):
        below = below * (ranks - k + 1).clip(min=0) / (n - k + 1)
        expected.append(np.diff(below) @ ordered)
    return np.array(expected)


def wilson(right: int, n: int) -> Interval:
    """Return Wilson's 95 % score interval of the accuracy `right` / `n`; its coverage is near 95 % also for small n.

    Args:
        right: the number of right predictions.
        n: the number of examples.

    Raises:
        BadInput: `right` is not from 0 to `n`.
    """
    low, high = wilson_ends(*checked_counts(right, n))
    return Interval(float(low), float(high))


def checked_counts(right: Any, totals: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of right predictions and of examples as arrays.

    Raises:
        BadInput: the shapes differ, or a number of right predictions is not from 0 to its number of examples.
    """
    right_counts, total_counts = np.asarray(right), np.asarray(totals)
    if right_counts.shape != total_counts.shape:
        raise BadInput(
            f"right, totals: arrays of shapes {right_counts.shape} and {total_counts.shape} given; they must be equal"
        )
    wrong = ~((right_counts >= 0) & (right_counts <= total_counts))
    if wrong.any():
        number, size = right_counts[wrong][0], total_counts[wrong][0]
        raise BadInput(f"right: {number} right predictions of {size} examples given; give a number from 0 to {size}")
    return right_counts, total_counts


def wilson_ends(right: np.ndarray | int, n: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high ends of Wilson's 95 % intervals of many accuracies `right` / `n`, as `wilson` does."""
    from scipy import special

    squared = special.ndtri((1 + LEVEL) / 2) ** 2
    right, n = np.asarray(right, np.float64), np.asarray(n, np.float64)
    centre = (right + squared / 2) / (n + squared)
    half = np.sqrt(squared * (right * (n - right) / np.maximum(n, 1) + squared / 4)) / (n + squared)
    # Rounding leaves an end that is exactly 0 or 1 a little beside it.
    return np.where(right == 0, 0.0, centre - half), np.where(right == n, 1.0, centre + half)


def worst_over_examples(right: Sequence[int] | np.ndarray, totals: Sequence[int] | np.ndarray) -> Interval:
    """Return a 95 % interval of the true accuracy of one classifier on its worst group.

    The interval shows the effect of the choice of test examples alone, not of seeds. Each group has
    an exact interval (Clopper and Pearson, Biometrika 1934), with 2.5 % below its low end, and 2.5 % divided by the number
    of groups above its high end. This function returns the smallest low end and the smallest high end. The result covers
    the true accuracy in at least 95 % of cases, also if groups overlap or are equally bad:

    - The low end is too high only if the low end of the worst group is too high: in at most 2.5 % of cases.
    - The high end is too low only if the high end of some group is too low: in at most 2.5 % / G of cases for each group.

    `imbalance reproduce interval_coverage` compares this interval with Wilson's and with the bootstrap, which cover
    in fewer cases.

    Args:
        right: (G,) numbers of right predictions of each group.
        totals: (G,) numbers of examples of each group. A group without examples does not count.

    Raises:
        BadInput: a number of right predictions is not from 0 to the number of examples.
    """
    from scipy import special

    right_counts, total_counts = checked_counts(right, totals)
    right_counts, total_counts = right_counts[total_counts > 0], total_counts[total_counts > 0]
    if not len(total_counts):
        return Interval(np.nan, np.nan)
    tail, wrong = (1 - LEVEL) / 2, total_counts - right_counts
    # The distribution has no quantile without a right prediction, where the low end is 0, or without a wrong one.
    low = np.where(right_counts, special.betaincinv(right_counts, wrong + 1, tail), 0.0)
    high = np.where(wrong, special.betainccinv(right_counts + 1, wrong, tail / len(total_counts)), 1.0)
    return Interval(float(low.min()), float(high.min()))


def mean_over_examples(
    right: Sequence[int] | np.ndarray,
    totals: Sequence[int] | np.ndarray,
    combinations: np.ndarray | None = None,
    shares: np.ndarray | None = None,
) -> Interval:
    """Return a 95 % interval of the mean of one classifier's true group accuracies.

    The interval shows the effect of the choice of test examples alone, not of seeds. The mean is treated as normally
    distributed. Its variance is computed as if each group had one more right and one more wrong prediction, because otherwise a
    group without wrong predictions would have the variance 0.

    Args:
        right: (G,) numbers of right predictions of each group.
        totals: (G,) numbers of examples of each group. A group without examples does not count.
        combinations: None if no groups overlap. If groups overlap, the (C, G) mask that `count_combinations` returns, and
            `right` and `totals` are the (C,) numbers that it returns.
        shares: None for the plain mean, or (G,) non-negative weights of the groups in a weighted mean.

    Raises:
        BadInput: a number of right predictions is not from 0 to the number of examples.
    """
    from scipy import special

    right_counts, total_counts = checked_counts(right, totals)
    mask = np.eye(len(total_counts), dtype=bool) if combinations is None else combinations
    group_totals = total_counts @ mask.astype(np.int64)
    present = group_totals > 0
    if not present.any():
        return Interval(np.nan, np.nan)
    parts = np.ones(present.sum()) if shares is None else np.asarray(shares)[present]
    # The mean of the group accuracies is a sum over examples, in which those of a combination have the same weight.
    weights = (mask[:, present] / group_totals[present] * parts).sum(axis=1) / (parts.sum() or 1)
    share = (right_counts + 1) / (total_counts + 2)
    centre = float(weights @ right_counts)
    half = special.ndtri((1 + LEVEL) / 2) * np.sqrt(weights**2 @ (total_counts * share * (1 - share)))
    return Interval(max(0.0, centre - float(half)), min(1.0, centre + float(half)))


def count_combinations(right: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the examples of each combination of overlapping groups.

    Args:
        right: (N,) bool, True for a right prediction.
        mask: (N, G) bool, the groups of each example.

    Returns:
        For C combinations, the (C,) numbers of right predictions, the (C,) numbers of examples, and a (C, G) bool mask of
        the groups of each combination.
    """
    combinations, inverse = np.unique(mask, axis=0, return_inverse=True)
    inverse, size = inverse.reshape(-1), len(combinations)
    return np.bincount(inverse[right], minlength=size), np.bincount(inverse, minlength=size), combinations


def caveat(totals: Sequence[int]) -> str:
    """Return a note that a group has fewer than `SMALL` examples, so that an interval over test examples says little; or "".

    Args:
        totals: the number of examples of each group.
    """
    few = min((int(n) for n in totals if n), default=SMALL)
    return f"only {few} example{'s' * (few != 1)}" + (" in a group" if len(totals) > 1 else "") if few < SMALL else ""
