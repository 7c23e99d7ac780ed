"""Metrics for a training loop of one's own, against scikit-learn and definitions written out again."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from imbalance.errors import BadInput
from imbalance.metrics import evaluate
from imbalance.metrics.evaluation import parity
from imbalance.metrics.intervals import wilson


def sample(seed, num_classes, num_groups, n=150):
    rng = np.random.default_rng(seed)
    targets, groups = rng.integers(0, num_classes, n), rng.integers(0, num_groups, n)
    logits = rng.standard_normal((n, num_classes)) + 1.5 * np.eye(num_classes)[targets]
    probability = np.exp(logits)
    return targets, probability / probability.sum(1, keepdims=True), groups


@pytest.mark.parametrize("seed", range(6))
def test_values_are_scikit_learn_s(seed):
    targets, probability, groups = sample(seed, 3 + seed % 3, 2)
    predictions, labels = probability.argmax(1), range(probability.shape[1])
    table = evaluate(targets, probability, groups, top_k=(1, 2))
    pairs = [(targets == k) & (groups == g) for k in labels for g in range(2)]
    expected = {
        "accuracy": metrics.accuracy_score(targets, predictions),
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, predictions),
        "macro_f1": metrics.f1_score(targets, predictions, average="macro"),
        "mcc": metrics.matthews_corrcoef(targets, predictions),
        "worst_class_recall": metrics.recall_score(targets, predictions, average=None).min(),
        "precision/1": metrics.precision_score(targets, predictions, average=None)[1],
        "worst_group_accuracy": min((predictions == targets)[pair].mean() for pair in pairs),
        "top1_accuracy": metrics.accuracy_score(targets, predictions),
        "top2_accuracy": metrics.top_k_accuracy_score(targets, probability, k=2),
        "nll": metrics.log_loss(targets, probability),
        "auroc": metrics.roc_auc_score(targets, probability, multi_class="ovr"),
        "brier": np.mean([((row - np.eye(len(row))[y]) ** 2).sum() for row, y in zip(probability, targets)]),
    }
    for name, value in expected.items():
        assert table[name].value == pytest.approx(value, abs=1e-12), name
    for name, (value, interval) in table.items():
        assert np.isnan(interval.low) or interval.low - 1e-12 <= value <= interval.high + 1e-12, name
    assert table["accuracy"].interval == pytest.approx(wilson((predictions == targets).sum(), len(targets)))
    assert table["worst_group_accuracy"].interval.high < 1 and "demographic_parity_difference" not in table


@pytest.mark.parametrize("seed", range(6))
def test_parity_is_the_spread_of_rates_over_attributes(seed):
    """The definitions of fairlearn 0.15: between groups, and the worse one of true and false positive rates."""
    targets, probability, groups = sample(seed, 2, 2 + seed % 3)
    predictions = probability.argmax(1)
    table = evaluate(targets, probability, groups)
    rates = [
        [predictions[(groups == g) & kept].mean() for g in np.unique(groups)]
        for kept in (targets >= 0, targets == 1, targets == 0)
    ]
    difference, ratio = [max(rate) - min(rate) for rate in rates], [min(rate) / max(rate) for rate in rates]
    assert table["demographic_parity_difference"].value == pytest.approx(difference[0])
    assert table["demographic_parity_ratio"].value == pytest.approx(ratio[0])
    assert table["equalized_odds_difference"].value == pytest.approx(max(difference[1:]))
    assert table["equalized_odds_ratio"].value == pytest.approx(min(ratio[1:]))
    assert table["group_accuracy/1, 0"].value == pytest.approx(
        (predictions == 1)[(targets == 1) & (groups == 0)].mean()
    )


def test_intervals_of_parity_cover_the_truth():
    """True rates 0.5, 0.6 and 0.3; the four intervals are conservative, so 400 samples miss far less often than 5 %."""
    rng, rates, missed = np.random.default_rng(0), np.array([0.5, 0.6, 0.3]), 0
    for _ in range(400):
        attributes, targets = rng.integers(0, 3, 2000), rng.integers(0, 2, 2000)
        predictions = (rng.random(2000) < rates[attributes]).astype(int)
        table = parity(targets, predictions, attributes)
        for name in ("demographic_parity", "equalized_odds"):
            for kind, truth in (("difference", 0.3), ("ratio", 0.5)):
                low, high = table[f"{name}_{kind}"].interval
                missed += not low <= truth <= high
                assert high - low < 0.5
    assert missed / 1600 < 0.05


def test_rates_that_are_0_0_are_left_out_of_parity():
    table = parity(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 1]), np.array([0, 0, 0, 1]))
    assert table["equalized_odds_difference"].value == 0  # attribute 1 has no positive; the false positive rates are 1
    table = parity(np.array([1, 0]), np.array([0, 0]), np.array([0, 1]))
    assert table["demographic_parity_difference"].value == 0 and np.isnan(table["demographic_parity_ratio"].value)


def test_names_tensors_and_series_are_the_same_as_numbers():
    targets, probability, groups = sample(0, 2, 2)
    predictions, words = probability.argmax(1), np.array(["no", "yes"])
    numbers = evaluate(torch.from_numpy(targets), torch.from_numpy(predictions), groups=groups.tolist())
    names = evaluate(words[targets], words[predictions], groups=np.array(["f", "m"])[groups])
    for (_, *row), (_, *same) in zip(numbers.rows(), names.rows(), strict=True):
        assert row == pytest.approx(same, nan_ok=True)
    assert {"recall/yes", "group_accuracy/yes, m"} <= names.keys()
    with_columns = evaluate(words[targets], probability, classes=["no", "yes"])
    assert with_columns["macro_f1"] == names["macro_f1"] and "worst_group_accuracy" in with_columns
    assert "group_accuracy/no" in with_columns  # without groups, each class is a group
    part = targets == 1  # no example of the first class
    assert np.isnan(evaluate(targets[part], probability[part])["recall/0"].value)


def test_a_bootstrap_whose_resamples_agree_has_no_interval():
    table = evaluate([0, 1, 1], [0, 1, 1])
    assert table["macro_f1"].value == 1 and np.isnan(table["macro_f1"].interval.low)
    assert table["accuracy"].interval.low < 0.5 and table["worst_class_recall"].interval.low < 0.1


@pytest.mark.parametrize("probabilities", [[1.0, 0.0], [0.5, 0.5]])
def test_scores_that_are_equal_for_all_examples_have_no_interval(probabilities):
    targets = np.zeros(20, int)
    table = evaluate(targets, np.tile(probabilities, (20, 1)))
    assert np.isnan([table[name].interval for name in ("nll", "brier")]).all()
    (line,) = [line for line in repr(table).splitlines() if line.startswith("nll ")]
    assert line.split() == ["nll", f"{table['nll'].value:.4f}"]  # a metric without an interval has its value alone
    varied = np.tile(probabilities, (20, 1)) * 0.9 + 0.05
    varied[0] = 0.6, 0.4
    low, high = evaluate(targets, varied)["nll"].interval
    values = -np.log(varied[:, 0])
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 19, values.mean(), stats.sem(values)))


def test_a_frame_has_a_row_a_metric(monkeypatch):
    table = evaluate([0, 1, 1], [0, 1, 0])
    for library in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(BadInput, match="to_frame: needs pandas or polars"):
        table.to_frame()
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=lambda columns: columns))
    frame = table.to_frame()
    assert frame["metric"] == list(table) and frame["value"][0] == pytest.approx(2 / 3)
    assert (frame["low"][0], frame["high"][0]) == table["accuracy"].interval
    assert repr(table).splitlines()[0].split()[:2] == ["accuracy", "0.6667"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 1], [0]), "targets 2, predictions 1; all must be equal"),
        (([], []), "at least 1"),
        (([0, 1], [0.2, 0.7]), r"one fraction for each example; .*np.stack\(\[1 - p, p\], axis=1\)"),
        (([0, 1], [0, 1], [0]), "groups 1"),
        (([0, 1], [[2.0, -1.0], [0.5, 0.5]]), r"predictions\[0\] sums to 1; .*pass logits.softmax"),
        (([0, 1], [[0.5, 0.5], [0.5, 0.6]]), r"predictions\[1\] sums to 1.1"),
        (([0, 2], [[0.5, 0.5], [0.5, 0.5]]), "targets: 2 is no class; the classes are 0, 1"),
        (([[0], [1]], [0, 1]), r"targets of shape \(2, 1\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        evaluate(*arguments)


HALVES = [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([0, 1], HALVES), dict(top_k=(0,)), r"top_k: \(0,\) given; integers from 1 to 2 are needed"),
        (([0, 1], HALVES), dict(top_k=(1, 5)), "integers from 1 to 2"),
        (([0, 1], HALVES), dict(top_k=(-1,)), "integers from 1 to 2"),
        (([0, 1], HALVES), dict(top_k=("a",)), "integers from 1 to 2"),
        (([0, 1], HALVES), dict(top_k=1), "integers from 1 to 2"),
        (([0, 1], [0, 1]), dict(seed=-1), "seed: -1 given; an integer of 0 or more"),
        (([0, 1], [0, 1]), dict(seed=1.5), "seed: 1.5 given"),
        (([0, 1], [0, 1]), dict(classes=5), "classes: 5 given; a sequence"),
        (([0, 1], [0, 1]), dict(classes="01"), "classes: '01' given; a sequence"),
        (([0, 1], [0, 1]), dict(classes=[0, 1, 1]), "evaluate: classes: 1 appears twice"),
        (([0, 1], [0, 1]), dict(classes=[[0], 1]), "numbers or texts are needed"),
        (([None, 1], HALVES), {}, r"targets\[0\] is None; leave out the example"),
        (([None, 1], [0, 1]), {}, r"targets\[0\] is None"),
        (([0, 1], [0.0, np.nan]), {}, r"predictions\[1\] is nan"),
        (([0, 1], [[None, 1.0], [0.5, 0.5]]), {}, "predictions: object of shape"),
        (([0, 1], [0, 1], [None, "a"]), {}, r"groups\[0\] is None"),
        (([0, 1], [0, 1], ["a", np.nan]), {}, r"groups\[1\] is nan"),
        (([0, 1], [0, 1], np.array([np.nan, 1.0])), {}, r"groups\[0\] is nan"),
        (([0, 1], [0, 1], np.array([1, "a"], dtype=object)), {}, "groups: values of several types"),
        (([0, "0", 1], ["0", 0, 1]), {}, "targets: values of several types"),
        (([0, 1], ["0", "1"]), {}, "targets are numbers such as 0 and predictions are texts such as '0'"),
        (([0, 1], ["0", "1"]), dict(classes=["0", "1"]), "predictions are texts such as '0'"),
        (([0, 1], HALVES), dict(classes=["0", "1"]), "targets: 0 is no class; the classes are '0', '1'"),
        (([9, 10], [9, 10]), dict(classes=range(10)), "targets: 10 is no class; the classes are 0, .*, 8, 9; pass"),
        (([9, 11], [9, 11]), dict(classes=range(11)), "targets: 11 is no class; the classes are 0, .*, 8, 9, …; pass"),
    ],
)
def test_a_wrong_argument_is_named_as_the_caller_wrote_it(arguments, options, words):
    with pytest.raises(BadInput, match=words):
        evaluate(*arguments, **options)


def test_predictions_in_bfloat16_are_those_in_float32():
    targets, probability, _ = sample(0, 3, 2)
    rounded = torch.from_numpy(probability).bfloat16()
    exact = rounded.double() / rounded.double().sum(1, keepdim=True)
    table, same = evaluate(targets, rounded), evaluate(targets, exact)
    for (_, *row), (_, *other) in zip(table.rows(), same.rows(), strict=True):
        assert row == pytest.approx(other, nan_ok=True)
    classes = torch.from_numpy(targets).bfloat16()
    assert evaluate(classes, classes)["accuracy"].value == 1


@pytest.mark.parametrize("name", ["targets", "predictions", "groups"])
def test_masked_arrays_are_refused(name):
    arguments = {key: [0, 1, 1] for key in ("targets", "predictions", "groups")}
    with pytest.raises(BadInput, match=f"^evaluate: {name}: a masked array given"):
        evaluate(**arguments | {name: np.ma.masked_array([0, 1, 1], [0, 0, 1])})


def test_equal_probabilities_tie_whatever_the_other_probabilities_of_an_example_are():
    """Their log-odds may differ in the last digit, which broke ties that scikit-learn counts one half."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    probability = (1 + rng.multinomial(12, [0.4, 0.3, 0.2, 0.1], 200)) / 16
    table = evaluate(targets, probability)
    for name, function in (("auroc", metrics.roc_auc_score), ("auprc", metrics.average_precision_score)):
        assert table[name].value == pytest.approx(function(np.eye(4)[targets], probability), abs=1e-14)
