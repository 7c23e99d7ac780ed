"""uLA and LC: values and gradients of the published code, and what they need."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.nn.functional import one_hot

from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.objectives.lff import generalised_cross_entropy
from imbalance.methods.objectives.logit_shift import LogitCorrection, UnsupervisedLogitAdjustment
from imbalance.training.loop import train

PUBLISHED = json.loads((Path(__file__).parent / "published" / "ula_lc.json").read_text())
INPUTS = PUBLISHED["inputs"]
LABELS = torch.tensor(INPUTS["labels"])
BIASED, LOGITS = (torch.tensor(INPUTS[f"{name}_logits"], dtype=torch.float64) for name in ("bias", "target"))
ONES, GROUPS = torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.long)


def close(ours: torch.Tensor, theirs: list) -> None:
    torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("published", PUBLISHED["ula"]["runs"], ids=lambda run: f"ema={run['ema']}")
def test_ula_is_the_published_code(published):
    first = FirstRun({"train": {"logits": BIASED.flatten(0, 1)}})
    method = UnsupervisedLogitAdjustment(
        LABELS.flatten(), 3, CrossEntropy(), first, tau=published["student_temperature"],
        temperature=published["teacher_temperature"], decay=published["ema"],
    )  # fmt: skip
    for step, expected in enumerate(published["steps"]):
        logits = LOGITS[step].clone().requires_grad_()
        rows = torch.arange(6) + 6 * step
        value = method(ONES, ONES, GROUPS, logits=logits, targets=LABELS[step], rows=rows)
        (gradient,) = torch.autograd.grad(value, logits)
        close(method.matrix, expected["matrix"])
        close(value, expected["loss"])
        close(gradient, expected["grad_logits"])


def test_lc_is_the_published_code():
    """The published loss of the biased network has another value, and q times the gradient of that in the paper."""
    published = PUBLISHED["lc"]
    method = LogitCorrection(3, CrossEntropy(), amplification=published["gce_q"], decay=published["prior_ema"])
    for step, expected in enumerate(published["steps"]):
        logits, biased = (values[step].clone().requires_grad_() for values in (LOGITS, BIASED))
        generalised = generalised_cross_entropy(biased, LABELS[step], published["gce_q"])
        value = method(
            ONES, ONES, GROUPS, logits=logits, targets=LABELS[step], biased=biased.detach().softmax(1),
            generalised=generalised,
        )  # fmt: skip
        gradients = torch.autograd.grad(value, (logits, biased))
        close(method.matrix, expected["matrix"])
        close(value - generalised.mean(), expected["target_loss"])
        close(gradients[0], expected["grad_target_logits"])
        close(published["gce_q"] * gradients[1], expected["grad_bias_logits"])


def test_a_class_that_no_batch_had_is_never_predicted_under_the_shift_and_no_value_is_infinite():
    method = LogitCorrection(3, CrossEntropy(), amplification=0.7, decay=0.5)
    logits, targets = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1])
    biased = one_hot(targets, 3).double()
    value = method(
        ONES[:2], ONES[:2], GROUPS[:2], logits=logits, targets=targets, biased=biased, generalised=torch.zeros(2)
    )
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-300) and logits.grad is not None and logits.grad.isfinite().all()


def test_evaluation_leaves_the_matrix_as_it_is():
    method = LogitCorrection(3, CrossEntropy(), amplification=0.7, decay=0.5).eval()
    columns = dict(logits=LOGITS[0], targets=LABELS[0], biased=BIASED[0].softmax(1), generalised=torch.zeros(6))
    method(ONES, ONES, GROUPS, **columns)
    assert not method.matrix.any() and method.steps == 0


def test_ula_without_a_first_run_is_refused():
    with pytest.raises(BadInput, match=r"'ula' needs the predictions of a first run.*use config.groups.name='predic"):
        UnsupervisedLogitAdjustment(LABELS[0], 3, CrossEntropy(), None, tau=1.0, temperature=1.0, decay=0.9)


def test_ula_selects_its_epoch_by_the_groups_of_class_and_prediction(tmp_path):
    config = load(ROOT / "configs" / "colored_digits_ula.py")
    config.trainer.epochs, config.groups.first_epochs, config.trainer.eval_every = 1, 3, 1
    summary = train(config, tmp_path)
    assert config.score == "val/inferred_group_balanced_accuracy" and summary["score"] is not None
    accuracies = predicted_group_accuracies(tmp_path)
    assert len(accuracies) == 4
    assert summary["score"] == pytest.approx(sum(accuracies) / 4) and min(accuracies) == pytest.approx(
        summary["metrics"]["val/worst_inferred_group_accuracy"]
    )


def predicted_group_accuracies(directory: Path) -> list[float]:
    """The accuracies of a run on val in the groups of class and first run's prediction, from the saved predictions."""
    with np.load(directory / "first" / "predictions" / "val.npz") as first:
        guesses, targets = first["logits"].argmax(1), first["targets"]
    with np.load(directory / "predictions" / "val.npz") as saved:
        right = saved["logits"].argmax(1) == targets
        assert (saved["inferred"] == 2 * targets + guesses).all()
    return [right[(targets == t) & (guesses == g)].mean() for t in (0, 1) for g in (0, 1)]
