"""Variance components against the closed form of a balanced design and against simulations with known components."""

import numpy as np
import pytest

from imbalance.errors import BadInput
from imbalance.metrics.variance import variance_components


def balanced(rng, methods=5, settings=4, seeds=3, rules=2) -> np.ndarray:
    """Return (methods, settings, seeds, rules) results with effects of every factor."""
    shape = (methods, settings, seeds, rules)
    return 0.6 + sum(rng.normal(size=(*shape[:i], *(1,) * (4 - i))) / i for i in range(1, 5))


def labels(shape) -> dict[str, np.ndarray]:
    return {name: grid.ravel() for name, grid in zip(("method", "tuning", "seed"), np.indices(shape))}


def test_a_balanced_design_has_the_components_of_the_classical_analysis_of_variance():
    values = balanced(np.random.default_rng(0))
    sizes, means = values.shape, values
    squares, expected = {}, {}  # mean squares from the innermost factor to the outermost
    for axis, name in zip((3, 2, 1, 0), ("rule", "seed", "tuning", "method")):
        outer = means.mean(axis, keepdims=True)
        within = np.prod(sizes[axis + 1 :])  # values behind each of these means
        freedom = np.prod(sizes[:axis]) * (sizes[axis] - 1)
        squares[name] = within * ((means - outer) ** 2).sum() / freedom
        below = {"seed": "rule", "tuning": "seed", "method": "tuning"}.get(name)
        expected[name] = squares[name] if below is None else (squares[name] - squares[below]) / within
        means = outer.squeeze(axis)
    found = variance_components(values.ravel(), labels(sizes), "rule")
    assert list(found) == ["method", "tuning", "seed", "rule"]
    for name, component in found.items():
        assert component.variance == pytest.approx(expected[name], rel=1e-9), name
    total = sum(max(0, value) for value in expected.values())
    assert found["tuning"].share == pytest.approx(max(0, expected["tuning"]) / total)
    assert sum(component.share for component in found.values()) == pytest.approx(1)


def test_known_components_are_met_by_the_mean_over_simulations_of_an_unbalanced_design():
    """As in the runs of SubpopBench: sixteen settings at one seed, and three seeds of only two of the settings."""
    rng, true = np.random.default_rng(1), np.array([0.3, 1.0, 0.5, 0.25]) ** 2
    design = [(m, t, s) for m in range(20) for t in range(16) for s in range(3 if t < 2 else 1) for _ in range(2)]
    factors = dict(zip(("method", "tuning", "seed"), zip(*design)))
    components, covered = [], []
    for _ in range(60):
        effects = [rng.normal(scale=scale, size=(20, 16, 3)) for scale in np.sqrt(true[:3])]
        values = [effects[0][m, 0, 0] + effects[1][m, t, 0] + effects[2][m, t, s] for m, t, s in design]
        found = variance_components(values + rng.normal(scale=np.sqrt(true[3]), size=len(design)), factors, "rule")
        components.append([component.variance for component in found.values()])
        covered.append([c.low <= share <= c.high for c, share in zip(found.values(), true / true.sum())])
    errors = np.std(components, axis=0, ddof=1) / np.sqrt(60)
    assert (np.abs(np.mean(components, axis=0) - true) < 3 * errors).all()
    assert (errors < 0.05 * true.sum()).all()
    assert (np.mean(covered, axis=0) > 0.75).all() and np.mean(covered) > 0.85


def test_equal_labels_under_different_outer_labels_are_different_levels_and_order_does_not_matter():
    values = balanced(np.random.default_rng(2))
    factors = labels(values.shape)
    unique = {"method": factors["method"], "tuning": [f"{m}:{t}" for m, t in zip(factors["method"], factors["tuning"])],
              "seed": list(zip(*factors.values()))}  # fmt: skip
    order = np.random.default_rng(3).permutation(values.size)
    shuffled = {name: [codes[i] for i in order] for name, codes in unique.items()}
    plain = variance_components(values.ravel(), factors, "rule")
    for name, component in variance_components(values.ravel()[order], shuffled, "rule").items():
        assert component.variance == pytest.approx(plain[name].variance)


def test_two_levels_of_the_first_factor_have_shares_and_no_interval():
    values = balanced(np.random.default_rng(4), methods=2)
    found = variance_components(values.ravel(), labels(values.shape), "rule")
    assert all(np.isnan(component.low) and np.isnan(component.high) for component in found.values())
    assert sum(component.share for component in found.values()) == pytest.approx(1)


def test_only_the_factor_that_acts_has_a_share():
    values = np.broadcast_to(np.arange(6.0)[:, None, None, None], (6, 3, 2, 2))
    found = variance_components(values.ravel(), labels(values.shape), "rule")
    assert found["method"].share == pytest.approx(1) and found["method"].variance == pytest.approx(3.5)


def test_a_design_that_cannot_separate_two_factors_is_refused():
    values = balanced(np.random.default_rng(5), seeds=1)
    with pytest.raises(BadInput, match="method, tuning, seed, rule cannot be separated"):
        variance_components(values.ravel(), labels(values.shape), "rule")
    with pytest.raises(BadInput, match="cannot be separated"):
        variance_components([0.1, 0.2, 0.4], {"method": ["a", "a", "a"]}, "seed")
