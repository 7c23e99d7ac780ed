"""Objectives that make the features of environments similar: CORAL and MMD."""

import torch
from torch import Tensor

from imbalance.config.schema import NonNegative, Positives, checked
from imbalance.config.tags import Tags
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Environments, Objective, count_environments


class Alignment(Objective):
    """The mean weighted loss, plus `penalty` times the mean distance between the features of two environments.

    The mean distance is over all pairs of environments in the batch; it is 0 if the batch has one environment only. The
    features are the inputs of the last layer. Example weights do not change the distance.

    Args:
        environments: "group" if each group is an environment, "attribute" if each attribute is one. "attribute" needs
            groups that are combinations of a class and an attribute. Then every environment has all classes, like the
            domains in the papers; features of groups of different classes should not be made similar.
        penalty: the factor λ of the distance.
    """

    tags = Tags(batched=True, averages=True)  # the penalty does not reach the last layer
    columns = ("features",)

    def __init__(self, num_classes: int, num_groups: int, *, environments: Environments, penalty: NonNegative):
        super().__init__()
        self.count, self.penalty = count_environments(environments, num_classes, num_groups), penalty
        self.num_groups = num_groups

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, *, features: Tensor) -> Tensor:
        environments = groups % self.count  # see `count_environments`
        member = environments == torch.arange(self.count, device=groups.device)[:, None]
        return (weights * losses).mean() + self.penalty * self.distance(at_least_float32(features), member)

    def distance(self, features: Tensor, member: Tensor) -> Tensor:
        """Return the mean distance between the features of two environments, over all pairs in the batch.

        Args:
            features: (B, D).
            member: (E, B) booleans: true if the example is in the environment.
        """
        raise NotImplementedError


@checked
class CorrelationAlignment(Alignment):
    """CORAL: a penalty on the differences between the means and covariances of the features of two environments.

    Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV 2016 workshops. Their distance
    (equation 1) is ‖C_i − C_j‖²_F / 4D² of the covariances C of D features. The distance here is that of DomainBed
    (Gulrajani and Lopez-Paz, ICLR 2021) and SubpopBench: ‖μ_i − μ_j‖² / D + ‖C_i − C_j‖²_F / D². μ is the mean of the
    features, and C divides by n − 1. An environment with one example has no covariance, so the second term leaves it
    out.

    Args:
        environments: "group" if each group is an environment, "attribute" if each attribute is one. "attribute" needs
            groups that are combinations of a class and an attribute.
        penalty: the factor λ of the distance.
    """

    def distance(self, features: Tensor, member: Tensor) -> Tensor:
        counts = member.sum(1)
        member = member.to(features)
        means = member @ features / counts.clamp(min=1)[:, None]
        centred = features - member.T @ means
        shares = member / (counts - 1).clamp(min=1)[:, None]
        covariances = (shares[:, :, None] * centred).mT @ centred  # (E, D, D)
        width = features.shape[1]
        return (
            mean_over_pairs(means, counts > 0) / width + mean_over_pairs(covariances.flatten(1), counts > 1) / width**2
        )


@checked
class MaximumMeanDiscrepancy(Alignment):
    """MMD: a penalty on the difference between the feature distributions of two environments, by Gaussian kernels.

    Li, Pan, Wang and Kot, "Domain Generalization with Adversarial Feature Learning", CVPR 2018, equation 5 with kernels
    of several widths: MMD² = mean k(x, x') + mean k(y, y') − 2 mean k(x, y), k(x, y) = Σ_γ exp(−γ ‖x − y‖²). x and x'
    are features of one environment, y and y' of another. The means are over all pairs, including an example with
    itself. As in DomainBed and SubpopBench, there is no autoencoder and no adversary, which the paper has.

    Args:
        environments: "group" if each group is an environment, "attribute" if each attribute is one. "attribute" needs
            groups that are combinations of a class and an attribute. Then every environment has all classes.
        penalty: the factor λ of the distance.
        gammas: γ of each Gaussian kernel; the powers of ten from 0.001 to 1000 in DomainBed.
    """

    def __init__(
        self,
        num_classes: int,
        num_groups: int,
        *,
        environments: Environments,
        penalty: NonNegative,
        gammas: Positives,
    ):
        super().__init__(num_classes, num_groups, environments=environments, penalty=penalty)
        self.gammas = gammas

    def distance(self, features: Tensor, member: Tensor) -> Tensor:
        counts = member.sum(1)
        # ‖x‖² + ‖y‖² − 2⟨x, y⟩ has a rounding error in float32 that γ = 1000 makes large, so compute differences.
        squares = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        kernel = torch.stack([(-gamma * squares).exp() for gamma in self.gammas]).sum(0)
        shares = member.to(features) / counts.clamp(min=1)[:, None]
        means = shares @ kernel @ shares.T  # (E, E)
        own_means = means.diagonal()
        both = (counts > 0) & (counts > 0)[:, None]
        pairs = both.sum() - (counts > 0).sum()  # ordered pairs
        return ((own_means + own_means[:, None] - 2 * means) * both).sum() / pairs.clamp(min=1)


def mean_over_pairs(vectors: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of ‖a_i − a_j‖² over all pairs of valid vectors; 0 if fewer than two are valid.

    For n valid vectors it is computed as 2 / (n − 1) · Σ ‖a_i − mean a‖².

    Args:
        vectors: (E, D) vectors a.
        valid: (E,) booleans.
    """
    number = valid.sum()
    valid = valid[:, None]
    centre = (vectors * valid).sum(0) / number.clamp(min=1)
    return 2 * (((vectors - centre) * valid) ** 2).sum() / (number - 1).clamp(min=1)
