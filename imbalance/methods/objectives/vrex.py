"""V-REx: risk extrapolation, an objective with a penalty on the variance of the risks of environments."""

import torch
from torch import Tensor

from imbalance.config.schema import Natural, NonNegative, checked
from imbalance.config.tags import Tags
from imbalance.methods.objectives.base import Environments, Objective, count_environments, group_means


@checked
class RiskExtrapolation(Objective):
    """The mean risk of the environments, plus `penalty` times the variance of their risks.

    Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation (REx)", ICML 2021, equation 7. The risk of
    an environment is its mean weighted loss in the batch; the variance divides by the number of environments in the
    batch. Two details are those of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021): risks are averaged over environments,
    where the paper sums them, and `penalty` is replaced by 1 in the first steps. DomainBed also restarts Adam after
    these steps; this objective does not restart the optimiser.

    Args:
        environments: "group" if each group is an environment, "attribute" if each attribute is one. "attribute" needs
            groups that are combinations of a class and an attribute.
        penalty: the factor of the variance; 10 in DomainBed.
        warmup_steps: the number of steps at the start of training in which 1 takes the place of `penalty`; 500 in
            DomainBed.
    """

    tags = Tags(batched=False)  # it counts steps
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

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        environments = groups % self.count  # see `count_environments`; with "group" the remainder is the group itself
        risks, present = group_means(weights * losses, environments, self.count)
        mean = risks.sum() / present.sum()  # the risk of an environment without examples is 0
        variance = (torch.where(present, risks - mean, 0.0) ** 2).sum() / present.sum()
        warms_up = self.steps < self.warmup_steps
        if self.training:
            self.steps += 1
        return mean + torch.where(warms_up, 1.0, self.penalty) * variance
