"""Evaluate predictions of a training loop of your own: the metrics of a run, each with a 95 % interval.

from imbalance.metrics import evaluate

table = evaluate(targets, probabilities, groups=sex)
print(table["worst_group_accuracy"].value, table["worst_group_accuracy"].interval)
table.to_frame()
"""

import importlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch

from imbalance.config.schema import short_repr
from imbalance.data.tables.columns import group_name
from imbalance.data.tables.values import check_unmasked, is_missing
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
from imbalance.metrics.label_shift import shifted_accuracy
from imbalance.utils.arrays import as_probabilities

Array = np.ndarray
RESAMPLES = 1000
UNKNOWN = Interval(np.nan, np.nan)
NEEDS_TRAIN = ("adjusted_accuracy", "many_shot_accuracy", "medium_shot_accuracy", "few_shot_accuracy")


class Measured(NamedTuple):
    """The value of a metric, and its 95 % interval over the choice of examples; the ends are nan if there is no interval."""

    value: float
    interval: Interval


class Evaluation(dict[str, Measured]):
    """A mapping from the names of metrics to values with intervals. The names are those in metrics.jsonl, without "val/"."""

    def rows(self) -> list[tuple[str, float, float, float]]:
        """Return a row for each metric: its name, its value, and the low and the high end of its interval."""
        return [(name, value, interval.low, interval.high) for name, (value, interval) in self.items()]

    def to_frame(self) -> Any:
        """Return a data frame with the columns metric, value, low and high: of pandas or, if that is not installed, of polars.

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
        return "\n".join(
            f"{name:40} {value:8.4f}" + ("" if np.isnan(low) else f"  ({low:.4f} to {high:.4f})")
            for name, value, low, high in self.rows()
        )


def evaluate(
    targets: Any,
    predictions: Any,
    groups: Any = None,
    *,
    classes: Sequence[Any] | None = None,
    class_prior: Sequence[float] | Array | None = None,
    top_k: Sequence[int] = (),
    seed: int = 0,
) -> Evaluation:
    """Compute the metrics that a run has, with 95 % intervals over the choice of examples, for predictions of any program.

    The metrics of counts are those of `imbalance.metrics.class_and_group.compute`, without `adjusted_accuracy` and the
    accuracies by shots, which need the training set. Probabilities add `top<k>_accuracy` and the metrics of
    `imbalance.metrics.scores`. If there are two classes and a group holds both, the metrics of fairlearn are added:
    `demographic_parity_difference` and `_ratio`, of the shares of predictions that are the second class; and
    `equalized_odds_difference` and `_ratio`, each the worse value of true and false positive rates. A rate that is 0/0
    is left out, whereas fairlearn takes the rate for 0. `class_prior` adds `shifted_accuracy`, the accuracy on a population
    with these class shares: the mean of the recalls, weighted by the shares.

    Intervals of accuracies, recalls and other shares are Wilson's. The interval of the worst group or class is
    `worst_over_examples`, and that of a mean over groups or classes is `mean_over_examples`. The intervals of parity
    metrics follow from exact intervals that cover all rates at once. `nll` and `brier` have t-intervals, unless all
    examples have the same value; `mcc`, `g_mean` and F1 have bootstrap intervals. AUROC, AUPRC and the calibration
    errors have no intervals, so the ends are nan. In `nll` a probability of 0 counts as 2e-308.

    Args:
        targets: (N,) the class of each example: numbers or names.
        predictions: (N,) predicted classes, or (N, K) probabilities, whose columns are in the order of `classes`.
        groups: (N,) the group or attribute of each example: numbers or names; None if the groups are the classes. If a
            group holds several classes, the metrics of groups are of each combination of class and group, as in a run.
        classes: the classes in order. None: for probabilities, the numbers 0 to K − 1; for predicted classes, the sorted
            classes that occur in `targets` or `predictions`.
        class_prior: (K,) the share of each class, in the order of `classes`, in the population of `shifted_accuracy`; or None.
            `imbalance.metrics.label_shift.long_tailed_prior` makes the shares of a long tail.
        top_k: numbers k of most probable classes for `top<k>_accuracy`.
        seed: the seed of the bootstrap.

    Raises:
        BadInput: the arguments do not fit together, a label is missing, or the probabilities of an example do not sum
            to 1.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise BadInput(f"evaluate: seed: {short_repr(seed)} given; an integer of 0 or more is needed")
    for name, values in (("targets", targets), ("predictions", predictions), ("groups", groups)):
        check_unmasked(values, f"evaluate: {name}: ")
    target_labels, predicted = array(targets), array(predictions)
    check_lengths(targets=target_labels, predictions=predicted, **({} if groups is None else {"groups": array(groups)}))
    check_present("targets", targets, target_labels)
    if groups is not None:
        check_present("groups", groups, array(groups))
    probability = None
    # A number in bfloat16 has 8 binary digits, so rounding moves the sum of a row by up to 0.2 %.
    rounded = getattr(predictions, "dtype", None) == torch.bfloat16
    if predicted.ndim == 2:
        tolerance = 5e-3 if rounded else 1e-3
        probability = as_probabilities("evaluate: predictions", predicted, tolerance).astype(np.float64)
    else:
        check_present("predictions", predictions, predicted)
        check_same_type(target_labels, predicted)
    if predicted.ndim == 1 and predicted.dtype.kind == "f" and not (predicted == np.round(predicted)).all():
        raise BadInput(
            "evaluate: predictions are one fraction for each example; for two classes pass the probabilities of both, "
            "np.stack([1 - p, p], axis=1), else the predicted classes"
        )
    if classes is None and probability is not None:
        classes = list(range(probability.shape[1]))
    if classes is None:
        names = distinct("targets and predictions", np.concatenate([target_labels, predicted]))[0].tolist()
    else:
        names = checked_classes(classes)
    numbers = positions("targets", target_labels, names)
    if probability is None:
        chosen = positions("predictions", predicted, names)
    else:
        if probability.shape[1] != len(names):
            raise BadInput(
                f"evaluate: {probability.shape[1]} columns of probabilities for {len(names)} classes; they must match"
            )
        probability = probability / probability.sum(axis=1, keepdims=True) if rounded else probability
        check_top_k(top_k, len(names))
        chosen = probability.argmax(axis=1)
    class_names = tuple(map(str, names))
    attributes, attribute_names = numbers, class_names
    if groups is not None:
        labels, attributes = distinct("groups", array(groups))
        attribute_names = tuple(map(str, labels.tolist()))
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
    if class_prior is not None:
        from imbalance.methods.prior import checked_shares  # here, because it imports all objectives and samplers

        prior = checked_shares("evaluate: class_prior", class_prior, len(names), f"{len(names)} class shares").numpy()
        totals = np.bincount(numbers, minlength=len(names))
        right = np.bincount(numbers[chosen == numbers], minlength=len(names))
        table["shifted_accuracy"] = Measured(*shifted_accuracy(right, totals, prior))
    if probability is not None:
        table |= top_accuracies(probability, numbers, top_k) | score_table(probability, numbers, class_names)
    return Evaluation(table)


