"""Aggregates over tasks and seeds, each against a slow computation of another kind."""

import itertools

import numpy as np
import pytest
from scipy import stats

from imbalance.metrics.aggregates import bootstrap, improvement, interquartile_mean, profile


def iqm_difference(scores, others):
    return interquartile_mean(scores) - interquartile_mean(others)


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    """Of two methods on 7 tasks with 5 seeds, rounded so that some are equal."""
    rng = np.random.default_rng(3)
    base = rng.uniform(0.5, 0.9, (7, 1))
    return (base + rng.normal(0.03, 0.05, (7, 5))).round(2), (base + rng.normal(0, 0.05, (7, 5))).round(2)


def test_the_interquartile_mean_is_scipys_trimmed_mean(scores):
    for of in scores:
        assert interquartile_mean(of) == pytest.approx(stats.trim_mean(of, 0.25, axis=None))
    assert interquartile_mean(np.array([[0.0, 1, 2, 3], [4, 5, 6, 100]])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    stacked = np.stack(scores)  # several samples at once
    np.testing.assert_allclose(interquartile_mean(stacked), [interquartile_mean(of) for of in scores])


def test_the_probability_of_improvement_counts_every_two_runs_of_a_task(scores):
    one, other = scores
    wins = [[(a > b) + 0.5 * (a == b) for a, b in itertools.product(one[task], other[task])] for task in range(7)]
    assert improvement(one, other) == pytest.approx(np.mean(wins))
    by_ranks = [stats.mannwhitneyu(one[task], other[task]).statistic / 25 for task in range(7)]
    assert improvement(one, other) == pytest.approx(np.mean(by_ranks))
    assert improvement(one, one) == 0.5 and improvement(one + 1, one) == 1


def test_the_profile_counts_runs_above_each_threshold(scores):
    thresholds = np.array([0.0, 0.6, 0.75, 2.0])
    counted = [sum(score > t for score in scores[0].ravel()) / 35 for t in thresholds]
    np.testing.assert_allclose(profile(scores[0], thresholds), counted)


@pytest.mark.parametrize("paired", [True, False])
def test_the_bootstrap_draws_seeds_within_tasks(scores, paired):
    """Against a loop over resamples, tasks and seeds; the ends of 2,000 resamples scatter by a tenth of their deviation."""
    one, other = scores
    found = bootstrap(iqm_difference, one, other, paired=paired, seed=1)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(3000):
        first, second = [], []
        for task in range(7):
            places = [rng.integers(5) for _ in range(5)]
            others = places if paired else [rng.integers(5) for _ in range(5)]
            first += [one[task, place] for place in places]
            second += [other[task, place] for place in others]
        drawn.append(stats.trim_mean(first, 0.25) - stats.trim_mean(second, 0.25))
    widened = found.value + np.sqrt(5 / 4) * stats.t.ppf(0.975, 14) / 1.959964 * (
        np.quantile(drawn, [0.025, 0.975]) - found.value
    )
    np.testing.assert_allclose((found.low, found.high), widened, atol=0.005)
    assert found.value == pytest.approx(stats.trim_mean(one, 0.25, axis=None) - stats.trim_mean(other, 0.25, axis=None))


def test_pairing_takes_out_what_the_seeds_share():
    rng = np.random.default_rng(0)
    base = rng.normal(0.7, 0.1, (20, 10))
    one, other = base + 0.01 + rng.normal(0, 0.001, base.shape), base
    paired, apart = (bootstrap(iqm_difference, one, other, paired=p) for p in (True, False))
    assert 0 < paired.low < 0.01 < paired.high < 0.02
    assert apart.high - apart.low > 3 * (paired.high - paired.low)


@pytest.mark.parametrize("num_seeds", [3, 5, 20])
def test_for_the_mean_of_one_task_the_interval_is_as_wide_as_the_t_interval(num_seeds):
    """But for the shape of the resampled means, which are few for three seeds."""
    values = stats.norm.ppf((np.arange(num_seeds) + 0.5) / num_seeds)[None]
    found = bootstrap(lambda scores: scores.mean((-2, -1)), values, paired=False)
    half = stats.sem(values[0]) * stats.t.ppf(0.975, num_seeds - 1)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.12)


def test_an_interval_over_seeds_covers_also_if_seeds_are_few():
    """Of 400 draws of three seeds of four tasks; the percentile interval covers 80 %."""
    rng, covered = np.random.default_rng(0), 0
    base = np.array([[0.5], [0.6], [0.7], [0.8]])
    true = float(interquartile_mean(base + 0.03 * rng.normal(size=(4, 50_000))))
    for seed in range(400):
        found = bootstrap(interquartile_mean, base + 0.03 * rng.normal(size=(4, 3)), paired=False, seed=seed)
        covered += found.low <= true <= found.high
    assert covered / 400 > 0.88


def test_an_interval_over_seeds_ends_at_the_bounds_and_one_seed_has_none():
    scores = np.array([[1.0, 0.9, 1.0]])
    assert bootstrap(interquartile_mean, scores, paired=False, low=0, high=1).high == 1
    assert bootstrap(interquartile_mean, scores, paired=False).high > 1
    assert bootstrap(interquartile_mean, scores[:, :1], paired=False).percent() == "100.0"
