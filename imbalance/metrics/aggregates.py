"""Aggregate runs over tasks and seeds, with bootstrap intervals (Agarwal et al., NeurIPS 2021; the `rliable` library).

`scores` has the shape (tasks, seeds). The tasks are fixed and the seeds are a sample, so the bootstrap is stratified: it
draws seeds within each task.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from imbalance.metrics.intervals import LEVEL

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A number and the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return the estimate and its interval in percent, such as `60.2 (58.9 to 61.3)`."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of the scores of all runs, (…, tasks, seeds) → (…).

    The interquartile mean is more robust than the mean and less noisy than the median.
    """
    runs = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = runs.shape[-1] // 4
    return runs[..., cut : runs.shape[-1] - cut].mean(-1)


def bootstrap(statistic: Callable[..., np.ndarray], *scores: np.ndarray, paired: bool, seed: int = 0) -> Estimate:
    """Return a statistic of the scores of one or several methods, with its percentile bootstrap interval.

    Args:
        statistic: takes an array (…, tasks, seeds) for each method, and returns an array (…).
        scores: (tasks, seeds) for each method.
        paired: True to draw the same seeds for all methods, because runs with the same seed share data and
            initialisation; False to draw the seeds of each method independently.
        seed: the seed of the bootstrap.
    """
    rng = np.random.default_rng(seed)

    def draw_seeds(method_scores: np.ndarray) -> np.ndarray:
        return rng.integers(method_scores.shape[1], size=(RESAMPLES, *method_scores.shape))

    seeds = [draw_seeds(scores[0])] * len(scores) if paired else [draw_seeds(each) for each in scores]
    resampled = (np.take_along_axis(each[None], drawn, axis=2) for each, drawn in zip(scores, seeds, strict=True))
    low, high = np.quantile(statistic(*resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(statistic(*scores)), float(low), float(high))


def improvement(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the probability that a random run of one method beats a random run of another method, averaged over tasks.

    Ties count one half.

    Args:
        scores, others: the scores of the two methods, (…, tasks, seeds).
    """
    better = np.sign(scores[..., :, None] - others[..., None, :])
    return (0.5 + 0.5 * better).mean((-3, -2, -1))


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return, for each threshold, the share of runs whose score is above the threshold."""
    return (scores.reshape(-1, 1) > thresholds).mean(0)


def iqm_difference(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the interquartile mean of `scores` minus that of `others`."""
    return interquartile_mean(scores) - interquartile_mean(others)
