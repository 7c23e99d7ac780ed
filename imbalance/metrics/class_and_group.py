"""Count predictions by class and group, and compute metrics from the counts."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from imbalance.config.metric_names import CLASS_METRICS, PARITY_METRICS, SUMMARY_METRICS, TRAINING_GROUP_METRICS
from imbalance.config.schema import short_repr
from imbalance.errors import BadInput
from imbalance.utils.arrays import as_nonnegative

MOST_LABELS = 20_000  # classes or groups; a greater number is most likely no number of labels

# The fewest and the most training images of a class
SHOTS = {"many": (101, np.inf), "medium": (20, 100), "few": (0, 19)}


class Counts(NamedTuple):
    """Counts of predictions, from which `compute` computes all metrics; add the counts of several batches or processes.

    classes: (K, 2), the numbers of wrong and of right predictions for the examples of each class.
    predicted: (K,), the number of predictions that are each class.
    grouped: (G, 2), the numbers of wrong and of right predictions in each group.
    eval_grouped: (E, 2), these two numbers for each evaluation group; None if the evaluation groups are the groups.

    A confusion matrix is not needed; it would take 530 MB for 8,142 classes.
    """

    classes: Tensor
    predicted: Tensor
    grouped: Tensor
    eval_grouped: Tensor | None = None


def count(
    predictions: Tensor,
    targets: Tensor,
    groups: Tensor,
    num_classes: int,
    num_groups: int,
    eval_group_mask: Tensor | None = None,
) -> Counts:
    """Count right and wrong predictions by class and by group, and predictions by predicted class, for one or several models.

    The counts are int64, on the device of the predictions.

    Args:
        predictions, targets, groups: (B,) of one model, or (M, B) of M models: predicted class, class and group.
        eval_group_mask: (…, B, E) bool, the evaluation groups of each example; None if the evaluation groups are the
            groups.
    """
    labels = {"predictions": predictions, "targets": targets, "groups": groups}
    check_labels(labels, {"predictions": num_classes, "targets": num_classes, "groups": num_groups}, eval_group_mask)
    predictions, targets, groups = predictions.long(), targets.long(), groups.long()
    right, predicted = predictions == targets, _tabulate(predictions, num_classes)
    eval_grouped = None
    if eval_group_mask is not None:
        counts = [(eval_group_mask & outcome[..., None]).sum(-2) for outcome in (~right, right)]
        eval_grouped = torch.stack(counts, dim=-1)
    classes, grouped = count_right(right, targets, num_classes), count_right(right, groups, num_groups)
    return Counts(classes, predicted, grouped, eval_grouped)


def check_labels(labels: Mapping[str, Tensor], numbers: Mapping[str, int], eval_group_mask: Tensor | None) -> None:
    """Raise `BadInput` unless all labels are integer tensors of one shape, with values from 0 to `numbers[name]` − 1.

    On a GPU the values are not compared, because the host would wait for them.

    Args:
        labels: the (B,) or (M, B) labels, by name: the name of the argument of `count`.
        numbers: the number of different labels (classes or groups), by the same names.
    """
    for name, number in numbers.items():
        if not isinstance(number, Integral) or isinstance(number, bool) or not 1 <= number <= MOST_LABELS:
            raise BadInput(
                f"{name}: their number of classes or groups is {short_repr(number)}; an integer from 1 to {MOST_LABELS:,} is needed"
            )
    shapes = {name: tuple(tensor.shape) for name, tensor in labels.items() if isinstance(tensor, Tensor)}
    if len(shapes) < len(labels) or len(set(shapes.values())) > 1 or len(shapes["targets"]) not in (1, 2):
        raise BadInput(
            f"predictions, targets, groups: tensors of one shape, (B,) or (M, B), are needed; given: {shapes}"
        )
    for name, tensor in labels.items():
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise BadInput(f"{name}: a tensor of {dtype} given; integers are needed, as tensor.long() returns")
        if tensor.device.type == "cpu" and tensor.numel() and not 0 <= tensor.min() <= tensor.max() < numbers[name]:
            raise BadInput(f"{name}: labels from {tensor.min()} to {tensor.max()} given; they must be 0 to {numbers[name] - 1}")  # fmt: skip
    if eval_group_mask is not None and (
        eval_group_mask.dtype != torch.bool or tuple(eval_group_mask.shape[:-1]) != shapes["targets"]
    ):
        raise BadInput(f"eval_group_mask: a tensor of bools of shape {(*shapes['targets'], 'E')} is needed")


def count_right(right: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Return the (…, G, 2) numbers of wrong and of right predictions in each group.

    Args:
        right: (…, B) bool, True for a right prediction.
        groups: (…, B) group numbers.
    """
    return _tabulate(groups * 2 + right, num_groups * 2).unflatten(-1, (num_groups, 2))


