import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from imbalance.config.metric_names import (
    CLASS_METRICS,
    PARITY_METRICS,
    PARITY_RATIOS,
    SUMMARY_METRICS,
    check_labels,
    check_metric_name,
    describe_groups,
)
from imbalance.errors import BadInput
from imbalance.metrics.class_and_group import Counts, compute, count


def measured(predictions, targets, groups, num_classes, num_groups, train_group_counts, train_class_counts=None):
    counts = count(
        *(torch.from_numpy(values)[None] for values in (predictions, targets, groups)), num_classes, num_groups
    )
    classes, names = [str(k) for k in range(num_classes)], [f"g{g}" for g in range(num_groups)]
    train_class_counts = np.ones(num_classes) if train_class_counts is None else train_class_counts
    (values,) = compute(counts, classes, names, np.array(train_class_counts), np.array(train_group_counts))
    return values


@pytest.mark.parametrize("seed", range(20))
def test_against_scikit_learn_with_absent_classes_and_empty_groups(seed):
    rng = np.random.default_rng(seed)
    num_classes, num_groups, n = rng.integers(2, 7), rng.integers(1, 6), rng.integers(1, 60)
    targets = rng.choice(rng.choice(num_classes, rng.integers(1, num_classes + 1), replace=False), n)
    predictions = rng.choice(rng.choice(num_classes, rng.integers(1, num_classes + 1), replace=False), n)
    groups = rng.choice(rng.choice(num_groups, rng.integers(1, num_groups + 1), replace=False), n)
    shares, shots = rng.integers(1, 100, num_groups), rng.choice([5, 19, 20, 100, 101, 900], num_classes)
    found = measured(predictions, targets, groups, num_classes, num_groups, shares, shots)

    labels = np.arange(num_classes)
    precision, recall, f1, _ = precision_recall_fscore_support(
        targets, predictions, labels=labels, zero_division=np.nan
    )
    for k in range(num_classes):
        np.testing.assert_allclose(found[f"recall/{k}"], recall[k])
        np.testing.assert_allclose(found[f"precision/{k}"], precision[k])
        np.testing.assert_allclose(found[f"f1/{k}"], f1[k])
        np.testing.assert_allclose(found[f"accuracy/{k}"], np.mean((targets == k) == (predictions == k)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn warns of predicted classes without targets
        np.testing.assert_allclose(found["balanced_accuracy"], balanced_accuracy_score(targets, predictions))
    np.testing.assert_allclose(found["worst_class_recall"], np.nanmin(recall))
    np.testing.assert_allclose(found["macro_f1"], f1_score(targets, predictions, average="macro"))
    present = recall[~np.isnan(recall)]
    np.testing.assert_allclose(found["g_mean"], stats.gmean(present) if present.all() else 0)
    one_of_each = len(set(targets)) == 1 or len(set(predictions)) == 1  # 0/0, which scikit-learn calls 0
    mcc = np.nan if one_of_each else matthews_corrcoef(targets, predictions)
    np.testing.assert_allclose(found["mcc"], mcc, atol=1e-12)
    for name, of_shots in (("many", shots > 100), ("medium", (shots >= 20) & (shots <= 100)), ("few", shots < 20)):
        recalls = recall[of_shots & ~np.isnan(recall)]
        np.testing.assert_allclose(found[f"{name}_shot_accuracy"], recalls.mean() if recalls.size else np.nan)
    for k in range(num_classes):
        np.testing.assert_allclose(found[f"predicted/{k}"], (predictions == k).mean())
    right = targets == predictions
    of_groups = [right[groups == g].mean() if (groups == g).any() else np.nan for g in range(num_groups)]
    np.testing.assert_allclose([found[f"group_accuracy/g{g}"] for g in range(num_groups)], of_groups)
    np.testing.assert_allclose(found["worst_group_accuracy"], np.nanmin(of_groups))
    np.testing.assert_allclose(found["group_balanced_accuracy"], np.nanmean(of_groups))
    np.testing.assert_allclose(found["accuracy"], right.mean())
    seen = ~np.isnan(of_groups)
    expected = np.average(np.array(of_groups)[seen], weights=shares[seen])
    np.testing.assert_allclose(found["adjusted_accuracy"], expected)


def test_counts_are_sums_of_the_confusion_matrix_and_add_up_over_batches():
    rng = np.random.default_rng(0)
    targets, predictions, groups = (torch.from_numpy(rng.integers(0, 4, 100)) for _ in range(3))
    whole = count(predictions, targets, groups, 4, 4)
    confusion = confusion_matrix(targets, predictions)
    right = confusion.diagonal()
    np.testing.assert_array_equal(whole.classes, np.stack([confusion.sum(1) - right, right], 1))
    np.testing.assert_array_equal(whole.predicted, confusion.sum(0))
    parts = [count(predictions[a:b], targets[a:b], groups[a:b], 4, 4) for a, b in [(0, 37), (37, 37), (37, 100)]]
    for name in ("classes", "predicted", "grouped"):
        assert torch.equal(getattr(whole, name), sum(getattr(part, name) for part in parts))
        assert getattr(whole, name).dtype == torch.int64
    of_two = count(*(part.view(2, 50) for part in (predictions, targets, groups)), 4, 4)
    assert of_two.classes.shape == (2, 4, 2) and torch.equal(of_two.classes.sum(0), whole.classes)
    assert of_two.predicted.shape == (2, 4) and torch.equal(of_two.predicted.sum(0), whole.predicted)
    assert torch.equal(of_two.grouped[1], count(predictions[50:], targets[50:], groups[50:], 4, 4).grouped)


def test_of_many_models_at_once_as_of_each():
    rng = np.random.default_rng(0)
    labels = (torch.from_numpy(rng.integers(3, size=(4, 30))) for _ in range(3))
    counts, of_classes, of_groups = count(*labels, 4, 3), rng.integers(200, size=(4, 4)), rng.integers(9, size=(4, 3))
    names = "abcd", "gh?"
    for i, found in enumerate(compute(counts, *names, of_classes, of_groups)):
        alone = Counts(counts.classes[[i]], counts.predicted[[i]], counts.grouped[[i]])
        (expected,) = compute(alone, *names, of_classes[i], of_groups[i])
        np.testing.assert_array_equal(list(found.values()), list(expected.values()))


def test_nothing_predicted_is_nan_everywhere_and_no_crash():
    counts = Counts(*(torch.zeros(1, *shape, dtype=torch.int64) for shape in ((3, 2), (3,), (2, 2))))
    (values,) = compute(counts, ["a", "b", "c"], ["g", "h"], np.array([3, 3, 4]), np.array([5, 5]))
    assert len(values) == len(SUMMARY_METRICS) + len(CLASS_METRICS) * 3 + 2
    assert all(np.isnan(value) for value in values.values())


def test_adjusted_accuracy_weights_groups_as_the_training_set_does():
    predictions, targets = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    values = measured(predictions, targets, np.array([0, 0, 1, 2]), 2, 3, [90, 9, 1])
    assert values["accuracy"] == 0.75
    assert values["adjusted_accuracy"] == pytest.approx(0.99)


def test_a_metric_of_an_unknown_class_or_group_is_refused():
    check_labels("score", "val/recall/cat", ["cat"], ["cat on sofa"])
    check_labels("score", "val/group_accuracy/cat on sofa", ["cat"], ["cat on sofa"])
    for name in ("val/recall/cat on sofa", "val/group_accuracy/cat"):
        with pytest.raises(BadInput, match="must be one of cat"):
            check_labels("score", name, ["cat"], ["cat on sofa"])


def test_evaluation_groups_may_overlap_and_leave_some_out():
    """By brute force over masks; what is over the groups of training is told apart, and the counts of parts add up."""
    rng = np.random.default_rng(0)
    targets, predictions, groups = (rng.integers(2, size=300) for _ in range(3))
    members = rng.random((300, 5)) < (0.5, 0.3, 0.1, 0.02, 0.0)
    assert (members.sum(1) == 0).any() and (members.sum(1) > 1).any()

    def counted(rows):
        given = (torch.from_numpy(a[rows]) for a in (predictions, targets, groups))
        return count(*given, 2, 2, torch.from_numpy(members[rows]))

    parts = [counted(slice(0, 100)), counted(slice(100, 300))]
    counts = Counts(*((a + b)[None] for a, b in zip(*parts)))
    of_train = np.array([9, 9]), np.array([30, 10])
    (values,) = compute(counts, "ab", ["g0", "g1"], *of_train, [f"e{i}" for i in range(5)])
    right = predictions == targets
    of_each = {f"e{i}": right[members[:, i]].mean() for i in range(4)}
    assert {e: values[f"group_accuracy/{e}"] for e in of_each} == pytest.approx(of_each)
    assert np.isnan(values["group_accuracy/e4"])
    assert values["worst_group_accuracy"] == pytest.approx(min(of_each.values()))
    assert values["group_balanced_accuracy"] == pytest.approx(np.mean([*of_each.values()]))
    of_training = [right[groups == g].mean() for g in range(2)]
    assert [values[f"training_group_accuracy/g{g}"] for g in range(2)] == pytest.approx(of_training)
    assert values["worst_training_group_accuracy"] == pytest.approx(min(of_training))
    assert values["training_group_balanced_accuracy"] == pytest.approx(np.mean(of_training))
    assert values["adjusted_accuracy"] == pytest.approx(0.75 * of_training[0] + 0.25 * of_training[1])
    assert describe_groups({f"val/{key}": value for key, value in values.items()}, "val") == "5 evaluation groups"


def test_a_metric_of_training_groups_is_for_data_that_have_others():
    check_metric_name("score", "val/worst_training_group_accuracy")
    check_labels("score", "val/worst_training_group_accuracy", "ab", ["g"], ["e"])
    check_labels("score", "val/training_group_accuracy/g", "ab", ["g"], ["e"])
    check_labels("score", "val/group_accuracy/e", "ab", ["g"], ["e"])
    with pytest.raises(BadInput, match="no evaluation groups, so use 'val/worst_group_accuracy'"):
        check_labels("score", "val/worst_training_group_accuracy", "ab", ["g"])
    with pytest.raises(BadInput, match="must be one of e"):
        check_labels("score", "val/group_accuracy/g", "ab", ["g"], ["e"])


# Of fairlearn 0.15.0: difference and ratio of demographic parity, then of equalised odds, for the seeds 0, 1, 2.
FAIRLEARN = [
    [0.20526315789473681, 0.6578947368421053, 0.35, 0.4166666666666667],
    [0.16112531969309463, 0.7035294117647058, 0.20238095238095238, 0.6222222222222222],
    [0.08662790697674416, 0.8493427704752275, 0.2875, 0.5818181818181819],
]


@pytest.mark.parametrize("attributes_first", [False, True])
def test_parity_has_the_values_of_fairlearn(attributes_first):
    """For several models at once, and groups numbered by class first or by attribute first."""
    predictions, targets, groups = [], [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        targets.append(rng.permutation(np.tile([0, 1], 60)))
        predictions.append(rng.integers(0, 2, 120))
        attributes = rng.integers(0, 3, 120)
        groups.append(2 * attributes + targets[-1] if attributes_first else 3 * targets[-1] + attributes)
    counts = count(*(torch.from_numpy(np.stack(labels)) for labels in (predictions, targets, groups)), 2, 6)
    crossed = ([0, 1] * 3, [0, 0, 1, 1, 2, 2]) if attributes_first else ([0] * 3 + [1] * 3, [0, 1, 2] * 2)
    values = compute(counts, "ab", "uvwxyz", np.ones(2), np.ones(6), (), crossed)
    np.testing.assert_allclose([[model[name] for name in PARITY_METRICS] for model in values], FAIRLEARN, rtol=1e-14)


def test_parity_of_predictions_that_are_all_one_class_is_equal_or_undefined():
    labels = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 2, 3]])
    names = ("ab", "wxyz", np.ones(2), np.ones(4), (), ([0, 0, 1, 1], [0, 1, 0, 1]))
    for predicted, expected in ((1, [0, 1, 0, 1]), (0, [0, np.nan, 0, np.nan])):
        (values,) = compute(count(torch.full((1, 4), predicted), *labels, 2, 4), *names)
        np.testing.assert_array_equal([values[name] for name in PARITY_METRICS], expected)


@pytest.mark.parametrize("ratio", PARITY_RATIOS)
def test_ratios_of_parity_and_top_k_accuracies_select_and_differences_do_not(ratio):
    check_metric_name("score", f"val/{ratio}")
    check_metric_name("score", "val/top3_accuracy")
    check_labels("score", f"val/{ratio}", "ab", "wxyz")
    check_labels("score", "val/top2_accuracy", "ab", "ab")
    for check, reason in (
        (lambda: check_metric_name("score", f"val/{ratio.replace('ratio', 'difference')}"),
         f"but selection takes the largest value, and smaller values of this metric are better; use 'val/{ratio}'"),
        (lambda: check_labels("score", f"val/{ratio}", "ab", "ab", has_parity=False), "needs two classes and groups"),
        (lambda: check_labels("score", "val/top3_accuracy", "ab", "ab"), "this data set has only 2 classes"),
        (lambda: check_metric_name("score", "val/top0_accuracy"), "it must be val/ followed by"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=reason):
            check()
