"""GLMC: two mixed views of each example, two last layers, and a term that makes the features of the views alike."""

from collections import OrderedDict
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Count, NonNegative, checked
from imbalance.config.tags import Tags
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.losses import checked_counts
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, features_of, head_of
from imbalance.methods.objectives.supcon import by_example, concatenated


class TwoHeads(nn.Sequential):
    """A network with a second last layer `other_head`, a `projection` of the features and a `predictor` of projections.

    In training mode `forward` returns the logits of `other_head` and of `head` (B, K), projections and predictions (B, D).
    In evaluation mode it returns the logits of `head`.
    """

    features: nn.Module
    head: nn.Linear
    other_head: nn.Module
    projection: nn.Module
    predictor: nn.Module

    def __init__(self, model: nn.Module, other: nn.Module, width: int):
        head = head_of(model)
        size = head.in_features
        projection = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, width))
        predictor = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        parts = dict(
            features=features_of(model), head=head, other_head=other, projection=projection, predictor=predictor
        )
        super().__init__(OrderedDict(parts))

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, ...]:
        features = self.features(inputs)
        logits = self.head(features)
        if not self.training:
            return logits
        projections = at_least_float32(self.projection(features.flatten(1)))
        return self.other_head(features), logits, projections, at_least_float32(self.predictor(projections))


@checked
class GlobalLocalMixtureConsistency(Objective):
    """The mean losses of two last layers, with factors that change over the epochs, plus a consistency term (GLMC).

    Du, Yang, Jia, Nan, Chen and Yang, "Global and Local Mixture Consistency Cumulative Learning for Long-Tailed Visual
    Recognitions", CVPR 2023, as in the authors' code (github.com/ynu-yangpeng/GLMC). The mixing `glmc` mixes the pixels of
    the first view of an example with those of its partner, and pastes a box of the partner into the second view. With
    α = 1 − (epoch / epochs)², the projections g_v and the predictions p_v of the two views, the value is the mean of

        w · (α Σ_v ℓ(z'_v) + (1 − α) Σ_v c_y ℓ(z_v) − λ (cos(p_1, g_2) + cos(p_2, g_1))).

    w is the weight of an example. z' are the logits of a last layer that is used in training only, and z those of the last
    layer that is evaluated. For n_y examples of class y, c_y = n_y^-κ / mean over classes k of n_k^-κ. The loss of a mixture
    combines the losses with the classes of the example and of the partner, each with the c of its class. No gradient flows
    through g. The projection and the predictor are perceptrons with one hidden layer.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        epochs: the number of epochs of the run.
        penalty: λ; 4 for CIFAR-100-LT in the authors' commands.
        exponent: κ; 1.2 for the imbalance ratio 100 in the authors' commands.
        width: D, the number of outputs of the projection.
    """

    tags = Tags(batched=False)
    columns = ("other_losses", "weighted_losses", "consistency", "epoch")
    views = 2
    class_weights: Tensor

    def __init__(self, class_counts: Tensor, epochs: int, *, penalty: NonNegative, exponent: NonNegative, width: Count):
        super().__init__()
        self.epochs, self.penalty, self.width = epochs, penalty, width
        class_weights = checked_counts(class_counts).clamp(min=1).double() ** -exponent
        self.register_buffer("class_weights", class_weights / class_weights.mean(), persistent=False)

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return TwoHeads(make(), head_of(make()), self.width)

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        def weighted(logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
            losses = loss(logits, targets, groups)
            return self.class_weights[targets].to(losses) * losses

        outputs = model(concatenated(batch.views))
        others, logits, projections, predictions = (by_example(output, self.views) for output in outputs)
        likeness = F.cosine_similarity(predictions, projections.flip(1).detach(), dim=2)
        return {
            "losses": batch.losses(loss, logits[:, 0]),
            "logits": logits[:, 0],
            "other_losses": batch.losses(loss, others[:, 0]) + batch.losses(loss, others[:, 1]),
            "weighted_losses": batch.losses(weighted, logits[:, 0]) + batch.losses(weighted, logits[:, 1]),
            "consistency": -likeness.sum(1),
        }

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        other_losses: Tensor,
        weighted_losses: Tensor,
        consistency: Tensor,
        epoch: int,
    ) -> Tensor:
        alpha = 1 - (epoch / self.epochs) ** 2
        values = alpha * other_losses + (1 - alpha) * weighted_losses + self.penalty * consistency
        return (weights * values).mean()
