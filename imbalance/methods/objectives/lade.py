"""LADE: an objective that removes the class shares of the training set from the logits."""

import math

import torch
from torch import Tensor

from imbalance.config.schema import NonNegative, checked
from imbalance.config.tags import Tags
from imbalance.methods.losses import share
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective


def log_mean_exp(values: Tensor) -> Tensor:
    """Return the logarithm of the mean of exp(values) over the first dimension."""
    return values.logsumexp(0) - math.log(len(values))


@checked
class LabelDistributionDisentangling(Objective):
    """The mean weighted loss, plus `penalty` times the regulariser of LADE.

    Hong, Han, Choi, Seo, Kim and Chang, "Disentangling Label Distribution for Long-tailed Visual Recognition", CVPR
    2021. With the loss `balanced_softmax` the sum is LADE. For the class shares π of the training set the regulariser
    is

        −Σ_c π_c (A_c − S_c − λ S_c²),   S_c = log of the mean over the batch of exp(z_c − log π_c − log K),

    where A_c is the mean of z_c over the examples of class c in the batch. As in the authors' code
    (github.com/hyperconnect/LADE), a class without examples in the batch has A_c = 0 and still contributes S_c. The
    weights of examples multiply the losses alone.

    The softmax of a trained model's logits gives the class probabilities for equal class shares. For other class shares t, add
    log t_c to each logit z_c.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        penalty: the factor of the regulariser; 0.1 for CIFAR-100-LT in the authors' README.
        drift: λ, the factor that keeps S_c close to 0; 0.01 for CIFAR-100-LT in the authors' README.
    """

    tags = Tags(batched=True, unmixed=True)
    columns = ("logits", "targets")
    shares: Tensor

    def __init__(self, class_counts: Tensor, *, penalty: NonNegative, drift: NonNegative):
        super().__init__()
        self.penalty, self.drift = penalty, drift
        self.register_buffer("shares", share(class_counts), persistent=False)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, *, logits: Tensor, targets: Tensor) -> Tensor:
        return (weights * losses).mean() + self.penalty * self.regulariser(logits, targets)

    def regulariser(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the regulariser of (B, K) logits and (B,) targets."""
        logits = at_least_float32(logits)
        shares, classes = self.shares.to(logits), logits.shape[1]
        onehot = (targets[:, None] == torch.arange(classes, device=targets.device)).to(logits)
        means = (logits * onehot).sum(0) / onehot.sum(0).clamp(min=1)
        spreads = log_mean_exp(logits - shares.log() - math.log(classes))
        return -(shares * (means - spreads - self.drift * spreads**2)).sum()
