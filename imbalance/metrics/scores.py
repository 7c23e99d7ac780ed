"""Compute metrics of ranking, calibration and likelihood from logits; counts of predictions do not suffice for them.

The functions take NumPy arrays: probabilities (N, K), whose rows sum to 1, and targets (N,), class numbers from 0. A
metric that scikit-learn has is defined as there. An undefined metric, such as the AUROC of a class without examples, is
nan.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np

from imbalance.config.schema import short_repr
from imbalance.errors import BadInput
from imbalance.utils.arrays import as_array, as_bools, as_floats, as_labels, as_probabilities

Array = np.ndarray

BINS = 15  # bins of a reliability curve, as in Guo et al., ICML 2017
CHUNK_NUMBERS = 2**18  # logits that are turned into probabilities at a time
MOST_BINS = 1_000_000  # a bin takes memory, also if it has no examples


def probabilities(logits: Array) -> Array:
    """Return the (N, K) softmax of the logits in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_odds(logits: Array) -> Array:
    """Return the (N, K) log-odds log(p_k / (1 − p_k)) of the softmax p of the logits, in float64.

    Log-odds order examples as the probabilities do, and keep the order where probabilities round to 0 or 1: in float64
    p_k is exactly 1 if its log-odds are above 37.

    Args:
        logits: (N, K), for at least two classes.
    """
    logits = logits.astype(np.float64)
    # Every sum is over sorted values, so that rows with the same logits in another order tie exactly.
    ascending = np.sort(logits, axis=1)
    top, second, rest = ascending[:, -1:], ascending[:, -2:-1], ascending[:, :-1]
    rest_sum = np.exp(rest - top).sum(axis=1, keepdims=True)
    below_top = logits - top - np.log1p((rest_sum - np.exp(logits - top)).clip(min=0))
    at_top = top - second - np.log(np.exp(rest - second).sum(axis=1, keepdims=True))
    return np.where(logits == top, at_top, below_top)


def checked_probability(probability: Array, targets: Array) -> tuple[Array, Array]:
    """Return the (N, K) probabilities and the (N,) targets as arrays.

    Raises:
        BadInput: a row of `probability` does not sum to 1 (logits were passed, for example), or a target is not from 0
            to K − 1.
    """
    probability = as_probabilities("probability", probability)
    return probability, as_labels("targets", targets, *probability.shape)


def auroc(scores: Array, positive: Array) -> float:
    """Return the probability that a positive example has a higher score than a negative one; ties count one half.

    Args:
        scores: (N,) a higher score means that an example is more likely positive.
        positive: (N,) bool, True for a positive example.
    """
    return ranking(*checked_scores(scores, positive))[0]


def auprc(scores: Array, positive: Array) -> float:
    """Return the average precision: the mean, over positive examples, of the precision at the score of the example.

    The curve of precision over recall is not interpolated.

    Args:
        scores, positive: as in `auroc`.
    """
    return ranking(*checked_scores(scores, positive))[1]


def checked_scores(scores: Array, positive: Array) -> tuple[Array, Array]:
    """Return the arguments of `auroc` as arrays of floats and of bools, or raise `BadInput`."""
    scores = as_array("scores", scores, 1)
    if (
        scores.dtype.kind in "iu"
    ):  # floats round integers above 2**53 to the same value; their places have the same order
        scores = np.unique(scores, return_inverse=True)[1]
    scores = as_floats("scores", scores, 1)
    return scores, as_bools("positive", positive, len(scores))


def ranking(scores: Array, positive: Array) -> tuple[float, float]:
    """Return (AUROC, AUPRC) from one sort of the scores; the arguments are those of `auroc`."""
    order = np.argsort(scores)[::-1]
    descending, hits = scores[order], np.cumsum(positive[order])
    # Equal scores are one threshold
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], len(order) > 0))
    hits, above = hits[last], last + 1  # numbers of positive examples, and of all examples, at or above each threshold
    count = int(hits[-1]) if len(hits) else 0
    others = len(positive) - count
    if not count:
        return np.nan, np.nan
    new = np.diff(hits, prepend=0)
    precision = float((new * hits / above).sum() / count)
    if not others:
        return np.nan, precision
    ranks = len(positive) - above + (np.diff(above, prepend=0) + 1) / 2  # the mean rank of equal scores
    return float(((new * ranks).sum() - count * (count + 1) / 2) / (count * others)), precision


def nll(probability: Array, targets: Array) -> float:
    """Return the mean of −log p_y, where p_y is the probability of the target.

    p_y is raised to the smallest normal float64 if it is smaller, so that the mean is finite.
    """
    probability, targets = checked_probability(probability, targets)
    own = probability[np.arange(len(targets)), targets]
    return float(-np.log(own.clip(min=np.finfo(np.float64).tiny)).mean()) if len(targets) else np.nan


