"""Limit directions of linear classifiers of two separable classes, computed without training.

A linear model of two classes predicts by the sign of v · [x, 1] with v = (w₁ − w₀, b₁ − b₀). Under gradient descent
from zero the direction of v converges. The limit depends on the tail of the loss; for a polynomial tail it also depends
on the example weights. A direction is a unit vector (d + 1,) that includes the bias, so the margin is measured with the
bias as one more coordinate. A support vector machine does not penalise its bias, so its direction can differ by tens of
degrees.
"""

import numpy as np
from scipy.optimize import nnls
from torch import Tensor

from imbalance.errors import BadInput
from imbalance.utils.arrays import as_floats, as_labels
from imbalance.utils.output import one_line


def margin_direction(inputs: np.ndarray, targets: np.ndarray, bias: bool = True) -> np.ndarray:
    """Return the limit direction under cross-entropy; importance weights of the examples do not change it.

    The direction is the unit vector u with the largest min_i z_i · u. Here z_i is [x_i, 1] in class 1 and −[x_i, 1] in
    class 0.

    Soudry et al., "The Implicit Bias of Gradient Descent on Separable Data", JMLR 2018. The equivalent problem, min |v|
    subject to Zv ≥ 1, is solved as a non-negative least-squares problem (Lawson and Hanson, 1974, chapter 23:
    least-distance programming).

    Args:
        inputs: (n, d).
        targets: (n,), 0 or 1.
        bias: true if the classifier has a bias. Without a bias a direction has shape (d,).

    Raises:
        BadInput: no v separates the classes, or an argument is no such array.
    """
    signed, basis = _signed(inputs, targets, bias)
    v = _least_distance(signed)
    return _unit(basis @ v)


def poly_direction(
    inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, alpha: float, bias: bool = True
) -> np.ndarray:
    """Return the limit direction under a loss that falls like m^−α for large margins m, with importance weights w.

    The direction is the unit vector u with the smallest Σ w_i (z_i · u)^−α. Here z_i is [x_i, 1] in class 1 and
    −[x_i, 1] in class 0.

    Wang et al., ICLR 2022, section 4; Ji et al., "Gradient Descent Follows the Regularization Path for General
    Losses", COLT 2020. The direction is that of the v that minimises Σ w_i (z_i · v)^−α + |v|²/2. This function is
    strictly convex in the region where all margins z_i · v are positive. Damped Newton steps start at the solution for
    cross-entropy; a step that leaves this region is halved.

    Args:
        inputs: (n, d).
        targets: (n,), 0 or 1.
        weights: (n,), the importance weights w; positive.
        alpha: the exponent α of the tail.
        bias: true if the classifier has a bias. Without a bias a direction has shape (d,).

    Raises:
        BadInput: no v separates the classes, or an argument is no such array.
    """
    signed, basis = _signed(inputs, targets, bias)
    weights = as_floats("weights", weights, 1)
    if len(weights) != len(signed) or not (weights > 0).all():
        raise BadInput(f"weights: {len(signed)} numbers above 0 are needed, one for each example")
    if not isinstance(alpha, int | float) or not 0 < alpha < np.inf:
        raise BadInput(f"alpha: {one_line(repr(alpha))[:100]} given; a number above 0 is needed")
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
    raise BadInput("weights, alpha: Newton's method does not converge for these values; use less extreme ones")


def direction_of(weight: Tensor, bias: Tensor) -> np.ndarray:
    """Return the direction of a layer of two classes: the unit vector (d + 1,) of (w₁ − w₀, b₁ − b₀).

    Args:
        weight: (2, d), the rows w₀ and w₁.
        bias: (2,), b₀ and b₁.

    Raises:
        BadInput: the layer has another number of classes than two, or both rows are equal.
    """
    if len(weight) != 2 or len(bias) != 2:
        raise BadInput(f"weight, bias: a layer of {len(weight)} classes given; a layer of two classes is needed")
    w, b = (parameter.detach().double().cpu().numpy() for parameter in (weight, bias))
    return _unit(np.append(w[1] - w[0], b[1] - b[0]))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle in degrees between two vectors, computed so that small angles are accurate, too."""
    a, b = _unit(as_floats("a", a, 1)), _unit(as_floats("b", b, 1))
    if len(a) != len(b):
        raise BadInput(f"a, b: vectors of {len(a)} and {len(b)} numbers given; their lengths must be equal")
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))))


def _signed(inputs: np.ndarray, targets: np.ndarray, bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n, r) coordinates of the vectors z = ±[x, 1] in a basis of their span, and this (d + 1, r) basis.

    The sign is + in class 1 and − in class 0. The limit directions lie in the span, so they are found with r ≤ n
    variables instead of d + 1.
    """
    inputs = as_floats("inputs", inputs, 2).astype(np.float64)
    targets = as_labels("targets", targets, len(inputs), 2)
    inputs = np.column_stack([inputs, np.ones(len(inputs))]) if bias else inputs
    if not inputs.size or not inputs.any():
        raise BadInput(f"inputs: an array of shape {inputs.shape} given; it must have at least one number other than 0")
    inputs = inputs / np.abs(inputs).max()  # no direction changes, and no square overflows
    signed = inputs * (2 * targets - 1)[:, None]
    if signed.shape[1] <= len(signed):
        return signed, np.eye(signed.shape[1])
    basis, coordinates = np.linalg.qr(signed.T)
    return coordinates.T, basis


def _least_distance(signed: np.ndarray) -> np.ndarray:
    """Return the shortest vector v for which every entry of `signed @ v` is at least 1."""
    n, d = signed.shape
    system = np.vstack([signed.T, np.ones(n)])
    goal = np.append(np.zeros(d), 1.0)
    try:
        solution, residual_norm = nnls(system, goal, maxiter=100 * n)
    except RuntimeError:
        raise BadInput("inputs: their scales are too different for a solution in 64 bits; scale the columns") from None
    residual = system @ solution - goal
    if residual_norm < 1e-9:
        raise BadInput(
            "inputs: no linear classifier separates the two classes; a limit direction exists for separable classes only, so "
            "pass other inputs"
        )
    return -residual[:d] / residual[d]


def _unit(vector: np.ndarray) -> np.ndarray:
    largest = np.abs(vector).max(initial=0)
    if not largest:
        raise BadInput("a vector of zeros has no direction; give a vector with a number other than 0")
    vector = vector / largest  # so that no square overflows or vanishes
    return vector / np.linalg.norm(vector)
