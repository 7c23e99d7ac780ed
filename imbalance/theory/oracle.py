"""Limit directions of linear classifiers of two separable classes, computed without training.

A linear model of two classes decides by v = (w₁ − w₀, b₁ − b₀). Gradient descent from zero takes the direction of v to
a limit. The tail of the loss decides this limit; for a polynomial tail the weights do so too. Directions are unit
vectors (d + 1,) on [x, 1]: the bias is penalised like any other coordinate. (A support vector machine with a free bias
is another classifier, tens of degrees away.)
"""

import numpy as np
from scipy.optimize import nnls
from torch import Tensor

from imbalance.errors import BadInput


def margin_direction(inputs: np.ndarray, targets: np.ndarray, bias: bool = True) -> np.ndarray:
    """Return the limit under cross-entropy with any weights: argmax over unit u of min_i z_i · u, z_i = ±[x_i, 1].

    Soudry et al., "The Implicit Bias of Gradient Descent on Separable Data", JMLR 2018. The problem min |v| subject to Zv ≥ 1
    is a non-negative least-squares problem (Lawson and Hanson, 1974, chapter 23: least-distance programming).

    Args:
        inputs: (n, d).
        targets: (n,), 0 or 1.
        bias: whether the classifier has a bias; without one, directions are (d,), on x alone.

    Raises:
        BadInput: no v separates the classes.
    """
    signed, basis = _signed(inputs, targets, bias)
    v = _least_distance(signed)
    return _unit(basis @ v)


def poly_direction(
    inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, alpha: float, bias: bool = True
) -> np.ndarray:
    """Return the limit under a tail m^−α and weights w: argmin over unit u of Σ w_i (z_i · u)^−α.

    Wang et al., ICLR 2022, section 4; Ji et al., "Gradient Descent Follows the Regularization Path for General
    Losses", COLT 2020. The limit is the direction of the minimiser of Σ w_i (z_i · v)^−α + |v|²/2, which is strictly
    convex where all margins are positive. Damped Newton steps find it from the margin solution; a step that leaves that
    region is halved.

    Args:
        inputs: (n, d).
        targets: (n,), 0 or 1.
        weights: (n,), positive.
        alpha: exponent of the tail.
        bias: whether the classifier has a bias, as in `margin_direction`.

    Raises:
        BadInput: no v separates the classes.
    """
    signed, basis = _signed(inputs, targets, bias)
    v = _least_distance(signed)

    def value(v: np.ndarray) -> float:
        m = signed @ v
        return (weights * m**-alpha).sum() + v @ v / 2 if (m > 0).all() else np.inf

    for _ in range(200):
        m = signed @ v
        gradient = v - alpha * (weights * m ** (-alpha - 1)) @ signed
        curvature = alpha * (alpha + 1) * weights * m ** (-alpha - 2)
        step = np.linalg.solve(np.eye(len(v)) + (signed.T * curvature) @ signed, -gradient)
        decrement = -gradient @ step
        if decrement <= 1e-16 * (v @ v):
            return _unit(basis @ v)
        size, before = 1.0, value(v)
        while value(v + size * step) > before - 1e-4 * size * decrement and size > 1e-12:
            size /= 2
        v = v + size * step
    raise ArithmeticError(f"Newton's method has not converged: decrement {decrement:g} at |v| = {np.linalg.norm(v):g}")


def direction_of(weight: Tensor, bias: Tensor) -> np.ndarray:
    """Return the unit direction (d + 1,) (w₁ − w₀, b₁ − b₀) of a layer with weight (2, d) and bias (2,)."""
    w, b = (parameter.detach().double().cpu().numpy() for parameter in (weight, bias))
    return _unit(np.append(w[1] - w[0], b[1] - b[0]))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two vectors in degrees, exact for nearly parallel vectors too."""
    a, b = _unit(a), _unit(b)
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))))


def _signed(inputs: np.ndarray, targets: np.ndarray, bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows ±[x, 1] in a basis of their span, and the basis (d + 1, r) with r ≤ n: both limits lie in the span."""
    inputs = np.column_stack([inputs, np.ones(len(inputs))]) if bias else inputs
    signed = inputs * (2 * targets - 1)[:, None]
    if signed.shape[1] <= len(signed):
        return signed, np.eye(signed.shape[1])
    basis, coordinates = np.linalg.qr(signed.T)
    return coordinates.T, basis


def _least_distance(signed: np.ndarray) -> np.ndarray:
    """Return argmin |v| subject to signed @ v ≥ 1."""
    n, d = signed.shape
    system = np.vstack([signed.T, np.ones(n)])
    goal = np.append(np.zeros(d), 1.0)
    solution, residual_norm = nnls(system, goal, maxiter=100 * n)
    residual = system @ solution - goal
    if residual_norm < 1e-9:
        raise BadInput(
            "config.data: no linear classifier separates the two classes, which a limit direction needs; take other data"
        )
    return -residual[:d] / residual[d]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
