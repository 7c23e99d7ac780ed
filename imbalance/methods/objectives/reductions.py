"""Objectives that need only the losses, weights and groups of a batch."""

import torch
from torch import Tensor

from imbalance.config.schema import Share, checked
from imbalance.config.tags import Tags
from imbalance.methods.losses import checked_counts
from imbalance.methods.objectives.base import Objective, group_means


class Average(Objective):
    """The mean Σ w·ℓ / B of the weighted losses of a batch.

    It divides by the number of examples B, not by Σw, so it is an unbiased estimate of the weighted risk.
    """

    tags = Tags(batched=True, averages=True)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        return (weights * losses).mean()


class LogAverage(Objective):
    """The logarithm of the mean weighted loss, whose gradient does not vanish as the loss falls.

    Its gradient is that of `Average` divided by the mean, so gradient flow takes the same path at another speed. With
    it a linear model on separable data reaches its limit direction in hundreds of steps (Nacson et al., "Convergence of
    Gradient Descent on Separable Data", AISTATS 2019). In float32 cross-entropy is 0 for margins above about 104, and
    its logarithm is −∞. So use `trainer.dtype="float64"`, where this happens above 745.
    """

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        return (weights * losses).mean().log()


@checked
class CVaR(Objective):
    """The mean loss of the share `level` of the batch that has the largest losses.

    Levy, Carmon, Duchi and Sidford, "Large-Scale Methods for Distributionally Robust Optimization", NeurIPS 2020: the
    maximum of Σ q_i ℓ_i over distributions q with q_i ≤ p_i / level. p_i = w_i / Σ w is the share of example i in the
    batch by its weight. The objective reads no groups.

    Args:
        level: the share of the batch that is averaged; 1.0 for the weighted mean of all losses.
    """

    def __init__(self, *, level: Share):
        super().__init__()
        self.level = level

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        ordered, order = losses.sort(descending=True)
        shares = (weights / weights.sum())[order].double()
        # Examples take their shares in the order of falling losses, until the shares taken add up to `level`.
        # A GPU adds floats in any order, so add integers, whose sum has the same bits in every order.
        units = (shares * UNITS).long()
        before = (units.cumsum(0) - units).double() / UNITS
        taken = (self.level - before).clamp(min=0).minimum(shares) / self.level
        return (taken.to(ordered) * ordered).sum()


UNITS = 2.0**60  # units in a share of 1; the shares of a batch add up to 1, so int64 holds the sum of their units


class WorstGroup(Objective):
    """The largest mean weighted loss of a group in the batch.

    It is `GroupDRO` with an infinite step size; its gradient is noisier, because one group of one batch decides it.
    """

    tags = Tags(batched=False)  # `group_means` cannot be batched

    def __init__(self, group_counts: Tensor):
        super().__init__()
        self.num_groups = len(checked_counts(group_counts, "group_counts"))

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        means, present = group_means(weights * losses, groups, self.num_groups)
        return means.where(present, -torch.inf).max()
