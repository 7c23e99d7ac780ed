"""Evaluate predictions of a training loop of your own: the metrics of a run, each with a 95 % interval.

from imbalance.metrics import evaluate

table = evaluate(targets, probabilities, groups=sex)
print(table["worst_group_accuracy"].value, table["worst_group_accuracy"].interval)
table.to_frame()
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from imbalance.data.tables.columns import group_name
from imbalance.data.tables.values import check_unmasked
from imbalance.errors import BadInput
from imbalance.metrics import scores
from imbalance.metrics.class_and_group import (
    compute,
    count,
    f1_scores,
    geometric_mean,
    matthews_correlation,
    mean_ignoring_nan,
)
from imbalance.metrics.intervals import LEVEL, Interval, mean, mean_over_examples, wilson, worst_over_examples

Array = np.ndarray
RESAMPLES = 1000
UNKNOWN = Interval(np.nan, np.nan)
NEEDS_TRAIN = ("adjusted_accuracy", "many_shot_accuracy", "medium_shot_accuracy", "few_shot_accuracy")


class Measured(NamedTuple):
    """The value of a metric, and the ends of its 95 % interval over the choice of examples; nan where there is none."""

    value: float
    interval: Interval


class Evaluation(dict[str, Measured]):
    """A mapping from the names of metrics, as those of a run, to values with intervals."""

    def rows(self) -> list[tuple[str, float, float, float]]:
        """Return a row for each metric: its name, its value, and the low and the high end of its interval."""
        return [(name, value, interval.low, interval.high) for name, (value, interval) in self.items()]

    def to_frame(self) -> Any:
        """Return a data frame with the columns metric, value, low and high: of pandas, or of polars without pandas.

        Raises:
            BadInput: neither pandas nor polars is installed.
        """
        columns = dict(zip(("metric", "value", "low", "high"), map(list, zip(*self.rows()))))
        for library in ("pandas", "polars"):
            try:
                return importlib.import_module(library).DataFrame(columns)
            except ModuleNotFoundError:
                continue
        raise BadInput("to_frame: needs pandas or polars, and neither is installed; install one, or use rows()")

    def __repr__(self) -> str:
        return "\n".join(f"{name:40} {value:8.4f}  ({low:.4f} to {high:.4f})" for name, value, low, high in self.rows())


def evaluate(
    targets: Any,
    predictions: Any,
    groups: Any = None,
    *,
    classes: Sequence[Any] | None = None,
    top_k: Sequence[int] = (),
    seed: int = 0,
) -> Evaluation:
    """Compute the metrics of a run, and a 95 % interval of each over the choice of examples, for predictions of any origin.

    The metrics of counts are those of `imbalance.metrics.class_and_group.compute`, without `adjusted_accuracy` and the
    accuracies by shots, which need the training set. Probabilities add `top<k>_accuracy` and the metrics of
    `imbalance.metrics.scores`. If there are two classes and a group holds both, the metrics of fairlearn are added:
    `demographic_parity_difference` and `_ratio`, of the shares of predictions that are the second class, and
    `equalized_odds_difference` and `_ratio`, the worse one of true and false positive rates. A rate that is 0/0 is left
    out there, and fairlearn takes it for 0.

    Intervals of accuracies, recalls and other shares are Wilson's, those of the worst group or class and of means are
    `worst_over_examples` and `mean_over_examples`. Those of parity follow from exact intervals of all rates that hold
    together. `nll` and `brier` have normal intervals; `mcc`, `g_mean` and F1 have bootstrap intervals. The areas and the
    calibration errors have none, so their ends are nan.

    Args:
        targets: (N,) the class of each example: numbers or names.
        predictions: (N,) predicted classes, or (N, K) probabilities, whose columns are in the order of `classes`.
        groups: (N,) the group or attribute of each example: numbers or names; None if the groups are the classes. If a
            group holds several classes, the metrics of groups are of each combination of class and group, as in a run.
        classes: the classes in order; None for the numbers 0 to K − 1 of K probabilities, or for all classes that occur.
        top_k: numbers k of most probable classes for `top<k>_accuracy`.
        seed: the seed of the bootstrap.

    Raises:
        BadInput: the arguments do not fit together, or the probabilities of an example do not sum to 1.
    """
    for name, values in (("targets", targets), ("predictions", predictions), ("groups", groups)):
        check_unmasked(values, f"evaluate: {name}: ")
    target_labels, predicted = array(targets), array(predictions)
    probability = predicted.astype(np.float64) if predicted.ndim == 2 else None
    check_lengths(targets=target_labels, predictions=predicted, **({} if groups is None else {"groups": array(groups)}))
    if predicted.ndim == 1 and predicted.dtype.kind == "f" and not (predicted == np.round(predicted)).all():
        raise BadInput(
            "evaluate: predictions are one fraction for each example; for two classes pass the probabilities of both, "
            "np.stack([1 - p, p], axis=1), else the predicted classes"
        )
    if classes is None and probability is not None:
        classes = list(range(probability.shape[1]))
    names = np.unique(np.concatenate([target_labels, predicted])).tolist() if classes is None else list(classes)
    numbers = positions("targets", target_labels, names)
    if probability is None:
        chosen = positions("predictions", predicted, names)
    else:
        check_probabilities(probability, len(names))
        chosen = probability.argmax(axis=1)
    class_names = tuple(map(str, names))
    attributes, attribute_names = numbers, class_names
    if groups is not None:
        labels, attributes = np.unique(array(groups), return_inverse=True)
        attributes, attribute_names = attributes.reshape(-1), tuple(map(str, labels.tolist()))
    group_numbers, group_names = attributes, attribute_names
    pairs, crossed = np.unique(np.stack([numbers, attributes], axis=1), axis=0, return_inverse=True)
    if len(pairs) > len(np.unique(attributes)):
        group_numbers = crossed.reshape(-1)
        group_names = tuple(group_name((class_names[k], attribute_names[a])) for k, a in pairs.tolist())
    values = count_metrics(chosen, numbers, group_numbers, class_names, group_names)
    intervals = count_intervals(chosen, numbers, group_numbers, class_names, group_names, seed)
    table = {name: Measured(value, intervals.get(name, UNKNOWN)) for name, value in values.items()}
    if len(names) == 2 and len(group_names) > len(attribute_names):
        table |= parity(numbers, chosen, attributes)
    if probability is not None:
        table |= top_accuracies(probability, numbers, top_k) | score_table(probability, numbers, class_names)
    return Evaluation(table)


def array(values: Any) -> Array:
    """Return a NumPy array of the values of a tensor on any device, a series, a sequence or an array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def check_lengths(**arrays: Array) -> None:
    """Raise `BadInput` unless the arrays have the same length N > 0 and one dimension; predictions may have two."""
    lengths = {name: len(values) if values.ndim else 0 for name, values in arrays.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        given = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise BadInput(f"evaluate: numbers of examples: {given}; all must be equal, and at least 1")
    for name, values in arrays.items():
        if values.ndim > (2 if name == "predictions" else 1):
            raise BadInput(f"evaluate: {name} of shape {values.shape} given; one value for each example is needed")


def positions(what: str, labels: Array, classes: Sequence[Any]) -> Array:
    """Return the (N,) positions of labels in the sequence of classes."""
    place = {label: position for position, label in enumerate(classes)}
    try:
        return np.array([place[label] for label in labels.tolist()], dtype=np.int64)
    except KeyError as error:
        known = ", ".join(map(str, classes[:10])) + (", …" if len(classes) > 10 else "")
        raise BadInput(f"evaluate: {what}: {error} is no class; the classes are {known}; pass classes=…") from None


def check_probabilities(probability: Array, num_classes: int) -> None:
    """Raise `BadInput` unless `probability` has `num_classes` columns, and rows of shares that sum to 1."""
    if probability.shape[1] != num_classes:
        raise BadInput(
            f"evaluate: {probability.shape[1]} columns of probabilities for {num_classes} classes; they must match"
        )
    wrong = ~((probability >= 0).all(axis=1) & (np.abs(probability.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadInput(
            f"evaluate: predictions[{row}] sums to {probability[row].sum():g}; probabilities are at least 0 and sum to 1, "
            "so pass logits.softmax(1) if these are logits"
        )


def count_metrics(
    predictions: Array, targets: Array, groups: Array, class_names: Sequence[str], group_names: Sequence[str]
) -> dict[str, float]:
    """Return the metrics of a run that need no training set, from (N,) predicted classes, classes and groups."""
    predicted, true, grouped = (torch.from_numpy(values)[None] for values in (predictions, targets, groups))
    counts = count(predicted, true, grouped, len(class_names), len(group_names))
    (values,) = compute(counts, class_names, group_names, np.ones(len(class_names)), np.ones(len(group_names)))
    return {name: value for name, value in values.items() if name not in NEEDS_TRAIN}


def count_intervals(
    predictions: Array, targets: Array, groups: Array, class_names: Sequence[str], group_names: Sequence[str], seed: int
) -> dict[str, Interval]:
    """Return the intervals of the metrics of `count_metrics` by name."""
    right, n, sizes = predictions == targets, len(targets), {}
    for kind, labels, names in (
        ("class", targets, class_names),
        ("predicted", predictions, class_names),
        ("group", groups, group_names),
    ):
        totals = np.bincount(labels, minlength=len(names))
        sizes[kind] = np.bincount(labels[right], minlength=len(names)), totals
    shares = {"accuracy": (int(right.sum()), n)}
    for kind, metric, names in (
        ("class", "recall", class_names),
        ("predicted", "precision", class_names),
        ("group", "group_accuracy", group_names),
    ):
        shares |= {
            f"{metric}/{name}": (hits, total) for name, hits, total in zip(names, *map(np.ndarray.tolist, sizes[kind]))
        }
    for k, name in enumerate(class_names):
        shares[f"predicted/{name}"] = int((predictions == k).sum()), n
        shares[f"accuracy/{name}"] = int(((predictions == k) == (targets == k)).sum()), n
    intervals = {name: wilson(hits, total) if total else UNKNOWN for name, (hits, total) in shares.items()}
    for kind, worst, average in (
        ("class", "worst_class_recall", "balanced_accuracy"), ("group", "worst_group_accuracy", "group_balanced_accuracy")
    ):  # fmt: skip
        intervals |= {worst: worst_over_examples(*sizes[kind]), average: mean_over_examples(*sizes[kind])}
    return intervals | bootstrap_intervals(predictions, targets, class_names, seed)


def bootstrap_intervals(
    predictions: Array, targets: Array, class_names: Sequence[str], seed: int
) -> dict[str, Interval]:
    """Return percentile bootstrap intervals of `mcc`, `g_mean`, `macro_f1` and `f1/<class>`.

    Examples with the same class and the same prediction are alike, so the bootstrap draws the numbers of such examples.
    """
    from scipy import sparse

    num_classes = len(class_names)
    cells, counts = np.unique(targets * num_classes + predictions, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), RESAMPLES).astype(np.float64)
    true, predicted = np.divmod(cells, num_classes)

    def sums(labels: Array, kept: Array) -> Array:
        """Return the (R, K) numbers of examples of each class, by `labels`, in the cells that are kept."""
        rows = np.flatnonzero(kept)
        return (sparse.csr_matrix((np.ones(len(rows)), (labels[rows], rows)), (num_classes, len(cells))) @ drawn.T).T

    every = np.ones(len(cells), dtype=bool)
    hits, support, guesses = sums(true, true == predicted), sums(true, every), sums(predicted, every)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = f1_scores(hits, support, guesses)
        ends = {
            "mcc": matthews_correlation(hits, support, guesses),
            "g_mean": geometric_mean(hits / support),
            "macro_f1": mean_ignoring_nan(f1),
            **{f"f1/{name}": f1[:, k] for k, name in enumerate(class_names)},
        }
    return {name: quantile_interval(values) for name, values in ends.items()}


def quantile_interval(values: Array) -> Interval:
    """Return the percentile interval of bootstrap values; nan if all are equal, which hides the uncertainty."""
    values = values[~np.isnan(values)]
    if not len(values) or values.min() == values.max():
        return UNKNOWN
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def parity(targets: Array, predictions: Array, attributes: Array) -> dict[str, Measured]:
    """Return the metrics of demographic parity and equalised odds, with conservative intervals.

    Args:
        targets, predictions: (N,) 0 or 1.
        attributes: (N,) number of the attribute of each example, from 0.
    """
    rates = {"all": np.ones(len(targets), dtype=bool), "true": targets == 1, "false": targets == 0}
    number, counts = int(attributes.max()) + 1, {}
    for name, kept in rates.items():
        totals = np.bincount(attributes[kept], minlength=number)
        counts[name] = (
            np.bincount(attributes[kept & (predictions == 1)], minlength=number)[totals > 0],
            totals[totals > 0],
        )
    selection = [spread(*counts["all"], tail=(1 - LEVEL) / 2 / number)]
    odds = [spread(*counts[name], tail=(1 - LEVEL) / 2 / (2 * number)) for name in ("true", "false")]
    table = {}
    for name, parts in (("demographic_parity", selection), ("equalized_odds", odds)):
        differences, ratios = zip(*(part for part in parts))
        table[f"{name}_difference"] = combined(differences, np.fmax.reduce)
        table[f"{name}_ratio"] = combined(ratios, np.fmin.reduce)
    return table


def combined(parts: Sequence[Measured], reduce: Callable[..., Any]) -> Measured:
    """Return the largest or smallest of several values, with the largest or smallest ends; nan is ignored."""
    value, low, high = (float(reduce(column)) for column in zip(*((part.value, *part.interval) for part in parts)))
    return Measured(value, Interval(low, high))


def spread(selected: Array, totals: Array, tail: float) -> tuple[Measured, Measured]:
    """Return the difference and the ratio of the smallest and the largest rate, with intervals.

    The rates are covered at once by their exact intervals (Clopper and Pearson, 1934) in at least 1 − 2 · G · tail of
    cases, and then so are their difference and their ratio.

    Args:
        selected, totals: (G,) numbers of examples with the prediction 1, and of all examples.
        tail: the probability on each side of the exact interval of a rate.
    """
    from scipy import stats

    rates = selected / totals
    low = np.where(selected > 0, stats.beta.ppf(tail, selected, totals - selected + 1), 0.0)
    high = np.where(selected < totals, stats.beta.isf(tail, selected + 1, totals - selected), 1.0)
    if not len(rates):
        return Measured(np.nan, UNKNOWN), Measured(np.nan, UNKNOWN)
    difference = Interval(float(max(0.0, low.max() - high.min())), float(high.max() - low.min()))
    ratio = Interval(float(low.min() / high.max()), float(min(1.0, high.min() / low.max())) if low.max() else 1.0)
    value = float(rates.min() / rates.max()) if rates.max() else np.nan
    return Measured(float(rates.max() - rates.min()), difference), Measured(value, ratio)


def top_accuracies(probability: Array, targets: Array, top_k: Sequence[int]) -> dict[str, Measured]:
    """Return `top<k>_accuracy`: the share of examples whose class is among the k most probable ones.

    A class that is as probable as the target counts as less probable if its number is larger, as in scikit-learn.
    """
    own = probability[np.arange(len(targets)), targets][:, None]
    later = np.arange(probability.shape[1]) > targets[:, None]
    ahead = ((probability > own) | ((probability == own) & later)).sum(axis=1)
    hits = {k: int((ahead < k).sum()) for k in top_k}
    n = len(targets)
    return {f"top{k}_accuracy": Measured(right / n, wilson(right, n)) for k, right in hits.items()}


def score_table(probability: Array, targets: Array, class_names: Sequence[str]) -> dict[str, Measured]:
    """Return the metrics of `imbalance.metrics.scores`; only `nll` and `brier`, which are means, have intervals."""
    with np.errstate(divide="ignore"):
        logits = np.log(probability).clip(min=np.log(np.finfo(np.float64).tiny))
    values = scores.score_metrics(logits, targets, class_names)
    own = -logits[np.arange(len(targets)), targets]
    errors = ((probability - np.eye(len(class_names))[targets]) ** 2).sum(axis=1) / (2 if len(class_names) == 2 else 1)
    per_example = {"nll": own, "brier": errors}
    return {
        name: Measured(value, UNKNOWN if name not in per_example else normal_interval(per_example[name]))
        for name, value in values.items()
    }


def normal_interval(values: Array) -> Interval:
    """Return the 95 % t-interval of the mean of N non-negative values, one for each example."""
    return Interval(*mean(values, low=0.0)[1:3])
