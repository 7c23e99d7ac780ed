"""Heads that fit a few numbers on val: a temperature, thresholds of classes."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from imbalance.config.schema import Repeats
from imbalance.data import Dataset
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import cross_entropy


def temperature(head: nn.Linear, dataset: Dataset, features: Callable[[str], Tensor]) -> nn.Module:
    """z / T, T of the smallest negative log-likelihood on val: calibrates, and predicts as before.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The likelihood is
    concave in 1 / T, which is sought between 0.01 and 100: a val split that is all right would have it infinite. Reads
    val's classes, so that val's likelihood and calibration are training metrics: compare runs on test.
    """
    from scipy.optimize import minimize_scalar

    logits, targets = val_logits(head, dataset, features), dataset.val.targets.cpu()

    def loss(log_inverse: float) -> float:
        return cross_entropy(math.exp(log_inverse) * logits, targets).mean().item()

    least, most = math.log(0.01), math.log(100)
    inverse = math.exp(minimize_scalar(loss, bounds=(least, most), method="bounded", options={"xatol": 1e-6}).x)
    return linear(inverse * head.weight, inverse * head.bias)


def thresholds(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    *,
    metric: Literal["balanced_accuracy", "worst_class_recall", "worst_group_accuracy"],
    rounds: Repeats,
) -> nn.Module:
    """z_j + b_j, with the b_j that are best on val by `metric`: each in turn at its best, the others as they are.

    Two classes have one threshold, which one round finds exactly; of more a round can end in a local optimum. Reads
    val's classes, or its groups for worst_group_accuracy, so that val's metrics are training metrics: compare runs on test.

    Args:
        metric: what val is to have the most of.
        rounds: over all classes; it ends before where nothing gets better.
    """
    val, logits = dataset.val, val_logits(head, dataset, features)
    by_group = metric == "worst_group_accuracy"
    labels = (val.groups if by_group else val.targets).cpu()
    reduce = torch.mean if metric == "balanced_accuracy" else torch.amin
    offsets, best = torch.zeros(dataset.num_classes, dtype=torch.float64), -math.inf
    for _ in range(rounds):
        before = best
        for k in range(1 if dataset.num_classes == 2 else 0, dataset.num_classes):
            value, offset = best_offset(logits + offsets, k, val.targets.cpu(), labels, reduce)
            if value > best:
                best, offsets[k] = value, offsets[k] + offset
        if best == before:
            break
    return linear(head.weight, head.bias + (offsets - offsets.mean()).to(head.bias))


def best_offset(
    logits: Tensor, k: int, targets: Tensor, labels: Tensor, reduce: Callable[..., Tensor]
) -> tuple[float, float]:
    """What `reduce` makes of the accuracies by label at best, and what to add to the logit of class k for it.

    Example i is predicted as k from d_i = max_{j ≠ k} z_j − z_k on. Between two neighbouring d nothing changes: all
    intervals are tried, and of the best ones the widest is taken in its middle.
    """
    others = logits.clone()
    others[:, k] = -math.inf
    largest, rival = others.max(1)
    needed, order = (largest - logits[:, k]).sort()
    onehot = torch.nn.functional.one_hot(labels[order]).double()
    onehot = onehot[:, onehot.sum(0) > 0]
    won, lost = ((targets == k)[order, None] * onehot).cumsum(0), ((rival == targets)[order, None] * onehot).cumsum(0)
    right = torch.cat([lost[-1:], won + lost[-1] - lost])  # (N + 1, labels): after the offset has passed so many d
    values = reduce(right / onehot.sum(0), dim=1)
    ends = torch.cat([needed[:1] - 2, needed, needed[-1:] + 2])
    widths = (ends[1:] - ends[:-1]).where(values >= values[ends[1:] > ends[:-1]].max(), -1.0)
    place = int(widths.argmax())
    return values[place].item(), ((ends[place] + ends[place + 1]) / 2).item()


def val_logits(head: nn.Linear, dataset: Dataset, features: Callable[[str], Tensor]) -> Tensor:
    """(N, K) of val, in float64 on the CPU."""
    with torch.no_grad():
        return (features("val").to(head.weight) @ head.weight.T + head.bias).double().cpu()
