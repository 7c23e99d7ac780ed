"""L-BFGS: its minima against scikit-learn's and its own conditions, alone and stacked; refusals, stops and resumes."""

import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.jobs import at_call
from sklearn.linear_model import LogisticRegression

from imbalance.config.experiment import Experiment, validate
from imbalance.config.registries import registries
from imbalance.config.resolve import load, override
from imbalance.config.schema import build
from imbalance.data import Dataset, Split
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.methods.losses import LOSSES
from imbalance.training import lbfgs, loop
from imbalance.training.optim import lbfgs as lbfgs_optimizer
from imbalance.training.stacked.train import in_common, train_stacked

PENALTY, EXAMPLES, WIDTH = 1e-2, 90, 5


def points(classes: int, outlier: float = 0.0) -> Dataset:
    """Return overlapping Gaussian classes of unequal size in five dimensions; all splits are the same."""
    rng = np.random.default_rng(0)
    targets = np.sort(rng.integers(0, classes, EXAMPLES) * rng.integers(0, 2, EXAMPLES))
    inputs = rng.standard_normal((EXAMPLES, WIDTH)) + np.eye(classes, WIDTH)[targets]
    inputs[0, 0] += outlier
    labels = torch.from_numpy(targets)
    split = Split(torch.from_numpy(inputs), labels, labels, torch.arange(EXAMPLES))
    names = tuple(map(str, range(classes)))
    return Dataset(split, split, split, names, names)


@pytest.fixture(autouse=True)
def data_sets(monkeypatch):
    monkeypatch.setitem(registries()["data"], "two", lambda: points(2))
    monkeypatch.setitem(registries()["data"], "three", lambda: points(3))
    monkeypatch.setitem(registries()["data"], "infinite", lambda: points(2, outlier=1e200))


def config_of(data: str = "three", **changes: Any) -> Experiment:
    """Return a config of L-BFGS on `data`; a key of `changes` has __ for each dot."""
    solver = dict(name="lbfgs", weight_decay=PENALTY, decayed="weights", tolerance=1e-8)
    common = {
        "data": {"name": data},
        "model": {"name": "linear", "init": "zeros"},
        "optim": solver | {"schedule": {"name": "constant", "warmup_epochs": 0.0}},
        "weights": {"name": "importance", "by": "class", "exponent": 1.0},
        "trainer.epochs": 500,
        "trainer.eval_every": 500,
        "trainer.dtype": "float64",
        "callbacks.select": "last",
        "callbacks.stop_at_interpolation": False,
    }
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return validate(override(load(ROOT / "configs" / "colored_digits_erm.py"), common | changes))


def layers_of_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of layers of each matrix product for logits."""
    numbers, products = [], lbfgs.Problem.products

    def counted(problem: lbfgs.Problem, layers: torch.Tensor) -> torch.Tensor:
        numbers.append(len(layers))
        return products(problem, layers)

    monkeypatch.setattr(lbfgs.Problem, "products", counted)
    return numbers


def layer(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (K, D) and the biases (K,) that a run has saved."""
    state = torch.load(directory / "checkpoints" / "selected.pt", weights_only=True)
    return state["head.weight"].numpy(), state["head.bias"].numpy()


def scikit_learn(classes: int, penalty: float = PENALTY) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights and biases of scikit-learn's minimum of the same objective, fitted to high precision."""
    train = points(classes).train
    inputs, targets = train.inputs.numpy(), train.targets.numpy()
    strength = (2 if classes == 2 else 1) / (EXAMPLES * penalty)
    fit = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000, class_weight="balanced").fit(inputs, targets)
    weight, bias = fit.coef_, fit.intercept_
    return (np.concatenate([-weight, weight]) / 2, np.append(-bias, bias) / 2) if classes == 2 else (weight, bias)


