"""RIDE and SADE: objectives that train the model "experts" so that its experts differ."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imbalance.config.schema import Fraction, Natural, NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.losses import share
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, features_of, head_of


def expert_logits(head: nn.Module, features: Tensor, experts: int) -> Tensor:
    """Return the (B, E, K) logits of E experts, whose mean is `head(features)`.

    The logits of the last layer are a sum over experts, plus a bias that the experts share. So an expert's part of the sum
    is what the layer computes without bias if the features of all other experts are 0. The logits
    of this expert are E times its part, plus the bias.

    Args:
        head: the last layer of the model "experts" or "experts_cosine".
        features: (B, E · D) inputs of the last layer.
    """
    others = ~torch.eye(experts, dtype=torch.bool, device=features.device)[:, :, None]
    alone = features.unflatten(1, (1, experts, -1)).masked_fill(others, 0.0).flatten(2)
    logits = head(alone.flatten(0, 1)).unflatten(0, (-1, experts))
    bias = getattr(head, "bias", None)
    return experts * logits if bias is None else experts * (logits - bias) + bias


class WithExperts(nn.Sequential):
    """A model of E experts; in training mode it returns their logits (B, E, K), in evaluation mode the mean logits (B, K)."""

    features: nn.Module
    head: nn.Module

    def __init__(self, model: nn.Module, experts: int):
        super().__init__(OrderedDict(features=features_of(model), head=head_of(model)))
        self.experts = experts

    def forward(self, inputs: Inputs) -> Tensor:
        features = self.features(inputs)
        return expert_logits(self.head, features, self.experts) if self.training else self.head(features)


class Experts(Objective):
    """Base class of objectives for the model "experts"; the objective adds up the losses of the experts.

    Args:
        name: the name of the objective in a config, for messages.
        scale: s, the factor of the logits of the experts.
        needed: the number of experts that the model must have; 0 means two or more.
    """

    tags = Tags(batched=False)
    needed = 0

    def __init__(self, name: str, scale: float):
        super().__init__()
        self.name, self.scale = name, scale

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        model = make()
        experts = len(getattr(features_of(model), "branches", ()))
        if experts < 2 or self.needed not in (0, experts):
            number = self.needed or "two or more"
            raise BadInput(
                f"config.objective.name: {self.name!r} needs a model of {number} experts; use config.model.name='experts' with "
                f"experts={self.needed or 3}"
            )
        return WithExperts(model, experts)

    def losses_of(self, loss: Loss, batch: Batch, logits: Tensor) -> Tensor:
        """Return the (B, E) losses of the experts; `logits` are (B, E, K), not yet multiplied by s."""
        raise NotImplementedError

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.inputs)
        losses = self.losses_of(loss, batch, at_least_float32(logits))
        return {"losses": losses.sum(1), "logits": logits.mean(1), "expert_logits": logits}

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, **columns: Any) -> Tensor:
        return (weights * losses).mean()


def diversity(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Return the mean over examples of Σ_e T̄² · KL(softmax(z̄ / T) ‖ softmax(z_e / T)), where z̄ is the mean of the logits.

    No gradient flows through z̄. T̄ is the mean of the temperatures.

    Args:
        logits: (B, E, K), z_e.
        temperatures: (K,), T.
    """
    mean = (logits.mean(1, keepdim=True).detach() / temperatures).log_softmax(2)
    divergences = (mean.exp() * (mean - (logits / temperatures).log_softmax(2))).sum(2)
    return temperatures.mean() ** 2 * divergences.sum(1).mean()


