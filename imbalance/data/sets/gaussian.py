"""Data set of truncated Gaussians, for which the limits of linear classifiers are known."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import gammainc, gammaincinv, ndtr

from imbalance.config.schema import Count, NonNegative, Positive, Real
from imbalance.data.splits import Dataset, Split, class_split
from imbalance.errors import BadInput
from imbalance.utils.memory import check_fits


def gaussian(
    seed: int,
    *,
    dim: Count,
    means: tuple[tuple[Real, ...], ...],
    scale: Positive,
    radius: NonNegative,
    train_per_class: tuple[Count, ...],
    val_per_class: tuple[Count, ...],
    test_per_class: tuple[Count, ...],
) -> Dataset:
    """Return Gaussian classes: an example of class k is means[k] + scale · g, with g standard normal and |g| ≤ radius.

    Args:
        dim: the number of dimensions.
        means: the first coordinates of the mean of each class; the other coordinates are 0.
        scale: the standard deviation before truncation.
        radius: the largest length of g; 0 for no limit. For comparison: a standard normal vector in 500 dimensions
            has length 22.4 ± 0.7.
        train_per_class, val_per_class, test_per_class: the number of examples of each class.
    """
    for key, value in (("train", train_per_class), ("val", val_per_class), ("test", test_per_class)):
        if len(value) != len(means):
            raise BadInput(
                f"config.data.{key}_per_class: {value} given; it needs a number for each of the {len(means)} classes of "
                "config.data.means"
            )
    if max(map(len, means)) > dim:
        raise BadInput(
            f"config.data.means: a mean of {max(map(len, means))} coordinates given; config.data.dim={dim} allows {dim} at most"
        )
    if len(means) < 2:
        raise BadInput(
            f"config.data.means: the mean of {len(means)} class given; give the means of two classes or more"
        )
    examples = sum(map(sum, (train_per_class, val_per_class, test_per_class)))
    check_fits(8 * dim * examples, f"config.data.dim, …_per_class: {examples:,} examples of {dim:,} numbers")
    rng = np.random.default_rng(seed)

    def draw(per_class: Sequence[int]) -> Split:
        targets = np.repeat(np.arange(len(means)), per_class)
        inputs = truncated_normal(len(targets), dim, radius, rng)
        inputs *= scale  # in place, because new memory pages cost more than the arithmetic
        for k, mean in enumerate(means):
            inputs[targets == k, : len(mean)] += mean
        return class_split(torch.from_numpy(inputs), targets, np.arange(len(targets)))

    names = tuple(str(k) for k in range(len(means)))
    return Dataset(draw(train_per_class), draw(val_per_class), draw(test_per_class), names, names)


def truncated_normal(n: int, dim: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Draw (n, dim) standard normal vectors whose length is at most `radius`; a radius of 0 sets no limit.

    The draw is exact for any radius: the direction is uniform, and the squared length is drawn from a truncated
    chi-squared distribution by inverting its distribution function. Rejection sampling is not used, because it would
    accept a fraction of 2e-224 of the draws at dim 500 and radius 5.
    """
    g = rng.standard_normal((n, dim))
    if not radius:
        return g
    below = rng.random(n) * gammainc(dim / 2, radius**2 / 2)
    lengths = np.sqrt(2 * gammaincinv(dim / 2, below))
    g *= (lengths / np.linalg.norm(g, axis=1))[:, None]
    return g


def balanced_error(weight: np.ndarray, bias: np.ndarray, means: np.ndarray, scale: float) -> float:
    """Return the exact error rate of a linear classifier on two Gaussian classes, as the mean over the two classes.

    It is the error on whole Gaussians: a truncation of the data is ignored.

    Args:
        weight, bias: (2, dim) and (2,); the logits are weight · x + bias.
        means: (2, dim), the means of the classes.
        scale: the standard deviation in each direction.
    """
    direction, offset = weight[1] - weight[0], bias[1] - bias[0]
    z = (means @ direction + offset) / (scale * np.linalg.norm(direction))
    return float((ndtr(z[0]) + ndtr(-z[1])) / 2)
