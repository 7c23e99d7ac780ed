"""Warnings where a selection or a score says less than it seems to."""

import json
import re
from dataclasses import replace

import pytest
import torch

from imbalance.config.resolve import load
from imbalance.config.schema import build
from imbalance.data import DATASETS
from imbalance.methods.losses import Poly
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.metrics.warnings import data_warnings, run_warnings
from imbalance.training.loop import train


@pytest.fixture
def config():
    return load("configs/colored_digits_erm.py")


@pytest.fixture
def dataset(config):
    return build(DATASETS, config.data, data_dir="data", seed=0)


def evaluations(*values: float) -> list[dict]:
    return [{"epoch": 2 * (i + 1), "val/worst_group_accuracy": value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.5, 0.5, 0.5), "was 0.5000 at all 3 evaluations: the first of these epochs was selected"),
        ((0.5, 0.7, 0.7), "had its best value at 2 of 3 evaluations: the first of these epochs was selected"),
        ((0.7, 0.6, 0.5), "was best at the first of 3 evaluations, epoch 2"),
        ((None, None), "had no value at any evaluation, so the weights of the last epoch were tested"),
    ],
)
def test_a_monitor_that_decides_nothing_gets_a_warning(values, words, config, dataset):
    found = run_warnings(config, evaluations(*values), {}, dataset, 2)
    assert len(found) == 1 and words in found[0]
    if "first of these" in words:
        assert found[0].endswith("; use config.callbacks.monitor=val/auroc, or config.callbacks.select=last")
        config.head = dict(name="thresholds", metric="balanced_accuracy", rounds=1)
        assert "changes the predictions after the selection" in run_warnings(config, evaluations(*values), {}, dataset, 2)[0]  # fmt: skip
    config.callbacks.update(select="last", patience=0)
    assert not run_warnings(config, evaluations(*values), {}, dataset, 2)  # nothing reads the monitor


@pytest.mark.parametrize(
    ("values", "patience", "warns"),
    [
        ((0.5, 0.5, 0.5), 2, True),
        ((0.5, 0.5, 0.5), 5, False),  # patience did not end training
        ((0.5, 0.7, 0.7, 0.6), 2, False),
        ((0.7, 0.6, 0.5), 2, False),  # training ended because the metric fell
        ((None, None, None), 2, False),
    ],
)
def test_at_the_last_epoch_no_warning_says_that_another_was_selected(values, patience, warns, config, dataset):
    config.callbacks.update(select="last", patience=patience)
    found = run_warnings(config, evaluations(*values), {}, dataset, 6)
    assert found == [
        "val/worst_group_accuracy was 0.5000 at all 3 evaluations, and config.callbacks.patience=2 ended training; "
        "use config.callbacks.monitor=val/auroc, or config.callbacks.patience=0"
    ] * warns  # fmt: skip


def test_a_training_that_patience_ended_without_a_value_gets_a_warning(config, dataset):
    config.callbacks.update(select="last", patience=2)
    words = "val/worst_group_accuracy had no value at any evaluation, and config.callbacks.patience=2 ended training"
    assert run_warnings(config, evaluations(None, None), {}, dataset, 4) == [words]


@pytest.mark.parametrize(
    ("select", "patience", "consequence"),
    [
        ("best", 0, ", which could not be selected"),
        ("last", 3, ", and which config.callbacks.patience=3 counts as no improvement"),
        ("best", 3, ", which could not be selected, and which config.callbacks.patience=3 counts as no improvement"),
        ("last", 0, None),  # nothing reads the monitor
    ],
)
def test_a_monitor_without_a_value_at_some_evaluations_gets_a_warning(select, patience, consequence, config, dataset):
    config.callbacks.update(select=select, patience=patience)
    words = f"val/worst_group_accuracy had no value at 3 of 4 evaluations{consequence}"
    assert run_warnings(config, evaluations(0.5, None, None, None), {}, dataset, 2) == [words] * (
        consequence is not None
    )