@checked
class RIDE(Experts):
    """The sum of the experts' mean weighted losses, minus a factor times the divergence of the experts from their mean (RIDE).

    Wang, Lian, Miao, Liu and Yu, "Long-tailed Recognition by Routing Diverse Distribution-Aware Experts", ICLR 2021, as in
    the authors' code (github.com/frank-xwang/RIDE-LongTailRecognition). Distillation and the second stage are missing; that
    stage trains a router that leaves experts out to save time. For the logits z_e of expert e, multiplied by s, and
    their mean z̄, the divergence is the mean over examples of Σ_e T̄² · KL(softmax(z̄ / T) ‖ softmax(z_e / T)). No gradient
    flows through z̄. Before epoch `start_epoch`, every class has the temperature T; from then on, class k has

        T_k = T · (ρ·K·π_k + 1 − ρ) / max_j (ρ·K·π_j + 1 − ρ),

    where π are the class shares of the training set. T̄ is the mean of the temperatures. In evaluation the
    logits of the experts are averaged.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        diversity: the factor of the divergence; 0.45 for CIFAR-100-LT and 0.2 for other data in the authors' commands, where
            it has a minus sign.
        temperature: T; 1 in the authors' commands.
        tempering: ρ; 0.05 in the authors' code. 0 for equal temperatures.
        start_epoch: the first epoch with temperatures by class, counted from 0; 160 of 200 epochs in the authors' code.
        scale: s, the factor of the logits in the divergence. 30 for cosine logits, like the factor of the
            loss `ldam`; 1 for a linear last layer.
    """

    columns = ("expert_logits", "epoch")
    temperatures: Tensor

    def __init__(
        self,
        class_counts: Tensor,
        *,
        diversity: NonNegative,
        temperature: Positive,
        tempering: Fraction,
        start_epoch: Natural,
        scale: Positive,
    ):
        super().__init__("ride", scale)
        self.diversity, self.start_epoch = diversity, start_epoch
        shares = tempering * len(class_counts) * share(class_counts) + 1 - tempering
        temperatures = temperature * torch.stack([torch.ones_like(shares), shares / shares.max()])
        self.register_buffer("temperatures", temperatures, persistent=False)

    def losses_of(self, loss: Loss, batch: Batch, logits: Tensor) -> Tensor:
        return torch.stack([batch.losses(loss, expert) for expert in logits.unbind(1)], dim=1)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, *, expert_logits: Tensor, epoch: int) -> Tensor:
        logits = self.scale * at_least_float32(expert_logits)
        temperatures = self.temperatures[int(epoch >= self.start_epoch)].to(logits)
        return (weights * losses).mean() - self.diversity * diversity(logits, temperatures)


@checked
class SADE(Experts):
    """The sum of the mean weighted losses of three experts for three class priors (SADE).

    Zhang, Hooi, Hong and Feng, "Self-Supervised Aggregation of Diverse Experts for Test-Agnostic Long-Tailed Recognition",
    NeurIPS 2022, equations 2 to 4, as in the authors' code (github.com/Vanint/SADE-AgnosticLT). For the logits z_e of expert
    e, multiplied by s, and the class shares π of the training set, the losses are

        ℓ(z_1),   ℓ(z_2 + log π),   ℓ(z_3 + log π − τ log π̃),

    where π̃ reverses the shares π: the most frequent class gets the smallest share, and so on. So expert 1 is good at
    frequent classes, expert 2 at all classes equally, and expert 3 at rare classes. The loss ℓ of the config is
    cross-entropy in the paper. In evaluation the logits of the experts are averaged. The head `test_time` then weights the
    experts by the inputs of test.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        tau: τ; 2 in the authors' code.
        scale: s, the factor of the logits; 30 for cosine logits, 1 for a linear last layer.
    """

    needed = 3
    shifts: Tensor

    def __init__(self, class_counts: Tensor, *, tau: NonNegative, scale: Positive):
        super().__init__("sade", scale)
        log_shares = share(class_counts).log()
        order = log_shares.argsort()
        reverse = torch.empty_like(log_shares)
        reverse[order] = log_shares[order.flip(0)]
        shifts = torch.stack([torch.zeros_like(log_shares), log_shares, log_shares - tau * reverse])
        self.register_buffer("shifts", shifts, persistent=False)

    def losses_of(self, loss: Loss, batch: Batch, logits: Tensor) -> Tensor:
        shifted = self.scale * logits + self.shifts.to(logits)
        return torch.stack([batch.losses(loss, expert) for expert in shifted.unbind(1)], dim=1)
