"""Intervals over pairs that share classes: coverage on made-up data, and Holm's method by hand."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from imbalance.metrics.clusters import (
    ahead_and_behind,
    cluster_means,
    clustered,
    contrast,
    contrast_over_classes,
    dyadic_variance,
    holm,
    max_t_p,
)  # fmt: skip

PAIRS = list(combinations(range(10), 2))


def test_the_dyadic_variance_is_unbiased_with_and_without_class_effects():
    rng = np.random.default_rng(0)
    classes, own = rng.normal(size=(1000, 10)), rng.normal(size=(1000, 45))
    sums = np.array([[effects[i] + effects[j] for i, j in PAIRS] for effects in classes])
    for values in (sums, own):
        estimated = np.mean([dyadic_variance(row, PAIRS) for row in values])
        assert estimated == pytest.approx(values.mean(1).var(), rel=0.15)


def test_intervals_cover_where_pairs_share_classes_and_seeds():
    """The naive interval over all differences covers in less than half of the same draws."""
    rng = np.random.default_rng(1)
    covered, naive, draws = 0, 0, 300
    for _ in range(draws):
        effects, seeds = rng.normal(size=10), rng.normal(size=(1, 20)) * 0.5
        pairs = np.array([[effects[i] + effects[j]] for i, j in PAIRS])
        differences = (pairs + seeds + rng.normal(size=(45, 20)))[:, None] + rng.normal(size=(45, 2, 20))
        result = contrast(differences, PAIRS)
        covered += result.low <= 0 <= result.high
        assert result.n == 1800 and (result.p < 0.05) == (not result.low <= 0 <= result.high)
        naive += abs(differences.mean()) <= 1.96 * differences.std() / np.sqrt(1800)
    assert covered / draws >= 0.93 and naive / draws < 0.5


def test_intervals_of_three_seeds_cover_and_are_not_needlessly_wide():
    rng, covered, ratios = np.random.default_rng(6), [], []
    for _ in range(300):
        effects = rng.normal(size=10)
        pairs = np.array([[effects[i] + effects[j]] for i, j in PAIRS])
        result = contrast(pairs + 0.3 * rng.normal(size=(1, 3)) + rng.normal(size=(45, 3)), PAIRS)
        covered.append(result.low <= 0 <= result.high)
        ratios.append((result.high - result.low) / 2)
    assert 0.91 <= np.mean(covered) <= 0.985
    # The true standard deviation of the mean; with two degrees of freedom the half width would be 4.3 of them on average.
    assert np.mean(ratios) / np.sqrt(4 / 10 + 0.3**2 / 3 + 1 / 135) < 2.7


def test_ten_seeds_of_ten_classes_have_nine_degrees_of_freedom():
    rng = np.random.default_rng(7)
    for scale in (0.0, 0.3, 3.0):
        differences = rng.normal(size=(45, 10)) + scale * rng.normal(size=(1, 10))
        result = contrast(differences, PAIRS)
        error = np.sqrt(dyadic_variance(differences.mean(1), PAIRS) + differences.mean(0).var(ddof=1) / 10)
        assert (result.high - result.low) / 2 == pytest.approx(stats.t.ppf(0.975, 9) * error)


def test_the_interval_of_a_single_seed_covers_where_pairs_share_classes():
    rng, covered = np.random.default_rng(5), []
    for _ in range(300):
        effects = rng.normal(size=10)
        values = np.array([effects[i] + effects[j] for i, j in PAIRS]) + rng.normal(size=45)
        result = contrast_over_classes(values, PAIRS)
        covered.append(result.low <= 0 <= result.high)
        assert (result.p < 0.05) == (not covered[-1]) and result.value == pytest.approx(values.mean())
    assert 0.91 <= np.mean(covered) <= 0.985


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])


def test_pairs_are_counted_after_holms_correction():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(45, 2, 20))
    assert ahead_and_behind(noise) == (0, 0)
    noise[:5] += 3
    noise[5] -= 3
    assert ahead_and_behind(noise) == (5, 1)
    assert ahead_and_behind(np.zeros((4, 1, 3))) == (0, 0)


def test_one_pair_is_counted_by_the_t_test_of_scipy():
    for centre in (2.4, 2.6):
        seeds = centre + np.array([-1.0, 0.0, 1.0])
        assert ahead_and_behind(seeds[None]) == (int(stats.ttest_1samp(seeds, 0).pvalue < 0.05), 0)


def test_a_level_contrast_lies_inside_the_margin():
    rng = np.random.default_rng(3)
    result = contrast(0.001 * rng.normal(size=(45, 2, 20)), PAIRS)
    assert result.level(0.005) and not result.level(1e-6)
    assert result.points().startswith(("0.0 ±", "-0.0 ±"))


def test_there_is_no_interval_where_nothing_shows_the_variance():
    few = contrast(np.array([[0.1, 0.2], [0.3, 0.4]]), [(0, 1), (0, 2)])
    assert np.isnan([few.low, few.high, few.p]).all() and few.points() == "25.0" and not few.level(1)
    two = contrast(np.random.default_rng(0).normal(size=(45, 2)), PAIRS)
    assert two.low < two.value < two.high and 0 < two.p < 1
    one = contrast(np.full((45, 1), 0.02), PAIRS)
    assert np.isnan(one.low) and one.points(2) == "2.00"
    assert ahead_and_behind(np.ones((45, 1))) == (0, 0)


def test_every_cluster_counts_once_and_variants_add_no_certainty():
    rng = np.random.default_rng(3)
    of_clusters = {name: rng.normal(0.5, 1.0, size=count) for name, count in (("b", 7), ("a", 1), ("c", 3), ("d", 2))}
    values = np.concatenate([*of_clusters.values(), [np.nan]])
    names = [name for name, own in of_clusters.items() for _ in own] + ["e"]
    result, means = clustered(values, names), [own.mean() for own in of_clusters.values()]
    by_scipy = stats.ttest_1samp(means, 0.0)
    assert result.value == pytest.approx(np.mean(means)) and result.p == pytest.approx(by_scipy.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(by_scipy.confidence_interval()))
    assert result.n == 13
    np.testing.assert_allclose(cluster_means(values, names), [*(of_clusters[name].mean() for name in "abcd"), np.nan])
    tripled = clustered(np.repeat(values, 3), np.repeat(names, 3).tolist())
    assert tripled.p == pytest.approx(result.p)
    assert np.isnan(clustered(values[:7], names[:7]).low)


def test_the_p_value_after_a_choice_is_that_of_all_sign_flips():
    rng = np.random.default_rng(3)
    differences = rng.normal(0.4, 1, (9, 4)) + rng.normal(0, 1, (9, 1))
    differences = np.column_stack([differences, np.zeros(9)])  # a candidate that never differs

    def largest_t(values: np.ndarray) -> float:
        return np.abs(stats.ttest_1samp(values[:, :4], 0).statistic).max()  # without the candidate that never differs

    flips = [largest_t(np.array(signs)[:, None] * differences) for signs in product((1, -1), repeat=9)]
    for candidate in range(4):
        own = abs(stats.ttest_1samp(differences[:, candidate], 0).statistic)
        exact = np.mean(np.array(flips) >= own - 1e-9)
        assert max_t_p(differences, candidate) == pytest.approx(exact, abs=0.02)
    assert max_t_p(differences, 1) == max_t_p(differences, 1), "the draws have a fixed seed"
    assert max_t_p(np.ones((20, 1)), 0) == pytest.approx(1e-4), "no draw of 20 equal rows reaches them"


def test_the_p_value_after_a_choice_keeps_its_level():
    rng = np.random.default_rng(4)
    planned, allowed = [], []
    for _ in range(200):
        differences = rng.normal(size=(12, 20))
        best = int(differences.mean(0).argmax())
        planned.append(stats.ttest_1samp(differences[:, best], 0).pvalue < 0.05)
        allowed.append(max_t_p(differences, best, draws=199) <= 0.05)
    assert np.mean(planned) > 0.3, "a t-test of the best of 20 finds differences where there are none"
    assert np.mean(allowed) < 0.1
