"""CnC: correct-n-contrast, an objective that contrasts examples by class and by the prediction of a biased first run."""

import torch
import torch.nn.functional as F
from torch import Tensor

from imbalance.config.schema import Positive, Probability, checked
from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, check_vectors


def correct_n_contrast(
    features: Tensor, targets: Tensor, predictions: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Return the mean contrastive loss of the anchors of a batch, or 0 if the batch has no anchor.

    Let f be the feature vectors, scaled to length 1. The positives P(a) of an example a have the class of a, but another
    prediction. The negatives N(a) of a have another class, but the prediction of a. An anchor is an example whose prediction
    is its class, and that has a positive and a negative in the batch. The loss is

        mean over anchors a of w_a · mean over p in P(a) of −log(exp(⟨f_a, f_p⟩/τ) / Σ_{b in P(a) ∪ N(a)} exp(⟨f_a, f_b⟩/τ)).

    Args:
        features: (B, D) feature vectors of any length.
        targets: (B,) classes.
        predictions: (B,) classes that a first run predicts.
        weights: (B,) weights w of the examples.
        temperature: τ.
    """
    check_vectors(len(features), targets=targets, predictions=predictions, weights=weights)
    points = F.normalize(at_least_float32(features), dim=1)
    similarities = points @ points.T / temperature
    same_class, same_prediction = (labels[:, None] == labels for labels in (targets, predictions))
    positives, negatives = same_class & ~same_prediction, ~same_class & same_prediction
    anchors = (targets == predictions) & positives.any(1) & negatives.any(1)
    # An example that is no anchor may have nothing to compare with, and log 0 gives nan gradients, so compare it with all.
    compared = positives | negatives | ~anchors[:, None]
    log_shares = similarities - similarities.masked_fill(~compared, -torch.inf).logsumexp(1, keepdim=True)
    losses = -(log_shares * positives).sum(1) / positives.sum(1).clamp(min=1)
    return (weights * losses * anchors).sum() / anchors.sum().clamp(min=1)


@checked
class CorrectNContrast(Objective):
    """λ times a contrastive loss, plus 1 − λ times the mean weighted loss (CnC).

    Zhang, Sohoni, Zhang, Finn and Ré, "Correct-N-Contrast: A Contrastive Approach for Improving Robustness to Spurious
    Correlations", ICML 2022. The contrastive loss moves an example towards examples of its class for which the first
    run predicts another class, and away from examples of other classes with the same prediction; see
    `correct_n_contrast`. This loss compares the inputs of the last layer, without a projection, for one view of each
    example. The weights of examples multiply both losses.

    The first run is the one that `config.groups` trains, such as "predictions". The authors' code
    (github.com/HazyResearch/correct-n-contrast) draws batches of one prediction: equally many anchors, positives and
    negatives. Here any sampler draws a batch, and every correctly predicted example with a positive and a negative in
    the batch is an anchor. With the sampler `balanced` by group, all combinations of class and prediction are drawn
    equally often. The objective reads no groups of the data.

    Args:
        share: λ; 0.75 in the authors' commands.
        temperature: τ; 0.1 for Waterbirds and 0.05 for CelebA in the authors' commands.
    """

    tags = Tags(batched=False, unmixed=True)
    columns = ("features", "targets", "rows")
    predictions: Tensor

    def __init__(self, targets: Tensor, first: FirstRun | None, *, share: Probability, temperature: Positive):
        super().__init__()
        if first is None:
            raise BadInput(
                "config.objective.name: 'cnc' needs the predictions of a first run, which config.groups.name='data' does "
                "not train; use config.groups.name='predictions'"
            )
        self.share, self.temperature = share, temperature
        self.register_buffer("predictions", first.logits("train", targets.cpu()).argmax(1), persistent=False)

    def forward(
        self, losses: Tensor, weights: Tensor, groups: Tensor, *, features: Tensor, targets: Tensor, rows: Tensor
    ) -> Tensor:
        contrast = correct_n_contrast(features, targets, self.predictions[rows], weights, self.temperature)
        return self.share * contrast + (1 - self.share) * (weights * losses).mean()
