"""Where linear classifiers of two separable classes end up, computed without training them.

A linear model of two classes decides by v = (w₁ − w₀, b₁ − b₀); started at zero and trained by gradient descent, the
direction of v tends to a limit that only the tail of the loss, and for a polynomial one the weights, decide. Directions
are unit vectors (d + 1,) on [x, 1]: the bias is penalised like any other coordinate. (A support vector machine with a
free bias is another classifier, tens of degrees away.)
"""

import numpy as np
from scipy.optimize import nnls
from torch import Tensor

from imbalance.errors import BadInput


def margin_direction(inputs: np.ndarray, targets: np.ndarray, bias: bool = True) -> np.ndarray:
    """The limit under cross-entropy, whatever the weights: argmax over unit u of min_i z_i · u, z_i = ±[x_i, 1].

    Soudry et al., "The Implicit Bias of Gradient Descent on Separable Data", JMLR 2018. Least-distance programming:
    min |v| subject to Zv ≥ 1 is a non-negative least-squares problem (Lawson and Hanson, 1974, chapter 23).

    Args:
        inputs: (n, d).
        targets: (n,), 0 or 1.
        bias: whether the classifier has one; without, directions are (d,), on x alone.

    Raises:
        BadInput: no v separates the classes.
    """
    signed, basis = _signed(inputs, targets, bias)
    v = _least_distance(signed)
    return _unit(basis @ v)


def poly_direction(
    inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, alpha: float, bias: bool = True
) -> np.ndarray:
    """The limit under a tail m^−α and weights w: argmin over unit u of Σ w_i (z_i · u)^−α.

    Wang et al., ICLR 2022, section 4; Ji et al., "Gradient Descent Follows the Regularization Path for General
    Losses", COLT 2020. The direction of the minimiser of Σ w_i (z_i · v)^−α + |v|²/2, which is strictly convex where
    all margins are positive: damped Newton from the margin solution, halving steps that leave that region.

    Args:
        inputs: (n, d).
        targets: (n,), 0 or 1.
        weights: (n,), positive.
        alpha: of the tail.
        bias: as above.

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
    """(d + 1,) the unit direction (w₁ − w₀, b₁ − b₀) of a layer with weight (2, d) and bias (2,)."""
    weight, bias = (parameter.detach().double().cpu().numpy() for parameter in (weight, bias))
    return _unit(np.append(weight[1] - weight[0], bias[1] - bias[0]))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between two vectors, exact also where they are nearly parallel."""
    a, b = _unit(a), _unit(b)
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))))


def _signed(inputs: np.ndarray, targets: np.ndarray, bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """±[x, 1] in a basis (d + 1, r) of at most n dimensions, and the basis: nothing outside their span ever matters."""
    inputs = np.column_stack([inputs, np.ones(len(inputs))]) if bias else inputs
    signed = inputs * (2 * targets - 1)[:, None]
    if signed.shape[1] <= len(signed):
        return signed, np.eye(signed.shape[1])
    basis, coordinates = np.linalg.qr(signed.T)
    return coordinates.T, basis


def _least_distance(signed: np.ndarray) -> np.ndarray:
    """argmin |v| subject to signed @ v ≥ 1."""
    n, d = signed.shape
    system = np.vstack([signed.T, np.ones(n)])
    goal = np.append(np.zeros(d), 1.0)
    solution, residual_norm = nnls(system, goal, maxiter=100 * n)
    residual = system @ solution - goal
    if residual_norm < 1e-9:
        raise BadInput(
            "config.data: no linear classifier separates the two classes, so that none has a limit direction"
        )
    return -residual[:d] / residual[d]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
