"""Accuracy for other class shares, against subsets that are drawn, scikit-learn, and the published protocol."""

import numpy as np
import pytest
from sklearn import metrics

from imbalance.errors import BadInput
from imbalance.metrics import evaluate
from imbalance.metrics.label_shift import long_tailed_prior, shifted_accuracy


def sample(seed, sizes=(40, 25, 60)):
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(sizes)), sizes)
    return targets, np.where(rng.random(len(targets)) < 0.6, targets, rng.integers(0, len(sizes), len(targets)))


@pytest.mark.parametrize("seed", range(4))
def test_the_accuracy_is_scikit_learn_s_with_weights_by_class(seed):
    targets, predictions = sample(seed)
    prior = np.random.default_rng(seed).dirichlet(np.ones(3))
    value, interval = evaluate(targets, predictions, class_prior=prior)["shifted_accuracy"]
    weights = (prior / np.bincount(targets))[targets]
    assert value == pytest.approx(metrics.accuracy_score(targets, predictions, sample_weight=weights), abs=1e-12)
    assert interval.low < value < interval.high


def test_equal_shares_give_the_balanced_accuracy_and_those_of_test_the_accuracy():
    targets, predictions = sample(0)
    table = evaluate(targets, predictions, class_prior=np.ones(3) / 3)
    assert table["shifted_accuracy"].value == pytest.approx(table["balanced_accuracy"].value, abs=1e-12)
    assert table["shifted_accuracy"].interval == pytest.approx(table["balanced_accuracy"].interval, abs=1e-12)
    table = evaluate(targets, predictions, class_prior=np.bincount(targets) / len(targets))
    assert table["shifted_accuracy"].value == pytest.approx(table["accuracy"].value, abs=1e-12)
    assert "shifted_accuracy" not in evaluate(targets, predictions)


def test_resampled_test_sets_have_this_mean_accuracy():
    """Brute force: draw test sets with the shares of a long tail, and average their accuracies."""
    targets, predictions = sample(1)
    prior, rng = long_tailed_prior([9, 50, 3], 10), np.random.default_rng(0)
    rows = [np.flatnonzero(targets == k) for k in range(3)]
    classes = rng.choice(3, size=200_000, p=prior)
    drawn = np.concatenate([rng.choice(rows[k], size=(classes == k).sum()) for k in range(3)])
    resampled = (predictions[drawn] == targets[drawn]).mean()
    assert evaluate(targets, predictions, class_prior=prior)["shifted_accuracy"].value == pytest.approx(
        resampled, abs=4e-3
    )


def test_the_interval_covers_the_accuracy_on_the_population():
    recalls, prior = np.array([0.9, 0.5, 0.7]), long_tailed_prior([3, 2, 1], 5)
    rng, totals, truth = np.random.default_rng(0), np.array([60, 40, 80]), prior @ recalls
    intervals = [shifted_accuracy(rng.binomial(totals, recalls), totals, prior)[1] for _ in range(1000)]
    assert 0.93 < np.mean([low <= truth <= high for low, high in intervals]) < 0.98


@pytest.mark.parametrize("ratio", [50, 10, 2])
def test_the_shares_are_those_of_the_published_test_sets_up_to_rounding(ratio):
    """CIFAR-100 has 100 test images of each class; the authors take int(100 · (1/ratio)^(i / 99)) of class i."""
    published = np.array([int(100 * (1 / ratio) ** (i / 99)) for i in range(100)])
    assert published.sum() == {50: 2486, 10: 3876, 2: 7166}[ratio]
    exact = long_tailed_prior(range(500, 400, -1), ratio)
    assert np.abs(100 * exact / exact.max() - published).max() <= 1 + 1e-9
    np.testing.assert_allclose(long_tailed_prior(range(500, 400, -1), 1 / ratio), exact[::-1], rtol=1e-12)


def test_the_class_with_most_training_examples_is_the_head_and_ties_keep_their_order():
    np.testing.assert_allclose(long_tailed_prior([5, 80, 5], 100), np.array([0.1, 1, 0.01]) / 1.11)
    np.testing.assert_allclose(long_tailed_prior([5, 80, 5], 0.01), np.array([0.1, 0.01, 1]) / 1.11)
    np.testing.assert_allclose(long_tailed_prior([5, 80], 1), [0.5, 0.5])


def test_a_class_without_test_examples_is_left_out():
    targets, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    table = evaluate(targets, predictions, classes=(0, 1, 2), class_prior=(0.2, 0.4, 0.4))
    assert table["shifted_accuracy"].value == pytest.approx((0.2 * 0.5 + 0.4) / 0.6)
    table = evaluate(targets, predictions, classes=(0, 1, 2), class_prior=(0, 0, 1))
    assert np.isnan([table["shifted_accuracy"].value, *table["shifted_accuracy"].interval]).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evaluate([0, 1], [0, 1], class_prior="uniform"), "^evaluate: class_prior: 'uniform' given; it must be 2 class shares"),
        (lambda: evaluate([0, 1], [0, 1], class_prior=[1]), "^evaluate: class_prior: 1 class shares given; give 2"),
        (lambda: evaluate([0, 1], [0, 1], class_prior=[0.5, 0.9]), "^evaluate: class_prior: 0.5, 0.9 given; .* sum to 1"),
        (lambda: long_tailed_prior([3, 1], 0), "^ratio: 0 given"),
        (lambda: long_tailed_prior([3, 1], float("nan")), "^ratio: nan given"),
        (lambda: long_tailed_prior([3], 2), "^class_counts: shape"),
        (lambda: long_tailed_prior([-5, 3], 100), r"^class_counts\[0\]: -5 given; finite numbers from 0 on"),
        (lambda: long_tailed_prior([float("nan"), 3], 100), r"^class_counts\[0\]: nan given; finite"),
        (lambda: long_tailed_prior([5, 3], "5"), "^ratio: 5 given"),
        (lambda: shifted_accuracy(np.array([15, 1]), np.array([10, 4]), np.array([0.9, 0.1])), "^right: 15 right predictions of 10 examples given"),
        (lambda: shifted_accuracy([5, 1], [10, 4], [1.5, -0.5]), r"^class_prior\[1\]: -0.5 given; finite numbers from 0 on"),
        (lambda: shifted_accuracy([5, 1, 2], [10, 4], [0.5, 0.5]), "^right, totals: arrays of shapes"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line(call, words):
    with pytest.raises(BadInput, match=words):
        call()
