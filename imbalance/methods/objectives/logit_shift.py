"""uLA and LC: objectives that shift the logits of an example according to the class that a biased network predicts for it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from imbalance.config.schema import Fraction, NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch, Loss
from imbalance.methods.context import FirstRun
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, Pair
from imbalance.methods.objectives.lff import generalised_cross_entropy


class LogitShift(Objective):
    """Base class of objectives: the mean of w·ℓ(z + shift), whose shift depends on the predictions of a biased network.

    w are the weights of the examples, ℓ the loss and z the logits.

    The matrix M has a row for each class a that the biased network may predict, and a column for each class y. Entry
    (a, y) is a moving average over batches of the mean of p(a | x)·1[label = y], with the probabilities p of the biased
    network. Before the loss of a batch is computed, this batch updates M. The shift of an example is log M[a] for the
    class a with the highest probability. Entries of 0, whose logarithm is −∞, count as the smallest positive number of
    float64.

    Args:
        num_classes: K.
        loss: the loss ℓ of the config.
        decay: the factor on the old M in each update.
    """

    tags = Tags(batched=False, unmixed=True)  # the objective has a state, so it cannot be stacked
    matrix: Tensor
    steps: Tensor

    def __init__(self, num_classes: int, loss: nn.Module, decay: float):
        super().__init__()
        self.loss, self.decay = loss, decay
        self.register_buffer("matrix", torch.zeros(num_classes, num_classes, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def starts_at_first_batch(self) -> bool:
        """Return True if the first batch sets M, False if the first batch is averaged with M = 0."""
        raise NotImplementedError

    def log_rows(self, probabilities: Tensor, targets: Tensor) -> Tensor:
        """Update M in training mode, and return the (B, K) row log M[a] of each example.

        Args:
            probabilities: (B, K) probabilities p that the biased network predicts.
            targets: (B,) classes.
        """
        if self.training:
            labels = one_hot(targets, len(self.matrix)).double()
            batch = probabilities.detach().double().T @ labels / len(targets)
            moved = self.decay * self.matrix + (1 - self.decay) * batch
            replaces = (self.steps == 0) & self.starts_at_first_batch()
            self.matrix.copy_(torch.where(replaces, batch, moved))
            self.steps += 1
        return self.matrix.clamp(min=torch.finfo(torch.float64).tiny).log()[probabilities.argmax(1)]

    def shifted(self, logits: Tensor, shift: Tensor, weights: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        """Return the mean of w·ℓ(z + shift) over the batch."""
        logits = at_least_float32(logits)
        return (weights * self.loss(logits + shift.to(logits), targets, groups)).mean()


@checked
class UnsupervisedLogitAdjustment(LogitShift):
    """The mean weighted loss of logits that are shifted by the class that a biased first run predicts (uLA).

    It is the mean of w·ℓ(z + τ·log(M[a] / ΣM[a])), where w is the weight of an example, ℓ the loss, z the logits, and a
    the predicted class.

    Tsirigotis, Monteiro, Rodriguez, Vazquez and Courville, "Group Robust Classification Without Any Group Information", NeurIPS
    2023. The matrix M counts how often a label goes with a prediction of the biased network: entry (a, y) is a moving average
    of the mean of p(a | x)·1[label = y] over a batch. M starts as the mean over the first batch, as in the authors' code
    (github.com/tsirif/uLA). No shift is added in evaluation.

    The biased network is the first run that `config.groups` trains, such as "predictions". It predicts each training
    example once, without augmentation. The authors' biased network is a linear layer on features that were trained
    without labels; their evaluated network starts from the same features. The authors select the epoch by
    `val/inferred_group_balanced_accuracy`. The objective reads no groups of the data.

    Args:
        tau: τ, the factor of the shift.
        temperature: the number by which the logits of the biased network are divided before the softmax.
        decay: the factor on the old M in each update; 0.999 in the paper.
    """

    columns = ("logits", "targets", "rows")
    biased: Tensor

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        loss: nn.Module,
        first: FirstRun | None,
        *,
        tau: NonNegative,
        temperature: Positive,
        decay: Fraction,
    ):
        super().__init__(num_classes, loss, decay)
        if first is None:
            raise BadInput(
                "config.objective.name: 'ula' needs the predictions of a first run, which config.groups.name='data' does "
                "not train; use config.groups.name='predictions'"
            )
        self.tau = tau
        logits = first.logits("train", targets.cpu())
        self.register_buffer("biased", (logits.double() / temperature).softmax(1), persistent=False)

    def starts_at_first_batch(self) -> bool:
        return True

    def forward(
        self, losses: Tensor, weights: Tensor, groups: Tensor, *, logits: Tensor, targets: Tensor, rows: Tensor
    ) -> Tensor:
        shift = self.log_rows(self.biased[rows], targets).log_softmax(1)
        return self.shifted(logits, self.tau * shift, weights, targets, groups)


@checked
class LogitCorrection(LogitShift):
    """The mean weighted loss of logits that are shifted by the class that a biased network predicts (LC).

    It is the mean of w·ℓ(z + log M[a]), where w is the weight of an example, ℓ the loss, z the logits, and a the
    predicted class; plus the mean generalised cross-entropy (1 − p_y^q) / q of the biased network.

    Liu, Zhang, Sekhar, Wu, Singhal and Fernandez-Granda, "Avoiding Spurious Correlations via Logit Correction", ICLR
    2023, without its group mixup. The biased network is trained beside the evaluated one by the generalised
    cross-entropy, which prefers easy examples. The matrix M counts how often a label goes with a prediction of the
    biased network: entry (a, y) is a moving average of the mean of p(a | x)·1[label = y] over a batch. M starts at 0,
    and the first batch is averaged with it, as in the code of uLA (github.com/tsirif/uLA). That code also multiplies
    the gradient of the generalised cross-entropy by q; this objective does not. No shift is added in evaluation. The
    objective reads no groups.

    Args:
        amplification: q; 0.7 in the paper.
        decay: the factor on the old M in each update; 0.5 in the paper.
    """

    columns = ("logits", "targets", "biased", "generalised")

    def __init__(self, num_classes: int, loss: nn.Module, *, amplification: Positive, decay: Fraction):
        super().__init__(num_classes, loss, decay)
        self.amplification = amplification

    def starts_at_first_batch(self) -> bool:
        return False

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Pair(make(), biased=make())

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        logits, biased = model(batch.inputs)
        return {
            "losses": batch.losses(loss, logits),
            "logits": logits,
            "biased": at_least_float32(biased).detach().softmax(1),
            "generalised": generalised_cross_entropy(biased, batch.targets, self.amplification),
        }

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        logits: Tensor,
        targets: Tensor,
        biased: Tensor,
        generalised: Tensor,
    ) -> Tensor:
        shift = self.log_rows(biased, targets)
        return self.shifted(logits, shift, weights, targets, groups) + generalised.mean()
