"""PaCo and GPaCo: supervised contrastive learning whose softmax also has the logits of the classes."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Count, Fraction, NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.losses import CrossEntropy, share
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective
from imbalance.methods.objectives.supcon import Projected, by_example, concatenated

NO_CLASS = -1  # the class of a place in the queue that is not filled yet


def parametric_contrastive(
    logits: Tensor,
    samples: Tensor,
    classes: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    temperature: float,
    smoothing: float,
) -> Tensor:
    """Return the (N,) parametric contrastive losses of N anchors, which are the first N of M samples.

    An anchor a is compared with K centres, whose similarities to a are its logits, and with all other samples b, whose
    similarities are s_ab = ⟨f_a, f_b⟩/τ. The share of a compared item j is p_j ∝ exp(logit_j) for a centre, and
    p_j ∝ γ·exp(s_aj) for a sample. The loss is −Σ_j m_j log p_j / Σ_j m_j, where the log p of a sample is taken without
    its factor γ. m_j is β for the centre of the class of a, α for samples of this class, and 0 otherwise.

    Args:
        logits: (N, K), already with the logarithms of the class shares.
        samples: (M, D) vectors f of length 1.
        classes: (M,) classes of the samples; a sample of class -1 is left out.
        alpha, beta, gamma, temperature: α, β, γ and τ.
        smoothing: ε; with ε > 0, m is β(1 − ε) for the centre of the class of a, and βε / (K − 1) for each other centre.
    """
    anchors, centres = logits.shape
    points = at_least_float32(samples)
    similarities = points[:anchors] @ points.T / temperature
    left_out = (classes == NO_CLASS) | torch.eye(anchors, len(points), dtype=torch.bool, device=points.device)
    shifted = (similarities + torch.tensor(gamma).log().to(points)).masked_fill(left_out, -torch.inf)
    logits = at_least_float32(logits)
    normaliser = torch.cat([logits, shifted], dim=1).logsumexp(1, keepdim=True)
    own = F.one_hot(classes[:anchors], centres).to(logits)
    pulls = beta * (own * (1 - smoothing) + (1 - own) * smoothing / max(1, centres - 1))
    same = ((classes[:anchors, None] == classes) & ~left_out).to(logits)
    sums = (pulls * (logits - normaliser)).sum(1) + alpha * (same * (similarities - normaliser)).sum(1)
    return -sums / (pulls.sum(1) + alpha * same.sum(1))


class ParametricContrastive(Objective):
    """Base class of PaCo and GPaCo: the parametric contrastive loss with a queue of feature vectors of earlier batches.

    The logits of the anchors plus the logarithms of the class shares are the similarities to the centres; see
    `parametric_contrastive`. So the contrastive loss also trains the last layer, and `config.loss` is not used.

    Args:
        name: the name of the objective in a config, for messages.
        loss: the loss of the config, which must be cross-entropy.
        width: D, the number of outputs of the projection.
        queue: Q, the number of vectors in the queue.
        values: the arguments of `parametric_contrastive`.
    """

    tags = Tags(batched=False, unmixed=True)
    columns = ("anchor_logits", "anchors", "keys", "targets")
    views = 2
    log_shares: Tensor
    queue: Tensor
    queue_classes: Tensor
    next_place: Tensor

    def __init__(self, name: str, class_counts: Tensor, loss: nn.Module, width: int, queue: int, **values: float):
        super().__init__()
        if not isinstance(loss, CrossEntropy):
            raise BadInput(
                f"config.objective.name: {name!r} has a loss of its own, and does not use config.loss; set config.loss.name="
                "'cross_entropy'"
            )
        self.width, self.values = width, values
        self.register_buffer("log_shares", share(class_counts).log(), persistent=False)
        self.register_buffer("queue", torch.zeros(queue, width, dtype=torch.float64))
        self.register_buffer("queue_classes", torch.full((queue,), NO_CLASS))
        self.register_buffer("next_place", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        anchor_logits: Tensor,
        anchors: Tensor,
        keys: Tensor,
        targets: Tensor,
    ) -> Tensor:
        views, keys = anchors.shape[1], keys.detach()
        anchor_classes = targets.repeat_interleave(views)
        # The keys of GPaCo are anchors already.
        others, classes = (keys[:0], targets[:0]) if views == 2 else (keys, targets)
        samples = torch.cat([anchors.flatten(0, 1), others, self.queue.to(keys)])
        losses = parametric_contrastive(
            anchor_logits.flatten(0, 1) + self.log_shares.to(anchor_logits),
            samples,
            torch.cat([anchor_classes, classes, self.queue_classes]),
            **self.values,
        )
        if self.training:
            self.enqueue(keys, targets)
        return (weights * losses.unflatten(0, (-1, views)).mean(1)).mean()

    def enqueue(self, keys: Tensor, classes: Tensor) -> None:
        """Replace the oldest vectors of the queue with the last Q of the `keys` (B, D)."""
        size = len(self.queue)
        keys, classes = keys[-size:], classes[-size:]
        places = (self.next_place + torch.arange(len(keys), device=keys.device)) % size
        # Copies, because the backward pass of this step still reads the tensors of before.
        self.queue = self.queue.index_copy(0, places, keys.to(self.queue))
        self.queue_classes = self.queue_classes.index_copy(0, places, classes)
        self.next_place = (self.next_place + len(keys)) % size


class WithKeys(Projected):
    """A `Projected` with a second copy of features and projection; its weights slowly follow those of the first copy.

    In training mode `forward` takes two views as one batch (2B). It returns the logits (B, K) and projections (B, D) of the
    first view, and the second copy's projections (B, D) of the second view. In evaluation mode it returns logits only.
    """

    def __init__(self, model: nn.Module, width: int):
        super().__init__(model, width, detached=False)
        self.keys = nn.ModuleDict(dict(features=deepcopy(self.features), projection=deepcopy(self.projection)))
        self.keys.requires_grad_(False)

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return super().forward(inputs)
        queries, others = halves(inputs)
        logits, projections = super().forward(queries)
        with torch.no_grad():
            features = self.keys["features"](others).flatten(1)
            keys = F.normalize(at_least_float32(self.keys["projection"](features)), dim=1)
        return logits, projections, keys

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move each weight u of the second copy towards the same weight v of the first copy: u ← m·u + (1 − m)·v."""
        for name in ("features", "projection"):
            pairs = zip(self.keys[name].parameters(), cast(nn.Module, getattr(self, name)).parameters(), strict=True)
            for key, query in pairs:
                key.lerp_(query.to(key), 1 - momentum)


