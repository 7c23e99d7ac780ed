"""Cross-risk minimisation against its algorithm, an example at a time; flip rate; what it finds on colored digits."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from ml_collections import ConfigDict
from torch import nn

from imbalance.config.experiment import first_run, validate
from imbalance.config.resolve import load
from imbalance.data import Dataset, Split
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch
from imbalance.methods.context import FirstRun
from imbalance.methods.group_inference.xrm import CrossRisk, cross_mistakes, xrm
from imbalance.methods.losses import CrossEntropy
from imbalance.training.loop import train

TARGETS = torch.arange(60) % 3


def network() -> nn.Module:
    return nn.Sequential(OrderedDict(features=nn.Tanh(), head=nn.Linear(4, 3))).double()


def examples(rows: torch.Tensor) -> Batch:
    inputs = 3 * torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.linspace(0.5, 1.5, 60, dtype=torch.float64)[rows]
    return Batch((inputs[rows],), TARGETS[rows], torch.zeros_like(rows), weights, rows)


def test_a_step_is_the_published_one():
    """The sum over the labels of now of the mean loss of the network whose half an example is in."""
    torch.manual_seed(0)
    method = CrossRisk(TARGETS, 3, seed=0)
    model = method.network(network).train()
    labels = TARGETS.clone().tolist()
    for step in range(4):
        batch = examples(torch.randperm(60)[:25])
        ours = method.value(method.terms(model, CrossEntropy(), batch), batch)
        of_label = {}
        for i, row in enumerate(batch.rows.tolist()):
            p = [logits.softmax(1)[i] for logits in model(batch.inputs)]
            mine = p[0] if method.in_first_half[row] else p[1]
            of_label.setdefault(labels[row], []).append(-batch.weights[i] * mine[labels[row]].log())
        theirs = sum(sum(losses) / len(losses) for losses in of_label.values())
        torch.testing.assert_close(ours, theirs)
        for pair in zip(*(torch.autograd.grad(v, model.parameters(), retain_graph=True) for v in (ours, theirs))):
            torch.testing.assert_close(*pair)
        changed = [row for row in range(60) if method.labels[row] != labels[row]]
        assert set(changed) <= set(batch.rows.tolist()) and (changed or step), step
        labels = method.labels.tolist()
    assert 0.3 < method.in_first_half.float().mean() < 0.7
    assert method.metrics() == {"train/flip_rate": np.mean([a != b for a, b in zip(labels, TARGETS.tolist())])}


def test_a_label_turns_as_often_as_the_other_network_is_sure_and_into_what_that_says():
    """p = 0.8 of three classes: (0.8 − 1/3) · 3/2 = 0.7."""
    rows, count = torch.arange(60_000), 60_000
    method = CrossRisk(torch.zeros(count, dtype=torch.long), 3, seed=0)
    held_out = torch.tensor([0.1, 0.8, 0.1]).log().expand(count, 3)
    method(
        torch.ones(count), torch.ones(count), rows, rows=rows, losses_per_label=torch.ones(count, 3), held_out=held_out
    )
    assert method.metrics()["train/flip_rate"] == pytest.approx(0.7, abs=0.01)
    assert method.labels.unique().tolist() == [0, 1]
    sure = torch.tensor([100.0, 0.0, 0.0]).expand(count, 3)  # and back, with certainty
    method(torch.ones(count), torch.ones(count), rows, rows=rows, losses_per_label=torch.ones(count, 3), held_out=sure)
    assert method.metrics()["train/flip_rate"] == 0
    even = torch.zeros(count, 3)  # of what it knows nothing, nothing turns
    method(torch.ones(count), torch.ones(count), rows, rows=rows, losses_per_label=torch.ones(count, 3), held_out=even)
    assert method.metrics()["train/flip_rate"] == 0


def test_evaluation_turns_no_label_and_sees_the_first_network():
    method = CrossRisk(TARGETS, 3, seed=0).eval()
    model, batch = method.network(network), examples(torch.arange(20))
    method.value(method.terms(model, CrossEntropy(), batch), batch)
    assert method.labels.equal(TARGETS)
    model.eval()
    assert model(batch.inputs).equal(model.head(model.features(batch.inputs)))
    assert method.extra_outputs(model, batch.inputs)["twin"].equal(model.twin(batch.inputs))


def test_an_environment_is_what_either_network_gets_wrong():
    right, wrong, targets = torch.eye(2), torch.eye(2).flip(1), torch.arange(2)
    pairs = ((right, right), (right, wrong), (wrong, right), (wrong, wrong))
    assert [cross_mistakes(*pair, targets).tolist() for pair in pairs] == [[0, 0], [1, 1], [1, 1], [1, 1]]


@pytest.mark.parametrize(("mistakes", "expected"), [([0, 1], 0.25), ([0], 0.0)])
def test_where_a_class_stays_in_one_piece_the_flip_rate_is_0(mistakes, expected):
    """As in the published code, so that no such setting is chosen."""
    targets = torch.tensor([0, 1, 0, 1])
    split = Split(torch.zeros(4, 1), targets, targets, torch.arange(4))
    data, logits = Dataset(split, split, split, ("a", "b"), ("a", "b")), torch.eye(2)[targets]
    logits[mistakes] = logits[mistakes].flip(1)
    predictions = {"logits": logits, "twin": logits}
    first = FirstRun(dict.fromkeys(("train", "val", "test"), predictions), {"train/flip_rate": 0.25})
    found = xrm(data, first, first_epochs=1, lr=0.1)
    assert found.metrics == {"train/flip_rate": expected}
    assert found.environments["val"].nonzero().flatten().tolist() == mistakes
    whole = replace(data, val=split.subset(torch.arange(1)))
    predictions = {name: column[:1] for name, column in predictions.items()}
    first = FirstRun(first.predictions | {"val": predictions}, first.metrics)
    assert xrm(whole, first, first_epochs=1, lr=0.1).metrics == {"train/flip_rate": 0.0}


def test_on_colored_digits_it_finds_the_colour_that_misleads_and_needs_no_group(tmp_path):
    """Without any group, of train or val: what is found, and a run that selects and scores by it."""
    config = load(ROOT / "configs" / "colored_digits_xrm.py")
    config.trainer.epochs = 4
    summary = train(config, tmp_path)
    for split in ("train", "val"):
        saved = np.load(tmp_path / "predictions" / f"{split}.npz")
        minority = np.isin(saved["groups"], (1, 2))
        assert np.mean((saved["inferred"] % 2 == 1) == minority) > 0.9
    assert 0 < summary["metrics"]["train/flip_rate"] < 0.2
    assert summary["metrics"]["val/worst_inferred_group_accuracy"] == summary["score"]
    first = np.load(tmp_path / "first" / "predictions" / "val.npz")
    wrong = (first["logits"].argmax(1) != first["targets"]) | (first["twin"].argmax(1) != first["targets"])
    assert np.array_equal(np.load(tmp_path / "predictions" / "val.npz")["inferred"], 2 * first["targets"] + wrong)


def test_only_what_measures_flip_rate_can_be_selected_and_scored_by_it():
    config = load(ROOT / "configs" / "colored_digits_xrm.py")
    config.score = "train/flip_rate"
    validate(config)
    twins = ConfigDict(first_run(validate(config)).to_dict())
    twins.callbacks.update(select="best", monitor="train/flip_rate")
    twins.trainer.eval_splits = ("test",)  # flip rate reads no val
    validate(twins)
    config.groups = dict(name="data")
    with pytest.raises(BadInput, match="^config.score: 'train/flip_rate' given; it must be val/"):
        validate(config)
    config = load(ROOT / "configs" / "colored_digits_erm.py")
    config.callbacks.monitor = "val/worst_inferred_group_accuracy"
    with pytest.raises(BadInput, match="^config.callbacks.monitor: 'val/worst_inferred"):
        validate(config)
