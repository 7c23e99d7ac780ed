"""Supervised contrastive learning: two views of each example; the features of all views of one class are made similar."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Count, NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, check_vectors, features_of, head_of


def supervised_contrastive(projections: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss of V views of B examples.

    Each of the V·B projections is an anchor a. Its positives P(a) are all other projections of the same class:

        mean over a of w_a · mean over p in P(a) of −log(exp(⟨z_a, z_p⟩/τ) / Σ_{b≠a} exp(⟨z_a, z_b⟩/τ)).

    Args:
        projections: (B, V, D) vectors z of length 1; V must be at least 2, so that every anchor has a positive.
        targets: (B,) classes.
        weights: (B,) weights w of the examples; all anchors of an example have its weight.
        temperature: τ.

    Raises:
        BadInput: there is one view only, or a column has another length.
    """
    views = projections.shape[1]
    if views < 2:
        raise BadInput(f"projections: {views} view of each example given; give at least 2, of shape (B, V, D)")
    check_vectors(len(projections), targets=targets, weights=weights)
    points = at_least_float32(projections).flatten(0, 1)
    classes, weights = (column[:, None].expand(-1, views).flatten() for column in (targets, weights))
    itself = torch.eye(len(points), dtype=torch.bool, device=points.device)
    similarities = points @ points.T / temperature
    log_shares = similarities - similarities.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positives = ((classes == classes[:, None]) & ~itself).to(points)
    return -(weights * (log_shares * positives).sum(1) / positives.sum(1)).mean()


@checked
class SupervisedContrastive(Objective):
    """The mean weighted loss of the first view, plus `penalty` times the supervised contrastive loss of two views.

    Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu and Krishnan, "Supervised Contrastive Learning", NeurIPS
    2020, equation 2 (L_out). The features of both views go through a projection, a perceptron with one hidden layer as
    wide as the features. The outputs are scaled to length 1. The projection is trained with the model and is not used
    in evaluation. The authors' code (github.com/HobbitLong/SupContrast) multiplies the contrastive loss by τ / 0.07;
    include this factor in `penalty`. The authors train the features first and the linear head afterwards. Here both
    learn in the same steps. If `detached` is true, the loss ℓ of the config trains the head alone, so the features
    learn from the contrastive loss only, as in the paper. If it is false, ℓ trains the features, too, as in long-tailed
    methods such as balanced contrastive learning (Zhu et al., CVPR 2022). The example weights multiply both terms. Both
    views go through the model as one batch of 2B, so batch normalisation uses the statistics of both. The objective
    reads no groups.

    Args:
        penalty: λ, the factor of the contrastive loss; 0.35 for balanced contrastive learning in its authors' code.
        temperature: τ; 0.1 in the paper, 0.07 in balanced contrastive learning.
        width: D, the number of outputs of the projection; 128 in the paper.
        detached: true if the gradient of ℓ does not reach the features.
    """

    tags = Tags(batched=True, unmixed=True, averages=True)
    columns = ("projections", "targets")
    views = 2

    def __init__(self, *, penalty: NonNegative, temperature: Positive, width: Count, detached: bool):
        super().__init__()
        self.penalty, self.temperature, self.width, self.detached = penalty, temperature, width, detached

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Projected(make(), self.width, self.detached)

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        examples = len(batch.rows)
        logits, projections = model(concatenated(batch.views))
        logits = logits[:examples]  # of the first view
        return {
            "losses": batch.losses(loss, logits),
            "logits": logits,
            "projections": by_example(projections, self.views),
        }

    def forward(
        self, losses: Tensor, weights: Tensor, groups: Tensor, *, projections: Tensor, targets: Tensor
    ) -> Tensor:
        contrast = supervised_contrastive(projections, targets, weights, self.temperature)
        return (weights * losses).mean() + self.penalty * contrast


class Projected(nn.Sequential):
    """A model with a projection of its features, which is computed in training mode only.

    In training mode `forward` returns logits (B, K) and projections (B, D) of length 1, in evaluation mode the logits.
    """

    features: nn.Module
    head: nn.Linear
    projection: nn.Module

    def __init__(self, model: nn.Module, width: int, detached: bool):
        head = head_of(model)
        features = head.in_features
        projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width))
        super().__init__(OrderedDict(features=features_of(model), head=head, projection=projection))
        self.detached = detached

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, ...]:
        features = self.features(inputs)
        logits = self.head(features.detach() if self.training and self.detached else features)
        if not self.training:
            return logits
        return logits, F.normalize(at_least_float32(self.projection(features.flatten(1))), dim=1)


def by_example(outputs: Tensor, views: int) -> Tensor:
    """Return outputs (V·B, D) of a network for V views, joined by `concatenated`, as (B, V, D); B may be 0."""
    return outputs.unflatten(0, (views, len(outputs) // views)).transpose(0, 1)


def concatenated(views: tuple[Inputs, ...]) -> Inputs:
    """Return all views as one batch of V·B inputs: the B inputs of the first view, then those of the second."""
    first = views[0]
    if isinstance(first, Mapping):
        texts = cast(tuple[Mapping[str, Tensor], ...], views)
        return {name: torch.cat([view[name] for view in texts]) for name in first}
    return torch.cat(cast(tuple[Tensor, ...], views))
