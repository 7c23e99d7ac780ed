"""Functions of a user's own module that return what the loop cannot use: one line before the first step, no run directory."""

import pytest
import torch

import imbalance
from imbalance.errors import BadInput
from imbalance.training import loop
from imbalance.training.loop import train

MODULE = """
import functools

import torch
import torch.nn.functional as F
from torch import nn

from imbalance.methods.objectives.base import Objective
from imbalance.models import with_head


def losses(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")


class Good(nn.Module):
    def forward(self, logits, targets, groups):
        return losses(logits, targets)


class Scalar(nn.Module):
    def forward(self, logits, targets, groups):
        return F.cross_entropy(logits, targets)


class Integer(nn.Module):
    def forward(self, logits, targets, groups):
        return 3


class Column(nn.Module):
    def forward(self, logits, targets, groups):
        return losses(logits, targets)[:, None]


class Untrained(Good):
    def __init__(self):
        super().__init__()
        self.fixed, self.scale = nn.Parameter(torch.ones(()), requires_grad=False), nn.Parameter(torch.ones(()))


class UntrainedObjective(Objective):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(1, 1, bias=False)

    def forward(self, losses, weights, groups):
        return (losses * weights).mean() * self.inner.weight.sum()


class TrainedObjective(UntrainedObjective):
    def network(self, make):
        model = make()
        model.inner = self.inner
        return model


class TrainedObjective(Objective):
    def network(self, make):
        model = make()
        self.scale = model.scale = nn.Parameter(torch.ones(()))
        return model

    def forward(self, losses, weights, groups):
        return (losses * weights).mean() * self.scale.exp()


class Detached(nn.Module):
    def forward(self, logits, targets, groups):
        return losses(logits.detach(), targets)


class Broken(nn.Module):
    def forward(self, logits, targets, groups):
        return logits[:, 99]


class Exits(nn.Module):
    def forward(self, logits, targets, groups):
        raise SystemExit(0)


class Late(nn.Module):  # an error after the checks, which call it with two examples
    def forward(self, logits, *_):
        if len(logits) > 2:
            raise RuntimeError("late")
        return losses(logits, torch.zeros(len(logits), dtype=torch.long)) if logits.ndim == 2 else logits.mean()


def late_model(input_shape, num_classes):
    model = with_head(nn.Flatten(), torch.Size(input_shape).numel(), num_classes)
    forward = model.forward

    model.forward = lambda inputs: forward(inputs) if len(inputs) <= 2 else Late()(inputs)
    return model


def in_order(targets):
    return torch.arange(len(targets))


def every_third(targets, epoch):
    return torch.arange(epoch % 3, len(targets), 3)


def raising():
    raise KeyError("mine")


no_line = functools.partial(nn.Linear, 3, -1)


def three():
    return 3


def nothing():
    return None


def vector():
    return lambda losses, weights, groups: losses


def mean():
    return lambda losses, weights, groups: (losses * weights).mean()


class NoView(Objective):
    views = 0


class HalfView(Objective):
    views = 0.5


class Unknown(Objective):
    columns = ("nowhere",)


class NoPartners(Objective):
    columns = ("logits", "partners")


class Doubled(Objective):
    columns = ("logits", "losses")


def as_half(head):
    return head.half()


class Nothing(Objective):
    def forward(self, losses, weights, groups):
        return None


class Constant(Objective):
    def forward(self, losses, weights, groups):
        return losses.mean().detach()


def floats(targets, generator):
    return torch.rand(5)


def far(targets, generator):
    return torch.tensor([0, 10**6])


def empty(targets, generator):
    return torch.tensor([], dtype=torch.int64)


def all_rows(targets, generator):
    return torch.arange(len(targets))


def negative(targets):
    return -torch.ones(len(targets))


def short(targets):
    return torch.ones(3)


def infinite(targets):
    return torch.full((len(targets),), torch.inf)


def ones(targets):
    return torch.ones(len(targets))


def one_more(input_shape, num_classes):
    return with_head(nn.Flatten(), 64, num_classes + 1)


def without_parts(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


def wrapped(network):
    return nn.Sequential(network)


class Scaled(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features, self.head = nn.Flatten(), nn.Linear(64, num_classes)

    def forward(self, inputs):
        return 2 * self.head(self.features(inputs))


def scaled(input_shape, num_classes):
    return Scaled(num_classes)


def narrow(input_shape, num_classes):
    return with_head(nn.Flatten(), 3, num_classes)


def fitting(input_shape, num_classes):
    return with_head(nn.Flatten(), 64, num_classes)


def word(epoch, epochs):
    return "a"


def half(epoch, epochs):
    return 0.5


def of_one(targets, generator):
    return 3
"""
FLOWS = "a tensor of floats from which gradients flow"
FAULTS = [
    (
        "loss",
        "Scalar",
        rf"gives a tensor of float32 of shape \(\); it must return .* one number for each example, .*{FLOWS}$",
    ),
    ("loss", "Integer", f"gives int; it must return .* one number for each example, .*{FLOWS}$"),
    ("loss", "Column", r"gives a tensor of float32 of shape \(2, 1\)"),
    ("loss", "Untrained", "has the parameter 'scale', which is not trained.*make it a buffer"),
    (
        "objective",
        "UntrainedObjective",
        "has the parameter 'inner.weight', which is not trained.*a part of the network",
    ),
    ("loss", "Detached", "returns a function through which no gradients flow"),
    ("loss", "three", "returns int; it must return an nn.Module that is called as loss"),
    ("loss", "nothing", "returns None; it must return an nn.Module"),
    ("objective", "three", "returns int; it must return an Objective, or a function"),
    ("objective", "vector", r"gives a tensor of float32 of shape \(2,\); it must return .* one number for the batch"),
    ("objective", "NoView", "has views=0; it must be an integer, at least 1$"),
    ("objective", "HalfView", "has views=0.5; it must be an integer, at least 1$"),
    (
        "objective",
        "Unknown",
        "has the column 'nowhere', which its terms do not compute; name one of epoch, features, logits, rows, slopes, targets, or",
    ),
    ("objective", "NoPartners", "has the column 'partners', which its terms do not compute"),
    (
        "objective",
        "Doubled",
        "has the column 'losses', but `forward` always has an argument of this name; delete it",
    ),
    (
        "sampler",
        "floats",
        r"returns a tensor of float32 of shape \(5,\); it must return a tensor of integers from 0 to 59",
    ),
    ("sampler", "far", "returns rows from 0 to 1000000; it must return a tensor of integers from 0 to 59"),
    ("sampler", "empty", r"returns a tensor of int64 of shape \(0,\); it must return a tensor of integers"),
    ("sampler", "of_one", "returns int; it must return a tensor of integers"),
    (
        "weights",
        "negative",
        "returns weights from -1.0 to -1.0; it must return a tensor of 60 finite numbers from 0 on",
    ),
    ("weights", "short", r"returns a tensor of float32 of shape \(3,\); it must return a tensor of 60"),
    ("weights", "infinite", "returns weights from inf to inf"),
    ("mix", "of_one", "returns int; it must return a Mix of the batch"),
    ("model", "three", "returns int; it must return an nn.Module with the parts"),
    ("adapter", "wrapped", "returns Sequential without the part `features`; it must return an nn.Module with"),
    ("model", "without_parts", "returns Sequential without the part `features`; it must return an nn.Module with"),
    (
        "model",
        "scaled",
        r"logits are not those of `head` applied to `features`; it must return a network that computes",
    ),
    (
        "model",
        "one_more",
        r"gives a tensor of float32 of shape \(2, 11\) for 2 examples; it must return logits \(B, 10\)",
    ),
    ("optim.schedule", "word", "returns str; it must return a number"),
    (
        "objective",
        "Nothing",
        "returns a function that gives None; it must return a function that gives one number for the batch",
    ),
    ("objective", "Constant", "returns a function through which no gradients flow"),
    ("head", "three", "returns int; it must return an nn.Module from features to logits"),
    (
        "head",
        "as_half",
        "changed the type of the trained last layer from torch.float32 to torch.float16; return a new layer",
    ),
    ("groups", "three", "returns int; it must return a GroupAssignment, or None"),
    ("data", "nothing", "returns None; it must return a Dataset"),
]
RAISED = [
    ("loss", "Broken", r"own.py, line \d+: IndexError: "),
    ("loss", "Exits", r"own.py, line \d+: SystemExit: 0"),
    ("model", "narrow", "own.py: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ("optim.schedule", "three", "own.py: TypeError: "),
    ("loss", "Late", r"own.py, line \d+: RuntimeError: late"),
    ("objective", "Late", r"own.py, line \d+: RuntimeError: late"),
    ("model", "late_model", r"own.py, line \d+: RuntimeError: late"),
    *[
        (section, "raising", r"own.py, line \d+: KeyError: 'mine'")
        for section in (
            "adapter", "data", "groups", "head", "loss", "mix", "model", "objective", "optim", "sampler", "weights"
        )
    ],
    ("head", "no_line", "own.py: RuntimeError: .*negative dimension"),
    ("data", "no_line", "own.py: RuntimeError: .*negative dimension"),
]  # fmt: skip


@pytest.fixture
def run(config, tmp_path):
    """Return a function that trains with an own function in one section."""
    (tmp_path / "own.py").write_text(MODULE)
    config.data.update(total=60, imbalance_ratio=2.0)
    config.model = dict(name="linear", init="zeros")
    config.trainer.epochs = 1

    def call(section: str, function: str):
        parent, _, last = section.rpartition(".")
        place = config[parent] if parent else config
        schedule = config.optim.schedule
        place[last] = dict(name=f"{tmp_path / 'own.py'}:{function}")
        if section == "optim":
            config.optim.schedule = schedule
        return imbalance.run(config, directory=tmp_path / "run")

    return call


@pytest.mark.parametrize(("section", "function", "words"), FAULTS, ids=[f"{s}-{f}" for s, f, _ in FAULTS])
def test_what_an_own_function_returns_is_checked_before_the_first_step(
    section, function, words, run, tmp_path, monkeypatch
):
    late = section == "head" or function in ("Nothing", "Constant")  # a head, and the value of an objective's class
    if not late:
        monkeypatch.setattr("imbalance.training.loop.take_step", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(BadInput, match=f"^config.{section}.name: '.*own.py:{function}' .*{words}"):
        run(section, function)
    assert (tmp_path / "run").exists() == (section == "head")


@pytest.mark.parametrize(("section", "function", "words"), RAISED, ids=[f"{s}-{f}" for s, f, _ in RAISED])
def test_an_error_in_an_own_function_names_its_line(section, function, words, run):
    with pytest.raises(BadInput, match=words) as error:
        run(section, function)
    assert error.value.__cause__ is not None


GOOD = {"loss": "Good", "objective": "mean", "sampler": "all_rows", "weights": "ones", "model": "fitting", "optim.schedule": "half"}  # fmt: skip


@pytest.mark.parametrize("section", GOOD)
def test_an_own_function_that_returns_what_the_loop_needs_is_trained_with(section, run):
    assert run(section, GOOD[section]).summary["status"] == "done"


def test_a_parameter_of_an_objective_that_the_network_contains_is_trained(run, tmp_path):
    assert run("objective", "TrainedObjective").summary["status"] == "done"
    state = torch.load(tmp_path / "run" / "checkpoints" / "selected.pt")
    assert 0 < state["scale"] < 1  # a positive loss times exp(scale) pulls it down


def test_the_trial_of_own_functions_changes_no_result(run, config, tmp_path, monkeypatch):
    """The network is in training mode afterwards, and no random number is drawn."""
    monkeypatch.setattr("imbalance.training.learner.check_outputs", lambda *_: None)
    run("model", "fitting")
    monkeypatch.undo()
    train(config, tmp_path / "tried")
    ours, theirs = (torch.load(tmp_path / d / "checkpoints" / "selected.pt") for d in ("tried", "run"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("function", "rows"),
    [("in_order", lambda epoch: range(60)), ("every_third", lambda epoch: range(epoch % 3, 60, 3))],
)
def test_a_sampler_gets_only_the_arguments_that_it_names(function, rows, run, monkeypatch):
    learners, make = [], loop.make_learner
    monkeypatch.setattr(loop, "make_learner", lambda *arguments: learners.append(make(*arguments)) or learners[-1])
    run("sampler", function)
    for epoch in range(3):
        assert learners[0].sampler(epoch).tolist() == list(rows(epoch))
