"""Environment inference against all assignments, and against IRM's penalty by autograd; the environments in runs."""

import itertools
import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

from imbalance.config.experiment import first_run, validate
from imbalance.config.resolve import load
from imbalance.data import Dataset, Split
from imbalance.methods.context import FirstRun
from imbalance.methods.group_inference.eiil import eiil, infer_environments, largest_violation, violation
from imbalance.methods.group_inference.registry import with_environments
from imbalance.methods.objectives.base import slopes
from imbalance.training.learner import load_dataset
from imbalance.training.loop import train
from imbalance.utils.seeds import generator

ASCENT = dict(first_epochs=1, ascent_steps=500, ascent_lr=0.05)


def predictions(count: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, dtype=torch.float64, generator=random)
    return logits, torch.randint(classes, (count,), generator=random)


def found(logits: torch.Tensor, targets: torch.Tensor, groups: torch.Tensor | None = None) -> Dataset:
    """A data set of which all splits have these labels, with the environments of a first run with these logits."""
    split = Split(logits, targets, targets if groups is None else groups, torch.arange(len(targets)))
    names = tuple(map(str, range(logits.shape[1])))
    data = Dataset(split, split, split, names, names)
    first = FirstRun({name: {"logits": logits} for name in ("train", "val", "test")})
    return with_environments(data, eiil(data, 0, first, **ASCENT).environments)


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
    best = tuple(infer_environments(of_each, 500, 0.05, torch.Generator().manual_seed(seed)).tolist())
    assert worth[best] == max(worth.values())
    assert worth[tuple(largest_violation(of_each).tolist())] == max(worth.values())


def test_of_two_classes_the_environments_are_what_is_right_and_what_is_wrong_on_every_split():
    logits, targets = predictions(200, 2)
    logits = logits - logits.mean(1, keepdim=True)
    data, wrong = found(logits, targets, groups=1 - targets), logits.argmax(1) != targets
    for split in (data.train, data.val, data.test):
        environments = split.inferred - 2 * targets
        assert environments.bool().equal(wrong) or environments.bool().equal(~wrong)
        assert split.groups.equal(1 - targets) and split.method_groups.equal(split.inferred)
    environments = data.train.inferred - 2 * targets
    made_of = [torch.bincount(1 - targets[environments == e], minlength=2).tolist() for e in (0, 1)]
    assert f"environment 0 {made_of[0]}, environment 1 {made_of[1]}" in data.notes[0]


def test_an_environment_that_lacks_a_class_leaves_a_group_empty():
    """A first run that predicts one class: its errors are all of the other."""
    _, targets = predictions(50, 2)
    data = found(torch.tensor([1.0, -1.0], dtype=torch.float64).expand(50, 2), targets).for_methods
    assert sorted(data.group_counts(data.train).tolist())[:2] == [0, 0] and data.num_groups == 4


def test_the_seed_decides_the_environments():
    logits, targets = predictions(60, 2)
    of_each = slopes(lambda z: F.cross_entropy(z, targets, reduction="none"), logits)
    runs = [infer_environments(of_each, 3, 0.01, generator(seed, "environments")) for seed in (0, 0, 1)]
    assert runs[0].equal(runs[1]) and not runs[0].equal(runs[2])


METHODS = {
    "group_dro": dict(objective=dict(name="group_dro", step_size=0.1, size_adjustment=0.0, adjust_absent=False)),
    "irm": dict(objective=dict(name="irm", environments="attribute", penalty=2.0, warmup_steps=0)),
    "resampled": dict(sampler=dict(name="balanced", by="group")),
    "weighted": dict(weights=dict(name="importance", by="group", exponent=1.0)),
    "mixed": dict(mix=dict(name="lisa", alpha=2.0, same_label=0.5)),
    "loss": dict(loss=dict(name="vs_group", gamma=0.2, tau=1.0)),
    "dfr": dict(head=dict(name="dfr", inverse_penalties=(0.3, 1.0), fits=1)),
}


@pytest.mark.parametrize("name", METHODS)
def test_any_method_uses_the_inferred_groups_and_is_what_it_is_on_data_that_have_them(name, tmp_path):
    """The same run on a data set whose own groups are those that were inferred: to the bit."""
    config = load(ROOT / "configs" / "colored_digits_eiil.py")
    config.trainer.epochs, config.callbacks.select = 2, "last"
    config.groups.update(first_epochs=5, ascent_steps=300)
    config.objective = dict(name="average")
    config.update(METHODS[name])
    inferred = train(config, tmp_path / "inferred")
    saved = {
        split: np.load(tmp_path / "inferred" / "predictions" / f"{split}.npz") for split in ("train", "val", "test")
    }
    config.groups = dict(name="data")
    data = load_dataset(config)
    parts = [Split(part.inputs, part.targets, torch.from_numpy(saved[split]["inferred"]), part.indices)
             for split, part in (("train", data.train), ("val", data.val), ("test", data.test))]  # fmt: skip
    names = ("even 0", "even 1", "odd 0", "odd 1")
    train(config, tmp_path / "own", Dataset(*parts, data.class_names, names, data.mean, data.std))
    ours, theirs = (torch.load(tmp_path / run / "checkpoints" / "selected.pt", weights_only=True) for run in ("inferred", "own"))  # fmt: skip
    assert all(ours[key].equal(theirs[key]) for key in ours)
    own = json.loads((tmp_path / "own" / "summary.json").read_text())["metrics"]
    for split in ("val", "test"):
        assert inferred["metrics"][f"{split}/worst_inferred_group_accuracy"] == own[f"{split}/worst_group_accuracy"]
        assert inferred["metrics"][f"{split}/loss"] == own[f"{split}/loss"]


def test_the_first_run_reads_no_groups_whatever_the_second_does():
    config = load(ROOT / "configs" / "colored_digits_dro.py")
    config.groups = dict(name="eiil", first_epochs=3, ascent_steps=9, ascent_lr=0.1)
    config.update(sampler=dict(name="balanced", by="group"), loss=dict(name="vs_group", gamma=0.2, tau=1.0))
    first = first_run(validate(config))
    assert first.trainer.epochs == 3 and first.callbacks.select == "last"
    names = {
        section: first.section(section).name
        for section in ("groups", "sampler", "weights", "mix", "loss", "objective", "head")
    }
    assert names == dict(groups="data", sampler="shuffle", weights="uniform", mix="none", loss="cross_entropy",
                         objective="average", head="none")  # fmt: skip
    assert first.score == first.callbacks.monitor == "val/worst_class_recall"
    same = ("seed", "data", "model", "optim")
    values, theirs = first.to_dict(), config.to_dict()
    assert all(values[key] == theirs[key] for key in same)
