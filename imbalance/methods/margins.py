"""Margins: the difference between the logit of the target and the logits of the other classes.

`soft_margins` are smooth functions of the logits, and losses are computed from them. `hard_margins` are positive if and
only if the prediction is right.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from imbalance.errors import BadInput


def at_least_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32, and other logits unchanged.

    Call it before logits are subtracted: bfloat16 has so few digits that different logits often are the same number.
    """
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def check_shapes(logits: Tensor, targets: Tensor, counts: Tensor | None = None) -> None:
    """Raise `BadInput` unless logits are (B, K) floats and targets (B,) integers of 32 or 64 bits.

    Without this check, torch would repeat a single target for all rows. Its error for targets of a wrong type would not
    name the targets.

    Args:
        counts: a tensor with one number for each class; None to leave K unchecked.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise BadInput(
            f"loss: logits of shape {tuple(logits.shape)} and targets of shape {tuple(targets.shape)} given; (B, K) and (B,) "
            "are needed"
        )
    if not logits.is_floating_point() or targets.dtype not in (torch.int64, torch.int32):
        raise BadInput(
            f"loss: logits of type {logits.dtype} and targets of type {targets.dtype} given; floats and torch.int64 are needed, "
            "so pass logits.float() and targets.long()"
        )
    if counts is not None and len(counts) != logits.shape[1]:
        raise BadInput(
            f"loss: {logits.shape[1]} logits for each example given, but class_counts has {len(counts)} classes"
        )


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + e^x), exact to the precision of `x`.

    `F.softplus` returns x above 20 by default, which is an error of 2e-9 in float64. Above 37 log(1 + e^x) equals x in
    float64, so the threshold is 37 there.
    """
    return F.softplus(x, threshold=37.0 if x.dtype == torch.float64 else 20.0)


def against(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (B, K) signs with the type of `logits`: −1 for the target class, 1 for all other classes."""
    return torch.ones_like(logits).scatter(1, targets[:, None], -1)


def log_odds_against(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (B,) log-odds against the target, log((1 − p_y) / p_y) = log Σ_{j≠y} exp z_j − z_y, with p = softmax(z).

    A training step of a small model spends most of its time on launching operations, so this function uses as few
    operations as possible.
    """
    check_shapes(logits, targets)
    logits = at_least_float32(logits)
    if logits.shape[1] == 2:
        return (logits * against(logits, targets)).sum(1)
    own = targets[:, None]
    return logits.scatter(1, own, -math.inf).logsumexp(1) - logits.gather(1, own).squeeze(1)


def soft_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the soft margins z_y − log Σ_{j≠y} exp z_j + log(K − 1).

    For two classes this is z_y − z_{1−y}. For equal logits it is 0.

    Args:
        logits: (B, K).
        targets: (B,), in 0..K-1.

    Returns:
        (B,) margins in at least float32; positive if exp z_y is above the mean of exp z_j over the other classes.
    """
    if logits.ndim == 2 and logits.shape[1] < 2:
        raise BadInput("loss: logits of one class given; a margin compares two classes, so give at least two logits")
    return math.log(logits.shape[1] - 1) - log_odds_against(logits, targets)


def hard_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the (B,) hard margins z_y − max_{j≠y} z_j, which are positive if the prediction is right."""
    own = logits.gather(1, targets[:, None])
    return own.squeeze(1) - logits.scatter(1, targets[:, None], -torch.inf).amax(1)
