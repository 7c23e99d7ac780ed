"""Heads that fit a few numbers on val: a temperature, or thresholds of the classes."""

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
    """Divide the logits by the temperature with the smallest negative log-likelihood on val; predictions stay the same.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The likelihood is
    concave in one over the temperature, which is searched between 0.01 and 100: it would be infinite if every val
    prediction is right. Reads the classes of val, so the likelihood and calibration of val are training metrics: compare
    runs on test.
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
    """Add b_j to each logit z_j; the b_j are chosen one after another for the best `metric` on val.

    Two classes have one threshold, which one round finds exactly. With more classes a round can end in a local optimum.
    Reads the classes of val, or its groups for worst_group_accuracy, so the metrics of val are training metrics:
    compare runs on test.

    Args:
        metric: the metric of val to maximise.
        rounds: the most rounds over all classes; the search ends earlier if a round improves nothing.
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
    """Return the best reduced accuracy of the labels, and the number to add to the logit of class k to get it.

    Example i is predicted as k if the offset is above d_i = max_{j ≠ k} z_j − z_k. Between two neighbouring d nothing
    changes. So all intervals are tried, and the result is the middle of the widest one of the best.
    """
    others = logits.clone()
    others[:, k] = -math.inf
    largest, rival = others.max(1)
    thresholds, order = (largest - logits[:, k]).sort()
    onehot = torch.nn.functional.one_hot(labels[order]).double()
    onehot = onehot[:, onehot.sum(0) > 0]
    # An offset above d_i turns example i into class k: a right prediction is won or lost.
    won, lost = ((targets == k)[order, None] * onehot).cumsum(0), ((rival == targets)[order, None] * onehot).cumsum(0)
    right = torch.cat([lost[-1:], won + lost[-1] - lost])  # (N + 1, labels): for an offset above the first 0, 1, …, N d
    values = reduce(right / onehot.sum(0), dim=1)
    ends = torch.cat([thresholds[:1] - 2, thresholds, thresholds[-1:] + 2])
    widths = (ends[1:] - ends[:-1]).where(values >= values[ends[1:] > ends[:-1]].max(), -1.0)
    place = int(widths.argmax())
    return values[place].item(), ((ends[place] + ends[place + 1]) / 2).item()


def val_logits(head: nn.Linear, dataset: Dataset, features: Callable[[str], Tensor]) -> Tensor:
    """Return (N, K) logits of val, in float64 on the CPU."""
    with torch.no_grad():
        return (features("val").to(head.weight) @ head.weight.T + head.bias).double().cpu()
