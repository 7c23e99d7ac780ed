"""Arguments of the metrics as programs have them: of one model, without examples of the last group, or wrong."""

import numpy as np
import pytest
import torch

from imbalance.errors import BadInput
from imbalance.metrics import aggregates, clusters, intervals, scores
from imbalance.metrics.average_ranks import average_ranks
from imbalance.metrics.class_and_group import compute, count
from imbalance.metrics.variance import variance_components

LABELS = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]), torch.tensor([0, 1, 2, 0])
NAMES = ("a", "b"), ("x", "y", "z"), np.array([3, 1]), np.array([2, 1, 1])


def test_the_counts_of_one_model_give_the_metrics_of_a_list_of_one():
    one = compute(count(*LABELS, 2, 3), *NAMES)
    several = compute(count(*(torch.stack([labels, labels]) for labels in LABELS), 2, 3), *NAMES)
    assert len(one) == 1 and len(several) == 2
    np.testing.assert_equal(one[0], several[0])
    assert one[0]["accuracy"] == 0.75 and one[0]["group_accuracy/z"] == 0.0


def test_a_saved_mask_without_the_last_group_gives_it_nan():
    """`saved_group_mask` has a column for each group up to the largest that occurs."""
    saved = {"groups": np.array([0, 1, 1])}
    values = scores.by_group(
        lambda s, t: (s == t).mean(), np.array([1, 0, 1]), np.ones(3), scores.saved_group_mask(saved), "abc"
    )
    np.testing.assert_equal(values, {"a": 1.0, "b": 0.5, "c": np.nan})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: scores.nll(np.array([[3.0, -1.0]]), np.array([0])), "sums to 2; probabilities are .* so pass logits.softmax"),
        (lambda: scores.ece([[0.5, 0.5]], [2]), "^targets: 1 whole numbers from 0 to 1 are needed"),
        (lambda: scores.ece([[0.5, 0.5]], [1], bins=0), "^bins: 0 given; an integer from 1 to 1,000,000 is needed"),
        (lambda: scores.auroc([1.0, np.nan], [True, False]), "^scores: a value is not finite"),
        (lambda: scores.auprc(None, [True]), "^scores: object of shape .* given; an array of numbers with 1 dimension is needed"),
        (lambda: scores.auroc([1.0, 2.0], [1, 2]), "^positive: 2 values True or False are needed"),
        (lambda: scores.by_group(np.mean, np.ones(2), np.ones(2), np.ones((2, 3), dtype=bool), "ab"), "a mask of bools with a column"),
        (lambda: count(LABELS[0], LABELS[1][:2], LABELS[2], 2, 3), "tensors of one shape"),
        (lambda: count(*LABELS, 2, 2), "^groups: labels from 0 to 2 given; they must be 0 to 1$"),
        (lambda: count(*LABELS, 10**6, 3), "an integer from 1 to 20,000 is needed"),
        (lambda: count(LABELS[0].float(), *LABELS[1:], 2, 3), "^predictions: a tensor of float32 given; integers are needed"),
        (lambda: compute(count(*LABELS, 2, 3), ("a",), *NAMES[1:]), "^class_names: 1 different names given; the counts need 2$"),
        (lambda: compute(count(*LABELS, 2, 3), *NAMES[:2], [1], [1, 1, 1]), "^train_class_counts: an array of shape"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line(call, words):
    with pytest.raises(BadInput, match=words):
        call()


def test_scores_in_unsigned_integers_or_bools_are_ranked_by_value():
    """Minus an unsigned integer wraps around, and minus a bool raises an error."""
    for dtype in (np.uint8, bool):
        assert scores.auprc(np.array([0, 1], dtype=dtype), np.array([False, True])) == 1.0


PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: intervals.wilson(6, 5), "^right: .* right predictions of .* examples given"),
        (lambda: intervals.wilson(-1, 5), "^right: .* right predictions of .* examples given"),
        (lambda: intervals.worst_over_examples([3], [2]), "^right: .* right predictions of"),
        (lambda: intervals.mean_over_examples([3], [2]), "^right: .* right predictions of"),
        (
            lambda: intervals.mean_over_examples([1, 1], [2]),
            r"^right, totals: arrays of shapes \(2,\) and \(1,\) given",
        ),
        (lambda: average_ranks(np.ones((4, 2))), r"^scores: an array of shape \(4, 2\) given; \(N, k\) numbers of 3"),
        (lambda: average_ranks(np.full((4, 3), np.nan)), "^scores: "),
        (lambda: clusters.max_t_p(np.array([[1.0], [np.nan]]), 0), "^differences: a value is missing"),
        (lambda: clusters.max_t_p(np.ones((3, 2)), 2), "^candidate: 2 given; a column from 0 to 1 is needed$"),
        (lambda: clusters.contrast(np.ones((6, 1, 3)), PAIRS[:5]), "^pairs: 5 pairs given; 6 pairs of two different"),
        (lambda: clusters.dyadic_variance(np.ones(6), [(0, 0)] * 6), "^pairs: 6 pairs given; 6 pairs of two different"),
        (
            lambda: aggregates.bootstrap(aggregates.improvement, np.ones((2, 3)), np.ones((2, 4)), paired=True),
            r"^scores: arrays of shapes \(2, 3\) and \(2, 4\) given; paired methods must have the same tasks and seeds$",
        ),
        (
            lambda: variance_components([1, 2, 3, 4], {"a": [0, 0, 1, 1]}, "a"),
            "^within: 'a' given; .* a name of its own$",
        ),
        (lambda: variance_components([1, 2], {}, "r"), "^within: 'r' given; factors must be given"),
        (lambda: variance_components([1, 2], {"a": [0]}, "r"), "^factors: 1 labels of 'a' given; 2 are needed"),
        (lambda: variance_components([1, np.nan], {"a": [0, 1]}, "r"), "^values: finite numbers are needed"),
    ],
)
def test_a_wrong_argument_of_statistics_is_one_line(call, words):
    with pytest.raises(BadInput, match=words):
        call()


def test_a_missing_score_is_not_the_best_one():
    """nan was sorted after the largest score, so a diverged seed raised the interquartile mean."""
    scores = np.array([[0.1, 0.2, 0.3, np.nan], [0.1, 0.2, 0.3, 0.4]])
    assert np.isnan(aggregates.interquartile_mean(scores))
    np.testing.assert_allclose(aggregates.interquartile_mean(scores[1:]), 0.25)


def test_a_missing_difference_is_not_significant():
    """The t of a row with nan was taken for infinite, and its p-value for 0."""
    p = clusters.t_test(np.array([[np.nan, 1.0, 2.0], [1.0, 1.0, 1.0], [-1.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(p, [np.nan, 0.0, 1.0])


def test_no_group_with_examples_has_no_interval():
    for interval in (intervals.mean_over_examples([0, 0], [0, 0]), intervals.worst_over_examples([], [])):
        assert np.isnan(interval).all()


@pytest.mark.filterwarnings("error")
def test_degenerate_numbers_raise_no_warning():
    assert intervals.wilson(0, 0) == (0.0, 1.0)
    assert average_ranks(np.ones((4, 3))).p == 1.0
