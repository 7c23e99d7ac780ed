"""Environment inference against all assignments, and against IRM's penalty by autograd; the whole method in runs."""

import itertools

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

from imbalance.config import load
from imbalance.methods.eiil import EnvironmentInference, infer_environments, violation
from imbalance.methods.method import slopes
from imbalance.methods.objectives import GroupDRO
from imbalance.methods.provided import FirstRun
from imbalance.seeds import generator
from imbalance.training.loop import train

ASCENT = dict(first_epochs=1, ascent_steps=500, ascent_lr=0.05, step_size=0.1, size_adjustment=0.5)


def predictions(count: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, dtype=torch.float64, generator=random)
    return logits, torch.randint(classes, (count,), generator=random)


def test_the_violation_is_irm_s_penalty_of_soft_environments():
    logits, targets = predictions(9, 3)
    shares = torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    penalties = []
    for q in (shares, 1 - shares):
        risk = (q * F.cross_entropy(w * logits, targets, reduction="none")).mean()
        penalties.append(torch.autograd.grad(risk, w, create_graph=True)[0].item() ** 2)
    of_each = slopes(lambda z: F.cross_entropy(z, targets, reduction="none"), logits)
    assert violation(shares, of_each).item() == pytest.approx(np.mean(penalties), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_ascent_finds_the_best_of_all_assignments(seed):
    """Of 2^9, up to which of the two is called 1."""
    logits, targets = predictions(9, 3, seed)
    of_each = slopes(lambda z: F.cross_entropy(z, targets, reduction="none"), logits)
    s = of_each.numpy()
    worth = {q: np.mean([np.mean(np.array(q) * s) ** 2, np.mean((1 - np.array(q)) * s) ** 2])
             for q in itertools.product((0, 1), repeat=9)}  # fmt: skip
    found = tuple(infer_environments(of_each, 500, 0.05, torch.Generator().manual_seed(seed)).tolist())
    assert worth[found] == max(worth.values())


def test_of_two_classes_the_environments_are_what_is_right_and_what_is_wrong():
    logits, targets = predictions(200, 2)
    first = FirstRun(logits - logits.mean(1, keepdim=True), targets)
    method = EnvironmentInference(targets, 1 - targets, 2, 0, first, **ASCENT)
    environments = method.environments.bool()
    assert environments.equal(first.errors) or environments.equal(~first.errors)
    wrong = f"{first.errors.sum()} of 200 errors"
    assert wrong in method.notes[0] and method.inferred.equal(2 * targets + method.environments)


def test_an_environment_that_lacks_a_class_makes_no_empty_group():
    """A first run that predicts one class: its errors are all of the other."""
    _, targets = predictions(50, 2)
    logits = torch.tensor([1.0, -1.0], dtype=torch.float64).expand(50, 2)
    method = EnvironmentInference(targets, targets, 2, 0, FirstRun(logits, targets), **ASCENT)
    assert method.inferred.equal(targets) and method.log_weights.isfinite().all()


def test_it_is_group_dro_on_the_inferred_groups_whatever_the_true_ones_are():
    logits, targets = predictions(40, 2)
    ours = EnvironmentInference(targets, targets, 2, 0, FirstRun(logits, targets), **ASCENT)
    counts = torch.bincount(ours.inferred, minlength=4)
    theirs = GroupDRO(counts, step_size=0.1, size_adjustment=0.5)
    rows = torch.arange(5, 40, 3)
    losses, weights = torch.rand(2, len(rows), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        found = ours(losses, weights, torch.zeros_like(rows), rows=rows)
        assert found.item() == theirs(losses, weights, ours.inferred[rows]).item()


def test_the_seed_decides_the_environments():
    logits, targets = predictions(60, 2)
    of_each = slopes(lambda z: F.cross_entropy(z, targets, reduction="none"), logits)
    runs = [infer_environments(of_each, 3, 0.01, generator(seed, "environments")) for seed in (0, 0, 1)]
    assert runs[0].equal(runs[1]) and not runs[0].equal(runs[2])


def test_a_run_keeps_its_environments_and_says_what_they_are_made_of(tmp_path):
    config = load(ROOT / "configs" / "colored_digits_eiil.py")
    config.trainer.epochs = 2
    train(config, tmp_path)
    kept = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["objective"]["environments"]
    saved = np.load(tmp_path / "first" / "predictions" / "train.npz")
    assert kept.shape == saved["targets"].shape
    made_of = [np.bincount(saved["groups"][(kept == e).numpy()], minlength=4).tolist() for e in (0, 1)]
    log = (tmp_path / "log.txt").read_text()
    assert f"inferred environments: 0 has {made_of[0]} of each group, 1 has {made_of[1]}; " in log
