"""The errors of a subgroup against chance, and the agreement of inferred groups with known ones."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score

from imbalance.metrics.subgroups import agreement, errors_by_chance, most_frequent


def test_chance_is_that_of_all_permutations_of_the_errors_within_strata():
    wrong = np.array([1, 1, 0, 0, 1, 0, 1, 0], dtype=bool)
    members = np.array([1, 1, 0, 0, 1, 0, 1, 1], dtype=bool)
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    counts = [
        (np.array(first)[members[:4]].sum() + np.array(second)[members[4:]].sum())
        for first in permutations(wrong[:4].tolist())
        for second in permutations(wrong[4:].tolist())
    ]
    chance = errors_by_chance(wrong, members, strata)
    assert chance.expected == pytest.approx(np.mean(counts))
    assert chance.p == pytest.approx(np.mean(np.array(counts) >= wrong[members].sum()))


def test_a_single_stratum_gives_fishers_exact_test():
    rng = np.random.default_rng(0)
    wrong, members = rng.random(300) < 0.2, rng.random(300) < 0.1
    wrong |= members & (rng.random(300) < 0.6)
    table = [[(wrong & members).sum(), (~wrong & members).sum()], [(wrong & ~members).sum(), (~wrong & ~members).sum()]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert errors_by_chance(wrong, members, np.zeros(300, dtype=int)).p == pytest.approx(expected)
    assert expected < 0.01


def test_small_p_values_keep_their_digits():
    wrong = np.arange(2000) < 200
    expected = stats.hypergeom.pmf(200, 2000, 200, 200)
    assert errors_by_chance(wrong, wrong, np.zeros(2000, dtype=int)).p == pytest.approx(expected, rel=1e-9)
    assert 0 < expected < 1e-250


def test_p_values_of_random_subgroups_are_rarely_small():
    rng = np.random.default_rng(1)
    strata = rng.integers(3, size=150)
    wrong = rng.random(150) < np.array([0.1, 0.3, 0.6])[strata]
    values = [errors_by_chance(rng.permutation(wrong), rng.random(150) < 0.3, strata * 0).p for _ in range(500)]
    assert np.mean(np.array(values) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)
    assert np.mean(np.array(values) <= 0.5) > 0.3  # discrete, but not a test that never finds anything


def test_agreement_is_scikit_learns_inside_classes():
    rng = np.random.default_rng(0)
    targets, known = rng.integers(3, size=200), rng.integers(2, size=200)
    known[targets == 2] = 0  # a class with a single known group does not count
    inferred = np.where(rng.random(200) < 0.8, known, 1 - known)
    parts = [targets == label for label in (0, 1)]
    values = [adjusted_mutual_info_score(known[rows], inferred[rows]) for rows in parts]
    expected = np.average(values, weights=[rows.sum() for rows in parts])
    assert agreement(inferred + 2 * targets, known + 2 * targets, targets) == pytest.approx(expected)
    assert agreement(known, known, targets) == 1
    assert agreement(inferred, targets, targets) is None


def test_the_most_frequent_value():
    assert most_frequent([3, 1, 3, 0]) == (3, 0.5)
    assert most_frequent([]) is None
