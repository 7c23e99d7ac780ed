"""Compare the errors of subgroups with chance, and inferred groups with known groups."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Chance(NamedTuple):
    """The number of errors that chance gives a subgroup, and the p-value of the observed number.

    expected: the mean number of errors.
    p: the probability of as many errors as observed, or more.
    """

    expected: float
    p: float


def errors_by_chance(wrong: np.ndarray, members: np.ndarray, strata: np.ndarray) -> Chance:
    """Compare the errors of a subgroup with those of random subgroups; the test is exact and one-sided.

    The reference is a permutation of the errors among the examples of each stratum. So the number of errors of the
    subgroup in a stratum is hypergeometric, and the total is a sum of independent hypergeometric numbers.

    Args:
        wrong: (N,) bool, the wrong predictions.
        members: (N,) bool, the examples of the subgroup.
        strata: (N,) int, the stratum of each example, such as its class; all equal for a single stratum.
    """
    from scipy.stats import hypergeom

    expected, distribution = 0.0, np.ones(1)  # probabilities of 0, 1, … errors in the strata so far
    for stratum in np.unique(strata[members]):
        inside = strata == stratum
        size, errors, drawn = int(inside.sum()), int(wrong[inside].sum()), int((inside & members).sum())
        expected += drawn * errors / size
        distribution = np.convolve(distribution, hypergeom.pmf(np.arange(min(errors, drawn) + 1), size, errors, drawn))
    tail = distribution[int(wrong[members].sum()) :]
    return Chance(expected, min(1.0, float(tail[::-1].sum())))  # the small probabilities first, to lose no digits


def agreement(inferred: np.ndarray, known: np.ndarray, targets: np.ndarray) -> float | None:
    """Return how well inferred groups agree with known groups inside the classes, as adjusted mutual information.

    The result is the mean over classes, weighted by their numbers of examples. It is 1 if the groups are the same, and 0
    on average if they are independent. Groups of both kinds usually tell the classes apart, so a
    comparison across classes would show agreement of its own. A class with a single known group does not count. The result
    is None if no class counts.

    Args:
        inferred, known, targets: (N,) int, the inferred group, the known group and the class of each example.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    classes = (targets == label for label in np.unique(targets))
    divided = [rows for rows in classes if len(np.unique(known[rows])) > 1]
    if not divided:
        return None
    values = [float(adjusted_mutual_info_score(known[rows], inferred[rows])) for rows in divided]
    return float(np.average(values, weights=[rows.sum() for rows in divided]))


def most_frequent(values: Iterable[int]) -> tuple[int, float] | None:
    """Return the most frequent of some non-negative integers, and its share; None for no integers.

    If several are equally frequent, the smallest is returned.
    """
    counts = np.bincount(np.fromiter(values, dtype=np.int64))
    return (int(counts.argmax()), float(counts.max() / counts.sum())) if counts.size else None
