"""Compute accuracy for other class shares than those of the test split (label shift).

Let t_k be the share of class k in a population, and R_k the recall of class k. If the inputs of a class are distributed
as in the test split, the accuracy on the population is Σ_k t_k R_k. No examples are drawn, so every test example counts.
"""

from collections.abc import Sequence
from numbers import Real

import numpy as np

from imbalance.errors import BadInput
from imbalance.metrics.intervals import Interval, checked_counts, mean_over_examples
from imbalance.utils.arrays import as_nonnegative

Array = np.ndarray


def long_tailed_prior(class_counts: Sequence[int] | Array, ratio: float) -> Array:
    """Return the (K,) class shares of a long tail: t_k ∝ ratio^(−r_k / (K − 1)).

    The rank r_k is 0 for the class with the most training examples and K − 1 for the class with the fewest. Classes with
    equally many examples are ranked by class number. So the tail is that of the training set for a ratio above 1
    ("forward"), uniform for 1, and reversed for a ratio below 1 ("backward").

    Zhang, Hooi, Hong and Feng, "Self-Supervised Aggregation of Diverse Experts for Test-Agnostic Long-Tailed
    Recognition", NeurIPS 2022 (SADE). The authors cut subsets with such shares from a test set with equal class counts,
    and round the counts down. They rank the classes by class number, which is the order of the training counts in their data.

    Args:
        class_counts: (K,) numbers of training examples.
        ratio: the share of the class of rank 0 divided by that of rank K − 1.

    Raises:
        BadInput: `ratio` is not above 0 and finite, a count is not a number from 0 on, or there are fewer than two classes.
    """
    counts = as_nonnegative("class_counts", class_counts)
    if len(counts) < 2:
        raise BadInput(f"class_counts: shape {counts.shape} given; a count for each of two or more classes is needed")
    if not isinstance(ratio, Real) or not 0 < ratio < np.inf:
        raise BadInput(f"ratio: {ratio} given; a number above 0 is needed")
    ranks = np.empty(len(counts))
    ranks[np.argsort(-counts.astype(np.float64), kind="stable")] = np.arange(len(counts))
    shares = float(ratio) ** (-ranks / (len(counts) - 1))
    return shares / shares.sum()


def shifted_accuracy(right: Array, totals: Array, class_prior: Array) -> tuple[float, Interval]:
    """Return the accuracy on a population with other class shares, and its 95 % interval over the choice of examples.

    A class without test examples is left out, and the shares of the other classes are scaled to the sum 1. If no class
    with a positive share has examples, value and interval are nan.

    Args:
        right: (K,) number of right predictions of each class.
        totals: (K,) number of test examples of each class.
        class_prior: (K,) the shares t.

    Raises:
        BadInput: the lengths differ, a value is not a number from 0 on, or a class has more right predictions than examples.
    """
    right, totals = checked_counts(as_nonnegative("right", right), as_nonnegative("totals", totals))
    class_prior = as_nonnegative("class_prior", class_prior)
    if class_prior.shape != totals.shape:
        raise BadInput(f"class_prior: shape {class_prior.shape} given; one number for each class is needed")
    shares = np.where(totals > 0, class_prior, 0.0)
    if not shares.sum():
        return np.nan, Interval(np.nan, np.nan)
    value = float(shares @ (right / np.maximum(1, totals)) / shares.sum())
    return value, mean_over_examples(right, totals, shares=shares)
