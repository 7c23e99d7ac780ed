import numpy as np
import pytest
from scipy import stats

from imbalance.metrics.clusters import Contrast
from imbalance.metrics.intervals import (
    bounds,
    caveat,
    mean,
    mean_over_examples,
    paired_difference,
    wilson,
    worst_over_examples,
)


def test_the_interval_of_a_mean_is_the_textbook_one():
    # n = 4, mean 5, sample standard deviation 2.5820, t(0.975, 3) = 3.1824.
    found = mean([2, 4, 6, 8])
    assert found.n == 4 and found.value == 5
    assert found.half == pytest.approx(3.1824 * 2.5820 / 2, rel=1e-4)
    assert found.text(10, 1) == "50.0 ± 41.1"


@pytest.mark.parametrize("value", [0.95, 1.0, 0.1, 0.0])
def test_equal_values_are_no_certainty(value):
    """Three accuracies of a group of 20 examples near 1 are equal in half of all cases."""
    assert mean([value, value, np.nan, value], 0, 1).percent() == f"{100 * value:.1f} (all 3 equal)"
    # The standard deviation is 1e-6 / √3, so half the interval in percent is 1e-4 · 4.30 / 3.
    assert mean([value, value, value + 1e-6]).percent() == f"{100 * value:.1f} ± 0.0001"
    assert Contrast(0.001, 0.001 - 3e-4, 0.001 + 3e-4, 0.01, 9).points() == "0.1 ± 0.03"


def test_a_mean_that_rounds_to_zero_has_no_minus_sign():
    assert Contrast(-0.0004, -0.002, 0.0012, 0.5, 9).points() == "0.0 ± 0.2"
    assert mean([-0.0006, -0.0004, -0.0002]).percent() == "0.0 ± 0.05"
    assert mean([-0.006, -0.004, -0.002]).percent() == "-0.4 ± 0.5"


def test_fewer_than_three_values_are_shown_instead_of_an_interval():
    assert mean([0.25, 0.351]).percent() == "25.0, 35.1" and np.isnan(mean([0.25, 0.351]).low)
    assert mean([0.25]).percent() == "25.0" and mean([]).percent() == "–" and mean([np.nan]).percent() == "–"


def test_an_interval_stays_within_what_the_metric_can_be():
    found = mean([0.0, 0.1, 0.9], 0, 1)
    centre, half = 1 / 3, stats.sem([0.0, 0.1, 0.9]) * stats.t.ppf(0.975, 2)
    assert centre - half < 0 and centre + half > 1
    assert (found.low, found.high) == (0, 1) and found.percent() == "33.3 (0.0 to 100.0)"
    assert mean([0.0, 0.1, 0.9]).high == pytest.approx(centre + half)
    assert found.arms == pytest.approx((1 / 3, 2 / 3))
    apart = paired_difference({0: 0.0, 1: 0.1, 2: 1.0}, {0: 1.0, 1: 0.0, 2: 0.1}, 0, 1)
    assert (apart.low, apart.high) == (-1, 1)  # of what is between 0 and 1


def test_the_bounds_of_a_metric_are_known_by_its_name():
    assert bounds("test/recall/a/b") == bounds("worst_group_accuracy") == bounds("val/auroc") == (0, 1)
    assert bounds("test/mcc") == (-1, 1) and bounds("brier") == (0, 2) and bounds("train/loss") == (0, np.inf)


def test_what_says_little_is_said():
    assert caveat([3]) == "only 3 examples" and caveat([1]) == "only 1 example"
    assert caveat([500, 1, 0]) == "only 1 example in a group" and caveat([500, 40]) == ""


def test_paired_differences_use_shared_seeds_only_and_what_seeds_share_cancels():
    reference = {0: 0.1, 1: 0.9, 2: 0.4, 7: 0.0}
    found = paired_difference({0: 0.2, 1: 1.0, 2: 0.5, 8: 9.0}, reference)
    assert found.n == 3 and found.value == pytest.approx(0.1) and found.half == pytest.approx(0, abs=1e-9)
    assert paired_difference({0: 0.2, 1: np.nan, 2: 0.5}, reference).n == 2  # a diverged run has no pair


