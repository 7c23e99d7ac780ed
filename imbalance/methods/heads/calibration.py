"""Heads that fit a few numbers to val: one temperature, or one threshold for each class."""

import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from imbalance.config.schema import Repeats
from imbalance.config.tags import tagged
from imbalance.data import Dataset
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import cross_entropy


@tagged(
    prior=lambda training_prior, natural, section: training_prior if training_prior.allclose(natural) else None,
    reads_val=True,
)
def temperature(head: nn.Linear, dataset: Dataset, features: Callable[[str], Tensor]) -> nn.Module:
    """Divide the logits by the temperature with the smallest negative log-likelihood on val; predictions stay the same.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The
    log-likelihood is concave in one over the temperature. The search is limited to temperatures from 0.01 to 100,
    because the best temperature is 0 if every val prediction is right. A warning says if the search ended at a limit.
    The head is fitted to the val classes, so the likelihood and the calibration on val are training metrics: compare
    runs on test.
    """
    from scipy.optimize import minimize_scalar

    logits, targets = val_logits(head, dataset, features), dataset.val.targets.cpu()

    def loss(log_inverse: float) -> float:
        return cross_entropy(math.exp(log_inverse) * logits, targets).mean().item()

    least, most = math.log(0.01), math.log(100)
    best = minimize_scalar(loss, bounds=(least, most), method="bounded", options={"xatol": 1e-6}).x
    inverse = math.exp(best)
    if min(best - least, most - best) < 1e-3:
        reason = (
            "every val prediction is right"
            if best > 0
            else "the logits of val tell the classes apart no better than chance"
        )
        warnings.warn(
            f"config.head.name='temperature': the temperature {1 / inverse:.3g} is at the end of the search, as if {reason}; "
            "the probabilities are not calibrated",
            stacklevel=2,
        )
    return linear(inverse * head.weight, inverse * head.bias)


@tagged(reads_val=True)
def thresholds(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    *,
    metric: Literal["balanced_accuracy", "worst_class_recall", "worst_group_accuracy"],
    rounds: Repeats,
) -> nn.Module:
    """Add a number b_j to the logit of each class j, which moves the thresholds between the classes.

    The b_j are chosen one after another to maximise `metric` on val. Two classes need one number only, and one round
    finds the best. With more classes the search can end in a local optimum. The head is fitted to the classes of val,
    or to its groups for worst_group_accuracy, so the metrics of val are training metrics: compare runs on test.

    Args:
        metric: the metric of val to maximise.
        rounds: the largest number of rounds over all classes; the search ends earlier if a round improves nothing.
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
    """Return a tuple: the best value of the metric, and the number to add to the logit of class k that reaches it.

    Example i is predicted as k if the number is above d_i = max_{j ≠ k} z_j − z_k. Predictions are constant between two
    neighbouring values of d. So the metric is computed for every interval, and the middle of the widest interval with
    the best value is returned. The first and the last interval count as 2 wide.

    Args:
        logits: (N, K) of val.
        k: the class.
        targets: (N,) classes of val.
        labels: (N,) the classes or groups over whose accuracies the metric reduces.
        reduce: the function from the accuracies to the metric, `torch.mean` or `torch.amin`.
    """
    others = logits.clone()
    others[:, k] = -math.inf
    largest, rival = others.max(1)
    thresholds, order = (largest - logits[:, k]).sort()
    onehot = torch.nn.functional.one_hot(labels[order]).double()
    onehot = onehot[:, onehot.sum(0) > 0]
    # An offset above d_i changes the prediction of example i from its rival to class k.
    won, lost = ((targets == k)[order, None] * onehot).cumsum(0), ((rival == targets)[order, None] * onehot).cumsum(0)
    right = torch.cat([lost[-1:], won + lost[-1] - lost])  # (N + 1, labels): row i for an offset above the i smallest d
    values = reduce(right / onehot.sum(0), dim=1)
    ends = torch.cat([thresholds[:1] - 2, thresholds, thresholds[-1:] + 2])
    widths = (ends[1:] - ends[:-1]).where(values >= values[ends[1:] > ends[:-1]].max(), -1.0)
    place = int(widths.argmax())
    return values[place].item(), ((ends[place] + ends[place + 1]) / 2).item()


def val_logits(head: nn.Linear, dataset: Dataset, features: Callable[[str], Tensor]) -> Tensor:
    """Return (N, K) logits of val, in float64 on the CPU."""
    with torch.no_grad():
        return (features("val").to(head.weight) @ head.weight.T + head.bias).double().cpu()