def _tabulate(values: Tensor, size: int) -> Tensor:
    """Count how often each integer below `size` occurs in (…, B) values; return the (…, size) counts."""
    flat = values.flatten(0, -2) if values.dim() > 1 else values[None]
    flat = flat + size * torch.arange(len(flat), device=flat.device)[:, None]
    counts = flat.new_zeros(size * len(flat))  # not torch.bincount, which waits for the device
    return counts.index_add_(0, flat.flatten(), torch.ones_like(flat).flatten()).view(*values.shape[:-1], size)


def compute(
    counts: Counts,
    class_names: Sequence[str],
    group_names: Sequence[str],
    train_class_counts: np.ndarray,
    train_group_counts: np.ndarray,
    evaluation_names: Sequence[str] = (),
    crossed_groups: tuple[Sequence[int], Sequence[int]] | None = None,
) -> list[dict[str, float]]:
    """Compute all metrics of M models from the counts of their predictions; shares are between 0 and 1.

    - `recall/<class>`, `precision/<class>`, `f1/<class>`; `accuracy/<class>`, the accuracy of telling the class
      from the rest; `predicted/<class>`, the share of predictions that are the class; `group_accuracy/<group>`.
    - `accuracy` over all examples; `balanced_accuracy`, the mean recall of the classes; `worst_class_recall`, by which
      Yang et al., "Change is Hard", ICML 2023, select a model if no groups are known; `worst_group_accuracy`;
      `group_balanced_accuracy`, the mean accuracy of the groups; `adjusted_accuracy`, the mean of group accuracies
      weighted by the groups' shares of the training set, which the Waterbirds literature reports.
    - `g_mean`, the geometric mean of the recalls (Kubat and Matwin, ICML 1997); `mcc`, Matthews' correlation of targets
      and predictions (Gorodkin, 2004, for more than two classes), between −1 and 1; `macro_f1`, the mean F1 of the
      classes that occur as targets or predictions.
    - `many_shot_accuracy`, `medium_shot_accuracy`, `few_shot_accuracy`: the mean recall of the classes with more than
      100, 20 to 100, and fewer than 20 training images (Liu et al., CVPR 2019).
    - For two classes and groups that are class × attribute, as fairlearn defines them: `demographic_parity_difference` and
      `demographic_parity_ratio` compare the attributes by the share of predictions that are the second class.
      `equalized_odds_difference` and `equalized_odds_ratio` compare the attributes by true and by false positive rates, and
      are the worse one of the two. A difference is that of the largest and smallest rate; a ratio is smallest to largest. A
      rate that is 0/0 is left out; in fairlearn it counts as 0.

    If `evaluation_names` is given, the metrics of groups are over the evaluation groups. Exceptions are
    `adjusted_accuracy`, the metrics of parity and those in TRAINING_GROUP_METRICS, which are over the groups of the
    training set.

    A metric that is 0/0 (the recall of a class without examples, the precision of a class that is never predicted) is
    nan. A mean or minimum over classes or groups ignores nan.

    Args:
        counts: the counts of M models: the shape of each tensor begins with M; or the counts of one model, without M.
        train_class_counts, train_group_counts: the numbers of training examples of each class and group, (M, K) and
            (M, G), or (K,) and (G,) if all models have the same.
        evaluation_names: the names of the evaluation groups; () if metrics by group use the training groups.
        crossed_groups: the (G,) class and the (G,) attribute of each group, as numbers; None if groups have no attributes.

    Returns:
        For each model, a dictionary from the name of a metric to its value; a list of one for counts without M.

    Raises:
        BadInput: the names or the training counts do not fit the counts.
    """
    if counts.classes.dim() == 2:  # of one model
        evaluated = None if counts.eval_grouped is None else counts.eval_grouped[None]
        counts = Counts(counts.classes[None], counts.predicted[None], counts.grouped[None], evaluated)
    check_names(counts, class_names, group_names, evaluation_names)
    train_class_counts = checked_counts("train_class_counts", train_class_counts, len(class_names))
    train_group_counts = checked_counts("train_group_counts", train_group_counts, len(group_names))
    classes = counts.classes.cpu().numpy().astype(np.float64)
    grouped = counts.grouped.cpu().numpy().astype(np.float64)
    eval_grouped = grouped if counts.eval_grouped is None else counts.eval_grouped.cpu().numpy().astype(np.float64)
    hits, support, predicted = classes[..., 1], classes.sum(2), counts.predicted.cpu().numpy().astype(np.float64)
    total, right = support.sum(1, keepdims=True), hits.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = hits / support, hits / predicted
        f1 = f1_scores(hits, support, predicted)
        accuracy, predicted_share = (total - support - predicted + 2 * hits) / total, predicted / total
        training_group_accuracy = grouped[..., 1] / grouped.sum(2)
        group_accuracy = eval_grouped[..., 1] / eval_grouped.sum(2)
        mcc = matthews_correlation(hits, support, predicted)
        shares = train_group_counts * ~np.isnan(training_group_accuracy)
        summaries = [
            right / total[:, 0],
            mean_ignoring_nan(recall),
            _least(recall),
            _least(group_accuracy),
            mean_ignoring_nan(group_accuracy),
            np.nansum(shares * training_group_accuracy, 1) / shares.sum(1),
            geometric_mean(recall),
            mcc,
            mean_ignoring_nan(f1),
        ]
        for least, most in SHOTS.values():
            in_range = (train_class_counts >= least) & (train_class_counts <= most)
            summaries.append(mean_ignoring_nan(np.where(in_range, recall, np.nan)))
        worst_and_mean = [_least(training_group_accuracy), mean_ignoring_nan(training_group_accuracy)]
    names, columns = list(SUMMARY_METRICS), [np.stack(summaries, 1)]
    for name, values in zip(CLASS_METRICS, (recall, precision, f1, accuracy, predicted_share), strict=True):
        names += [f"{name}/{label}" for label in class_names]
        columns.append(values)
    names += [f"group_accuracy/{label}" for label in evaluation_names or group_names]
    columns.append(group_accuracy)
    if evaluation_names:
        names += [*TRAINING_GROUP_METRICS, *(f"training_group_accuracy/{label}" for label in group_names)]
        columns += [np.stack(worst_and_mean, 1), training_group_accuracy]
    if crossed_groups is not None and len(class_names) == 2:
        names += PARITY_METRICS
        columns.append(parity(grouped, *crossed_groups))
    return [dict(zip(names, values, strict=True)) for values in np.concatenate(columns, 1).tolist()]


