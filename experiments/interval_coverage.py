"""Measure how often 95 % intervals contain the true value, for test groups of known accuracies and for few seeds.

    imbalance reproduce interval_coverage

The first table is about the accuracy of one classifier on its worst group, in ten situations; the second about the mean of
its group accuracies in the same situations. Each row draws the right predictions of each group from a binomial distribution,
and counts the draws whose interval contains the true value. The third table is about the interquartile mean of four tasks
over a few seeds. All tables together take a minute or two.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from imbalance.metrics.aggregates import bootstrap, interquartile_mean, widening
from imbalance.metrics.intervals import Interval, mean_over_examples, worst_over_examples
from imbalance.report.tables import markdown

DRAWS, RESAMPLES = 1000, 500
WATERBIRDS = (2255, 642, 642, 2255)
# For each situation: the title, the sizes of the groups, and the true accuracies of the groups.
SITUATIONS = (
    ("one of four groups is clearly the worst", (1000,) * 4, (0.95, 0.9, 0.9, 0.7)),
    ("four equally bad groups of 100", (100,) * 4, (0.9,) * 4),
    ("Waterbirds' sizes, all groups equal", WATERBIRDS, (0.9,) * 4),
    ("Waterbirds' sizes, the small groups worse", WATERBIRDS, (0.98, 0.9, 0.9, 0.98)),
    ("CelebA's sizes", (9767, 7535, 2480, 180), (0.95, 0.97, 0.9, 0.88)),
    ("ten equal classes of 1,000", (1000,) * 10, (0.9,) * 10),
    ("ten equal classes of 36", (36,) * 10, (0.95,) * 10),
    ("a hundred equal classes of 100", (100,) * 100, (0.5,) * 100),
    ("four groups of 20, near 1", (20,) * 4, (0.97,) * 4),
    ("one small group, near 1", (20, 1000), (0.98, 0.99)),
)
SEEDS, TASKS = (3, 5, 10), (0.5, 0.6, 0.7, 0.8)


def bootstrap_over_examples(right: np.ndarray, totals: np.ndarray, statistic: Callable[..., np.ndarray]) -> Interval:
    """Return the percentile bootstrap interval of a statistic of the group accuracies, over test examples.

    Args:
        right, totals: (G,) numbers of right predictions and of examples of each group.
        statistic: function from the accuracies to a number.
    """
    cells = np.stack([right, totals - right]).ravel()
    drawn = np.random.default_rng(0).multinomial(totals.sum(), cells / totals.sum(), RESAMPLES)
    drawn_right, drawn_wrong = drawn.reshape(RESAMPLES, 2, -1).swapaxes(0, 1)
    with np.errstate(invalid="ignore"):
        accuracies = drawn_right / (drawn_right + drawn_wrong)
    low, high = np.quantile(statistic(accuracies, axis=1), [0.025, 0.975])
    return Interval(float(low), float(high))


def corrected_wilson(right: np.ndarray, totals: np.ndarray) -> Interval:
    """Return an interval of the worst group: the lowest low and the lowest high end of the groups' Wilson intervals.

    The interval of each group misses the true accuracy with the probability 5 % divided by the number of groups.

    Args:
        right, totals: (G,) numbers of right predictions and of examples of each group.
    """
    z = stats.norm.isf(0.025 / len(totals))
    centres = (right + z**2 / 2) / (totals + z**2)
    halves = z / (totals + z**2) * np.sqrt(right * (totals - right) / totals + z**2 / 4)
    return Interval(float((centres - halves).min()), float((centres + halves).min()))


def coverage(intervals: list[Interval], value: float) -> str:
    """Return the share of intervals that contain `value`, and their mean width, as `97.3 % (4.4)` in percent and points."""
    covered = np.mean([low - 1e-12 <= value <= high + 1e-12 for low, high in intervals])
    return f"{covered:.1%} ({100 * np.mean([high - low for low, high in intervals]):.1f})"


def interval_coverage() -> None:
    """Print the three tables of coverage."""
    heads = ["situation", "bootstrap", "Wilson, corrected", "exact, corrected (here)"]
    print("Worst group: coverage of 95 % intervals over test examples (mean width, points)\n")
    print(markdown(heads, [[title, *worst_row(np.array(n), np.array(p))] for title, n, p in SITUATIONS]))
    print("Mean of the groups: the same\n")
    heads = ["situation", "bootstrap", "normal, with one more of each (here)"]
    print(markdown(heads, [[title, *mean_row(np.array(n), np.array(p))] for title, n, p in SITUATIONS]))
    print("Interquartile mean of four tasks over seeds: the same\n")
    heads = ["scores", "seeds", "percentile bootstrap", "widened bootstrap (here)"]
    rows = [[name, n, *seeds_row(name, n)] for name in ("normal", "skewed") for n in SEEDS]
    print(markdown(heads, rows), end="")


def worst_row(totals: np.ndarray, accuracies: np.ndarray) -> list[str]:
    """Return table cells for the worst group: the coverage of bootstrap, corrected Wilson and `worst_over_examples`.

    Args:
        totals: (G,) numbers of examples of the groups.
        accuracies: (G,) true accuracies.
    """
    draws = np.random.default_rng(0).binomial(totals, accuracies, (DRAWS, len(totals)))
    functions = (
        lambda right, totals: bootstrap_over_examples(right, totals, np.nanmin), corrected_wilson, worst_over_examples,
    )  # fmt: skip
    return [coverage([function(right, totals) for right in draws], accuracies.min()) for function in functions]


def mean_row(totals: np.ndarray, accuracies: np.ndarray) -> list[str]:
    """Return the table cells for the mean of the groups: the coverage of bootstrap and `mean_over_examples`.

    Args:
        totals: (G,) numbers of examples of the groups.
        accuracies: (G,) true accuracies.
    """
    draws = np.random.default_rng(0).binomial(totals, accuracies, (DRAWS, len(totals)))
    functions = (lambda right, totals: bootstrap_over_examples(right, totals, np.nanmean), mean_over_examples)
    return [coverage([function(right, totals) for right in draws], accuracies.mean()) for function in functions]


def seeds_row(name: str, num_seeds: int) -> list[str]:
    """Return the table cells for the interquartile mean: the coverage of the percentile and of the widened interval.

    The standard deviation of the scores of a task is 3 points.

    Args:
        name: distribution of the scores: "normal", or any other text for an exponential distribution.
        num_seeds: number of scores for each task.
    """
    rng = np.random.default_rng(0)
    draw = rng.normal if name == "normal" else lambda size: -rng.exponential(size=size)
    base = np.array(TASKS)[:, None]
    true = float(interquartile_mean(base + 0.03 * draw(size=(len(TASKS), 200_000))))
    widened, percentile, factor = [], [], widening(len(TASKS), num_seeds)
    for seed in range(DRAWS):
        scores = base + 0.03 * draw(size=(len(TASKS), num_seeds))
        value, low, high = bootstrap(interquartile_mean, scores, paired=False, seed=seed)
        widened.append(Interval(low, high))
        percentile.append(Interval(value + (low - value) / factor, value + (high - value) / factor))
    return [coverage(percentile, true), coverage(widened, true)]
