"""Average ranks against the published example and quantiles of Demšar (JMLR 2006), and against Friedman's formula."""

import numpy as np
import pytest
from scipy import stats

from imbalance.metrics.average_ranks import average_ranks, critical_difference

# Demšar's table 5a: the critical values q at 5 % for Nemenyi's test of k classifiers. Two of them are rounded to the wrong side.
QUANTILES = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


@pytest.mark.parametrize("methods, quantile", QUANTILES.items())
def test_the_quantiles_are_the_published_ones(methods, quantile):
    unit = np.sqrt(methods * (methods + 1) / (6 * 50))
    assert critical_difference(methods, 50) / unit == pytest.approx(quantile, abs=1e-3)


def test_the_published_example():
    """Section 3.2.2: four classifiers on 14 data sets have the critical difference 1.25."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_ranks_and_p_value_by_hand():
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(5.0), (12, 1)), axis=1) + np.array([0, 0, 0, 0, 9])  # without ties
    ranks = average_ranks(scores)
    by_hand = np.array([[1 + sum(row > each) for each in row] for row in scores]).mean(0)
    np.testing.assert_allclose(ranks.average, by_hand)
    k, n = 5, 12
    square = 12 * n / (k * (k + 1)) * (np.sum(by_hand**2) - k * (k + 1) ** 2 / 4)
    assert ranks.p == pytest.approx(stats.chi2.sf(square, k - 1))
    assert ranks.critical_difference == critical_difference(k, n)


def test_equal_scores_share_their_ranks():
    np.testing.assert_allclose(average_ranks(np.array([[3.0, 1.0, 1.0], [2.0, 2.0, 0.0]])).average, [1.25, 2.0, 2.75])
