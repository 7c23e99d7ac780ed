"""Reductions: objectives of the losses, weights and groups of a batch alone."""

import torch
from torch import Tensor

from imbalance.config.schema import Share, checked
from imbalance.config.tags import Tags
from imbalance.methods.objectives.base import Objective, group_means


class Average(Objective):
    """The mean of w·ℓ over the batch: dividing by B, not by Σw, keeps it unbiased for the weighted risk."""

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        return (weights * losses).mean()


class LogAverage(Objective):
    """The logarithm of `Average`: the same minimisers, approached along the same path but at a rate that does not decay.

    Its gradient is that of the mean divided by the mean, the normalised descent under which a linear model on
    separable data reaches its limit direction in hundreds of steps (Nacson et al., "Convergence of Gradient Descent
    on Separable Data", AISTATS 2019). In float32 every cross-entropy is 0 beyond a margin of about 104, and the
    logarithm −∞: run such experiments with `trainer.dtype="float64"`, where that comes only at 745.
    """

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        return (weights * losses).mean().log()


@checked
class CVaR(Objective):
    """The mean loss of the worst `level` of the batch, an example's share in it being that of its weight.

    Levy, Carmon, Duchi and Sidford, "Large-Scale Methods for Distributionally Robust Optimization", NeurIPS 2020: the
    maximum of Σ q_i ℓ_i over distributions q with q_i ≤ p_i / level, p_i = w_i / Σ w. Knows of no groups.

    Args:
        level: the share of the batch that counts; 1.0 for the weighted mean.
    """

    def __init__(self, *, level: Share):
        super().__init__()
        self.level = level

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None) -> Tensor:
        ordered, order = losses.sort(descending=True)
        shares = (weights / weights.sum())[order].double()
        # Of the level's share of the batch, filled up from the worst: what the ones before leave, at most one's own.
        # Summed as integers, which a GPU adds up to the same bits in every order.
        whole = (shares * FINE).long()
        before = (whole.cumsum(0) - whole).double() / FINE
        taken = (self.level - before).clamp(min=0).minimum(shares) / self.level
        return (taken.to(ordered) * ordered).sum()


FINE = 2.0**60  # parts that a share is counted in; of a batch they add up to no more than int64 has


class WorstGroup(Objective):
    """The greatest of the batch's group means of w·ℓ: `GroupDRO` with an infinite step, and its noise."""

    tags = Tags(batched=False)  # counting groups is not

    def __init__(self, group_counts: Tensor):
        super().__init__()
        self.num_groups = len(group_counts)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        means, seen = group_means(weights * losses, groups, self.num_groups)
        return means.where(seen, -torch.inf).max()
