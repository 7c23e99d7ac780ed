"""Many runs on many tasks as a few numbers with intervals (Agarwal et al., NeurIPS 2021; the `rliable` library).

`scores` is always (tasks, seeds), here accuracies on pairs of classes. The tasks are fixed, the seeds are a sample: so a
bootstrap draws seeds anew within each task ("stratified").
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
        """`60.2 (58.9 to 61.3)` of fractions."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of all runs, (…, tasks, seeds) → (…): more robust than a mean, less noisy than a median."""
    runs = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = runs.shape[-1] // 4
    return runs[..., cut : runs.shape[-1] - cut].mean(-1)


def bootstrap(statistic: Callable[..., np.ndarray], *scores: np.ndarray, paired: bool, seed: int = 0) -> Estimate:
    """`statistic` of one or several methods' scores, with its percentile interval.

    Args:
        statistic: from arrays (…, tasks, seeds), one a method, to (…).
        paired: whether one seed means the same data and initialisation in every method, and is drawn for all at once.
    """
    rng = np.random.default_rng(seed)

    def drawn(of: np.ndarray) -> np.ndarray:
        return rng.integers(of.shape[1], size=(RESAMPLES, *of.shape))

    places = [drawn(scores[0])] * len(scores) if paired else [drawn(of) for of in scores]
    resampled = (np.take_along_axis(of[None], at, axis=2) for of, at in zip(scores, places, strict=True))
    low, high = np.quantile(statistic(*resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(statistic(*scores)), float(low), float(high))


def improvement(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How likely a run of the one beats a run of the other on the same task, ties half, the mean over tasks."""
    better = np.sign(scores[..., :, None] - others[..., None, :])
    return (0.5 + 0.5 * better).mean((-3, -2, -1))


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(thresholds,) the share of runs whose score is above each."""
    return (scores.reshape(-1, 1) > thresholds).mean(0)


def difference_of_iqm(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    return interquartile_mean(scores) - interquartile_mean(others)