@pytest.mark.parametrize(("data", "classes"), [("two", 2), ("three", 3)])
@pytest.mark.parametrize("init", ["zeros", "default"])
def test_the_minimum_is_that_of_scikit_learn(data, classes, init, tmp_path):
    summary = loop.train(config_of(data, model__init=init), tmp_path)
    weight, bias = layer(tmp_path)
    expected_weight, expected_bias = scikit_learn(classes)
    np.testing.assert_allclose(weight, expected_weight, atol=1e-6)
    # A number added to all biases changes nothing, so only their differences are compared.
    np.testing.assert_allclose(bias - bias.mean(), expected_bias - expected_bias.mean(), atol=1e-6)
    assert summary["epoch"] < 100 and not any("lbfgs" in warning for warning in summary["warnings"])


# Every loss, with values for which it is convex. A new loss needs a line here.
CONVEX: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "poly": dict(alpha=0.5, left="exponential"),
    "vs": dict(gamma=0.3, tau=1.0),
    "vs_group": dict(gamma=0.3, tau=1.0),
    "cdt": dict(gamma=0.3),
    "logit_adjusted": dict(tau=1.0),
    "balanced_softmax": {},
    "smoothed": dict(label_smoothing=0.2, gamma=0.3, tau=1.2),
    "label_aware_smoothing": dict(head=0.4, tail=0.1),
    "ldam": dict(max_margin=0.5, scale=2.0),
    "focal": dict(gamma=0.0),
    "class_balanced": dict(beta=0.9, gamma=0.0),
    "class_balanced_sigmoid": dict(beta=0.9, gamma=0.0),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_says_truly_whether_it_is_convex_and_relative(name, classes):
    counts = torch.tensor([70, 15, 5])[:classes]
    context = dict(class_counts=counts, group_counts=counts, num_classes=classes)
    loss: Any = build(LOSSES, {"name": name, **CONVEX[name]}, **context).double()
    chooser = torch.Generator().manual_seed(0)
    first, second = (4 * torch.randn(2000, classes, generator=chooser, dtype=torch.float64) for _ in range(2))
    targets = torch.arange(2000) % classes
    middle = loss((first + second) / 2, targets, targets)
    assert loss.is_convex
    assert (middle <= (loss(first, targets, targets) + loss(second, targets, targets)) / 2 + 1e-12).all()
    shifted = loss(first + 3, targets, targets)
    assert getattr(loss, "is_relative", False) == torch.allclose(shifted, loss(first, targets, targets), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("focal", dict(gamma=2.0)),
        ("class_balanced", dict(beta=0.9, gamma=1.0)),
        ("class_balanced_sigmoid", dict(beta=0.9, gamma=1.0)),
        ("poly", dict(alpha=2.0, left="logistic")),
    ],
)
def test_a_loss_that_is_not_convex_is_refused(name, values, tmp_path):
    with pytest.raises(BadInput, match=f"^config.loss.name: '{name}' given, which is not convex"):
        loop.train(config_of(loss={"name": name, **values}), tmp_path)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CONVEX)
def test_no_direction_leads_down_from_the_end_of_a_fit(name, classes):
    """Automatic differentiation of the objective, written out here, gives a gradient of zero."""
    train = points(classes).train
    counts = torch.bincount(train.targets)
    weights = EXAMPLES / (classes * counts[train.targets].double())
    section, context = {"name": name, **CONVEX[name]}, dict(class_counts=counts, group_counts=counts)
    loss: Any = build(LOSSES, section, **context, num_classes=classes).double()
    head = torch.nn.Linear(WIDTH, classes, dtype=torch.float64)
    solver = lbfgs_optimizer(list(head.parameters()), weight_decay=PENALTY, decayed="all", tolerance=1e-6)
    is_odd = classes == 2 and getattr(loss, "is_relative", False)
    fits = lbfgs.Fits(
        lbfgs.Problem(train.inputs, train.targets, train.targets, loss, is_odd), [[solver]], weights[None]
    )
    while not solver.ended:
        fits.step()
    weight, bias = head.parameters()
    losses = loss(train.inputs @ weight.T + bias, train.targets, train.targets)
    objective = (weights * losses).mean() + PENALTY / 2 * (weight.square().sum() + bias.square().sum())
    for gradient in torch.autograd.grad(objective, (weight, bias)):
        assert gradient.abs().max() < 1e-5