def brier(probability: Array, targets: Array) -> float:
    """Return the Brier score (Brier, 1950): the mean of Σ_k (p_k − 1[y = k])², where y is the target.

    For two classes, return half of this mean, so that it equals the usual binary score, the mean of (p_1 − y)².
    """
    probability, targets = checked_probability(probability, targets)
    return mean_brier(squared_errors(probability.copy(), targets), probability.shape[1])


def squared_errors(probability: Array, targets: Array) -> Array:
    """Return the (N,) sums Σ_k (p_k − 1[y = k])²; this function overwrites `probability`, (N, K)."""
    probability[np.arange(len(targets)), targets] -= 1
    return np.square(probability, out=probability).sum(axis=1)


def mean_brier(errors: Array, num_classes: int) -> float:
    """Return the Brier score from the result of `squared_errors`."""
    return float(errors.mean()) / (2 if num_classes == 2 else 1) if len(errors) else np.nan


def equal_width_bins(confidence: Array, bins: int) -> Array:
    """Return the bin of each confidence, from 0; bin m has the confidences above m / bins and up to (m + 1) / bins."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)


class Reliability(NamedTuple):
    """A reliability curve: the mean confidence, the accuracy and the number of examples of each bin with examples."""

    confidence: Array
    accuracy: Array
    count: Array


def reliability(probability: Array, targets: Array, bins: int = BINS, equal_mass: bool = False) -> Reliability:
    """Return the reliability curve: accuracy by confidence; an example's confidence is its largest probability.

    Args:
        bins: the number of bins; empty bins are left out.
        equal_mass: True for bins with equal numbers of examples, where equal confidences may be in different bins; False
            for bins of equal width.
    """
    probability, targets = checked_probability(probability, targets)
    if not isinstance(bins, Integral) or isinstance(bins, bool) or not 1 <= bins <= MOST_BINS:
        raise BadInput(f"bins: {short_repr(bins)} given; an integer from 1 to {MOST_BINS:,} is needed")
    return reliability_curve(probability.max(axis=1), probability.argmax(axis=1) == targets, bins, equal_mass)


def reliability_curve(confidence: Array, right: Array, bins: int, equal_mass: bool) -> Reliability:
    """Return the reliability curve of (N,) confidences and (N,) bools that are true for right predictions."""
    if equal_mass:
        place = np.empty(len(confidence), dtype=np.int64)
        place[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // max(1, len(confidence))
    else:
        place = equal_width_bins(confidence, bins)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    sums = (np.bincount(place, weights=values, minlength=bins)[filled] for values in (confidence, right))
    mean_confidence, accuracy = (values / count[filled] for values in sums)
    return Reliability(mean_confidence, accuracy, count[filled])


def ece(probability: Array, targets: Array, bins: int = BINS, equal_mass: bool = False) -> float:
    """Return the expected calibration error: the mean of |accuracy − confidence| over bins, weighted by bin size.

    The arguments are those of `reliability`. The definition is equation 3 of Guo, Pleiss, Sun and Weinberger, "On
    Calibration of Modern Neural Networks", ICML 2017.
    """
    return curve_error(reliability(probability, targets, bins, equal_mass))


def curve_error(curve: Reliability) -> float:
    """Return the mean of |accuracy − confidence| over the bins of a reliability curve, weighted by bin size."""
    total = curve.count.sum()
    return float((np.abs(curve.accuracy - curve.confidence) * curve.count).sum() / total) if total else np.nan


def classes_ahead(scores: Array, targets: Array) -> Array:
    """Return for each example the number of classes that come before its target in the order of the scores.

    Of two classes with equal scores the one with the larger number comes first, as in scikit-learn's
    `top_k_accuracy_score`.

    Args:
        scores: (N, K), a higher score means that the class is more likely.
        targets: (N,).
    """
    own = scores[np.arange(len(targets)), targets][:, None]
    later = np.arange(scores.shape[1]) > targets[:, None]
    return ((scores > own) | ((scores == own) & later)).sum(axis=1)


def score_metrics(
    logits: Array,
    targets: Array,
    class_names: Sequence[str],
    top_k: Sequence[int] = (),
    ranked_by: Array | None = None,
) -> dict[str, float]:
    """Return all metrics of this module by name: those in `SCORE_METRICS`, `auroc/<class>` and `auprc/<class>`.

    `auroc/<class>` and `auprc/<class>` tell the class (positive) from all other classes. `auroc` and `auprc` are the
    means of these values over the classes for which they are defined. If there are only two classes, their AUROCs are
    equal. Examples are ranked by `ranked_by`, or by `log_odds`, in which sure predictions do not tie. `nll` is computed from
    the log-odds.

    Args:
        logits: (N, K).
        targets: (N,).
        top_k: numbers k for `top<k>_accuracy`, the share of examples whose target is among the k classes with the largest
            logits.
        ranked_by: (N, K) scores that rank the examples of each class; None for the log-odds.
    """
    size, num_classes = logits.shape
    odds, own_odds = np.empty((num_classes, size)), np.empty(size)
    errors, confidence, right = np.empty(size), np.empty(size), np.empty(size, dtype=bool)
    ahead = np.zeros(size, dtype=np.int64)
    step = max(1, CHUNK_NUMBERS // num_classes)
    for start in range(0, size, step):  # whole arrays would take ten times the memory of the logits
        rows = slice(start, start + step)
        own = targets[rows]
        chunk_odds, probability = log_odds(logits[rows]), probabilities(logits[rows])
        odds[:, rows], own_odds[rows] = chunk_odds.T, chunk_odds[np.arange(len(own)), own]
        confidence[rows], right[rows] = probability.max(axis=1), probability.argmax(axis=1) == own
        errors[rows] = squared_errors(probability, own)
        if top_k:
            ahead[rows] = classes_ahead(logits[rows], own)
    columns = odds if ranked_by is None else ranked_by.T
    rankings = [ranking(columns[label], targets == label) for label in range(num_classes)]
    class_metrics = {
        f"{kind}/{name}": rankings[label][i]
        for i, kind in enumerate(("auroc", "auprc"))
        for label, name in enumerate(class_names)
    }

    def macro(kind: str) -> float:
        values = np.array([class_metrics[f"{kind}/{name}"] for name in class_names])
        return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan

    return {
        "auroc": macro("auroc"),
        "auprc": macro("auprc"),
        "nll": float(np.logaddexp(0, -own_odds).mean()) if size else np.nan,
        "brier": mean_brier(errors, num_classes),
        "ece": curve_error(reliability_curve(confidence, right, BINS, equal_mass=False)),
        "ece_equal_mass": curve_error(reliability_curve(confidence, right, BINS, equal_mass=True)),
        **{f"top{k}_accuracy": float((ahead < k).mean()) if size else np.nan for k in top_k},
        **class_metrics,
    }


def saved_group_mask(saved: Mapping[str, Array]) -> Array:
    """Return the (N, G) bool mask of the evaluation groups, or of the groups if there are no evaluation groups.

    Args:
        saved: the content of predictions/<split>.npz.
    """
    if "members" in saved:
        return saved["members"]
    return saved["groups"][:, None] == np.arange(saved["groups"].max(initial=-1) + 1)


def by_group(
    metric: Callable[[Array, Array], float], scores: Array, targets: Array, groups: Array, names: Sequence[str]
) -> dict[str, float]:
    """Compute `metric(scores, targets)` on the examples of each group, like fairlearn's MetricFrame.

    The metric of an empty group is nan.

    Args:
        scores: (N, ...), the first argument of the metric: logits, probabilities or predictions.
        groups: (N,) the group of each example; or an (N, G) bool mask, in which an example has several groups or none.
            If there are more names than columns of the mask, the last names are of empty groups, which
            `saved_group_mask` leaves out.
        names: the names of the G groups.

    Returns:
        The value of the metric, by the name of the group.
    """
    scores, groups = as_array("scores", scores, tuple(range(1, 33))), as_array("groups", groups, (1, 2))
    targets = as_array("targets", targets, 1)
    if not len(scores) == len(targets) == len(groups):
        raise BadInput(f"groups: {len(scores):,} scores, {len(targets):,} targets and {len(groups):,} groups given; their numbers must be equal")  # fmt: skip
    if len(set(names)) != len(names):
        raise BadInput(f"names: {', '.join(map(str, names))} given; the groups need different names")
    if groups.ndim == 1:
        mask = as_labels("groups", groups, len(scores), len(names))[:, None] == np.arange(len(names))
    elif groups.dtype != bool or groups.shape[1] > len(names):
        raise BadInput(f"groups: {groups.dtype} of shape {groups.shape} given; a mask of bools with a column for each of {len(names)} names is needed")  # fmt: skip
    else:
        mask = np.pad(groups, ((0, 0), (0, len(names) - groups.shape[1])))
    return {
        name: float(metric(scores[in_group], targets[in_group])) if in_group.any() else np.nan
        for name, in_group in zip(names, mask.T, strict=True)
    }
