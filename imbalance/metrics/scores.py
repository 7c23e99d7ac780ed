"""Metrics of the scores themselves: ranking, calibration and likelihood, which counts of predictions cannot give.

Every function takes probabilities (N, K), rows summing to 1, and targets (N,), as NumPy arrays on the CPU, and follows
scikit-learn's definition where there is one. What is not defined (the AUROC of a class without examples, or without
others) is nan.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray

BINS = 15  # of a reliability curve, as in Guo et al., ICML 2017


def probabilities(logits: Array) -> Array:
    """(N, K) softmax of the logits, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def auroc(scores: Array, positive: Array) -> float:
    """The probability that a positive example is ranked above a negative one, ties counting one half.

    Args:
        scores: (N,) higher means more positive.
        positive: (N,) bool.
    """
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return np.nan
    _, place, size = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(size) - (size - 1) / 2  # the mean rank of equal scores
    return float((ranks[place][positive].sum() - count * (count + 1) / 2) / (count * others))


def auprc(scores: Array, positive: Array) -> float:
    """Average precision: the mean over positive examples of the precision at their score (no interpolation).

    Args:
        scores, positive: as in `auroc`.
    """
    if not positive.any():
        return np.nan
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))  # equal scores are one threshold
    hits, drawn = hits[last], last + 1
    return float((np.diff(hits, prepend=0) * hits / drawn).sum() / hits[-1])


def nll(probability: Array, targets: Array) -> float:
    """The mean of −log p_y, p_y at least the smallest positive float64, so that it is finite."""
    own = probability[np.arange(len(targets)), targets]
    return float(-np.log(own.clip(min=np.finfo(np.float64).tiny)).mean()) if len(targets) else np.nan


def brier(probability: Array, targets: Array) -> float:
    """The mean of Σ_k (p_k − 1[y = k])², halved for two classes, where it is (p_1 − y)² (Brier, 1950)."""
    if not len(targets):
        return np.nan
    error = probability - np.eye(probability.shape[1])[targets]
    return float((error**2).sum(axis=1).mean()) / (2 if probability.shape[1] == 2 else 1)


class Reliability(NamedTuple):
    """A reliability curve: of each bin with examples the mean confidence, the accuracy and the number of examples."""

    confidence: Array
    accuracy: Array
    count: Array


def reliability(probability: Array, targets: Array, bins: int = BINS, equal_mass: bool = False) -> Reliability:
    """How often predictions made with a given confidence (the largest probability) are right.

    Args:
        equal_mass: bins of as many examples each (equal confidences may part), instead of bins of equal width.
    """
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == targets
    if equal_mass:
        place = np.empty(len(targets), dtype=np.int64)
        place[np.argsort(confidence, kind="stable")] = np.arange(len(targets)) * bins // max(1, len(targets))
    else:
        place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    seen = count > 0
    sums = (np.bincount(place, weights=values, minlength=bins)[seen] for values in (confidence, right))
    mean_confidence, accuracy = (values / count[seen] for values in sums)
    return Reliability(mean_confidence, accuracy, count[seen])


def ece(probability: Array, targets: Array, bins: int = BINS, equal_mass: bool = False) -> float:
    """Expected calibration error: |accuracy − confidence| of the bins of `reliability`, weighted by their sizes.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    if not len(targets):
        return np.nan
    curve = reliability(probability, targets, bins, equal_mass)
    return float((np.abs(curve.accuracy - curve.confidence) * curve.count).sum() / len(targets))


def score_metrics(logits: Array, targets: Array, class_names: Sequence[str]) -> dict[str, float]:
    """All metrics of this module: `SCORE_SUMMARIES`, and `auroc/<class>`, `auprc/<class>` of one class against the rest.

    `auroc` and `auprc` are the means over the classes for which they are defined; for two classes, `auroc` is that of
    either.

    Args:
        logits: (N, K).
        targets: (N,).
    """
    probability = probabilities(logits)
    of_each = {
        f"{kind}/{name}": function(probability[:, label], targets == label)
        for kind, function in (("auroc", auroc), ("auprc", auprc))
        for label, name in enumerate(class_names)
    }

    def macro(kind: str) -> float:
        values = np.array([of_each[f"{kind}/{name}"] for name in class_names])
        return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan

    return {
        "auroc": macro("auroc"),
        "auprc": macro("auprc"),
        "nll": nll(probability, targets),
        "brier": brier(probability, targets),
        "ece": ece(probability, targets),
        "ece_equal_mass": ece(probability, targets, equal_mass=True),
        **of_each,
    }


def members_of(saved: Mapping[str, Array]) -> Array:
    """(N, G) bool, of predictions/<split>.npz: each example's evaluation groups, or its group where there are none."""
    if "members" in saved:
        return saved["members"]
    return saved["groups"][:, None] == np.arange(saved["groups"].max(initial=-1) + 1)


def by_group(
    metric: Callable[[Array, Array], float], scores: Array, targets: Array, members: Array, names: Sequence[str]
) -> dict[str, float]:
    """`metric(scores, targets)` of every group by itself, as fairlearn's MetricFrame does; nan for an empty group.

    Args:
        scores: (N, ...), what the metric takes: logits, probabilities or predictions.
        members: (N,) each example's group, or (N, G) bool, where groups may overlap or leave some examples out.
    """
    if members.ndim == 1:
        members = members[:, None] == np.arange(len(names))
    return {
        name: float(metric(scores[inside], targets[inside])) if inside.any() else np.nan
        for name, inside in zip(names, members.T, strict=True)
    }
