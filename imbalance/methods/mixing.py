"""Mixing: training on convex combinations of two examples of a batch.

A mixing takes the targets and groups of the whole batch, a generator, and the values of `config.mix`. It returns a `Mix`,
or None to leave the batch as it is. The loop seeds the generator from (seed, epoch).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from imbalance.config.schema import AtLeastOne, NonNegative, Positive, Probability
from imbalance.config.tags import tagged
from imbalance.errors import BadInput
from imbalance.methods.attributes import check_combinations, count_attributes


class Mix(NamedTuple):
    """The mixtures of a batch: example i becomes share · x_i + (1 − share) · x_partner, or x_i with a box of pixels of x_partner.

    partners: (B,) position in the batch of each example's partner.
    shares: (B,) share of each example's own input in its mixture.
    target_shares: (B,) factor on the loss with the example's own target; one minus it is the factor on the loss with
        the partner's target. None for the same values as `shares`.
    boxes: (B, 4) first row, first column, row after the last and column after the last of the pixels that come from the
        partner; all other pixels are the example's own. None to mix all pixels by `shares`.
    first_box_view: number of the first view that gets boxes, from 0; the pixels of earlier views are mixed by `shares`.
    """

    partners: Tensor
    shares: Tensor
    target_shares: Tensor | None = None
    boxes: Tensor | None = None
    first_box_view: int = 0


@tagged(batched=True)
def none() -> None:
    """Leave batches as they are, without mixing."""


@tagged(batched=True)
def mixup(targets: Tensor, generator: Generator, *, alpha: Positive) -> Mix:
    """Mix each example with a random partner of the batch (Zhang et al., "mixup", ICLR 2018).

    All examples of a batch have the same share λ ~ Beta(α, α).

    Args:
        alpha: α; 1.0 for a uniform λ. The smaller α is, the closer λ is to 0 or 1.
    """
    partners = torch.randperm(len(targets), generator=generator)
    return Mix(partners, beta(alpha, 1, generator).expand(len(targets)))


def cutmix(targets: Tensor, input_shape: tuple[int, ...], generator: Generator, *, alpha: Positive) -> Mix:
    """Paste a random box of a random partner of the batch into each image (Yun et al., "CutMix", ICCV 2019).

    All images of a batch have the same box. Its area is 1 − λ of the image, λ ~ Beta(α, α), before the part beyond the
    edge is cut off. The share of an example's own target is the share of its own pixels.

    Args:
        alpha: α; 1.0 for a uniform λ, as in the paper.

    Raises:
        BadInput: the inputs are not images.
    """
    height, width = image_size("cutmix", input_shape)
    partners = torch.randperm(len(targets), generator=generator)
    share = beta(alpha, 1, generator).item()
    box = cut_box(share, int(coin(generator) * height), int(coin(generator) * width), height, width)
    kept = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width)
    return Mix(partners, torch.full((len(targets),), kept), boxes=torch.tensor(box).expand(len(targets), 4))


def glmc(
    targets: Tensor,
    class_counts: Tensor,
    input_shape: tuple[int, ...],
    generator: Generator,
    *,
    alpha: Positive,
    exponent: NonNegative,
) -> Mix:
    """Mix the first view of each image with a partner, like `mixup`, and paste a box of the partner into the second view.

    Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-Tailed Visual Recognitions", CVPR
    2023. The objective `glmc` compares the two views. Both have the same partner and the same λ ~ Beta(α, α); λ is also
    the factor on the loss with the own target. As in the authors' code (github.com/ynu-yangpeng/GLMC), λ does not
    change if a part of the box of area 1 − λ lies beyond the edge. Partners are drawn from the batch with replacement,
    with a probability ∝ n^-k for a class of n training examples; the authors draw them from the whole training set.

    Args:
        alpha: α; 1 in the authors' code.
        exponent: k; 0 means equal probabilities, as in the authors' commands for the imbalance ratio 100.

    Raises:
        BadInput: the inputs are not images.
    """
    height, width = image_size("glmc", input_shape)
    draws = class_counts.clamp(min=1)[targets].double() ** -exponent
    partners = torch.multinomial(draws, len(targets), replacement=True, generator=generator)
    share = beta(alpha, 1, generator).item()
    box = cut_box(share, int(coin(generator) * height), int(coin(generator) * width), height, width)
    shares = torch.full((len(targets),), share)
    return Mix(partners, shares, boxes=torch.tensor(box).expand(len(targets), 4), first_box_view=1)


def image_size(name: str, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the height and the width of the images of a data set; raise `BadInput` if its inputs are not images.

    Args:
        name: the name of the mixing, for the message.
    """
    if len(input_shape) != 3:
        raise BadInput(
            f"config.mix.name: {name!r} given, which needs images, but an input of this data set has the shape {input_shape}; "
            "use 'mixup' or 'none'"
        )
    return input_shape[1], input_shape[2]


