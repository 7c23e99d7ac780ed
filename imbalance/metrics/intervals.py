"""Intervals: over seeds, between methods, and over test examples. Every distribution is SciPy's or NumPy's."""

from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
SMALL = 10  # examples of a group, under which its accuracy says little
FEWEST = 3  # values of an interval: two of them say next to nothing of their spread
BOUNDS = {"loss": (0, np.inf), "nll": (0, np.inf), "brier": (0, 2), "mcc": (-1, 1)}  # of all other metrics (0, 1)


class Mean(NamedTuple):
    """The mean of `n` values and its 95 % t-interval, whose ends are nan for fewer than three values.

    The interval of a metric that cannot leave [0, 1] is cut off there: what it loses cannot be the true mean, so that it
    covers no less often.
    """

    value: float
    low: float
    high: float
    n: int
    values: tuple[float, ...] = ()  # where they are too few for an interval, to be shown instead of one

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    @property
    def arms(self) -> tuple[float, float]:
        """How far the interval reaches below and above the mean, as matplotlib's error bars take it."""
        return self.value - self.low, self.high - self.value

    def percent(self) -> str:
        """`12.3 ± 0.4` of fractions."""
        return self.text(100, 1)

    def text(self, scale: float = 1, digits: int = 3) -> str:
        """`12.3 ± 0.4`, times `scale`; `12.3 (0.0 to 24.9)` where a bound cuts the interval off; of one or two values
        the values, and `–` of none.
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
        """`60.2 to 64.5` of fractions."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"


def mean(values: Sequence[float], low: float = -np.inf, high: float = np.inf) -> Mean:
    """The mean over seeds with its 95 % interval from Student's t. nan, of a run that gave no value, is left out.

    Args:
        low, high: what the values can be, 0 and 1 for an accuracy; of a metric `*bounds(name)`.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    n = len(values)
    if n < FEWEST:
        return Mean(float(values.mean()) if n else np.nan, np.nan, np.nan, n, tuple(values.tolist()))
    centre, half = float(values.mean()), float(values.std(ddof=1) / np.sqrt(n) * quantiles(n)[n - 2])
    return Mean(centre, max(low, centre - half), min(high, centre + half), n)


def bounds(name: str) -> tuple[float, float]:
    """What a metric can be, by its name: `brier`, `test/brier`, `val/recall/<class>`."""
    return BOUNDS.get(name.removeprefix("train/").removeprefix("val/").removeprefix("test/"), (0, 1))


def quantiles(n: int) -> np.ndarray:
    """Student's t quantiles of a two-sided 95 % interval, for 1 to n − 1 degrees of freedom."""
    from scipy import stats

    return stats.t.ppf((1 + LEVEL) / 2, np.arange(1, max(2, n)))


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], low: float = -np.inf, high: float = np.inf
) -> Mean:
    """The mean of `values − reference` over the seeds that both have: what the seeds share cancels.

    Args:
        low, high: what the values can be, as in `mean`; their differences reach from low − high to high − low.
    """
    differences = [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]
    return mean(differences, low - high, high - low)


def expected_best(values: Sequence[float]) -> np.ndarray:
    """(n,) what the best of k of these n trials, drawn without replacement, is on average, for k from 1 to n.

    The expected validation performance of Dodge et al., "Show Your Work", EMNLP 2019, without its bias (Tang et al.,
    "Showing Your Work Doesn't Always Work", ACL 2020): the i-th smallest is the best of k in C(i − 1, k − 1) of C(n, k)
    draws.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    return np.array([sum(v * comb(i, k - 1) for i, v in enumerate(ordered)) / comb(n, k) for k in range(1, n + 1)])


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
    members: np.ndarray | None = None,
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
        members: (C, G) bool, where groups overlap: `right` and `totals` are then of C kinds of examples, those that are in
            the same groups (or in none), as `kinds` finds them.
    """
    right, totals = np.asarray(right), np.asarray(totals)
    n = totals.sum()
    drawn = np.random.default_rng(seed).multinomial(n, np.stack([right, totals - right]).ravel() / n, resamples)
    right, wrong = drawn.reshape(resamples, 2, -1).swapaxes(0, 1)
    if members is not None:
        right, wrong = right @ members.astype(np.int64), wrong @ members.astype(np.int64)
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(statistic(right / (right + wrong), axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def kinds(right: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of N examples, right or not, in groups (N, G): of each combination of groups that there is how many are right, how
    many there are, and (C, G) which groups they are.
    """
    found, inverse = np.unique(members, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return np.bincount(inverse[right], minlength=len(found)), np.bincount(inverse, minlength=len(found)), found


def caveat(totals: Sequence[int], interval: Interval) -> str:
    """Why an interval over test examples says little, or nothing.

    Where every example of a group is right, or every one wrong, all resamples agree and the bootstrap shows no
    uncertainty at all.
    """
    if interval.low == interval.high:
        return "degenerate: all resamples agree"
    few = min((int(n) for n in totals if n), default=SMALL)
    return f"only {few} example{'s' * (few != 1)}" + (" in a group" if len(totals) > 1 else "") if few < SMALL else ""
