"""V-REx: risk extrapolation, an objective with a penalty on the variance of the risks of environments."""

import torch
from torch import Tensor

from imbalance.config.schema import checked
from imbalance.methods.objectives.base import EnvironmentPenalty, group_means


@checked
class RiskExtrapolation(EnvironmentPenalty):
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

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        environments = groups % self.count  # see `count_environments`; with "group" the remainder is the group itself
        risks, present = group_means(weights * losses, environments, self.count)
        mean = risks.sum() / present.sum()  # the risk of an environment without examples is 0
        variance = (torch.where(present, risks - mean, 0.0) ** 2).sum() / present.sum()
        return mean + torch.where(self.warms_up(), 1.0, self.penalty) * variance