def cut_box(share: float, row: int, column: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the box of CutMix around a pixel: first row, first column, row after the last, column after the last.

    The sides are rounded up, as in the code of GLMC. The code of the CutMix paper rounds them down.

    Args:
        share: λ, the share of the image outside the box before the box is cut off at the edge.
        row, column: the pixel in the middle.
        height, width: the size of the image.
    """
    tall, wide = math.ceil(height * (1 - share) ** 0.5), math.ceil(width * (1 - share) ** 0.5)
    top, left = row - tall // 2, column - wide // 2
    bottom, right = row + tall // 2, column + wide // 2
    return max(0, top), max(0, left), min(height, bottom), min(width, right)


@tagged(batched=True)
def remix(
    targets: Tensor,
    class_counts: Tensor,
    generator: Generator,
    *,
    alpha: Positive,
    kappa: AtLeastOne,
    tau: Probability,
) -> Mix:
    """Mix as `mixup`, but give a mixture the label of the rarer class if the counts of its two classes differ much.

    Chou, Chang, Pan, Wei and Juan, "Remix: Rebalanced Mixup", ECCV 2020 workshops, equation 7. λ is the share of x_i in its
    mixture with x_j. The share of the label y_i is 0 if n_i / n_j ≥ κ and λ < τ. It is 1 if n_i / n_j ≤ 1/κ and 1 − λ < τ.
    Otherwise it is λ. If both conditions hold, the first counts. Each batch has one λ, as in the package imbalanced-DL.

    Args:
        alpha: α of λ ~ Beta(α, α).
        kappa: κ, the smallest ratio of the two class counts that changes the label; 3 in the paper.
        tau: τ; the label of the more frequent class is dropped if the share of its example is below τ. 0.5 in the
            paper; 0 gives `mixup`.
    """
    partners, shares, *_ = mixup(targets, generator, alpha=alpha)
    own, other = class_counts[targets], class_counts[targets[partners]]
    own_dropped = (own >= kappa * other) & (shares < tau)
    other_dropped = (other >= kappa * own) & (1 - shares < tau)
    # If κ = 1 and the counts are equal, both cases can hold; the first of equation 7 counts, so fill it in last.
    return Mix(partners, shares, shares.masked_fill(other_dropped, 1.0).masked_fill(own_dropped, 0.0))


@tagged(batched=True)
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
    """Mix with partners of the same class and another attribute, or of the same attribute and another class.

    Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022, algorithm 1. All
    partners in a batch are of the same class (intra-label) with probability `same_label`, otherwise of the same
    attribute (intra-domain). Each example has its own share ~ Beta(α, α). An example without such a partner in the
    batch is not mixed. The batches of the paper have equally many examples of each group; the sampler "balanced" draws
    such batches.

    Args:
        alpha: α of the Beta distribution.
        same_label: the probability that the partners in a batch are of the same class; p_sel in the paper, which uses
            0.5.

    Raises:
        BadInput: the groups are not the combinations of a class and an attribute.
    """
    check_lisa_groups(targets, groups, num_classes, num_groups)
    attributes = groups % (num_groups // num_classes)
    equal, unequal = (targets, attributes) if coin(generator) < same_label else (attributes, targets)
    suitable = (equal[:, None] == equal) & (unequal[:, None] != unequal)
    partners = (torch.rand(suitable.shape, generator=generator) * suitable).argmax(1)
    partners = torch.where(suitable.any(1), partners, torch.arange(len(targets)))
    return Mix(partners, beta(alpha, len(targets), generator))


def check_lisa_groups(targets: Tensor, groups: Tensor, num_classes: int, num_groups: int) -> None:
    """Raise `BadInput` unless the (N,) groups are the combinations of a class and an attribute."""
    subject, instead = "config.mix.name: 'lisa'", "use 'mixup' or 'remix'"
    num_attributes = count_attributes(subject, num_classes, num_groups, instead)
    check_combinations(subject, targets, groups, num_attributes, instead)


def coin(generator: Generator) -> float:
    """Return a uniform random number in [0, 1)."""
    return torch.rand((), generator=generator).item()


def beta(alpha: float, size: int, generator: Generator) -> Tensor:
    """Draw `size` numbers from Beta(α, α).

    torch can draw them from its global generator only, so `generator` draws a seed for NumPy.

    Raises:
        BadInput: α is not above 0 and finite.
    """
    if not 0 < alpha < math.inf:
        raise BadInput(f"alpha: {alpha} given; a finite number above 0 is needed")
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size)).float()


MIXINGS = {"none": none, "mixup": mixup, "cutmix": cutmix, "glmc": glmc, "remix": remix, "lisa": lisa}
