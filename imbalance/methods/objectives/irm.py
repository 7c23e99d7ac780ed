"""IRM: invariant risk minimisation, an objective with a penalty on differences between environments."""

import torch
from torch import Tensor

from imbalance.config.schema import checked
from imbalance.methods.objectives.base import EnvironmentPenalty, group_means


@checked
class InvariantRisk(EnvironmentPenalty):
    """The mean weighted loss, plus `penalty` times the mean squared slope of the risks in the environments.

    Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization", 2019, equation (IRMv1):
    Σ_e R_e(Φ) + λ ‖∇_{w | w=1.0} R_e(w·Φ)‖². The risk R_e is the mean weighted loss in environment e. The slope of the
    risk is its derivative by the factor w on the logits Φ, which is the mean of the slopes of the examples. Three
    details:

    - In place of the sum of the risks there is the mean weighted loss of the whole batch, in which an environment counts
      by its number of examples. The penalties are averaged over environments, so the effect of λ does not depend on the
      number of environments (as in Gulrajani and Lopez-Paz, ICLR 2021).
    - The slope of the batch is squared. On average this square exceeds the squared true slope by the variance of the
      slope. The authors' code is unbiased instead: it multiplies the slopes of the two halves of a batch.
    - If λ is above 1, all terms are divided by λ, so that learning rates need not change with λ. The authors' code does
      the same.

    Args:
        environments: "group" if each group is an environment, "attribute" if each attribute is one. "attribute" needs
            groups that are combinations of a class and an attribute. Then every environment has all classes, as in the
            paper.
        penalty: the factor λ of the penalty.
        warmup_steps: the number of steps at the start of training in which λ is at most 1, as in the authors' code, so
            that the model first learns features.
    """

    columns = ("slopes",)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, *, slopes: Tensor) -> Tensor:
        environments = groups % self.count  # see `count_environments`; with "group" the remainder is the group itself
        mean_slopes, present = group_means(weights * slopes, environments, self.count)
        penalty = (mean_slopes**2).sum() / present.sum()
        risk = (weights * losses).mean()
        warms_up = self.warms_up()
        if self.penalty <= 1:
            return risk + self.penalty * penalty
        return torch.where(warms_up, risk, risk / self.penalty) + penalty  # λ may overflow float32, so divide by it