def array(values: Any) -> Array:
    """Return a NumPy array of the values of a tensor on any device, a series, a sequence or an array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return np.asarray(values)


def check_lengths(**arrays: Array) -> None:
    """Raise `BadInput` unless the arrays have the same length N > 0 and one dimension; predictions may have two."""
    lengths = {name: len(values) if values.ndim else 0 for name, values in arrays.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        given = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise BadInput(f"evaluate: numbers of examples: {given}; all must be equal, and at least 1")
    for name, values in arrays.items():
        if values.ndim > (2 if name == "predictions" else 1):
            raise BadInput(f"evaluate: {name} of shape {values.shape} given; one value for each example is needed")


def check_present(name: str, values: Any, labels: Array) -> None:
    """Raise `BadInput` if a list mixes texts and numbers, or a label is missing: None, nan, or the NA of a series.

    Args:
        values: the labels as the caller gave them. A list is searched itself, because NumPy turns a nan among texts into
            the text "nan".
        labels: (N,) the array of these labels.
    """
    if labels.dtype.kind not in "fcOUmM":
        return
    items = values if isinstance(values, list | tuple) else labels.tolist()
    row = next((row for row, item in enumerate(items) if is_missing(item)), None)
    if row is not None:
        raise BadInput(
            f"evaluate: {name}[{row}] is {items[row]}; leave out the example, or give all missing labels a label, such as "
            "'missing' or -1"
        )
    if labels.dtype.kind == "U" and len({isinstance(item, str) for item in items}) > 1:
        raise BadInput(f"evaluate: {name}: values of several types given; give only texts or only numbers")


def check_same_type(targets: Array, predictions: Array) -> None:
    """Raise `BadInput` if either the (N,) targets or the (N,) predictions are texts, and the others are numbers."""
    first = {"targets": targets.tolist()[0], "predictions": predictions.tolist()[0]}
    if len({isinstance(label, str) for label in first.values()}) > 1:
        given = " and ".join(
            f"{name} are {'texts' if isinstance(label, str) else 'numbers'} such as {label!r}"
            for name, label in first.items()
        )
        raise BadInput(f"evaluate: {given}; give both as texts or both as numbers")


def distinct(what: str, labels: Array) -> tuple[Array, Array]:
    """Return the distinct labels, sorted, and for each of the (N,) labels its position among the distinct labels.

    Args:
        what: the name of the argument that has the labels, for messages.
        labels: (N,).
    """
    try:
        values, places = np.unique(labels, return_inverse=True)
    except TypeError:  # texts and numbers in an array of objects have no order
        raise BadInput(f"evaluate: {what}: values of several types given; give only texts or only numbers") from None
    return values, places.reshape(-1)


def checked_classes(classes: Any) -> list[Any]:
    """Return the argument `classes` as a list; raise `BadInput` unless its elements have different names."""
    if isinstance(classes, str) or not isinstance(classes, Iterable) or getattr(classes, "ndim", 1) != 1:
        raise BadInput(f"evaluate: classes: {short_repr(classes)} given; a sequence of the classes in order is needed")
    names = array(classes).tolist() if isinstance(classes, torch.Tensor | Array) else list(classes)
    repeated = [name for name, number in Counter(map(str, names)).items() if number > 1]
    if repeated:
        raise BadInput(f"evaluate: classes: {repeated[0]} appears twice; name each class once")
    return names


def check_top_k(top_k: Any, num_classes: int) -> None:
    """Raise `BadInput` unless `top_k` is a sequence of integers from 1 to `num_classes`."""
    whole = isinstance(top_k, Collection) and all(isinstance(k, Integral) and not isinstance(k, bool) for k in top_k)
    if not whole or not all(1 <= k <= num_classes for k in top_k):
        raise BadInput(
            f"evaluate: top_k: {short_repr(top_k)} given; integers from 1 to {num_classes} are needed, as in (1,)"
        )


def positions(what: str, labels: Array, classes: Sequence[Any]) -> Array:
    """Return the (N,) positions of labels in the sequence of classes.

    Args:
        what: the name of the argument that has the labels, for messages.
    """
    try:
        place = {label: position for position, label in enumerate(classes)}
        return np.array([place[label] for label in labels.tolist()], dtype=np.int64)
    except TypeError:  # a list, for example, cannot be looked up
        raise BadInput(f"evaluate: {what}, classes: numbers or texts are needed") from None
    except KeyError as error:
        known = ", ".join(map(repr, classes[:10])) + (", …" if len(classes) > 10 else "")
        raise BadInput(f"evaluate: {what}: {error} is no class; the classes are {known}; pass classes=…") from None


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
    """Return the intervals of the metrics of `count_metrics`, by name.

    Args:
        predictions, targets, groups: (N,) predicted class, class and group of each example.
        seed: the seed of the bootstrap.
    """
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

    Each bootstrap sample draws the number of examples with each pair of class and prediction.
    """
    from scipy import sparse

    num_classes = len(class_names)
    cells, counts = np.unique(targets * num_classes + predictions, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), RESAMPLES).astype(np.float64)
    true, predicted = np.divmod(cells, num_classes)

    def sums(labels: Array, kept: Array) -> Array:
        """Return, for each bootstrap sample, the number of examples of each class in the cells that `kept` marks: (R, K).

        A cell is a pair of class and prediction.

        Args:
            labels: for each cell, the class under which the examples of the cell are counted.
            kept: a mask of cells.
        """
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
    """Return the percentile interval of bootstrap values.

    If all values are equal, the ends are nan: an interval of width zero would suggest a certainty that there is not.
    """
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
    """Return the largest or smallest of several values, with the largest or smallest of their low and of their high ends.

    Args:
        parts: the values with their intervals.
        reduce: `np.fmax.reduce` or `np.fmin.reduce`, which ignore nan.
    """
    value, low, high = (float(reduce(column)) for column in zip(*((part.value, *part.interval) for part in parts)))
    return Measured(value, Interval(low, high))


