"""Invariant risk minimisation."""

import torch
from torch import Tensor

from imbalance.config.schema import Natural, NonNegative, checked
from imbalance.config.tags import Tags
from imbalance.methods.objectives.base import Environments, Objective, count_environments, group_means


@checked
class InvariantRisk(Objective):
    """The mean of w·ℓ, plus `penalty` times the mean over environments of the squared slope of their risk.

    Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization", 2019, IRMv1 (their equation (IRMv1)):
    Σ_e R_e(Φ) + λ ‖∇_{w | w=1.0} R_e(w·Φ)‖², where R_e is the mean of w·ℓ over environment e and the logits are
    multiplied by w. The slope of a mean is the mean of the slopes of its examples. As in the later benchmarks (Gulrajani
    and Lopez-Paz, ICLR 2021) risks and penalties are averaged, not summed, so that λ does not depend on how many
    environments there are. Their code squares the product of the slopes of two halves of a batch, which is unbiased;
    this is the plain square, whose expectation is greater by the slope's variance. As in their code, all of it is divided
    by λ where that is above 1, so that the same learning rates serve.

    Args:
        environments: "group", or "attribute" where groups are classes times attributes: then an environment has all
            classes, as in the paper.
        penalty: the factor λ of the penalty.
        warmup_steps: steps with a λ of at most 1, as in the authors' code; the features are found in them.
    """

    tags = Tags(batched=False)  # for its count of steps
    columns = ("slopes",)

    def __init__(
        self,
        num_classes: int,
        num_groups: int,
        *,
        environments: Environments,
        penalty: NonNegative,
        warmup_steps: Natural,
    ):
        super().__init__()
        self.count = count_environments(environments, num_classes, num_groups)
        self.penalty, self.warmup_steps = penalty, warmup_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, *, slopes: Tensor) -> Tensor:
        environments = groups % self.count  # group = class · attributes + attribute; all of `count` groups stay
        of_each, seen = group_means(weights * slopes, environments, self.count)
        penalty = (of_each**2).sum() / seen.sum()
        risk = (weights * losses).mean()
        warms_up = self.steps < self.warmup_steps
        if self.training:
            self.steps += 1
        if self.penalty <= 1:
            return risk + self.penalty * penalty
        return torch.where(warms_up, risk, risk / self.penalty) + penalty  # λ itself may be more than float32 has
