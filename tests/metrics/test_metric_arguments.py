"""Arguments of the metrics as programs have them: of one model, without examples of the last group, or wrong."""

import numpy as np
import pytest
import torch

from imbalance.errors import BadInput
from imbalance.metrics import scores
from imbalance.metrics.class_and_group import compute, count

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
        (lambda: scores.nll(np.array([[3.0, -1.0]]), np.array([0])), "pass probabilities, not logits"),
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
