import numpy as np
import pytest
from scipy import stats

from imbalance.metrics.intervals import bounds, caveat, mean, over_examples, paired_difference, wilson


def test_the_interval_of_a_mean_is_the_textbook_one():
    # n = 4, mean 5, sample standard deviation 2.5820, t(0.975, 3) = 3.1824.
    found = mean([2, 4, 6, 8])
    assert found.n == 4 and found.value == 5
    assert found.half == pytest.approx(3.1824 * 2.5820 / 2, rel=1e-4)
    assert mean([0.5, 0.5, np.nan, 0.5]).percent() == "50.0 ± 0.0"


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
    assert caveat([100, 100], over_examples([100, 100], [100, 100], np.nanmin)) == "degenerate: all resamples agree"
    assert caveat([3], wilson(2, 3)) == "only 3 examples"
    assert caveat([500, 1], over_examples([400, 1], [500, 1], np.nanmean)) == "only 1 example in a group"
    assert caveat([500, 40], over_examples([400, 20], [500, 40], np.nanmin)) == ""


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


@pytest.mark.parametrize("statistic", [np.nanmin, np.nanmean])
def test_a_bootstrap_of_counts_is_scipys_of_the_examples(statistic):
    rights, totals = [450, 160, 27], [500, 200, 40]
    groups = np.repeat([0, 1, 2], totals)
    right = np.concatenate([np.arange(n) < r for r, n in zip(rights, totals)]).astype(float)

    def of_examples(right: np.ndarray, groups: np.ndarray, axis: int) -> np.ndarray:
        return statistic([(right * (groups == g)).sum(axis) / (groups == g).sum(axis) for g in range(3)], axis=0)

    options = {"paired": True, "vectorized": True, "n_resamples": 4000, "batch": 500, "method": "percentile"}
    theirs = stats.bootstrap((right, groups), of_examples, rng=1, **options).confidence_interval
    assert over_examples(rights, totals, statistic, resamples=4000) == pytest.approx(
        (theirs.low, theirs.high), abs=0.006
    )


def test_the_interval_of_one_groups_accuracy_narrows_as_its_standard_error():
    for n in (200, 20_000):
        low, high = over_examples([7 * n // 10], [n], np.nanmin)
        assert low < 0.7 < high and high - low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / n), rel=0.08)


def test_the_bootstrap_takes_groups_that_a_resample_may_miss():
    assert over_examples([50, 0], [50, 1], np.nanmin) == (0, 1)
