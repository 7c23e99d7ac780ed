"""Margins: the difference between the logit of the target and those of the other classes.

`soft_margins` are smooth, and losses are functions of them; `hard_margins` are positive if the prediction is right.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32.

    Ties are common in bfloat16, so a difference must be taken after the cast.
    """
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + e^x), exact to the precision of `x`.

    torch's softplus is x beyond 20 in every precision, which is an error of 2e-9 in float64. Beyond 37 both are equal
    in float64.
    """
    return F.softplus(x, threshold=37.0 if x.dtype == torch.float64 else 20.0)


def against(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (B, K) signs with the type of `logits`: −1 at the target, 1 elsewhere."""
    return torch.ones_like(logits).scatter(1, targets[:, None], -1)


def log_odds_against(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (B,) log (1 − p_y) / p_y = log Σ_{j≠y} exp z_j − z_y of the softmax.

    A step of a small model spends its time on starting such operations, forward and backward. On a GPU each is a
    kernel. So there are as few operations as possible.
    """
    logits = at_least_float32(logits)
    if logits.shape[1] == 2:
        return (logits * against(logits, targets)).sum(1)
    own = targets[:, None]
    return logits.scatter(1, own, -math.inf).logsumexp(1) - logits.gather(1, own).squeeze(1)


def soft_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Return z_y − log Σ_{j≠y} exp z_j + log(K − 1), which is z_y − z_{1−y} for two classes and 0 for equal logits.

    Args:
        logits: (B, K).
        targets: (B,), in 0..K-1.

    Returns:
        (B,) margins in at least float32; positive if the target beats the soft average of the other classes.
    """
    return math.log(logits.shape[1] - 1) - log_odds_against(logits, targets)


def hard_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (B,) z_y − max_{j≠y} z_j of (B, K) logits: positive if the prediction is right."""
    own = logits.gather(1, targets[:, None])
    return own.squeeze(1) - logits.scatter(1, targets[:, None], -torch.inf).amax(1)
