"""Mixing: training on convex combinations of two examples of a batch.

A mixing is a function of the whole batch's targets and groups, a generator that the loop seeds from (seed, epoch), and
its section's values. None: no mixing.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from imbalance.config.schema import AtLeastOne, Positive, Probability
from imbalance.config.tags import tagged
from imbalance.errors import BadInput


class Mix(NamedTuple):
    """Example i becomes share · x_i + (1 − share) · x_partner.

    partners: (B,) positions in the batch.
    shares: (B,).
    target_shares: (B,) with which its loss is mixed of those of the two targets; None: likewise.
    """

    partners: Tensor
    shares: Tensor
    target_shares: Tensor | None = None


@tagged(batched=True)
def none() -> None:
    """Examples as they are."""


def mixup(targets: Tensor, generator: Generator, *, alpha: Positive) -> Mix:
    """A random partner for each example, one share ~ Beta(α, α) for the batch (Zhang et al., "mixup", ICLR 2018).

    Args:
        alpha: α; 1.0 for uniform shares, and towards 0 examples stay themselves.
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
    """`mixup` whose label goes to the rarer class where the classes' counts are far apart.

    Chou, Chang, Pan, Wei and Juan, "Remix: Rebalanced Mixup", ECCV 2020 workshops, equation 7: with λ the share of x_i,
    that of y_i is 0 if n_i / n_j ≥ κ and λ < τ, 1 if n_i / n_j ≤ 1/κ and 1 − λ < τ, and λ otherwise. One λ a batch, as
    in imbalanced-DL.

    Args:
        alpha: α of λ ~ Beta(α, α).
        kappa: κ, from which ratio of counts on; 3 in the paper.
        tau: τ, up to which share the more frequent class is forgotten; 0.5 in the paper, and 0 for `mixup`.
    """
    partners, shares, _ = mixup(targets, generator, alpha=alpha)
    own, other = class_counts[targets], class_counts[targets[partners]]
    forgotten = (own >= kappa * other) & (shares < tau)
    whole = (other >= kappa * own) & (1 - shares < tau)
    return Mix(partners, shares, shares.masked_fill(forgotten, 0.0).masked_fill(whole, 1.0))


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
    """Partners of the same class from another group, or of the same attribute from another class.

    Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022, algorithm 1: the
    first kind (intra-label) with probability `same_label` a batch, else the second (intra-domain); a share
    ~ Beta(α, α) for each example. An example without such a partner in the batch stays itself; the paper's batches
    have all groups alike, as with the sampler "balanced".

    Args:
        alpha: α of the Beta distribution.
        same_label: p_sel; 0.5 in the paper.
    """
    if num_groups <= num_classes or num_groups % num_classes:
        raise BadInput(
            "config.mix.name: 'lisa' needs groups that are classes times attributes; this data set has "
            f"{num_classes} classes and {num_groups} groups"
        )
    attributes = groups % (num_groups // num_classes)
    within, across = (targets, attributes) if coin(generator) < same_label else (attributes, targets)
    suits = (within[:, None] == within) & (across[:, None] != across)
    partners = (torch.rand(suits.shape, generator=generator) * suits).argmax(1)
    partners = torch.where(suits.any(1), partners, torch.arange(len(targets)))
    return Mix(partners, beta(alpha, len(targets), generator))


def coin(generator: Generator) -> float:
    """Uniform in [0, 1)."""
    return torch.rand((), generator=generator).item()


def beta(alpha: float, size: int, generator: Generator) -> Tensor:
    """`size` draws of Beta(α, α), which torch draws from its global generator only."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size)).float()


MIXINGS = {"none": none, "mixup": mixup, "remix": remix, "lisa": lisa}
