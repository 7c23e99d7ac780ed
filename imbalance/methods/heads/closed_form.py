"""Heads in closed form: last layers that are computed from the trained layer, without data."""

import torch
from torch import Tensor, nn

from imbalance.config.schema import NonNegative, Section
from imbalance.config.tags import tagged
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import share


@tagged(prior=lambda training_prior, natural, section: training_prior)
def none(head: nn.Linear) -> nn.Module:
    """Keep the trained last layer unchanged."""
    return head


def adjusted_prior(training_prior: Tensor, natural: Tensor, section: Section) -> Tensor:
    """Return the (K,) class prior that the probabilities assume after the head `logit_adjusted`.

    It is proportional to q / π^τ.

    Args:
        training_prior: (K,) q, the class prior that the trained layer's probabilities assume.
        natural: (K,) π, the class shares of the training set.
        section: the section `config.head`, which has τ as `tau`.
    """
    prior = training_prior * natural.clamp(min=torch.finfo(natural.dtype).tiny) ** -section.tau
    return prior / prior.sum()


@tagged(prior=adjusted_prior, balances=True)
def logit_adjusted(head: nn.Linear, class_counts: Tensor, *, tau: NonNegative) -> nn.Module:
    """Subtract τ log π_j from the logit of each class j (Menon et al., ICLR 2021, equation 9).

    π_j = n_j / n is the share of class j in the training set.

    Args:
        tau: τ; 1.0 is optimal in theory for the balanced error, 0.0 leaves the layer unchanged.
    """
    return linear(head.weight, head.bias - tau * share(class_counts).log().to(head.bias))


def tau_normalised(head: nn.Linear, *, tau: NonNegative) -> nn.Module:
    """Divide the weight vector w_j of each class j by ‖w_j‖^τ, and drop the bias (Kang et al., ICLR 2020, equation 4).

    A weight vector of zeros stays as it is.

    Args:
        tau: τ; 1.0 makes all weight vectors as long as each other, 0.0 only drops the bias.
    """
    norms = head.weight.norm(dim=1, keepdim=True)
    return linear(head.weight / norms.where(norms > 0, 1.0) ** tau, torch.zeros_like(head.bias))