def test_wilson_is_its_closed_form():
    z, right, n = 1.959964, 9, 10
    centre = (right + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(right * (n - right) / n + z**2 / 4)
    assert wilson(right, n) == pytest.approx((centre - half, centre + half), rel=1e-6)
    assert wilson(10, 10).high == 1 and wilson(10, 10).low < 0.75
    assert wilson(5, 10).percent() == "23.7 to 76.3"


def test_the_worst_group_is_between_the_lowest_exact_ends_of_the_groups():
    right, totals = [450, 160, 27, 0, 9], [500, 200, 40, 0, 9]
    low = min(stats.binomtest(r, n).proportion_ci(0.95).low for r, n in zip(right, totals) if n)
    high = min(stats.binomtest(r, n).proportion_ci(1 - 0.05 / 4).high for r, n in zip(right, totals) if n)
    assert worst_over_examples(right, totals) == pytest.approx((low, high))
    assert worst_over_examples([144], [180]) == pytest.approx(tuple(stats.binomtest(144, 180).proportion_ci(0.95)))
    assert worst_over_examples([0, 5], [3, 5]).low == 0 and worst_over_examples([3, 5], [3, 5]).high == 1
    assert np.isnan(worst_over_examples([0], [0]).low)


@pytest.mark.parametrize(
    ("totals", "accuracies"),
    [
        ((100,) * 4, (0.9,) * 4),
        ((2255, 642, 642, 2255), (0.9,) * 4),
        ((36,) * 10, (0.95,) * 10),
        ((20, 1000), (0.98, 0.99)),
        ((1000,) * 4, (0.95, 0.9, 0.9, 0.7)),
    ],
)
def test_intervals_over_examples_cover(totals, accuracies):
    """The interval of the worst group does by its construction; that of the mean but for three standard errors of 400."""
    draws = np.random.default_rng(0).binomial(totals, accuracies, (400, len(totals)))
    for function, true, least in (
        (worst_over_examples, min(accuracies), 0.95),
        (mean_over_examples, np.mean(accuracies), 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400)),
    ):
        ends = np.array([function(right, totals) for right in draws])
        assert ((ends[:, 0] <= true) & (true <= ends[:, 1])).mean() >= least


def test_the_worst_of_overlapping_groups_is_covered_too():
    """An example is in two of six groups, as with several identities in a comment."""
    rng, covered = np.random.default_rng(0), 0
    members = np.zeros((600, 6), dtype=bool)
    members[np.arange(600), np.arange(600) % 6] = members[np.arange(600), (np.arange(600) * 7 // 6) % 6] = True
    for _ in range(400):
        right = rng.random(600) < 0.9
        low, high = worst_over_examples(right @ members.astype(int), members.sum(0))
        covered += low <= 0.9 <= high
    assert covered / 400 >= 0.95


def test_the_interval_of_the_mean_has_the_variance_of_its_sum():
    right, totals = np.array([450, 160, 27]), np.array([500, 200, 40])
    share = (right + 1) / (totals + 2)
    error = np.sqrt((share * (1 - share) / totals).sum()) / 3
    centre = (right / totals).mean()
    expected = (centre - 1.959964 * error, centre + 1.959964 * error)
    assert mean_over_examples(right, totals) == pytest.approx(expected, rel=1e-6)
    assert mean_over_examples([*right, 0], [*totals, 0]) == pytest.approx(expected, rel=1e-6)  # of no example
    assert mean_over_examples([20, 20], [20, 20]).low < 0.97 and mean_over_examples([20, 20], [20, 20]).high == 1


def test_overlapping_groups_are_one_sum_over_examples():
    """The mean accuracy is linear in the right predictions; its variance by brute force, over 20,000 draws."""
    mask = np.array([[True, False, False], [True, True, False], [False, True, True], [False, False, False]])
    totals, accuracy = np.array([300, 200, 400, 500]), np.array([0.9, 0.6, 0.7, 0.5])
    group_totals = totals @ mask
    draws = np.random.default_rng(0).binomial(totals, accuracy, (20_000, 4))
    means = (draws @ mask / group_totals).mean(1)
    low, high = mean_over_examples(totals * accuracy, totals, mask)
    assert (low + high) / 2 == pytest.approx(means.mean(), abs=5e-4)
    assert (high - low) / 2 / 1.959964 == pytest.approx(means.std(), rel=0.03)
