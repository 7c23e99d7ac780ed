"""BCL: balanced contrastive learning, an objective that compares two views of the examples, with the same share for each class."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Count, NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, check_vectors
from imbalance.methods.objectives.supcon import Projected, by_example, concatenated


def balanced_contrastive(
    projections: Tensor, similarities: Tensor, targets: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Return the balanced contrastive loss of V views of B examples and one prototype of each of K classes.

    Each of the V·B projections is an anchor a. It is compared with all other projections and all K prototypes. P(a) are
    the compared vectors of the class of a, and m_y is the number of compared vectors of class y. The loss is

        mean over a of w_a · mean over p in P(a) of −log(exp(⟨z_a, z_p⟩/τ) / Σ_{b≠a} (exp(⟨z_a, z_b⟩/τ) / m_{y_b})).

    Args:
        projections: (B, V, D) vectors z of length 1.
        similarities: (B, V, K) inner products of the projections with the prototypes.
        targets: (B,) classes.
        weights: (B,) weights w of the examples; all anchors of an example have its weight.
        temperature: τ.
    """
    check_vectors(len(projections), targets=targets, weights=weights)
    views, classes = projections.shape[1], similarities.shape[2]
    points = at_least_float32(projections).flatten(0, 1)
    labels, weights = (column[:, None].expand(-1, views).flatten() for column in (targets, weights))
    prototypes = torch.arange(classes, device=points.device)
    itself = torch.eye(len(points), dtype=torch.bool, device=points.device)
    itself = F.pad(itself, (0, classes))  # no prototype is an anchor
    logits = torch.cat([points @ points.T, similarities.flatten(0, 1).to(points)], dim=1) / temperature
    same = labels[:, None] == torch.cat([labels, prototypes])
    onehot = (labels[:, None] == prototypes).to(points)
    members = 1 + onehot.sum(0)  # projections and prototype of each class
    # Minus one for the anchor, in the anchor's own class
    counts = members[torch.cat([labels, prototypes])] - same.to(points)
    log_counts = counts.clamp(min=1).log()  # a count of 0 belongs to a pair that is left out below
    log_shares = logits - (logits - log_counts).masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positives = (same & ~itself).to(points)
    return -(weights * (log_shares * positives).sum(1) / positives.sum(1)).mean()


@checked
class BalancedContrastive(Objective):
    """The mean weighted loss of the first view, plus `penalty` times the balanced contrastive loss of two views.

    Zhu, Wang, Chen, Chen and Jiang, "Balanced Contrastive Learning for Long-Tailed Visual Recognition", CVPR 2022.
    Every class has the same share of the denominator of the contrastive loss. Every class has one prototype, so that it is
    in every batch. Features go through a projection: a perceptron with one hidden layer as wide as the features, and
    outputs of length 1. A second such perceptron maps the last layer's weight vector of each class to its prototype. Both are
    trained with the model, and are not used in evaluation. With the loss `balanced_softmax` the sum is the objective of
    the paper. The weights of examples multiply both terms.

    The authors' code (github.com/FlamieZhu/Balanced-Contrastive-Learning) computes the loss ℓ on a third view with
    another augmentation; here ℓ is computed on the first of the two views, as in `SupervisedContrastive`.

    Args:
        penalty: λ, the factor of the contrastive loss; 0.35 in the authors' code.
        temperature: τ; 0.07 in the authors' code.
        width: D, the number of outputs of the projection; 1,024 in the authors' code.
    """

    tags = Tags(batched=True, unmixed=True)
    columns = ("projections", "similarities", "targets")
    views = 2

    def __init__(self, *, penalty: NonNegative, temperature: Positive, width: Count):
        super().__init__()
        self.penalty, self.temperature, self.width = penalty, temperature, width

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return WithPrototypes(make(), self.width, detached=False)

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        examples = len(batch.rows)
        logits, projections, similarities = model(concatenated(batch.views))
        logits = logits[:examples]  # of the first view
        return {
            "losses": batch.losses(loss, logits),
            "logits": logits,
            "projections": by_example(projections, self.views),
            "similarities": by_example(similarities, self.views),
        }

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        projections: Tensor,
        similarities: Tensor,
        targets: Tensor,
    ) -> Tensor:
        contrast = balanced_contrastive(projections, similarities, targets, weights, self.temperature)
        return (weights * losses).mean() + self.penalty * contrast


class WithPrototypes(Projected):
    """A `Projected` that also maps the last layer's weight vector of each class to a prototype.

    In training mode `forward` returns logits (B, K), projections (B, D) and their inner products with the prototypes
    (B, K), in evaluation mode the logits.
    """

    prototypes: nn.Module

    def __init__(self, model: nn.Module, width: int, detached: bool):
        super().__init__(model, width, detached)
        features = self.head.weight.shape[1]
        self.prototypes = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width))

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, ...]:
        outputs = super().forward(inputs)
        if not self.training:
            return outputs
        logits, projections = outputs
        prototypes = F.normalize(at_least_float32(self.prototypes(self.head.weight)), dim=1)
        return logits, projections, projections @ prototypes.T
