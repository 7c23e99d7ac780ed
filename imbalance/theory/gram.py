"""Compute linear classifiers from the inner products of the examples alone, for many more features than examples.

The arguments are the (n, n) Gram matrix X Xᵀ of the inputs and the (n,) signs: 1 for class 1, −1 for class 0. A classifier
is v = Σ signs_i c_i x_i and a bias b, so the score of an input x is Σ signs_i c_i (x_i · x) + b. The bias is free: no
penalty acts on it. With `bias=False` it is 0. For a penalised bias, as in `imbalance.theory.oracle`, add 1 to every inner
product and use `bias=False`.

A solution takes milliseconds for a few hundred examples; `imbalance.theory.oracle` takes a tenth of a second.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import nnls

from imbalance.errors import BadInput

Derivatives = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
STEPS = 200  # the largest number of Newton steps; 5 to 20 are usual
LEAST_CURVATURE = 1e-12  # a smaller second derivative of a loss counts as this, so that its inverse stays finite


class Linear(NamedTuple):
    """A linear classifier: the (n,) coefficients c of the signed examples, and the bias b."""

    coefficients: np.ndarray
    bias: float

    def margins(self, gram: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """Return the (n,) signed scores of the examples, which are positive for a right prediction."""
        return signs * self.scores(gram, signs)

    def scores(self, products: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """Return the (m,) scores of inputs from their (m, n) inner products with the examples."""
        return products @ (signs * self.coefficients) + self.bias


def check_arguments(gram: np.ndarray, signs: np.ndarray, weights: np.ndarray | None = None, **positive: float) -> None:
    """Raise `BadInput` unless the arguments are as the functions of this module describe them.

    Args:
        positive: numbers that must be above 0, by the name of the argument.
    """
    n = len(signs)
    if not (np.isin(signs, (-1, 1)).all() and (signs == 1).any() and (signs == -1).any()):
        raise BadInput("signs: 1 for class 1 and -1 for class 0 are needed, with an example of each class")
    if gram.shape != (n, n) or not np.isfinite(gram).all():
        raise BadInput(f"gram: an array of shape {gram.shape} given; finite inner products ({n}, {n}) are needed")
    if weights is not None and not (weights.shape == (n,) and (weights > 0).all() and np.isfinite(weights).all()):
        raise BadInput(f"weights: {n} finite numbers above 0 are needed, one for each example")
    for name, value in positive.items():
        if not 0 < value < np.inf:
            raise BadInput(f"{name}: {value} given; a number above 0 is needed")


def hard_margin(gram: np.ndarray, signs: np.ndarray, bias: bool = True) -> Linear:
    """Return the classifier with the shortest v for which every margin is at least 1.

    Gradient descent on cross-entropy converges to the direction of this v.

    With a free bias, libsvm finds the classifier; without a bias, non-negative least squares does, see
    `oracle.margin_direction`.

    Raises:
        BadInput: no linear classifier separates the classes, or an argument is not as described.
    """
    check_arguments(gram, signs)
    if bias:
        from sklearn.svm import SVC

        scale = np.trace(gram) / len(gram)
        machine = SVC(C=1e8, kernel="precomputed", tol=1e-7, cache_size=50).fit(gram / scale, signs)
        coefficients = np.zeros(len(signs))
        coefficients[machine.support_] = np.abs(machine.dual_coef_[0]) / scale
        solution = Linear(coefficients, float(machine.intercept_[0]))
    else:
        root = _root(gram * np.outer(signs, signs))
        system = np.vstack([root.T, np.ones(len(signs))])
        dual, _ = nnls(system, np.append(np.zeros(root.shape[1]), 1.0), maxiter=100 * len(signs))
        solution = Linear(dual / max(1e-300, 1 - dual.sum()), 0.0)
    if not solution.margins(gram, signs).min() > 0.99:
        raise BadInput("gram: no linear classifier separates the two classes, so there is no limit direction")
    return solution


def poly_limit(
    gram: np.ndarray,
    signs: np.ndarray,
    weights: np.ndarray,
    alpha: float,
    bias: bool = True,
    start: Linear | None = None,
) -> Linear:
    """Return the v and b that minimise Σ w_i m_i^−α + |v|²/2 over positive margins m.

    Gradient descent on the polynomially tailed loss, `poly`, converges to the direction of this v.

    Args:
        weights: (n,) positive importance weights w.
        alpha: the exponent α of the tail.
        start: a classifier with positive margins; None for the one that `hard_margin` returns.

    Raises:
        BadInput: no linear classifier separates the classes, or an argument is not as described.
    """
    check_arguments(gram, signs, weights=weights, alpha=alpha)
    start = start or hard_margin(gram, signs, bias)
    margins = start.margins(gram, signs)
    # Scale the start so that its length is the best one, which saves most of the Newton steps.
    squared_length = start.coefficients @ (signs * (gram @ (signs * start.coefficients)))
    scale = (alpha * (weights * margins**-alpha).sum() / squared_length) ** (1 / (alpha + 2))

    def loss(m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not (m > 0).all():
            return np.full_like(m, np.inf), m, m
        value = weights * m**-alpha
        return value, -alpha * value / m, alpha * (alpha + 1) * value / m**2

    return _newton(gram, signs, loss, bias, Linear(scale * start.coefficients, scale * start.bias))


def ridge(
    gram: np.ndarray,
    signs: np.ndarray,
    weights: np.ndarray,
    penalty: float,
    bias: bool = True,
    start: Linear | None = None,
) -> Linear:
    """Return the v and b that minimise Σ w_i log(1 + e^−m_i) + penalty · |v|²/2: weighted logistic regression.

    scikit-learn's `LogisticRegression(C=1 / penalty)` with `sample_weight=w` minimises the same function.

    Args:
        weights: (n,) positive importance weights w.
        penalty: the factor of |v|²/2; above 0.
        start: a classifier near the solution; None for zeros.

    Raises:
        BadInput: an argument is not as described, or Newton's method does not converge.
    """
    check_arguments(gram, signs, weights=weights, penalty=penalty)

    def loss(m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        wrong = 1 / (1 + np.exp(np.minimum(m, 700)))
        return weights * np.logaddexp(0, -m), -weights * wrong, weights * wrong * (1 - wrong)

    begin = start or Linear(np.zeros(len(signs)), 0.0)
    scaled = Linear(begin.coefficients * penalty, begin.bias)
    solution = _newton(gram / penalty, signs, loss, bias, scaled)
    return Linear(solution.coefficients / penalty, solution.bias)


def _newton(gram: np.ndarray, signs: np.ndarray, loss: Derivatives, bias: bool, start: Linear) -> Linear:
    """Minimise Σ loss(m_i) + |v|²/2 by damped Newton steps.

    Args:
        loss: the function from the margins to the loss of each example and its first and second derivatives. The loss
            is convex, and infinite where it is not defined.
        start: a classifier with a finite loss.

    Raises:
        BadInput: the steps do not converge.
    """
    signed = gram * np.outer(signs, signs)
    c, b = start
    m = signed @ c + b * signs
    value, slope, curvature = loss(m)
    objective = value.sum() + c @ (m - b * signs) / 2
    for _ in range(STEPS):
        inverse = 1 / np.maximum(curvature, LEAST_CURVATURE)
        target = m - slope * inverse
        try:
            factor = cho_factor(signed + np.diag(inverse), lower=True, check_finite=False)
        except LinAlgError:
            break
        solved = cho_solve(factor, np.column_stack([target, signs]), check_finite=False)
        new_b = float(signs @ solved[:, 0] / (signs @ solved[:, 1])) if bias else 0.0
        step_c, step_b = solved[:, 0] - new_b * solved[:, 1] - c, new_b - b
        pull = signed @ step_c
        step_m = pull + step_b * signs
        decrement = -(slope @ step_m + c @ pull)
        if decrement <= 1e-12 * max(1e-300, abs(objective)):
            return Linear(c, b)
        size = 1.0
        while True:
            trial_c, trial_b, trial_m = c + size * step_c, b + size * step_b, m + size * step_m
            value, new_slope, new_curvature = loss(trial_m)
            trial = value.sum() + trial_c @ (trial_m - trial_b * signs) / 2
            if trial <= objective - 1e-4 * size * decrement:
                break
            size /= 2
            if size < 1e-12:  # rounding allows no further descent
                return Linear(c, b)
        c, b, m, slope, curvature, objective = trial_c, trial_b, trial_m, new_slope, new_curvature, trial
    raise BadInput(
        "gram: Newton's method does not converge; use importance weights that differ less, or a larger penalty"
    )


def _root(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix R with R Rᵀ = `matrix`, which is symmetric and has no negative eigenvalue."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-12 * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
