"""The limit directions, against optimality conditions, scikit-learn, and what the project's own loop converges to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from sklearn.svm import LinearSVC

from imbalance.config.resolve import load
from imbalance.config.schema import build
from imbalance.data import DATASETS
from imbalance.data.sets.gaussian import balanced_error
from imbalance.errors import BadInput
from imbalance.theory.oracle import angle, direction_of, margin_direction, poly_direction
from imbalance.training.loop import train

CONFIGS = ROOT / "configs"


def mixture(dim, sizes, seed=0, distance=3.0):
    rng = np.random.default_rng(seed)
    targets = np.repeat([0, 1], sizes)
    inputs = rng.standard_normal((len(targets), dim))
    inputs[np.arange(len(targets)), targets] += distance
    return inputs, targets


def signed(inputs, targets):
    return np.column_stack([inputs, np.ones(len(inputs))]) * (2 * targets - 1)[:, None]


@pytest.mark.parametrize("dim, sizes, distance", [(40, (30, 6), 3.0), (3, (30, 6), 12.0)], ids=["d>n", "d<n"])
def test_the_margin_direction_is_the_support_vector_machine_s(dim, sizes, distance):
    inputs, targets = mixture(dim, sizes, distance=distance)
    with_ones = np.column_stack([inputs, np.ones(len(inputs))])
    machine = LinearSVC(C=1e6, loss="hinge", fit_intercept=False, max_iter=1_000_000, tol=1e-8)
    expected = machine.fit(with_ones, targets).coef_[0]
    assert angle(margin_direction(inputs, targets), expected) < 0.1


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("dim, sizes, distance", [(40, (30, 6), 3.0), (3, (30, 6), 12.0)], ids=["d>n", "d<n"])
def test_the_poly_direction_minimises_the_tail_over_unit_vectors(dim, sizes, distance, alpha):
    inputs, targets = mixture(dim, sizes, distance=distance)
    weights = np.where(targets == 1, 5.0, 1.0)
    z = signed(inputs, targets)

    def tail(u):
        m = z @ (u / np.linalg.norm(u))
        return (weights * m**-alpha).sum() if (m > 0).all() else np.inf

    found = poly_direction(inputs, targets, weights, alpha)
    rng, scale = np.random.default_rng(1), 1e-3
    assert all(tail(found) < tail(found + scale * rng.standard_normal(len(found))) for _ in range(200))
    # At a minimum over the sphere the gradient has no component along it.
    m = z @ found
    gradient = -alpha * (weights * m ** (-alpha - 1)) @ z
    assert angle(-gradient, found) < 1e-4


def test_weights_move_the_poly_direction():
    inputs, targets = mixture(40, (30, 6))
    even = poly_direction(inputs, targets, np.ones(36), 1.0)
    assert angle(even, poly_direction(inputs, targets, np.full(36, 7.0), 1.0)) < 1e-4  # only ratios matter
    assert angle(even, poly_direction(inputs, targets, np.where(targets == 1, 5.0, 1.0), 1.0)) > 5


def test_classes_that_no_plane_separates_are_refused():
    inputs, targets = mixture(2, (50, 50), distance=0.1)
    with pytest.raises(BadInput, match="no linear classifier separates"):
        margin_direction(inputs, targets)
    with pytest.raises(BadInput, match="no linear classifier separates"):
        poly_direction(inputs, targets, np.ones(100), 1.0)


def test_angles_are_exact_near_zero_and_beyond_a_right_angle():
    a = np.array([1.0, 0.0])
    assert angle(a, np.array([1.0, 1e-9])) == pytest.approx(np.degrees(1e-9))
    assert angle(a, np.array([-1.0, 0.0])) == pytest.approx(180)
    assert angle(a, 5 * a) == 0


def trained_direction(tmp_path, name, exponent):
    """What the loop makes of configs/<name>.py under weights of an exponent, with the data that it saw."""
    config = load(CONFIGS / f"{name}.py")
    config.work_dir = str(tmp_path)
    config.data.update(val_per_class=(10, 10), test_per_class=(10, 10))
    config.weights = dict(name="importance", by="class", exponent=exponent)
    config.trainer.update(epochs=400, eval_every=400)
    summary = train(config)
    state = torch.load(Path(summary["run_directory"]) / "checkpoints" / "selected.pt", weights_only=True)
    dataset = build(DATASETS, config.data, seed=config.seed, data_dir="")
    return (
        direction_of(state["head.weight"], state["head.bias"]),
        dataset.train.inputs.numpy(),
        dataset.train.targets.numpy(),
    )


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_loop_takes_cross_entropy_to_the_margin_direction_whatever_the_weights(tmp_path, exponent):
    direction, inputs, targets = trained_direction(tmp_path, "gaussian_ce", exponent)
    assert angle(direction, margin_direction(inputs, targets)) < 1


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_loop_takes_poly_to_the_direction_of_its_weights(tmp_path, exponent):
    direction, inputs, targets = trained_direction(tmp_path, "gaussian_poly", exponent)
    weights = np.where(targets == 1, 10.0**exponent, 1.0)
    assert angle(direction, poly_direction(inputs, targets, weights, 1.0)) < 1
    assert angle(direction, margin_direction(inputs, targets)) > 5


def test_the_limits_have_the_errors_of_the_headline_table():
    """Over ten seeds, within the spread of a mean of ten: 16.0 % whatever the weights, 11.0 and 9.1 % under poly."""
    means = np.zeros((2, 500))
    means[0, 0] = means[1, 1] = 3

    def error(direction):
        weight, bias = np.stack([-direction[:-1], direction[:-1]]), np.array([-direction[-1], direction[-1]])
        return 100 * balanced_error(weight, bias, means, 1.0)

    errors = []
    for seed in range(10):
        inputs, targets = mixture(500, (200, 20), seed)
        found = [margin_direction(inputs, targets)]
        found += [poly_direction(inputs, targets, np.where(targets == 1, 10.0**c, 1.0), 1.0) for c in (1, 1.5)]
        errors.append([error(direction) for direction in found])
    margin, poly, poly_more = np.mean(errors, axis=0)
    assert margin == pytest.approx(15.97, abs=1.3)
    assert poly == pytest.approx(11.01, abs=0.9) and poly_more == pytest.approx(9.14, abs=0.8)
    assert margin - poly > 3.5 and margin - poly_more > 5
