"""Heads in closed form: new last layers without training."""

import torch
from torch import Tensor, nn

from imbalance.config.schema import NonNegative
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import share


def none(head: nn.Linear) -> nn.Module:
    """Keep the layer as it was trained."""
    return head


def logit_adjusted(head: nn.Linear, class_counts: Tensor, *, tau: NonNegative) -> nn.Module:
    """Subtract τ log π_j from each logit, π_j = n_j / n in training (Menon et al., ICLR 2021, equation 9).

    Args:
        tau: τ; 1.0 in theory, 0.0 leaves the layer as it is.
    """
    return linear(head.weight, head.bias - tau * share(class_counts).log().to(head.bias))


def tau_normalised(head: nn.Linear, *, tau: NonNegative) -> nn.Module:
    """Divide the weights of each class by ‖w_j‖^τ, and drop the bias (Kang et al., ICLR 2020, equation 4).

    Args:
        tau: τ; 1.0 makes all rows unit vectors, 0.0 only drops the bias.
    """
    return linear(head.weight / head.weight.norm(dim=1, keepdim=True) ** tau, torch.zeros_like(head.bias))
