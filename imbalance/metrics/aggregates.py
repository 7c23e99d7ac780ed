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
        """Return fractions as percentages, such as `60.2 (58.9 to 61.3)`."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of all runs, (…, tasks, seeds) → (…).

    It is more robust than the mean and less noisy than the median.
    """
    runs = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = runs.shape[-1] // 4
    return runs[..., cut : runs.shape[-1] - cut].mean(-1)


def bootstrap(statistic: Callable[..., np.ndarray], *scores: np.ndarray, paired: bool, seed: int = 0) -> Estimate:
    """Return `statistic` of the scores of one or several methods, with its percentile interval.

    Args:
        statistic: a function of an array (…, tasks, seeds) for each method, which returns (…).
        paired: draw the same seeds for all methods, because a seed means the same data and initialisation in each.
    """
    rng = np.random.default_rng(seed)

    def draw_seeds(method_scores: np.ndarray) -> np.ndarray:
        return rng.integers(method_scores.shape[1], size=(RESAMPLES, *method_scores.shape))

    seeds = [draw_seeds(scores[0])] * len(scores) if paired else [draw_seeds(each) for each in scores]
    resampled = (np.take_along_axis(each[None], drawn, axis=2) for each, drawn in zip(scores, seeds, strict=True))
    low, high = np.quantile(statistic(*resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(statistic(*scores)), float(low), float(high))


def improvement(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the probability that a run of `scores` beats a run of `others` on the same task, averaged over tasks.

    Ties count one half.
    """
    better = np.sign(scores[..., :, None] - others[..., None, :])
    return (0.5 + 0.5 * better).mean((-3, -2, -1))


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the share of runs whose score is above each threshold, (thresholds,)."""
    return (scores.reshape(-1, 1) > thresholds).mean(0)


def iqm_difference(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the interquartile mean of `scores` minus that of `others`."""
    return interquartile_mean(scores) - interquartile_mean(others)
