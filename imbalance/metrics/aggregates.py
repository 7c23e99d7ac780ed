"""Aggregate runs over tasks and seeds, with bootstrap intervals (Agarwal et al., NeurIPS 2021; the `rliable` library).

`scores` has the shape (tasks, seeds). The tasks are fixed and the seeds are a sample, so the bootstrap is stratified: it
draws seeds within each task.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from imbalance.errors import BadInput
from imbalance.metrics.intervals import LEVEL

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A number and the ends of its 95 % bootstrap interval; the ends are nan for a single seed."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return the estimate and its interval in percent, such as `60.2 (58.9 to 61.3)`; of a single seed, `60.2`."""
        interval = "" if np.isnan(self.low) else f" ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{100 * self.value:.1f}{interval}"


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of the scores of all runs, (…, tasks, seeds) → (…).

    The interquartile mean is more robust than the mean and less noisy than the median. It is nan if a score is nan.
    """
    runs = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)  # nan comes last, as if it were the best score
    cut = runs.shape[-1] // 4
    return np.where(np.isnan(runs[..., -1]), np.nan, runs[..., cut : runs.shape[-1] - cut].mean(-1))


def bootstrap(
    statistic: Callable[..., np.ndarray],
    *scores: np.ndarray,
    paired: bool,
    low: float = -np.inf,
    high: float = np.inf,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of the scores of one or several methods, with its widened bootstrap interval.

    The ends of the percentile interval are moved away from the statistic by a factor, because few seeds scatter less
    than their distribution (Hesterberg, The American Statistician 2015). For the mean of one task the factor gives the
    width of the t-interval. For three seeds the percentile interval covers the true value in about 76 % of cases, and
    the widened interval in 89 to 95 %; see `imbalance reproduce interval_coverage`.

    Args:
        statistic: takes an array (…, tasks, seeds) for each method, and returns an array (…).
        scores: (tasks, seeds) for each method.
        paired: True to draw the same seeds for all methods, because runs with the same seed share data and
            initialisation; False to draw the seeds of each method independently.
        low, high: the bounds of the statistic, such as 0 and 1, at which the interval is cut off.
        seed: the seed of the bootstrap.

    Raises:
        BadInput: `paired` is True, and the methods have different numbers of tasks or seeds.
    """
    if paired and len({each.shape for each in scores}) > 1:
        shapes = " and ".join(str(each.shape) for each in scores)
        raise BadInput(f"scores: arrays of shapes {shapes} given; paired methods must have the same tasks and seeds")
    rng = np.random.default_rng(seed)

    def draw_seeds(method_scores: np.ndarray) -> np.ndarray:
        return rng.integers(method_scores.shape[1], size=(RESAMPLES, *method_scores.shape))

    seeds = [draw_seeds(scores[0])] * len(scores) if paired else [draw_seeds(each) for each in scores]
    resampled = (np.take_along_axis(each[None], drawn, axis=2) for each, drawn in zip(scores, seeds, strict=True))
    value, (num_tasks, num_seeds) = float(statistic(*scores)), scores[0].shape
    if num_seeds == 1:
        return Estimate(value, np.nan, np.nan)
    ends = np.quantile(statistic(*resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    first, last = value + widening(num_tasks, num_seeds) * (ends - value)
    return Estimate(value, max(low, float(first)), min(high, float(last)))


def widening(num_tasks: int, num_seeds: int) -> float:
    """Return the factor by which `bootstrap` widens its intervals: √(n / (n − 1)) times a ratio of two quantiles.

    n is the number of seeds. A bootstrap underestimates the standard deviation by the factor √(n / (n − 1)). The ratio
    replaces the normal quantile by the quantile of Student's t. The degrees of freedom of t are n − 1 times half of the
    number of tasks, because an interquartile mean depends on about half of the tasks; they are at least n − 1.
    """
    from scipy import stats

    quantile = stats.t.ppf((1 + LEVEL) / 2, max(1, num_tasks / 2) * (num_seeds - 1)) / stats.norm.ppf((1 + LEVEL) / 2)
    return float(np.sqrt(num_seeds / (num_seeds - 1)) * quantile)


def improvement(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the probability that a random run of one method beats a random run of another method, averaged over tasks.

    Ties count one half.

    Args:
        scores, others: the scores of the two methods, (…, tasks, seeds).
    """
    better = np.sign(scores[..., :, None] - others[..., None, :])
    return (0.5 + 0.5 * better).mean((-3, -2, -1))


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return, for each threshold, the share of runs whose score is above the threshold; nan is above no threshold."""
    return (scores.reshape(-1, 1) > thresholds).mean(0)
