"""Mixing: training on convex combinations of two examples of a batch.

A mixing is a function of the targets and groups of a whole batch, a generator, and the values of its section. The
loop seeds the generator from (seed, epoch). A mixing that returns None does not mix.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from imbalance.config.schema import AtLeastOne, Positive, Probability
from imbalance.config.tags import tagged
from imbalance.errors import BadInput


class Mix(NamedTuple):
    """The mixtures of a batch: example i becomes share · x_i + (1 − share) · x_partner.

    partners: (B,) positions in the batch.
    shares: (B,) shares of the inputs.
    target_shares: (B,) share of the loss on the example's own target; None if it is the share of the inputs.
    """

    partners: Tensor
    shares: Tensor
    target_shares: Tensor | None = None


@tagged(batched=True)
def none() -> None:
    """Leave examples as they are."""


def mixup(targets: Tensor, generator: Generator, *, alpha: Positive) -> Mix:
    """Mix each example with a random partner, with one share ~ Beta(α, α) a batch (Zhang et al., "mixup", ICLR 2018).

    Args:
        alpha: α; 1.0 for uniform shares. Towards 0 the shares are close to 0 or 1.
    """
    partners = torch.randperm(len(targets), generator=generator)
    return Mix(partners, beta(alpha, 1, generator).expand(len(targets)))


def remix(
    targets: Tensor,
    class_counts: Tensor,
    generator: Generator,
    *,
    alpha: Positive,
    kappa: AtLeastOne,
    tau: Probability,
) -> Mix:
    """Mix as `mixup`, and give a mixture the label of the rarer class if the counts of the two classes differ much.

    Chou, Chang, Pan, Wei and Juan, "Remix: Rebalanced Mixup", ECCV 2020 workshops, equation 7. With λ the share of x_i,
    the share of y_i is 0 if n_i / n_j ≥ κ and λ < τ; it is 1 if n_i / n_j ≤ 1/κ and 1 − λ < τ, and λ otherwise. Each
    batch has one λ, as in imbalanced-DL.

    Args:
        alpha: α of λ ~ Beta(α, α).
        kappa: κ, the smallest ratio of counts that changes the label; 3 in the paper.
        tau: τ: the label of the more frequent class is dropped if its share is below τ; 0.5 in the paper, 0 for
            `mixup`.
    """
    partners, shares, _ = mixup(targets, generator, alpha=alpha)
    own, other = class_counts[targets], class_counts[targets[partners]]
    own_dropped = (own >= kappa * other) & (shares < tau)
    other_dropped = (other >= kappa * own) & (1 - shares < tau)
    return Mix(partners, shares, shares.masked_fill(own_dropped, 0.0).masked_fill(other_dropped, 1.0))


def lisa(
    targets: Tensor,
    groups: Tensor,
    num_classes: int,
    num_groups: int,
    generator: Generator,
    *,
    alpha: Positive,
    same_label: Probability,
) -> Mix:
    """Mix with partners of the same class from another group, or of the same attribute from another class.

    Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022, algorithm 1. A batch
    has partners of the same class (intra-label) with probability `same_label`, else of the same attribute
    (intra-domain). Each example has its own share ~ Beta(α, α). An example without such a partner in the batch is not
    mixed. The batches of the paper have equally many examples of each group; the sampler "balanced" makes such batches.

    Args:
        alpha: α of the Beta distribution.
        same_label: the probability that a batch has partners of the same class, p_sel; 0.5 in the paper.

    Raises:
        BadInput: the groups are not classes times attributes.
    """
    if num_groups <= num_classes or num_groups % num_classes:
        raise BadInput(
            "config.mix.name: 'lisa' needs groups that are classes times attributes; this data set has "
            f"{num_classes} classes and {num_groups} groups; use 'mixup' or 'remix'"
        )
    attributes = groups % (num_groups // num_classes)
    equal, unequal = (targets, attributes) if coin(generator) < same_label else (attributes, targets)
    suitable = (equal[:, None] == equal) & (unequal[:, None] != unequal)
    partners = (torch.rand(suitable.shape, generator=generator) * suitable).argmax(1)
    partners = torch.where(suitable.any(1), partners, torch.arange(len(targets)))
    return Mix(partners, beta(alpha, len(targets), generator))


def coin(generator: Generator) -> float:
    """Draw a uniform number in [0, 1)."""
    return torch.rand((), generator=generator).item()


def beta(alpha: float, size: int, generator: Generator) -> Tensor:
    """Draw `size` numbers from Beta(α, α), in NumPy because torch draws them from its global generator only."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size)).float()


MIXINGS = {"none": none, "mixup": mixup, "remix": remix, "lisa": lisa}