def test_a_single_run_builds_its_fits_once_and_copies_no_history(tmp_path, monkeypatch):
    built, build_fits = [], lbfgs.Fits.__init__

    def counted(fits, problem, solvers, weights):
        built.append(solvers[0][0])
        build_fits(fits, problem, solvers, weights)

    monkeypatch.setattr(lbfgs.Fits, "__init__", counted)
    loop.train(config_of(), tmp_path)
    (solver,) = built
    pairs = solver.fits.state.steps
    assert len(pairs) == lbfgs.MEMORY
    kept = [step.data_ptr() for step in pairs[1:]]
    solver.fits.step()
    assert [step.data_ptr() for step in solver.fits.state.steps[:-1]] == kept


def test_stacked_fits_equal_fits_alone_and_equal_seeds_are_computed_once(tmp_path, monkeypatch):
    configs = [
        config_of("two", seed=seed, optim__weight_decay=penalty) for penalty in (0.1, 0.001) for seed in (0, 1, 2)
    ]
    numbers = layers_of_products(monkeypatch)
    summaries = train_stacked([(config, tmp_path / str(i)) for i, config in enumerate(configs)])
    assert len(set(map(in_common, configs))) == 1
    assert set(numbers) == {1, 2}  # one fit for each penalty, and one has ended earlier
    for i, config in enumerate(configs):
        loop.train(config, tmp_path / f"alone {i}")
        for ours, alone in zip(layer(tmp_path / str(i)), layer(tmp_path / f"alone {i}")):
            np.testing.assert_allclose(ours, alone, atol=1e-7)
        assert json.loads((tmp_path / str(i) / "config.json").read_text())["seed"] == config.seed
        assert summaries[i]["status"] == "done" and summaries[i]["metrics"]["test/accuracy"] > 0.5
    lines = [(tmp_path / str(i) / "metrics.jsonl").read_text() for i in range(6)]
    assert lines[0] == lines[1] == lines[2] != lines[3]


def test_random_weights_are_fitted_for_each_seed(tmp_path, monkeypatch):
    configs = [config_of("two", seed=seed, model__init="default") for seed in (0, 1)]
    numbers = layers_of_products(monkeypatch)
    train_stacked([(config, tmp_path / str(i)) for i, config in enumerate(configs)])
    assert numbers[0] == 2


@pytest.mark.parametrize("stacked", [False, True])
def test_an_interrupted_fit_resumes_to_the_same_bits(stacked, tmp_path, monkeypatch):
    configs = [config_of("three", optim__weight_decay=penalty) for penalty in (0.01, 0.001)][: 1 + stacked]

    def train(name: str) -> None:
        runs = [(config, tmp_path / name / str(i)) for i, config in enumerate(configs)]
        train_stacked(runs) if stacked else loop.train(*runs[0])

    train("whole")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, lbfgs.Fits, "step", 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train("resumed")
    train("resumed")
    for i in range(len(configs)):
        for ours, theirs in zip(layer(tmp_path / "whole" / str(i)), layer(tmp_path / "resumed" / str(i))):
            np.testing.assert_array_equal(ours, theirs)
        states = [
            torch.load(tmp_path / name / str(i) / "checkpoints" / "last.pt", weights_only=True)["optimizer"]
            for name in ("whole", "resumed")
        ]
        assert states[0]["param_groups"] == states[1]["param_groups"]


def test_float32_meets_the_minimum_to_a_millionth(tmp_path):
    loop.train(config_of("three", trainer__dtype="float32", optim__tolerance=1e-5), tmp_path)
    train = points(3).train
    weights = EXAMPLES / (3 * np.bincount(train.targets)[train.targets])

    def objective(weight: np.ndarray, bias: np.ndarray) -> float:
        logits = train.inputs.numpy() @ weight.T.astype(float) + bias
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(EXAMPLES), train.targets]
        return (weights * losses).mean() + PENALTY / 2 * np.square(weight.astype(float)).sum()

    assert abs(objective(*layer(tmp_path)) - objective(*scikit_learn(3))) < 1e-6


