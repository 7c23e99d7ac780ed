"""From predictions to integer counts, and from counts to every metric."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imbalance.config.metric_names import CLASS_METRICS, SUMMARY_METRICS, TRAINING_GROUP_METRICS

SHOTS = {"many": (101, np.inf), "medium": (20, 100), "few": (0, 19)}  # training images of a class


class Counts(NamedTuple):
    """What every metric is a function of; sums over batches and processes are the counts of the union.

    confusion: (K, K), confusion[target, prediction].
    grouped: (G, 2), examples of each group that were predicted wrongly and rightly.
    eval_grouped: (E, 2), the same of evaluation groups; None where these are the groups.

    The full table over (group, target, prediction) would say no more that a metric here needs, and at a thousand
    classes and groups would take 8 GB.
    """

    confusion: Tensor
    grouped: Tensor
    eval_grouped: Tensor | None = None


def count(
    predictions: Tensor,
    targets: Tensor,
    groups: Tensor,
    num_classes: int,
    num_groups: int,
    members: Tensor | None = None,
) -> Counts:
    """Count (…, B) predicted classes against (…, B) targets and groups; (…) models at once, int64, on their device.

    Args:
        members: (…, B, E) bool, the evaluation groups of each; None where these are the groups.
    """
    confusion, right = _tabulate(targets * num_classes + predictions, num_classes**2), predictions == targets
    judged = None
    if members is not None:
        judged = torch.stack([(members & of_kind[..., None]).sum(-2) for of_kind in (~right, right)], dim=-1)
    grouped = count_right(right, groups, num_groups)
    return Counts(confusion.unflatten(-1, (num_classes, num_classes)), grouped, judged)


def count_right(right: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """(…, G, 2) how many examples of each group are wrong and how many right, of (…, B) bool and groups."""
    return _tabulate(groups * 2 + right, num_groups * 2).unflatten(-1, (num_groups, 2))


def _tabulate(values: Tensor, size: int) -> Tensor:
    """(…, size) how often each number below `size` is among (…, B) values."""
    flat = values.flatten(0, -2) if values.dim() > 1 else values[None]
    flat = flat + size * torch.arange(len(flat), device=flat.device)[:, None]
    counts = flat.new_zeros(size * len(flat))  # bincount would have the host wait for the greatest value
    return counts.index_add_(0, flat.flatten(), torch.ones_like(flat).flatten()).view(*values.shape[:-1], size)


def compute(
    counts: Counts,
    class_names: Sequence[str],
    group_names: Sequence[str],
    train_class_counts: np.ndarray,
    train_group_counts: np.ndarray,
    evaluation_names: Sequence[str] = (),
) -> list[dict[str, float]]:
    """Every metric of the counts of M models, as fractions.

    Where there are evaluation groups, `evaluation_names`, apart from the groups of training, all that is said of groups
    is over the evaluation groups, but for `adjusted_accuracy` and OF_TRAINING_GROUPS.

    - `recall/<class>`, `precision/<class>`, `f1/<class>` and `accuracy/<class>` (of "is it this class?", one against
      the rest), `predicted/<class>`, the share of predictions that name it, `group_accuracy/<group>`;
    - `accuracy` over all examples, `balanced_accuracy` (mean recall), `worst_class_recall`,
      which needs no groups (Yang et al., "Change is Hard", ICML 2023, select by it), `worst_group_accuracy`,
      `group_balanced_accuracy` (mean over groups), and `adjusted_accuracy`: group accuracies weighted by the groups'
      shares of the training set, the average that the Waterbirds literature reports;
    - `g_mean`, the geometric mean of the recalls (Kubat and Matwin, ICML 1997); `mcc`, Matthews' correlation of targets
      and predictions (Gorodkin, 2004, for more than two classes), between −1 and 1;
    - `many_shot_accuracy`, `medium_shot_accuracy`, `few_shot_accuracy`: the mean recall of the classes with more than
      100, 20 to 100, and fewer than 20 training images (Liu et al., CVPR 2019).

    0/0 (the recall of a class without examples, the precision of one never predicted) is nan, and is left out of
    means and of "worst".

    Args:
        counts: (M, …) each.
        train_class_counts, train_group_counts: (M, K) and (M, G), or (K,) and (G,) of all.
    """
    confusion = counts.confusion.cpu().numpy()
    grouped = counts.grouped.cpu().numpy().astype(np.float64)
    judged = grouped if counts.eval_grouped is None else counts.eval_grouped.cpu().numpy().astype(np.float64)
    sums = (confusion.diagonal(axis1=1, axis2=2), confusion.sum(2), confusion.sum(1))
    hits, support, predicted = (values.astype(np.float64) for values in sums)
    total, right = support.sum(1, keepdims=True), hits.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = hits / support, hits / predicted
        f1 = 2 * hits / (support + predicted)
        accuracy, predicted_share = (total - support - predicted + 2 * hits) / total, predicted / total
        of_training, group_accuracy = grouped[..., 1] / grouped.sum(2), judged[..., 1] / judged.sum(2)
        # Of the confusion matrix's integers: the covariances of targets and predictions as one-hot vectors, times n².
        n = total[:, 0]
        spreads = (n**2 - np.square(support).sum(1)) * (n**2 - np.square(predicted).sum(1))
        mcc = (right * n - (support * predicted).sum(1)) / np.sqrt(spreads)
        shares = train_group_counts * ~np.isnan(of_training)
        summaries = [
            right / n,
            _mean(recall),
            _least(recall),
            _least(group_accuracy),
            _mean(group_accuracy),
            np.nansum(shares * of_training, 1) / shares.sum(1),
            _geometric_mean(recall),
            mcc,
        ]
        for least, most in SHOTS.values():
            of_shots = (train_class_counts >= least) & (train_class_counts <= most)
            summaries.append(_mean(np.where(of_shots, recall, np.nan)))
        worst_and_mean = [_least(of_training), _mean(of_training)]
    names, columns = list(SUMMARY_METRICS), [np.stack(summaries, 1)]
    for name, values in zip(CLASS_METRICS, (recall, precision, f1, accuracy, predicted_share), strict=True):
        names += [f"{name}/{label}" for label in class_names]
        columns.append(values)
    names += [f"group_accuracy/{label}" for label in evaluation_names or group_names]
    columns.append(group_accuracy)
    if evaluation_names:
        names += [*TRAINING_GROUP_METRICS, *(f"training_group_accuracy/{label}" for label in group_names)]
        columns += [np.stack(worst_and_mean, 1), of_training]
    return [dict(zip(names, values, strict=True)) for values in np.concatenate(columns, 1).tolist()]


# Of (M, n) values, (M,) of those that are not nan; nan where all are.


def _mean(values: np.ndarray) -> np.ndarray:
    return np.nansum(values, 1) / (~np.isnan(values)).sum(1)


def _least(values: np.ndarray) -> np.ndarray:
    return np.fmin.reduce(values, 1)


def _geometric_mean(values: np.ndarray) -> np.ndarray:
    present = (~np.isnan(values)).sum(1)
    return np.where(present, np.nanprod(values, 1) ** (1 / present), np.nan)
