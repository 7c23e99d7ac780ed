"""SELF's choice of examples and its steps against the published ones in NumPy and SciPy; its first run."""

import json

import numpy as np
import torch
from conftest import ROOT
from helpers.features import dataset
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn

from imbalance.config.experiment import first_run, validate
from imbalance.config.resolve import load
from imbalance.methods.context import FirstRun
from imbalance.methods.heads.disagreement import disagreement, divergence
from imbalance.training.loop import train

SETTINGS = dict(fraction=0.4, first_epochs=1, share=0.1, steps=40, batch_size=16, lr=0.3)


def test_the_divergence_is_scipy_s():
    early, late = 3 * torch.randn(2, 50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = entropy(softmax(early.numpy(), 1), softmax(late.numpy(), 1), axis=1)
    np.testing.assert_allclose(divergence(early, late), expected, rtol=1e-9)
    extreme = torch.tensor([[200.0, -200.0]])  # probabilities that are 0 in float32
    assert divergence(extreme, extreme).item() == 0 and divergence(extreme, -extreme).item() == 400


def refit(first: torch.Tensor, **settings):
    """The head before and after, and the held-out share, whose inputs are the features."""
    settings = SETTINGS | settings
    data = dataset().to(torch.device("cpu"), torch.float64).hold_out(0.4, seed=0)
    torch.manual_seed(0)
    head = nn.Linear(6, 2).double()
    given = FirstRun({"held_out": {"logits": first}})
    layer = disagreement(
        head, data, lambda name: getattr(data, name).inputs, given, torch.Generator().manual_seed(0), **settings
    )
    return head, data.held_out, [part.detach().numpy() for part in (layer.weight, layer.bias)]


def test_only_what_differs_most_moves_the_layer_and_all_classes_as_much():
    """With whole batches of two per class of one example each, SGD is gradient descent on their mean."""
    held_out = dataset().hold_out(0.4, seed=0).held_out
    torch.manual_seed(0)
    head = nn.Linear(6, 2).double()
    late = head(held_out.inputs.double()).detach()
    chosen = [int(torch.nonzero(held_out.targets == label)[0]) for label in (0, 1)]
    early = late.clone()
    early[chosen] += torch.tensor([5.0, -5.0])
    _, _, (weight, bias) = refit(early, share=2 / len(late), batch_size=2)
    x, y = np.c_[held_out.inputs.double()[chosen], np.ones(2)], np.eye(2)
    layer = np.c_[head.weight.detach(), head.bias.detach()]
    for _ in range(40):
        layer = layer - 0.3 * (softmax(x @ layer.T, 1) - y).T @ x / 2
    np.testing.assert_allclose(np.c_[weight, bias], layer, rtol=1e-9)


def test_classes_count_equally_however_many_of_each_differ():
    """Eight of one class and one of the other: in a batch of sixteen each of the eight once, the one eight times."""
    held_out = dataset().hold_out(0.4, seed=0).held_out
    torch.manual_seed(0)
    head = nn.Linear(6, 2).double()
    late = head(held_out.inputs.double()).detach()
    zeros, ones = (torch.nonzero(held_out.targets == label)[:, 0] for label in (0, 1))
    chosen = torch.cat([zeros[:8], ones[:1]])
    early = late.clone()
    early[chosen] += torch.tensor([5.0, -5.0])
    _, _, (weight, bias) = refit(early, share=9 / len(late), batch_size=16, steps=1)
    x, y = np.c_[held_out.inputs.double()[chosen], np.ones(9)], np.eye(2)[held_out.targets[chosen]]
    layer = np.c_[head.weight.detach(), head.bias.detach()]
    per_example = (softmax(x @ layer.T, 1) - y)[:, :, None] * x[:, None]
    both = (per_example[:8].mean(0) + per_example[8]) / 2
    moved = (layer - np.c_[weight, bias]) / 0.3
    np.testing.assert_allclose(moved, both, rtol=1e-9)


def test_the_first_run_is_the_beginning_of_the_second(tmp_path):
    config = load(ROOT / "configs" / "colored_digits_self.py")
    config.trainer.update(epochs=4, eval_every=1)
    config.callbacks.keep_logits = True
    first = first_run(validate(config))
    assert first.head.to_dict() == dict(name="hold_out", fraction=config.head.fraction)
    config.head.first_epochs = 2
    summary = train(config, tmp_path)
    early = json.loads((tmp_path / "first" / "summary.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    after_two = next(line for line in lines if line.get("epoch") == 2)
    assert early["epoch"] == 2 and early["metrics"]["val/loss"] == after_two["val/loss"]
    held_out = [np.load(path / "predictions" / "held_out.npz")["indices"] for path in (tmp_path, tmp_path / "first")]
    assert np.array_equal(*held_out)
    trained_on = np.load(tmp_path / "predictions" / "train.npz")["indices"]
    assert not set(trained_on) & set(held_out[0]) and len(trained_on) + len(held_out[0]) == 576
    assert summary["metrics"]["held_out/worst_group_accuracy"] >= 0
