"""CORAL and MMD against their definitions, with one pair of environments, or of examples, at a time."""

from itertools import combinations

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.objectives.registry import OBJECTIVES

GAMMAS = (0.01, 0.3, 4.0)
SECTIONS = {
    "coral": dict(name="coral", environments="group", penalty=0.7),
    "mmd": dict(name="mmd", environments="group", penalty=0.7, gammas=GAMMAS),
}


def make(name, num_classes=2, num_groups=4, **section):
    return build(
        OBJECTIVES, ConfigDict(SECTIONS[name] | section), num_classes=num_classes, num_groups=num_groups
    ).double()  # fmt: skip


def batch(groups):
    random = np.random.default_rng(0)
    features = random.normal(size=(len(groups), 3)) + np.array(groups)[:, None]
    losses, weights = random.uniform(size=(2, len(groups)))
    return losses, weights, np.array(groups), features


def coral(parts):
    """np.cov divides by n − 1. Of one example there is none."""
    means = [((a.mean(0) - b.mean(0)) ** 2).mean() for a, b in combinations(parts, 2)]
    several = [np.cov(part, rowvar=False) for part in parts if len(part) > 1]
    covariances = [((a - b) ** 2).mean() for a, b in combinations(several, 2)]
    return (np.mean(means) if means else 0) + (np.mean(covariances) if covariances else 0)


def mmd(parts):
    def kernel(a, b):
        return np.mean([sum(np.exp(-g * np.sum((x - y) ** 2)) for g in GAMMAS) for x in a for y in b])

    found = [kernel(a, a) + kernel(b, b) - 2 * kernel(a, b) for a, b in combinations(parts, 2)]
    return np.mean(found) if found else 0


@pytest.mark.parametrize("groups", [
    [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 3],
    [0, 3, 1, 3, 0, 1, 1, 0],  # one is absent
    [0, 3, 1, 3, 3, 1, 1, 1],  # and of one there is a single example
    [0, 1, 2, 3],
    [2, 2, 2],
    [1],
])  # fmt: skip
@pytest.mark.parametrize("name, definition", [("coral", coral), ("mmd", mmd)])
def test_it_is_the_mean_over_pairs_of_environments(name, definition, groups):
    losses, weights, groups, features = batch(groups)
    parts = [features[groups == group] for group in np.unique(groups)]
    expected = (weights * losses).mean() + 0.7 * definition(parts)
    columns = [torch.from_numpy(column) for column in (losses, weights, groups, features)]
    found = make(name)(*columns[:3], features=columns[3].requires_grad_())
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert columns[3].grad.isfinite().all()


@pytest.mark.parametrize("name", SECTIONS)
def test_its_gradient_is_that_of_its_value(name):
    losses, weights, groups, features = (torch.from_numpy(column) for column in batch([0, 3, 1, 3, 0, 1, 3, 2]))
    method = make(name)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: method(losses, weights, groups, features=f), features)


@pytest.mark.parametrize("name", SECTIONS)
def test_two_examples_with_the_same_features_leave_the_gradient_finite(name):
    losses, weights, groups, features = (torch.from_numpy(column) for column in batch([0, 0, 1, 1]))
    features = features[[0, 0, 0, 3]].float().requires_grad_()
    make(name)(losses, weights, groups, features=features).backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("name", SECTIONS)
def test_environments_that_are_alike_pay_nothing(name):
    """Also in float32, and with features whose squares are large."""
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).repeat(2, 1) + 100
    groups = torch.tensor([0] * 6 + [1] * 6)
    value = make(name, gammas=(0.001, 1000.0)) if name == "mmd" else make(name)
    found = value(torch.zeros(12), torch.ones(12), groups, features=features)
    assert found.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", SECTIONS)
def test_half_precision_features_are_compared_in_float32(name):
    losses, weights, groups, features = (torch.from_numpy(column) for column in batch([0, 1] * 8))
    half = features.bfloat16()
    assert make(name)(losses, weights, groups, features=half) == make(name)(
        losses, weights, groups, features=half.float()
    )


@pytest.mark.parametrize("name", SECTIONS)
def test_an_attribute_is_an_environment_of_all_classes(name):
    """group = class · attributes + attribute."""
    losses, weights, groups, features = (torch.from_numpy(column) for column in batch([0, 1, 2, 3, 4, 5, 0, 4]))
    of_attribute = make(name, num_groups=6, environments="attribute")(losses, weights, groups, features=features)
    assert of_attribute == make(name, num_groups=6)(losses, weights, groups % 3, features=features)
    assert of_attribute != make(name, num_groups=6)(losses, weights, groups, features=features)
    with pytest.raises(BadInput, match="'attribute' needs a group for each combination of a class and an attribute"):
        make(name, num_groups=5, environments="attribute")
