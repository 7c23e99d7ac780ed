"""Objectives that align the features of environments: CORAL and MMD."""

import torch
from torch import Tensor

from imbalance.config.schema import NonNegative, Positive, checked
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Environments, Objective, count_environments


class Alignment(Objective):
    """The mean of w·ℓ, plus `penalty` times the mean over pairs of environments of a distance between their features.

    Pairs are of environments that the batch has; without a pair the penalty is 0. The features are what the last layer
    sees; weights do not count in the penalty, as environments are compared, not risks.

    Args:
        environments: "group", or "attribute" where groups are classes times attributes: then an environment has all
            classes, as the papers' domains do. Groups of different classes are not meant to look alike.
        penalty: how much the distance counts.
    """

    columns = ("features",)

    def __init__(self, num_classes: int, num_groups: int, *, environments: Environments, penalty: NonNegative):
        super().__init__()
        self.count, self.penalty = count_environments(environments, num_classes, num_groups), penalty

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, *, features: Tensor) -> Tensor:
        environments = groups % self.count  # group = class · attributes + attribute; all of `count` groups stay
        member = environments == torch.arange(self.count, device=groups.device)[:, None]
        return (weights * losses).mean() + self.penalty * self.distance(at_least_float32(features), member)

    def distance(self, features: Tensor, member: Tensor) -> Tensor:
        """The mean over pairs. features: (B, D); member: (E, B) whether an example is of an environment."""
        raise NotImplementedError


@checked
class CorrelationAlignment(Alignment):
    """CORAL: environments are aligned in the mean and the covariance of their features.

    Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV 2016 workshops, whose distance
    (equation 1) is ‖C_i − C_j‖²_F / 4D², D features and covariances C. This is that of DomainBed (Gulrajani and
    Lopez-Paz, ICLR 2021) and SubpopBench: ‖μ_i − μ_j‖² / D + ‖C_i − C_j‖²_F / D², where C divides by n − 1. An
    environment with one example has a mean but no covariance, and is left out of the pairs of the second term.

    Args:
        environments: "group", or "attribute" where groups are classes times attributes.
        penalty: λ, on the distance.
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
    """MMD: environments are aligned in the distribution of their features, as Gaussian kernels see it.

    Li, Pan, Wang and Kot, "Domain Generalization with Adversarial Feature Learning", CVPR 2018, equation 5 with kernels
    of several widths: MMD² = mean k(x, x') + mean k(y, y') − 2 mean k(x, y), k(x, y) = Σ_γ exp(−γ ‖x − y‖²), over all
    pairs of examples, also of one with itself. Its penalty alone, as in DomainBed and SubpopBench: without the paper's
    autoencoder and adversary.

    Args:
        environments: "group" for the groups; "attribute" for the attributes, if groups are classes times
            attributes. With "attribute" every environment has all classes.
        penalty: the factor λ of the distance.
        gammas: one Gaussian kernel each; DomainBed's are the powers of ten from 0.001 to 1000.
    """

    def __init__(
        self,
        num_classes: int,
        num_groups: int,
        *,
        environments: Environments,
        penalty: NonNegative,
        gammas: tuple[Positive, ...],
    ):
        super().__init__(num_classes, num_groups, environments=environments, penalty=penalty)
        self.gammas = gammas

    def distance(self, features: Tensor, member: Tensor) -> Tensor:
        counts = member.sum(1)
        # Of differences: from ‖x‖² + ‖y‖² − 2⟨x, y⟩, float32 would leave an error that γ = 1000 makes large.
        squares = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        kernel = torch.stack([(-gamma * squares).exp() for gamma in self.gammas]).sum(0)
        shares = member.to(features) / counts.clamp(min=1)[:, None]
        means = shares @ kernel @ shares.T  # (E, E)
        of_each = means.diagonal()
        both = (counts > 0) & (counts > 0)[:, None]
        pairs = both.sum() - (counts > 0).sum()  # ordered, of two
        return ((of_each + of_each[:, None] - 2 * means) * both).sum() / pairs.clamp(min=1)


def mean_over_pairs(of_each: Tensor, seen: Tensor) -> Tensor:
    """The mean of ‖a_i − a_j‖² over pairs of the n rows that are seen, which is 2 / (n − 1) · Σ ‖a_i − mean a‖².

    0 with fewer than two.

    Args:
        of_each: (E, …) the rows.
        seen: (E,).
    """
    number = seen.sum()
    seen = seen[:, None]
    centre = (of_each * seen).sum(0) / number.clamp(min=1)
    return 2 * (((of_each - centre) * seen) ** 2).sum() / (number - 1).clamp(min=1)
