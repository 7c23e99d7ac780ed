"""Objectives that need only the losses, weights and groups of a batch."""

import torch
from torch import Tensor

from imbalance.config.schema import Share, checked
from imbalance.config.tags import Tags
from imbalance.methods.objectives.base import Objective, group_means


class Average(Objective):
    """The mean of w·ℓ over the batch; it divides by B, not by Σw, and so estimates the weighted risk without bias."""

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        return (weights * losses).mean()


class LogAverage(Objective):
    """The logarithm of `Average`, whose gradient does not vanish as the loss falls.

    The minimisers and the path to them are those of `Average`. The gradient is the gradient of the mean divided by the
    mean. With this normalised descent a linear model on separable data reaches its limit direction in hundreds of steps
    (Nacson et al., "Convergence of Gradient Descent on Separable Data", AISTATS 2019). In float32 every cross-entropy
    is 0 beyond a margin of about 104, and its logarithm −∞. Use `trainer.dtype="float64"`, where the limit is 745.
    """

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        return (weights * losses).mean().log()


@checked
class CVaR(Objective):
    """The mean loss of the worst `level` of the batch; each example has the share of its weight.

    Levy, Carmon, Duchi and Sidford, "Large-Scale Methods for Distributionally Robust Optimization", NeurIPS 2020: the
    maximum of Σ q_i ℓ_i over distributions q with q_i ≤ p_i / level, p_i = w_i / Σ w. Reads no groups.

    Args:
        level: the share of the batch that counts; 1.0 for the weighted mean.
    """

    def __init__(self, *, level: Share):
        super().__init__()
        self.level = level

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        ordered, order = losses.sort(descending=True)
        shares = (weights / weights.sum())[order].double()
        # The worst examples fill the level first; each takes what the examples before it leave, at most its own share.
        # A GPU adds floats in any order, so add integers, whose sum has the same bits in every order.
        units = (shares * UNITS).long()
        before = (units.cumsum(0) - units).double() / UNITS
        taken = (self.level - before).clamp(min=0).minimum(shares) / self.level
        return (taken.to(ordered) * ordered).sum()


UNITS = 2.0**60  # of a share of 1; the shares of a batch add up to 1, so int64 holds their sum


class WorstGroup(Objective):
    """The largest group mean of w·ℓ in the batch: `GroupDRO` with an infinite step size, and noisier."""

    tags = Tags(batched=False)  # `group_means` cannot be batched

    def __init__(self, group_counts: Tensor):
        super().__init__()
        self.num_groups = len(group_counts)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        means, present = group_means(weights * losses, groups, self.num_groups)
        return means.where(present, -torch.inf).max()