def halves(inputs: Inputs) -> tuple[Inputs, Inputs]:
    """Return the first and the second half of a batch of inputs."""
    if isinstance(inputs, Mapping):
        first, second = zip(*((values.chunk(2)) for values in inputs.values()), strict=True)
        return dict(zip(inputs, first)), dict(zip(inputs, second))
    size = len(inputs) // 2
    return inputs[:size], inputs[size:]


@checked
class PaCo(ParametricContrastive):
    """The mean weighted parametric contrastive loss of the first view, with keys from a slowly moving copy of the network (PaCo).

    Cui, Zhong, Liu, Yu and Jia, "Parametric Contrastive Learning", ICCV 2021. The anchors are the projections of the first
    views. They are compared with each other, with the keys of the second views, with the keys of earlier batches in a
    queue, and with the classes; see `parametric_contrastive`. A copy of the network computes the keys; its weights
    are a moving average of the network's, updated in every step. No gradient flows through keys.

    Two things differ from the authors' code (github.com/dvlab-research/Parametric-Contrastive-Learning). The queue is empty
    at first; theirs has random vectors and random classes. The copy is updated before the optimiser step; theirs after it.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        loss: the loss of the config, which must be cross-entropy and is not used.
        alpha: α, the pull of samples of the same class; 0.01 for CIFAR-100-LT, 0.05 for ImageNet-LT in the authors' commands.
        beta: β, the pull of the own class; 1 in the authors' commands.
        gamma: γ, the factor of the samples' exponentials; 1 in the authors' commands.
        temperature: τ; 0.05 for CIFAR-100-LT, 0.2 for ImageNet-LT in the authors' commands.
        width: D, the number of outputs of the projection; 32 for CIFAR-100-LT in the authors' commands.
        queue: Q, the number of keys in the queue; 1,024 for CIFAR-100-LT in the authors' commands.
        momentum: m, the factor on the old weights of the copy in each step; 0.999 in the authors' commands.
    """

    def __init__(
        self,
        class_counts: Tensor,
        loss: nn.Module,
        *,
        alpha: NonNegative,
        beta: Positive,
        gamma: Positive,
        temperature: Positive,
        width: Count,
        queue: Count,
        momentum: Fraction,
    ):
        values = dict(alpha=alpha, beta=beta, gamma=gamma, temperature=temperature, smoothing=0.0)
        super().__init__("paco", class_counts, loss, width, queue, **values)
        self.momentum = momentum
        self.networks: list[WithKeys] = []  # in a list, so that its weights are those of the model alone

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        self.networks = [WithKeys(make(), self.width)]
        return self.networks[0]

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        logits, projections, keys = model(concatenated(batch.views))
        losses = batch.losses(loss, logits)
        anchors = {"anchor_logits": logits[:, None], "anchors": projections[:, None]}
        return {"losses": losses, "logits": logits, "keys": keys} | anchors

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, **columns: Tensor) -> Tensor:
        value = super().forward(losses, weights, groups, **columns)
        if self.training:
            for network in self.networks:
                network.follow(self.momentum)
        return value


