"""DPE: diverse prototypical ensembles, a head of several nearest-prototype classifiers (To et al., ICML 2025)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from imbalance.config.schema import By, Count, Fraction, NonNegative, Positive, Repeats
from imbalance.config.tags import tagged
from imbalance.data import Dataset, Split
from imbalance.errors import BadInput, Diverged
from imbalance.methods.heads.descent import minimise
from imbalance.methods.losses import cross_entropy
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import group_means
from imbalance.methods.samplers import shuffled, undersample


def directions(features: Tensor) -> Tensor:
    """Return the (N, D) directions of feature vectors: each vector minus its mean over D, scaled to length 1."""
    features = at_least_float32(features)
    return F.normalize(features - features.mean(1, keepdim=True), dim=1)


def distances(units: Tensor, prototypes: Tensor) -> Tensor:
    """Return the (N, P) distances of (N, D) directions from (P, D) prototypes, which are first scaled to length 1."""
    prototypes = F.normalize(prototypes, dim=1)
    lengths = units.square().sum(1, keepdim=True) + prototypes.square().sum(1)
    return (lengths - 2 * units @ prototypes.T).clamp(min=1e-12).sqrt()


class PrototypeEnsemble(nn.Module):
    """An ensemble of M classifiers with one prototype for each class; `forward` returns log-probabilities of features.

    The probability of class k is the mean over members m of softmax_k(−|s_m| ‖f − p_mk‖). f is the direction of the
    feature vector, and p_mk the prototype scaled to length 1. All is computed in at least float32.

    Attributes:
        prototypes: (M, K, D) vectors p.
        scales: (M,) factors s of the distances.
    """

    def __init__(self, members: int, num_classes: int, width: int):
        super().__init__()
        self.prototypes = nn.Parameter(torch.zeros(members, num_classes, width))
        self.scales = nn.Parameter(torch.ones(members))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            prototypes, scales = at_least_float32(self.prototypes), at_least_float32(self.scales)
            far = distances(directions(features).to(prototypes), prototypes.flatten(0, 1))
            logits = -scales.abs()[:, None] * far.unflatten(1, prototypes.shape[:2])
            return logits.log_softmax(2).logsumexp(1) - math.log(len(scales))


@tagged(
    reads_val=True, module=lambda head, section: PrototypeEnsemble(section.members, head.out_features, head.in_features)
)
def dpe(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    seed: int,
    generator: Generator,
    *,
    by: By,
    members: Repeats,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    entropic_scale: Positive,
    norm_penalty: NonNegative,
    similarity_penalty: NonNegative,
) -> nn.Module:
    """Train an ensemble of classifiers by distance to prototypes, one member after another on balanced subsets of val.

    To, Wilson, Nguyen, Harmanani, Cooper, Fooladgar, Abolmaesumi, Mousavi and Krishnan, "Diverse Prototypical Ensembles
    Improve Robustness to Subpopulation Shift", ICML 2025, as in the authors' code (github.com/minhto2802/dpe4subpop).
    Each feature vector f is centred and scaled to length 1; prototypes p_k are scaled to length 1 for distances. Member
    m, with the prototypes p_k and the scale s, is trained by SGD on a balanced subset of val that is drawn for it. Its
    loss is cross-entropy of the logits −E |s| ‖f − p_k‖, plus

        λ mean_k ‖p_k‖² + γ |mean_k Σ_{j<m} ⟨p_k, p_jk⟩| / (m (D − 1)).

    p_jk are the prototypes of earlier members j, which do not change. Each member is kept as it is after the epoch with
    the best worst-group accuracy on all of val; if several epochs are best, after the last of them. Predictions are the
    mean of the members' probabilities, with E = 1. An incomplete last batch is left out. The epoch of each member is
    chosen by the groups of val even for `by="class"`, so the metrics of val are training metrics: compare runs on test.
    The authors' package divides γ by 1 + 0.05 (m − 2); the commands of their experiments and this head do not. Their
    scripts can also keep the last epoch, as they do for ImageNetBG.

    Args:
        by: "group" for subsets that are balanced by group, "class" for subsets that are balanced by class. With "class"
            the groups of val only choose the epoch of each member.
        members: the number M of members; 15 in the authors' commands.
        epochs: the number of epochs of each member; 20 in the authors' commands.
        batch_size: the batch size; 256 in the authors' commands.
        lr: the learning rate; 0.001 in the authors' commands (CelebA 0.0005, texts 0.0001).
        momentum: the momentum; 0.9 in the authors' commands.
        entropic_scale: the factor E of the distances; 30 in the authors' commands for Waterbirds, CelebA and texts.
        norm_penalty: the factor λ of the squared norms of prototypes; 10 in the authors' commands.
        similarity_penalty: the factor γ of the similarity to earlier members; 500,000 in the authors' commands for
            Waterbirds and CelebA.
    """
    val, units, width = dataset.val, directions(features("val")), head.in_features
    if width < 2:
        raise BadInput(
            "config.head.name: 'dpe' compares directions of features, so it needs two or more inputs of the last layer; "
            "this model has one; use another head"
        )
    ensemble = PrototypeEnsemble(members, head.out_features, width).to(units).requires_grad_(False)
    penalties = dict(norm_penalty=norm_penalty, similarity_penalty=similarity_penalty)
    for m in range(members):
        rows = undersample(lambda by: dataset.labels(val, by), seed, generator, by=by, redraw=True)
        if len(rows) < batch_size:
            raise BadInput(
                f"config.head.batch_size: {batch_size} given; it must be at most {len(rows)}, the size of a balanced "
                "subset of val"
            )
        prototypes = (0.01 * torch.randn(head.out_features, width, generator=generator)).to(units).requires_grad_()
        scale, best = units.new_ones(()).requires_grad_(), -math.inf
        # Fused as `training.optim.sgd`, because the other implementations raise if the learning rate overflows float32.
        optimizer = torch.optim.SGD([prototypes, scale], lr=lr, momentum=momentum, fused=True)
        for _ in range(epochs):
            drawn = shuffled(rows, generator)[: len(rows) // batch_size * batch_size].to(units.device)
            losses = (
                cross_entropy(-entropic_scale * scale.abs() * distances(units[batch], prototypes), val.targets[batch])
                .mean() + penalty(prototypes, ensemble.prototypes[:m], **penalties)
                for batch in drawn.split(batch_size)
            )  # fmt: skip
            minimise(losses, optimizer)
            if (accuracy := worst_group_accuracy(units, prototypes.detach(), val, dataset.num_groups)) >= best:
                best = accuracy
                ensemble.prototypes[m], ensemble.scales[m] = prototypes.detach(), scale.detach()
        if not (prototypes.isfinite().all() and scale.isfinite()):
            raise Diverged(
                f"config.head.name: 'dpe' gave ensemble member {m + 1} of {members} NaN or infinite prototypes; use a "
                "smaller config.head.lr"
            )
    return ensemble


def penalty(prototypes: Tensor, before: Tensor, norm_penalty: float, similarity_penalty: float) -> Tensor:
    """Return the penalty λ mean_k ‖p_k‖² + γ |mean_k Σ_j ⟨p_k, p_jk⟩| / (m (D − 1)) on the prototypes of member m.

    Args:
        prototypes: (K, D) prototypes p_k of member m.
        before: (m − 1, K, D) prototypes p_jk of earlier members.
        norm_penalty: λ.
        similarity_penalty: γ.
    """
    alike = (prototypes * before.sum(0)).sum(1).mean().abs() / ((len(before) + 1) * (prototypes.shape[1] - 1))
    return norm_penalty * prototypes.square().sum(1).mean() + similarity_penalty * alike


def worst_group_accuracy(units: Tensor, prototypes: Tensor, split: Split, num_groups: int) -> float:
    """Return the accuracy of the worst group of `split` if every example gets the class of its nearest prototype.

    Args:
        units: (N, D) directions of the features of the split.
        prototypes: (K, D).
    """
    right = (distances(units, prototypes).argmin(1) == split.targets).to(units)
    accuracies, present = group_means(right, split.groups, num_groups)
    return accuracies[present].min().item()
