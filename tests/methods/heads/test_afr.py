"""AFR against its formulas in NumPy, and its end against SciPy's minimiser."""

import numpy as np
import pytest
import torch
from helpers.features import dataset, worst_group
from scipy.optimize import minimize
from torch import nn

from imbalance.data import Dataset
from imbalance.methods.heads.afr import afr, confidence_weights


def refit(data: Dataset, head: nn.Linear, **settings):
    """With the inputs as features."""
    settings = dict(fraction=0.4, gamma=3.0, penalty=0.05, steps=30, lr=0.3) | settings
    data = data.hold_out(settings["fraction"], seed=0)
    layer = afr(head, data, lambda name: getattr(data, name).inputs, **settings)
    return data.held_out, [part.detach().numpy() for part in (layer.weight, layer.bias)]


def doubles() -> tuple[Dataset, nn.Linear]:
    data = dataset()
    torch.manual_seed(0)
    return data.to(torch.device("cpu"), torch.float64), nn.Linear(6, 2).double()


def published(held_out, head: nn.Linear, gamma: float, penalty: float):
    """μ, and the objective and its gradient as functions of the flat (w, b)."""
    x = np.c_[held_out.inputs.numpy(), np.ones(len(held_out))]
    y = held_out.targets.numpy()
    start = np.c_[head.weight.detach().numpy(), head.bias.detach().numpy()]

    def probabilities(layer):
        z = np.exp(x @ layer.T)
        return z / z.sum(1, keepdims=True)

    sure = probabilities(start)[np.arange(len(y)), y]
    mu = np.array([np.exp(-gamma * p) / (y == label).sum() for p, label in zip(sure, y)])
    mu /= mu.sum()

    def objective(flat):
        layer = flat.reshape(start.shape)
        p = probabilities(layer)
        value = -(mu * np.log(p[np.arange(len(y)), y])).sum() + penalty * ((layer - start) ** 2).sum()
        slope = (mu[:, None] * (p - np.eye(2)[y])).T @ x + 2 * penalty * (layer - start)
        return value, slope.ravel()

    return mu, start, objective


@pytest.mark.parametrize("gamma", [0.0, 3.0, 20.0])
def test_each_step_is_the_published_one(gamma):
    data, head = doubles()
    held_out, (weight, bias) = refit(data, head, gamma=gamma)
    mu, start, objective = published(held_out, head, gamma, 0.05)
    np.testing.assert_allclose(
        confidence_weights(head(held_out.inputs), held_out.targets, gamma).detach(), mu, rtol=1e-12
    )
    flat = start.ravel()
    for _ in range(30):
        flat = flat - 0.3 * objective(flat)[1]
    np.testing.assert_allclose(np.c_[weight, bias].ravel(), flat, rtol=1e-9)


def test_it_ends_at_the_objective_s_minimum():
    data, head = doubles()
    held_out, (weight, bias) = refit(data, head, steps=3000)
    _, start, objective = published(held_out, head, 3.0, 0.05)
    least = minimize(objective, start.ravel(), jac=True, tol=1e-14, options=dict(gtol=1e-10))
    np.testing.assert_allclose(np.c_[weight, bias].ravel(), least.x, atol=1e-6)


def test_a_great_penalty_leaves_the_layer_as_it_was():
    data, head = doubles()
    _, (weight, bias) = refit(data, head, penalty=1e4, lr=4e-5, steps=100)
    np.testing.assert_allclose(weight, head.weight.detach(), atol=1e-4)
    np.testing.assert_allclose(bias, head.bias.detach(), atol=1e-4)


def test_weights_by_confidence_mend_what_weights_by_class_do_not():
    """A layer that leans on the attribute is sure of the large groups and wrong on the small ones."""
    data, head = doubles()
    with torch.no_grad():
        head.weight.zero_()
        head.weight[1, 0], head.weight[1, 1] = 0.5, 2.0
        head.bias.copy_(torch.tensor([0.0, -4.0]))
    settings = dict(penalty=0.0, steps=2000, lr=0.1)
    plain, weighted = (
        worst_group([torch.from_numpy(part) for part in refit(data, head, gamma=gamma, **settings)[1]], data.test)
        for gamma in (0.0, 6.0)
    )
    assert weighted > plain + 0.02  # 92.0 and 87.5 %
