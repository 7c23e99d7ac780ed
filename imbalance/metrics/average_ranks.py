"""Compare several methods over several data sets by average ranks (Demšar, JMLR 2006)."""

from typing import NamedTuple

import numpy as np

from imbalance.errors import BadInput
from imbalance.metrics.intervals import LEVEL


class Ranks(NamedTuple):
    """The average ranks of k methods over N data sets, with the tests of Friedman and Nemenyi.

    average: (k,) average rank of each method; 1 is the best. Equal scores share the mean of their ranks.
    p: the p-value of Friedman's test that all methods are equally good.
    critical_difference: two methods differ at the level 5 % by Nemenyi's test if their average ranks differ by at least
        this much. The test allows for all pairs of methods.
    """

    average: np.ndarray
    p: float
    critical_difference: float


def average_ranks(scores: np.ndarray) -> Ranks:
    """Return the average ranks of methods.

    Args:
        scores: (N, k) score of each of at least three methods on each data set; higher is better. The data sets must be
            independent, so take one row for several variants of a data set.

    Raises:
        BadInput: there are fewer than three methods, or a score is nan.
    """
    from scipy import stats

    if scores.ndim != 2 or scores.shape[1] < 3 or np.isnan(scores).any():
        raise BadInput(
            f"scores: an array of shape {scores.shape} given; (N, k) numbers of 3 or more methods are needed"
        )
    ranks = stats.rankdata(-scores, axis=1)
    tied = bool((scores == scores[:, :1]).all())  # Friedman's statistic is 0/0
    p = 1.0 if tied else float(stats.friedmanchisquare(*scores.T).pvalue)
    return Ranks(ranks.mean(0), p, critical_difference(scores.shape[1], len(scores)))


def critical_difference(methods: int, data_sets: int) -> float:
    """Return the critical difference of Nemenyi's test at 5 %: q √(k (k + 1) / (6 N)).

    q is the 95 % quantile of the studentized range of k means with infinite degrees of freedom, divided by √2.

    Args:
        methods: k.
        data_sets: N.
    """
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(LEVEL, methods, np.inf)) / np.sqrt(2)
    return quantile * float(np.sqrt(methods * (methods + 1) / (6 * data_sets)))
