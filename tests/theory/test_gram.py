"""Solutions from inner products, against libraries, the solver in the space of features, and gradient descent."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from imbalance.errors import BadInput
from imbalance.theory import gram
from imbalance.theory.oracle import angle, direction_of, margin_direction, poly_direction

rng = np.random.default_rng(0)
TARGETS = np.repeat([0, 1], (30, 6))
SIGNS = 2.0 * TARGETS - 1
INPUTS = np.maximum(rng.normal(size=(36, 90)), -0.5) + np.outer(TARGETS, np.linspace(0.5, 0, 90))
PRODUCTS = INPUTS @ INPUTS.T
WEIGHTS = np.where(TARGETS, 5.0, 1.0) * rng.uniform(0.5, 2, 36)


def normal(solution: gram.Linear, inputs: np.ndarray = INPUTS) -> np.ndarray:
    return inputs.T @ (SIGNS * solution.coefficients)


def test_the_hard_margin_with_a_free_bias_is_that_of_a_support_vector_machine():
    machine = SVC(C=1e6, kernel="linear", tol=1e-8).fit(INPUTS, TARGETS)
    solution = gram.hard_margin(PRODUCTS, SIGNS)
    assert angle(normal(solution), machine.coef_[0]) < 1e-3
    assert solution.bias == pytest.approx(machine.intercept_[0], abs=1e-5)
    assert solution.margins(PRODUCTS, SIGNS).min() == pytest.approx(1, abs=1e-5)
    assert solution.scores(INPUTS[:3] @ INPUTS.T, SIGNS) == pytest.approx(
        machine.decision_function(INPUTS[:3]), abs=1e-4
    )


def test_a_penalised_bias_gives_the_limits_in_the_space_of_features():
    inputs = np.column_stack([INPUTS, np.ones(36)])
    hard = gram.hard_margin(PRODUCTS + 1, SIGNS, bias=False)
    assert angle(normal(hard, inputs), margin_direction(INPUTS, TARGETS)) < 1e-4
    for alpha in (0.5, 1.0, 4.0):
        solution = gram.poly_limit(PRODUCTS + 1, SIGNS, WEIGHTS, alpha, bias=False)
        assert angle(normal(solution, inputs), poly_direction(INPUTS, TARGETS, WEIGHTS, alpha)) < 1e-4
        assert solution.bias == 0


@pytest.mark.parametrize("alpha", [0.25, 1.0, 8.0])
def test_the_limit_of_poly_with_a_free_bias_is_a_minimum(alpha):
    """Against a general optimiser, which starts elsewhere and knows the loss only."""
    solution = gram.poly_limit(PRODUCTS, SIGNS, WEIGHTS, alpha)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        v, b = parameters[:-1], parameters[-1]
        m = SIGNS * (INPUTS @ v + b)
        if not (m > 0).all():
            return np.inf, parameters
        slope = -alpha * WEIGHTS * m ** (-alpha - 1) * SIGNS
        return (WEIGHTS * m**-alpha).sum() + v @ v / 2, np.append(INPUTS.T @ slope + v, slope.sum())

    here = np.append(normal(solution), solution.bias)
    hard = gram.hard_margin(PRODUCTS, SIGNS)
    start = 3 * np.append(normal(hard), hard.bias)
    other = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    assert objective(here)[0] <= other.fun * (1 + 1e-9)
    assert np.abs(objective(here)[1]).max() < 1e-5 * np.abs(here).max()
    assert angle(here[:-1], other.x[:-1]) < 0.1


def test_gradient_descent_reaches_the_limit_of_poly():
    """Descend on the logarithm of the mean loss with a penalised bias, which is far faster than on the loss."""
    inputs = np.column_stack([INPUTS, np.ones(36)]) * SIGNS[:, None]
    v = np.zeros(91)
    for _ in range(3000):
        m = inputs @ v
        logistic = 1 / (1 + np.exp(np.minimum(m, 50)))
        tail = np.maximum(m, 1)
        loss = np.where(m > 1, 1 / tail, np.logaddexp(0, -m) / np.log1p(np.exp(-1)))
        slope = np.where(m > 1, -1 / tail**2, -logistic / np.log1p(np.exp(-1)))
        v -= 5 / np.square(inputs).sum(1).mean() * (WEIGHTS * slope) @ inputs / (WEIGHTS @ loss)
    limit = gram.poly_limit(PRODUCTS + 1, SIGNS, WEIGHTS, 1.0, bias=False)
    assert angle(v, inputs.T @ limit.coefficients) < 0.5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_ridge_is_weighted_logistic_regression(penalty, bias):
    other = LogisticRegression(C=1 / penalty, fit_intercept=bias, tol=1e-10, max_iter=5000)
    other.fit(INPUTS, TARGETS, sample_weight=WEIGHTS)
    solution = gram.ridge(PRODUCTS, SIGNS, WEIGHTS, penalty, bias)
    assert normal(solution) == pytest.approx(other.coef_[0], abs=2e-4)
    assert solution.bias == pytest.approx(other.intercept_[0] if bias else 0, abs=2e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_classes_that_no_classifier_separates_are_refused(bias):
    inputs = np.repeat(INPUTS[:18], 2, axis=0)
    with pytest.raises(BadInput, match="no linear classifier separates"):
        gram.hard_margin(inputs @ inputs.T, np.tile([1.0, -1.0], 18), bias)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda products, signs: gram.ridge(products, (signs + 1) / 2, np.ones(4), 1.0),
            "^signs: 1 for class 1 and -1 for class 0",
        ),
        (lambda products, signs: gram.hard_margin(products, np.ones(4)), "^signs: .* with an example of each class$"),
        (
            lambda products, signs: gram.ridge(products, signs, np.ones(4), 0.0),
            "^penalty: 0.0 given; a number above 0 is needed$",
        ),
        (
            lambda products, signs: gram.poly_limit(products, signs, np.ones(4), -1.0),
            "^alpha: -1.0 given; a number above 0 is needed$",
        ),
        (
            lambda products, signs: gram.poly_limit(products, signs, np.arange(4.0), 1.0),
            "^weights: 4 finite numbers above 0 are needed",
        ),
        (
            lambda products, signs: gram.poly_limit(products, signs, np.ones(3), 1.0),
            "^weights: 4 finite numbers above 0 are needed",
        ),
        (
            lambda products, signs: gram.hard_margin(products[:, :2], signs),
            r"^gram: an array of shape \(4, 2\) given; finite inner",
        ),
        (
            lambda products, signs: gram.hard_margin(products * np.nan, signs),
            r"^gram: an array of shape \(4, 4\) given; finite inner",
        ),
    ],
)
def test_a_wrong_argument_is_one_line(call, words):
    """Targets of 0 and 1 in place of signs gave a wrong classifier, and a penalty of 0 gave nan."""
    inputs = np.array([[2.0, 1], [1, 2], [-1, -2], [-2, -1]])
    with pytest.raises(BadInput, match=words):
        call(inputs @ inputs.T, np.array([1, 1, -1, -1]))


def test_a_layer_of_three_classes_has_no_direction():
    with pytest.raises(BadInput, match="^weight, bias: a layer of 3 classes given"):
        direction_of(torch.zeros(3, 2), torch.zeros(3))
