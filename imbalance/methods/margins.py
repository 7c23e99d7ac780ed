"""Margins: by how much the logit of an example's own class beats those of the others.

`soft_margins` are smooth, and what losses are functions of; `hard_margins` say whether the prediction is right.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits in float32: bf16 ties are common, and a difference must be taken after the cast."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), exact to the precision of `x`.

    torch's own is x itself beyond 20 whatever the precision, which in float64 is 2e-9 too little there. Beyond 37 the
    two are the same number in float64.
    """
    return F.softplus(x, threshold=37.0 if x.dtype == torch.float64 else 20.0)


def against(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, K) −1 where the target is, 1 elsewhere, of the type of `logits`."""
    return torch.ones_like(logits).scatter(1, targets[:, None], -1)


def log_odds_against(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) log (1 − p_y) / p_y = log Σ_{j≠y} exp z_j − z_y under the softmax.

    A small model's step is made of such operations, so there are as few as there can be, backward ones included: on a
    GPU each is a kernel.
    """
    logits = at_least_float32(logits)
    if logits.shape[1] == 2:
        return (logits * against(logits, targets)).sum(1)
    own = targets[:, None]
    return logits.scatter(1, own, -math.inf).logsumexp(1) - logits.gather(1, own).squeeze(1)


def soft_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """z_y − log Σ_{j≠y} exp z_j + log(K − 1): zero where all logits are equal, z_y − z_{1−y} for two classes.

    Args:
        logits: (B, K).
        targets: (B,), in 0..K-1.

    Returns:
        (B,) margins in at least float32; positive exactly where an example beats the (soft) average of its rivals.
    """
    return math.log(logits.shape[1] - 1) - log_odds_against(logits, targets)


def hard_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) z_y − max_{j≠y} z_j of (B, K) logits: positive exactly where the prediction is right."""
    own = logits.gather(1, targets[:, None])
    return own.squeeze(1) - logits.scatter(1, targets[:, None], -torch.inf).amax(1)