@checked
class GPaCo(ParametricContrastive):
    """The mean weighted parametric contrastive loss of both views, without a second network (GPaCo).

    Cui, Zhong, Tian, Liu, Yu and Jia, "Generalized Parametric Contrastive Learning", TPAMI 2023. The anchors are the
    projections of both views, and each view has its own logits. The anchors are compared with each other, with
    projections of the second views of earlier batches in a queue, and with the classes; see `parametric_contrastive`.
    Both views go through the model as one batch of 2B. The queue is empty at first; that of the authors' code
    (github.com/dvlab-research/Parametric-Contrastive-Learning) has random vectors and random classes.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        loss: the loss of the config, which must be cross-entropy and is not used.
        alpha: α, the pull of samples of the same class; 0.05 for ImageNet-LT in the authors' commands.
        beta: β, the pull of the own class; 1 in the authors' commands.
        gamma: γ, the factor of the samples' exponentials; 1 in the authors' commands.
        temperature: τ; 0.2 for ImageNet-LT in the authors' commands.
        width: D, the number of outputs of the projection.
        queue: Q, the number of vectors in the queue; 8,192 for ImageNet-LT in the authors' commands.
        smoothing: ε, the share of the pull of the own class that goes to the other classes.
    """

    def __init__(
        self,
        class_counts: Tensor,
        loss: nn.Module,
        *,
        alpha: NonNegative,
        beta: Positive,
        gamma: Positive,
        temperature: Positive,
        width: Count,
        queue: Count,
        smoothing: Fraction,
    ):
        values = dict(alpha=alpha, beta=beta, gamma=gamma, temperature=temperature, smoothing=smoothing)
        super().__init__("gpaco", class_counts, loss, width, queue, **values)

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Projected(make(), self.width, detached=False)

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        logits, projections = (by_example(outputs, self.views) for outputs in model(concatenated(batch.views)))
        losses = batch.losses(loss, logits[:, 0])
        anchors = {"anchor_logits": logits, "anchors": projections, "keys": projections[:, 1]}
        return {"losses": losses, "logits": logits[:, 0]} | anchors
