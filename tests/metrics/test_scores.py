"""Metrics of scores against scikit-learn and brute force, also where classes are missing and scores are tied."""

import math
import tracemalloc
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from sklearn import metrics as published

from imbalance.metrics import scores

CASES = [
    (seed, n, k, ties) for seed, (n, k) in enumerate([(1, 2), (7, 2), (50, 2), (200, 3), (500, 10)]) for ties in (0, 1)
]


def drawn(seed: int, n: int, k: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, with many equal ones if asked for, and targets that leave the last class out where there are three."""
    chooser = np.random.default_rng(seed)
    logits = chooser.normal(size=(n, k)) * 2
    return (logits.round() if ties else logits), chooser.integers(0, max(2, k - 1), n)


@pytest.mark.parametrize(("seed", "n", "k", "ties"), CASES)
def test_every_metric_is_that_of_scikit_learn(seed: int, n: int, k: int, ties: int):
    logits, targets = drawn(seed, n, k, ties)
    names = [str(label) for label in range(k)]
    ours, probability = scores.score_metrics(logits, targets, names), scores.probabilities(logits)
    for label in range(k):
        positive, score = targets == label, probability[:, label].round(12)  # rounded, so that equal scores tie
        if positive.any() and not positive.all():
            assert ours[f"auroc/{label}"] == pytest.approx(published.roc_auc_score(positive, score))
        else:
            assert math.isnan(ours[f"auroc/{label}"])
        if positive.any():
            expected = published.average_precision_score(positive, score)
            assert ours[f"auprc/{label}"] == pytest.approx(expected)
        else:
            assert math.isnan(ours[f"auprc/{label}"])
    assert ours["nll"] == pytest.approx(published.log_loss(targets, probability, labels=range(k)))
    one_hot = np.eye(k)[targets]
    whole = np.mean([sum((p - t) ** 2 for p, t in zip(row, hot)) for row, hot in zip(probability, one_hot)])
    assert ours["brier"] == pytest.approx(whole / 2 if k == 2 else whole)
    if k == 2 and n > 1:
        assert ours["brier"] == pytest.approx(published.brier_score_loss(targets, probability[:, 1]))


@pytest.mark.parametrize("equal_mass", (False, True))
def test_calibration_error_is_the_sum_over_bins(equal_mass: bool):
    logits, targets = drawn(3, 333, 4, 0)
    probability = scores.probabilities(logits)
    confidence, right = probability.max(1), probability.argmax(1) == targets
    if equal_mass:
        order = np.argsort(confidence)
        bins = [order[[i * 15 // 333 == b for i in range(333)]] for b in range(15)]
    else:
        bins = [np.flatnonzero((confidence > b / 15) & (confidence <= (b + 1) / 15)) for b in range(15)]
    expected = sum(len(rows) / 333 * abs(right[rows].mean() - confidence[rows].mean()) for rows in bins if len(rows))
    assert scores.ece(probability, targets, equal_mass=equal_mass) == pytest.approx(expected)
    curve = scores.reliability(probability, targets, equal_mass=equal_mass)
    assert curve.count.sum() == 333 and len(curve.count) == sum(len(rows) > 0 for rows in bins)


def test_a_confidence_at_the_edge_of_two_bins_is_in_the_lower_one():
    """As in the intervals ((m − 1)/M, m/M] of Guo et al., written with one example at a time in exact arithmetic."""
    confidence = [0.5, 0.75, 0.75, 1.0, 0.875, 0.625, 0.5625]
    right = [1, 0, 1, 1, 0, 1, 1]
    probability = np.array([[c, 1 - c] for c in confidence])
    groups = {}
    for c, r in zip(confidence, right):
        groups.setdefault(math.ceil(Fraction(c) * 8), []).append((c, r))
    expected = sum(abs(sum(r - c for c, r in members)) for members in groups.values()) / len(right)
    assert scores.ece(probability, 1 - np.array(right), bins=8) == pytest.approx(expected)
    assert scores.equal_width_bins(np.array([0.0, 0.1, 0.3, 0.30001, 1.0]), 10).tolist() == [0, 0, 2, 3, 9]


def test_a_calibrated_model_has_no_error_and_a_boastful_one_all_of_it():
    probability = np.tile([0.75, 0.25], (8, 1))
    assert scores.ece(probability, np.array([0, 0, 0, 1] * 2)) == pytest.approx(0)
    assert scores.ece(np.tile([1.0, 0.0], (4, 1)), np.ones(4, dtype=int)) == 1
    assert scores.nll(np.tile([1.0, 0.0], (4, 1)), np.ones(4, dtype=int)) < 710  # large, and finite


def test_large_logits_do_not_overflow():
    assert scores.probabilities(np.array([[1e4, -1e4], [3e38, 0]], dtype=np.float32)).tolist() == [[1, 0], [1, 0]]


def test_sure_models_are_ranked_in_log_space():
    # In float64 the softmax is 1 above a margin of 37, so these probabilities tie.
    logits = np.stack([np.zeros(8), [60.0, 55, 50, 45, 44, 43, 42, 41]], axis=1)
    ours = scores.score_metrics(logits, np.array([1, 1, 1, 1, 0, 0, 0, 0]), ["a", "b"])
    assert [ours[name] for name in ("auroc", "auroc/a", "auroc/b", "auprc")] == [1, 1, 1, 1]


@pytest.mark.parametrize("k", (2, 3, 7))
def test_log_odds_are_those_of_exact_arithmetic(k: int):
    rng = np.random.default_rng(k)
    # In rows with large factors every probability rounds to 0 or 1.
    logits = (rng.normal(size=(30, k)) * rng.choice([1, 10, 100], (30, 1))).astype(np.float32)
    with mpmath.workdps(300):
        powers = [[mpmath.exp(mpmath.mpf(float(z))) for z in row] for row in logits]
        exact = np.array([[float(mpmath.log(own / (sum(row) - own))) for own in row] for row in powers])
    assert scores.log_odds(logits) == pytest.approx(exact, rel=1e-12, abs=1e-12)
    targets = np.arange(30) % k
    ours = scores.score_metrics(logits, targets, [str(label) for label in range(k)])
    for label in range(k):
        assert ours[f"auroc/{label}"] == pytest.approx(published.roc_auc_score(targets == label, exact[:, label]))
    assert ours["nll"] == pytest.approx(np.logaddexp(0, -exact[np.arange(30), targets]).mean())


def test_the_likelihood_of_sure_errors_has_no_floor():
    ours = scores.score_metrics(np.array([[3000.0, 0.0]]), np.array([1]), ["a", "b"])
    assert ours["nll"] == 3000


def test_rows_with_the_same_logits_in_another_order_tie():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 5)).round(1)  # some rows have a logit twice
    other_order = rows[:, [0, 4, 2, 1, 3]]
    assert np.array_equal(scores.log_odds(rows)[:, 0], scores.log_odds(other_order)[:, 0])
    assert np.array_equal(scores.log_odds(rows), scores.log_odds(other_order)[:, [0, 3, 2, 4, 1]])


def test_any_metric_of_overlapping_groups():
    logits, targets = drawn(5, 40, 3, 0)
    probability = scores.probabilities(logits)
    members = np.random.default_rng(0).random((40, 3)) < [0.5, 0.5, 0]
    found = scores.by_group(scores.nll, probability, targets, members, ["a", "b", "none"])
    assert math.isnan(found["none"])
    for place, name in enumerate("ab"):
        assert found[name] == scores.nll(probability[members[:, place]], targets[members[:, place]])
    apart = scores.by_group(scores.brier, probability, targets, targets, ["0", "1", "2"])
    assert apart["1"] == scores.brier(probability[targets == 1], targets[targets == 1])


def test_nothing_is_defined_without_examples():
    found = scores.score_metrics(np.empty((0, 2)), np.empty(0, dtype=int), ["a", "b"])
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_a_run_in_chunks_are_those_of_the_whole_arrays(classes, monkeypatch):
    rng = np.random.default_rng(classes)
    logits = rng.standard_normal((101, classes)).round(1).astype(np.float32)  # rounded, so that some scores tie
    targets = rng.integers(0, classes, 101)
    monkeypatch.setattr(scores, "CHUNK_NUMBERS", 7 * classes)
    values = scores.score_metrics(logits, targets, [str(label) for label in range(classes)])
    probability, odds = scores.probabilities(logits), scores.log_odds(logits)
    expected = {f"auroc/{k}": published.roc_auc_score(targets == k, odds[:, k]) for k in range(classes)}
    expected |= {f"auprc/{k}": published.average_precision_score(targets == k, odds[:, k]) for k in range(classes)}
    expected |= {"brier": scores.brier(probability, targets), "ece": scores.ece(probability, targets)}
    expected |= {"ece_equal_mass": scores.ece(probability, targets, equal_mass=True)}
    for key, value in expected.items():
        assert values[key] == pytest.approx(value, abs=1e-12), key


def test_scores_of_a_run_take_little_memory():
    logits = np.random.default_rng(0).standard_normal((20_000, 200), dtype=np.float32)
    targets, names = np.arange(20_000) % 200, [str(label) for label in range(200)]
    tracemalloc.start()
    try:
        scores.score_metrics(logits, targets, names)
        assert tracemalloc.get_traced_memory()[1] < 3.5 * logits.nbytes  # the log-odds in float64 are twice the logits
    finally:
        tracemalloc.stop()


def test_integer_scores_that_floats_would_round_to_ties_are_ranked():
    values, positive = np.array([2**60, 2**60 + 1, 2**60 + 2, 2**60 + 1]), np.array([False, True, True, False])
    places = np.array([0, 1, 2, 1])  # in the same order
    assert scores.auroc(values, positive) == published.roc_auc_score(positive, places) == 0.875
    assert scores.auprc(values, positive) == pytest.approx(published.average_precision_score(positive, places))