def test_too_few_epochs_are_told(tmp_path):
    summary = loop.train(config_of(trainer__epochs=2), tmp_path)
    (told,) = [warning for warning in summary["warnings"] if "lbfgs" in warning]
    assert "not converged" in told and "use more epochs" in told
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [2] and lines[0]["lr"] > 0


def test_rounding_that_ends_a_fit_is_told(tmp_path):
    summary = loop.train(config_of(trainer__dtype="float32", optim__tolerance=1e-30), tmp_path)
    (told,) = [warning for warning in summary["warnings"] if "lbfgs" in warning]
    assert "rounding in float32" in told and summary["epoch"] < 500


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    config = config_of("infinite", model__init="default", trainer__dtype="float32")
    with warnings.catch_warnings(), pytest.raises((Diverged, BadInput)):
        warnings.simplefilter("ignore")
        loop.train(config, tmp_path)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (dict(sampler={"name": "balanced", "by": "class"}, weights={"name": "uniform"}), "sampler.name: 'balanced' given; it must be 'shuffle'"),
        (dict(mix={"name": "mixup", "alpha": 0.2}), "mix.name: 'mixup' given; it must be 'none'"),
        (dict(objective={"name": "cvar", "level": 0.5}), "objective.name: 'cvar' given; it must be 'average'"),
        (dict(weights={"name": "deferred", "by": "class", "beta": 0.9, "start_epoch": 1}), "weights.name: 'deferred' given; it must be"),
        (dict(optim__schedule={"name": "cosine", "warmup_epochs": 0.0}), "optim.schedule.name: 'cosine' given; it must be 'constant'"),
        (dict(trainer__clip_norm=1.0), "trainer.clip_norm: 1.0 given; it must be 0.0"),
        (dict(trainer__ema_decay=0.9), "trainer.ema_decay: 0.9 given; it must be 0.0"),
        (dict(model={"name": "mlp", "hidden": (4,)}), "optim.name: 'lbfgs' given, which trains a linear last layer alone"),
        (dict(model={"name": "linear_cosine", "init": "default"}), "optim.name: 'lbfgs' given, which trains a linear last layer alone"),
    ],
)  # fmt: skip
def test_what_a_fit_cannot_do_is_refused(changes, rule, tmp_path):
    with pytest.raises(BadInput, match=f"^config.{rule}"):
        loop.train(config_of(**changes), tmp_path)


def quadratic(curvatures: torch.Tensor, start: torch.Tensor) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return the function of a line search along parabolas with their minima at length 1 / `curvatures`."""
    return lambda lengths, fits: (
        start[fits] - lengths + curvatures[fits] * lengths.square() / 2,
        curvatures[fits] * lengths - 1,
    )


def test_a_line_search_finds_steps_of_all_sizes_at_once():
    curvatures = torch.tensor([1e-6, 0.01, 1.0, 30.0, 1e7], dtype=torch.float64)
    start, first = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    lengths, values = lbfgs.line_search(quadratic(curvatures, start), start, -first, first, 1e-16)
    assert ((curvatures * lengths - 1).abs() <= lbfgs.WOLFE).all()
    torch.testing.assert_close(values, -lengths + curvatures * lengths.square() / 2)


def test_a_line_search_that_finds_no_step_returns_zero():
    start = torch.zeros(2, dtype=torch.float64)
    rising = lambda lengths, fits: (lengths + 1, -torch.ones_like(lengths))  # noqa: E731
    lengths, values = lbfgs.line_search(rising, start, -torch.ones_like(start), torch.ones_like(start), 1e-16)
    assert lengths.tolist() == [0, 0] and values.equal(start)
