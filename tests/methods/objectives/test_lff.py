"""Learning from failure against its algorithm, written with one example at a time."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from imbalance.config.resolve import load
from imbalance.methods.batch import Batch
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.objectives.lff import UNSEEN, LearningFromFailure
from imbalance.training.loop import train

TARGETS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
CONFIGS = ROOT / "configs"


def network() -> nn.Module:
    return nn.Sequential(OrderedDict(features=nn.Tanh(), head=nn.Linear(4, 3))).double()


def examples(rows: list[int]) -> Batch:
    inputs = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor(rows)
    weights = torch.linspace(0.5, 1.5, 8, dtype=torch.float64)[rows]
    return Batch((inputs[rows],), TARGETS[rows], torch.zeros_like(rows), weights, rows)


def test_it_is_the_published_algorithm():
    torch.manual_seed(0)
    method = LearningFromFailure(TARGETS, 3, amplification=0.7, decay=0.6)
    model, loss = method.network(network).train(), CrossEntropy()
    averages = np.full((2, 8), np.nan)  # of the biased network's losses and of the other's
    for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [2, 0, 5, 1]):
        batch = examples(rows)
        ours = method.value(method.terms(model, loss, batch), batch)
        debiased, biased = model(batch.inputs)
        terms = []
        for i, row in enumerate(rows):
            p = [logits.softmax(1)[i, batch.targets[i]] for logits in (biased, debiased)]
            latest = np.array([-x.log().item() for x in p])
            is_first = np.isnan(averages[:, row]).any()
            averages[:, row] = latest if is_first else 0.6 * averages[:, row] + 0.4 * latest
        for i, row in enumerate(rows):
            p = [logits.softmax(1)[i, batch.targets[i]] for logits in (biased, debiased)]
            b, d = averages[:, row] / np.nanmax(averages[:, (batch.targets[i] == TARGETS).numpy()], axis=1)
            terms.append(batch.weights[i] * b / (b + d) * -p[1].log() + (1 - p[0] ** 0.7) / 0.7)
        theirs = torch.stack(terms).mean()
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=0)
        for pair in zip(
            *(torch.autograd.grad(value, model.parameters(), retain_graph=True) for value in (ours, theirs))
        ):
            torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(method.averages, averages, rtol=1e-12)


def test_averages_weights_and_gradients_are_those_of_the_published_code():
    published = json.loads((Path(__file__).parent / "published" / "lff.json").read_text())
    targets = torch.tensor(published["inputs"]["labels"])
    method = LearningFromFailure(targets, 3, amplification=published["q"], decay=published["alpha"])
    for epoch in published["epochs"]:
        for step in epoch["batches"]:
            rows = torch.tensor(step["index"])
            logits = [
                torch.tensor(step[f"{name}_logits"], dtype=torch.float64, requires_grad=True)
                for name in ("debiased", "bias")
            ]
            batch = Batch((logits,), targets[rows], torch.zeros_like(rows), torch.ones(4), rows)
            value = method.value(method.terms(lambda pair: pair, CrossEntropy(), batch), batch)
            debiased, biased = torch.autograd.grad(value, logits)
            theirs = [torch.tensor(step[f"grad_{name}"], dtype=torch.float64) for name in ("debiased", "bias")]
            torch.testing.assert_close(debiased, theirs[0], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(biased * published["q"], theirs[1], rtol=1e-9, atol=1e-12)
        averages = torch.tensor([epoch["ema_bias"], epoch["ema_debiased"]], dtype=torch.float64)
        torch.testing.assert_close(method.averages, averages, rtol=1e-12, atol=0)


@pytest.mark.parametrize("logit", [-40.0, -3.0, 0.0, 5.0, 40.0])
def test_generalised_cross_entropy_leans_to_what_is_easy(logit):
    """Its gradient is that of cross-entropy times p_y^q (equation 2), also where p_y is 0 or 1 in float32."""
    method = LearningFromFailure(TARGETS, 3, amplification=0.7, decay=0.6)
    logits = torch.tensor([[logit, 0.0, 0.0]], requires_grad=True)
    batch = Batch((logits,), torch.tensor([0]), torch.tensor([0]), torch.ones(1), torch.tensor([0]))
    terms = method.terms(lambda _: (logits, logits), CrossEntropy(), batch)
    (found,) = torch.autograd.grad(terms["generalised"], logits, retain_graph=True)
    (of_cross_entropy,) = torch.autograd.grad(terms["biased_losses"], logits)
    torch.testing.assert_close(found, of_cross_entropy * logits.softmax(1)[0, 0] ** 0.7, rtol=1e-5, atol=1e-12)


def test_evaluation_moves_no_average_and_sees_the_debiased_network_alone():
    method = LearningFromFailure(TARGETS, 3, amplification=0.7, decay=0.6).eval()
    model, batch = method.network(network), examples([0, 1])
    method.value(method.terms(model, CrossEntropy(), batch), batch)
    assert (method.averages == UNSEEN).all()
    assert torch.equal(model.eval()(batch.inputs), model.head(model.features(batch.inputs)))


def test_where_the_bias_misleads_it_helps(tmp_path):
    """Colored digits without groups in training: three seeds, worst group on test, against plain training."""
    scores = {}
    for name in ("erm", "lff"):
        config = load(CONFIGS / f"colored_digits_{name}.py")
        scores[name] = []
        for config.seed in range(3):
            summary = train(config, tmp_path / name / str(config.seed))
            scores[name].append(summary["metrics"]["test/worst_group_accuracy"])
    print(scores)
    assert np.mean(scores["lff"]) > np.mean(scores["erm"]) + 0.05