def parity(grouped: np.ndarray, classes: Sequence[int], attributes: Sequence[int]) -> np.ndarray:
    """Return the (M, 4) values of `PARITY_METRICS`. A rate that is 0/0 is left out; in fairlearn it counts as 0.

    Args:
        grouped: (M, G, 2), the numbers of wrong and of right predictions in each group.
        classes, attributes: (G,) class (0 or 1) and attribute of each group, as numbers.
    """
    positive = np.array(classes) == 1
    selected, totals = np.where(positive, grouped[..., 1], grouped[..., 0]), grouped.sum(2)
    has_attribute = np.array(attributes)[:, None] == np.arange(max(attributes) + 1)
    columns = []
    for of_class in (np.ones(len(positive), dtype=bool), positive, ~positive):
        members = (has_attribute & of_class[:, None]).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = (selected @ members) / (totals @ members)
            low, high = np.fmin.reduce(rates, 1), np.fmax.reduce(rates, 1)
            columns.append((high - low, low / high))
    (difference, ratio), (true, true_ratio), (false, false_ratio) = columns
    return np.stack([difference, ratio, np.fmax(true, false), np.fmin(true_ratio, false_ratio)], 1)


def check_names(
    counts: Counts, class_names: Sequence[str], group_names: Sequence[str], evaluation_names: Sequence[str]
) -> None:
    """Raise `BadInput` unless each class, group and evaluation group of the counts has a name of its own."""
    evaluated = 0 if counts.eval_grouped is None else counts.eval_grouped.shape[-2]
    sizes = {"class_names": counts.classes.shape[-2], "group_names": counts.grouped.shape[-2], "evaluation_names": evaluated}  # fmt: skip
    for (key, size), names in zip(sizes.items(), (class_names, group_names, evaluation_names)):
        if len(names) != size or len(set(names)) != size:
            raise BadInput(f"{key}: {len(set(names))} different names given; the counts need {size}")


def checked_counts(key: str, counts: Any, size: int) -> np.ndarray:
    """Return counts of training examples as an array, or raise `BadInput`.

    Args:
        key: name of the argument, for the message.
        counts: non-negative numbers, whose last dimension must have the length `size`.
    """
    array = as_nonnegative(key, counts, (1, 2))
    if array.shape[-1] != size:
        raise BadInput(f"{key}: an array of shape {array.shape} given; {size} numbers are needed")
    return array


def mean_ignoring_nan(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row of (M, n) values, ignoring nan; nan for a row that is all nan."""
    return np.nansum(values, 1) / (~np.isnan(values)).sum(1)


def f1_scores(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the (M, K) F1 of each class; nan for a class that occurs neither as a target nor as a prediction.

    Args:
        hits, support, predicted: (M, K) numbers of right predictions, of targets and of predictions of each class.
    """
    return 2 * hits / (support + predicted)


def matthews_correlation(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the (M,) correlations of targets and predictions; the arguments are those of `f1_scores`."""
    # The covariances of one-hot targets and predictions, times n², are integers of the confusion matrix.
    n, right = support.sum(1), hits.sum(1)
    spreads = (n**2 - np.square(support).sum(1)) * (n**2 - np.square(predicted).sum(1))
    return (right * n - (support * predicted).sum(1)) / np.sqrt(spreads)


def _least(values: np.ndarray) -> np.ndarray:
    """Return the minimum of each row of (M, n) values, ignoring nan; nan for a row that is all nan."""
    return np.fmin.reduce(values, 1)


def geometric_mean(values: np.ndarray) -> np.ndarray:
    """Return the geometric mean of each row of (M, n) values, ignoring nan; nan for a row that is all nan."""
    present = (~np.isnan(values)).sum(1)
    return np.where(present, np.nanprod(values, 1) ** (1 / present), np.nan)