def test_evaluations_without_a_value_are_not_counted_among_those_with_one(config, dataset):
    warnings = run_warnings(config, evaluations(0.5, None, 0.5), {}, dataset, 2)
    assert "no value at 1 of 3 evaluations" in warnings[0]
    assert "was 0.5000 at all 2 evaluations with a value: the first of these" in warnings[1]


def test_a_score_without_a_value_gets_a_warning(config, dataset):
    config.score = "val/few_shot_accuracy"
    found = run_warnings(config, evaluations(0.5, 0.7, 0.6), {config.score: float("nan")}, dataset, 4)
    assert len(found) == 1 and "val/few_shot_accuracy has no value for the tested weights" in found[0]
    assert not run_warnings(config, evaluations(0.5, 0.7, 0.6), {config.score: 0.0}, dataset, 4)


def test_a_monitor_that_decides_gets_none(config, dataset):
    assert not run_warnings(config, evaluations(0.5, 0.7, 0.6), {"val/predicted/even": 0.5}, dataset, 4)
    assert not data_warnings(config, dataset)


def test_a_model_that_predicts_one_class_gets_a_warning(config, dataset):
    found = run_warnings(config, [], {"test/predicted/even": 1.0, "test/predicted/odd": 0.0}, dataset, 2)
    assert "every test example is predicted as even" in found


@pytest.mark.parametrize(("selected", "warns"), [(4, True), (10, True), (11, False)])
def test_a_self_head_whose_early_model_is_not_earlier_gets_a_warning(config, dataset, selected, warns):
    config = load("configs/colored_digits_self.py")
    config.head.first_epochs = 10
    found = run_warnings(config, evaluations(0.5, 0.7, 0.6), {}, dataset, selected)
    assert [line.startswith("config.head.first_epochs: 10, and the selected epoch is") for line in found] == [
        True
    ] * warns


@pytest.mark.parametrize(("loss", "weights", "sampler", "warns"), [
    ("balanced_softmax", "importance", "shuffle", "config.weights.name='importance' both correct"),
    ("balanced_softmax", "uniform", "balanced", "config.sampler.name='balanced' both correct"),
    ("balanced_softmax", "uniform", "shuffle", None),
    ("cross_entropy", "importance", "shuffle", None),
])  # fmt: skip
def test_a_loss_that_corrects_what_weights_or_a_sampler_correct_gets_a_warning(
    config, dataset, loss, weights, sampler, warns
):
    config.loss = dict(name=loss)
    config.weights = dict(name=weights, **({"by": "class", "exponent": 1.0} if weights == "importance" else {}))
    config.sampler = dict(name=sampler, **({"by": "class"} if sampler == "balanced" else {}))
    lines = [line for line in data_warnings(config, dataset) if "both correct the imbalance" in line]
    assert len(lines) == (warns is not None) and all(warns in line for line in lines)


@pytest.mark.parametrize(("changes", "warns"), [
    ({"weights": dict(name="importance", by="class", exponent=1.0)}, "config.weights.name='importance' and"),
    ({"sampler": dict(name="balanced", by="class")}, "config.sampler.name='balanced' and"),
    ({"loss": dict(name="balanced_softmax")}, "config.loss.name='balanced_softmax' and"),
    ({}, None),
])  # fmt: skip
def test_logit_adjustment_after_training_that_corrects_the_imbalance_gets_a_warning(config, dataset, changes, warns):
    sections = {"loss": dict(name="cross_entropy"), "weights": dict(name="uniform"), "sampler": dict(name="shuffle")}
    for section, values in (sections | changes).items():
        config[section] = values
    for tau in (1.0, 0.0):
        config.head = dict(name="logit_adjusted", tau=tau)
        lines = [line for line in data_warnings(config, dataset) if "both correct the imbalance" in line]
        assert len(lines) == (warns is not None and tau > 0)
        assert all(warns in line and "use config.head.name='none'" in line for line in lines)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if getattr(OBJECTIVES[name], "views", 1) > 1])
def test_views_that_are_equal_get_a_warning(config, dataset, objective):
    config.objective = {"name": objective}
    (line,) = data_warnings(config, dataset)
    assert (
        f"{objective!r} compares 2 views" in line
        and "the views are equal before mixing and dropout; use another" in line
    )
    assert not data_warnings(config, replace(dataset, augmentations=("flip",)))


