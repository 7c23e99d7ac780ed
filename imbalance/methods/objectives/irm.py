"""IRM: invariant risk minimisation."""

import torch
from torch import Tensor

from imbalance.config.schema import Natural, NonNegative, checked
from imbalance.config.tags import Tags
from imbalance.methods.objectives.base import Environments, Objective, count_environments, group_means


@checked
class InvariantRisk(Objective):
    """The mean of w·ℓ, plus `penalty` times the mean over environments of the squared slope of their risk.

    Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization", 2019, equation (IRMv1):
    Σ_e R_e(Φ) + λ ‖∇_{w | w=1.0} R_e(w·Φ)‖². R_e is the mean of w·ℓ over environment e, and the factor w multiplies the
    logits. The slope of a mean is the mean of the slopes of its examples. There are three choices:

    - Risks and penalties are averaged, not summed, so λ does not depend on the number of environments. The later
      benchmarks do the same (Gulrajani and Lopez-Paz, ICLR 2021).
    - The slope is squared. The authors' code multiplies the slopes of two halves of a batch, which is unbiased; the
      expectation of the square is greater by the variance of the slope.
    - If λ is above 1, all terms are divided by λ, so that the same learning rates work. The authors' code does the
      same.

    Args:
        environments: "group", or "attribute" where groups are classes times attributes. Then every environment has all
            classes, as in the paper.
        penalty: the factor λ of the penalty.
        warmup_steps: the number of first steps with a λ of at most 1, as in the authors' code; the model learns its
            features in these steps.
    """

    tags = Tags(batched=False)  # it counts steps
    columns = ("slopes",)
    steps: Tensor

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
        mean_slopes, present = group_means(weights * slopes, environments, self.count)
        penalty = (mean_slopes**2).sum() / present.sum()
        risk = (weights * losses).mean()
        warms_up = self.steps < self.warmup_steps
        if self.training:
            self.steps += 1
        if self.penalty <= 1:
            return risk + self.penalty * penalty
        return torch.where(warms_up, risk, risk / self.penalty) + penalty  # λ may overflow float32, so divide by it
