"""LfF: learning from failure, an objective that weights the examples on which a second, biased network fails."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imbalance.config.schema import Fraction, Positive, checked
from imbalance.config.tags import Tags
from imbalance.methods.batch import Batch, Loss
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, Pair

UNSEEN = -1.0  # the moving average of an example before its first loss; losses are not negative


def generalised_cross_entropy(logits: Tensor, targets: Tensor, amplification: float) -> Tensor:
    """Return the (B,) generalised cross-entropies (1 − p_y^q) / q with p = softmax(z), which prefer easy examples.

    Args:
        logits: (B, K), z.
        targets: (B,) classes y.
        amplification: q, greater than 0; the larger q is, the more easy examples dominate.
    """
    log_p = at_least_float32(logits).log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    return -torch.expm1(amplification * log_p) / amplification


@checked
class LearningFromFailure(Objective):
    """The mean of w·r·ℓ for the evaluated network f_D, plus the mean generalised cross-entropy of a biased network f_B.

    Nam, Cha, Ahn, Lee and Shin, "Learning from Failure: Training Debiased Classifier from Biased Classifier", NeurIPS
    2020, algorithm 1. w is the weight of the example, and ℓ is `config.loss`; the paper uses cross-entropy. f_B is
    trained by GCE(p, y) = (1 − p_y^q) / q (equation 1), which prefers easy examples. The relative difficulty
    r = ℓ_B / (ℓ_B + ℓ_D) (equation 3) gives more weight to examples on which f_B fails. As in section 3.2 and the
    authors' code, ℓ_B and ℓ_D are moving averages of the losses of each example under f_B and f_D, divided by the
    largest average in its class. An average starts at the first loss of its example. One difference: the authors' code
    also multiplies the gradient of GCE by q. The objective reads no groups.

    Args:
        amplification: q; 0.7 in the paper.
        decay: the factor on the old moving average in each update; 0.7 in the paper.
    """

    tags = Tags(batched=False)  # it has a state for every example, so it cannot be stacked
    columns = ("rows", "biased_losses", "generalised")
    targets: Tensor
    averages: Tensor

    def __init__(self, targets: Tensor, num_classes: int, *, amplification: Positive, decay: Fraction):
        super().__init__()
        self.amplification, self.decay, self.num_classes = amplification, decay, num_classes
        self.register_buffer("targets", targets, persistent=False)
        # The first row has the moving averages of the losses of f_B, the second those of f_D.
        self.register_buffer("averages", torch.full((2, len(targets)), UNSEEN, dtype=torch.float64))

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Pair(make(), biased=make())

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        logits, biased = model(batch.inputs)

        def generalised(logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
            return generalised_cross_entropy(logits, targets, self.amplification)

        return {
            "losses": batch.losses(loss, logits),
            "logits": logits,
            "biased_losses": batch.losses(loss, biased),
            "generalised": batch.losses(generalised, biased),
        }

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        rows: Tensor,
        biased_losses: Tensor,
        generalised: Tensor,
    ) -> Tensor:
        if self.training:
            latest = torch.stack([biased_losses, losses]).detach().double()
            before = self.averages[:, rows]
            moved = self.decay * before + (1 - self.decay) * latest
            self.averages[:, rows] = latest.where(before == UNSEEN, moved)
        classes = self.targets.expand(2, -1)
        largest = self.averages.new_zeros(2, self.num_classes).scatter_reduce(1, classes, self.averages, "amax")
        biased, own = self.averages[:, rows] / largest[:, self.targets[rows]].clamp(min=1e-8)
        difficulty = (biased / (biased + own + 1e-8)).to(losses)
        return (weights * difficulty * losses).mean() + generalised.mean()