@pytest.mark.parametrize(("loss", "warns"), [
    (dict(name="smoothed", label_smoothing=0.1, gamma=0.0, tau=1.0), True),  # balanced softmax with smoothing
    (dict(name="smoothed", label_smoothing=0.1, gamma=0.0, tau=0.0), False),
    (dict(name="vs", gamma=0.0, tau=1.0), True),  # logit adjustment
    (dict(name="vs", gamma=0.3, tau=0.0), False),
    (dict(name="logit_adjusted", tau=0.0), False),  # cross-entropy
    (dict(name="class_balanced", beta=0.0, gamma=0.0), False),  # cross-entropy
    (dict(name="class_balanced", beta=0.99, gamma=0.0), True),
])  # fmt: skip
def test_the_values_of_a_loss_decide_whether_it_corrects(config, dataset, loss, warns):
    config.loss = loss
    config.sampler = dict(name="balanced", by="class")
    lines = [line for line in data_warnings(config, dataset) if "both correct the imbalance" in line]
    assert len(lines) == warns


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_exponential_part_of_poly_gets_a_warning_where_its_gradient_overflows_float16(config, dataset, alpha):
    config.loss = dict(name="poly", alpha=alpha, left="exponential")
    assert not data_warnings(config, dataset)
    config.trainer.mixed_precision = "fp16"
    (line,) = data_warnings(config, dataset)
    margin = float(re.search(r"at margins below (\S+) the gradient is infinite in float16", line)[1])
    for factor, finite in ((1.03, False), (0.97, True)):
        logits = torch.tensor([[factor * margin, 0.0]], dtype=torch.float16, requires_grad=True)
        (gradient,) = torch.autograd.grad(Poly(alpha=alpha, left="exponential")(logits, torch.tensor([0])), logits)
        assert gradient.isfinite().all().item() == finite
    config.loss.left = "linear"
    assert not data_warnings(config, dataset)


def test_groups_of_few_val_examples_get_a_warning_where_a_metric_reads_them(config, dataset):
    val = dataset.val
    rows = (val.groups != 2).nonzero().flatten().tolist() + (val.groups == 2).nonzero().flatten()[:1].tolist()
    few = replace(dataset, val=val.subset(val.targets.new_tensor(rows)))
    found = data_warnings(config, few)
    assert found == ["val/worst_group_accuracy depends on 1 group with fewer than 10 val examples: odd red (1)"]
    rows = val.targets.new_tensor(rows[-1:] + (val.groups == 0).nonzero().flatten()[:3].tolist())
    found = data_warnings(config, replace(dataset, val=val.subset(rows)))
    assert (
        found[-1]
        == "val/worst_group_accuracy depends on 2 groups with fewer than 10 val examples: even red (3), odd red (1)"
    )
    config.score = config.callbacks.monitor = "val/accuracy"
    assert not data_warnings(config, few)


def test_warnings_are_in_the_log_and_in_the_summary(config, tmp_path):
    config.work_dir = str(tmp_path)
    config.trainer.update(epochs=3, eval_every=1)
    config.optim.lr = 1e-9  # nothing moves
    summary = train(config, tmp_path / "run")
    assert any("at all 3 evaluations" in warning for warning in summary["warnings"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"] == summary["warnings"]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert all(f"WARNING: {warning}" in log for warning in summary["warnings"])


def test_ranking_metrics_select_and_score(tmp_path):
    config = load("configs/digits_poly.py")
    config.trainer.update(epochs=4, eval_every=1)
    config.callbacks.update(select="best", monitor="val/auroc")
    config.score = "val/auprc/0"
    summary = train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["val/auroc"])
    assert summary["selected_epoch"] == best["epoch"]
    assert summary["metrics"]["val/auroc"] == pytest.approx(best["val/auroc"], rel=1e-6)
    assert summary["score"] == summary["metrics"]["val/auprc/0"] and "test/ece" in summary["metrics"]