def spread(selected: Array, totals: Array, tail: float) -> tuple[Measured, Measured]:
    """Return the difference and the ratio of the smallest and the largest rate, with intervals.

    In at least a share 1 − 2 · G · tail of cases, the exact intervals (Clopper and Pearson, 1934) cover all rates at
    once. In these cases the intervals of the difference and of the ratio cover too.

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

    Equal probabilities are ordered as `imbalance.metrics.scores.classes_ahead` says.
    """
    ahead = scores.classes_ahead(probability, targets)
    hits = {k: int((ahead < k).sum()) for k in top_k}
    n = len(targets)
    return {f"top{k}_accuracy": Measured(right / n, wilson(right, n)) for k, right in hits.items()}


def score_table(probability: Array, targets: Array, class_names: Sequence[str]) -> dict[str, Measured]:
    """Return the metrics of `imbalance.metrics.scores`; only `nll` and `brier`, which are means, have intervals."""
    with np.errstate(divide="ignore"):
        logits = np.log(probability).clip(min=np.log(np.finfo(np.float64).tiny))
    # Equal probabilities must tie, and their log-odds may differ in the last digit.
    values = scores.score_metrics(logits, targets, class_names, ranked_by=probability)
    own = -logits[np.arange(len(targets)), targets]
    errors = ((probability - np.eye(len(class_names))[targets]) ** 2).sum(axis=1) / (2 if len(class_names) == 2 else 1)
    per_example = {"nll": own, "brier": errors}
    return {
        name: Measured(value, UNKNOWN if name not in per_example else normal_interval(per_example[name]))
        for name, value in values.items()
    }


def normal_interval(values: Array) -> Interval:
    """Return the 95 % t-interval of the mean of N non-negative values, one for each example.

    If all values are equal, the interval would have the width 0, so its ends are nan.
    """
    low, high = mean(values, low=0.0)[1:3]
    return Interval(low, high) if high - low > 1e-12 else UNKNOWN
