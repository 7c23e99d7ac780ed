"""cRT and LWS: heads that are trained on batches with equally many examples of each class or group.

Kang et al., "Decoupling Representation and Classifier for Long-tailed Recognition", ICLR 2020.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from imbalance.config.schema import By, Count, Fraction, NonNegative, Positive, Repeats
from imbalance.data import Dataset
from imbalance.methods.heads.descent import balanced_draws, sgd, train_layer
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import cross_entropy


def crt(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    generator: Generator,
    *,
    by: By,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> nn.Module:
    """Train a new last layer by cross-entropy on balanced samples of the training set (classifier re-training).

    Kang et al., "Decoupling Representation and Classifier for Long-tailed Recognition", ICLR 2020, section 4.1. The
    features do not change. The layer starts at random weights, and the learning rate falls as a half cosine.

    Args:
        by: "class" to balance classes, as in the paper, "group" to balance groups.
        epochs: the number of epochs for the new layer.
        batch_size: the batch size for the new layer.
        lr: the first learning rate of SGD for the new layer.
        momentum: the momentum of SGD for the new layer.
        weight_decay: the weight decay for the new layer.
    """
    inputs = features("train")

    def fresh() -> nn.Linear:
        layer = nn.Linear(head.in_features, head.out_features, device="cpu")
        with torch.no_grad():
            bound = 1 / math.sqrt(head.in_features)  # the initialisation of nn.Linear, drawn from `generator`
            for parameter in layer.parameters():
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
        return layer.to(inputs)

    draw = balanced_draws(dataset, generator, by)
    optimizer = sgd(lr, momentum, weight_decay)
    return train_layer(
        "crt", fresh, inputs, dataset.train.targets, cross_entropy, draw, generator, epochs, batch_size, optimizer
    )


def lws(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    generator: Generator,
    *,
    by: By,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> nn.Module:
    """Multiply the logit of each class j by a factor f_j that is trained as `crt` trains its layer.

    Kang et al., ICLR 2020, section 4.3, learnable weight scaling (equation 5 with f_j learned on the training set).
    Training changes neither the features nor the trained layer. As in the authors' code, f_j starts at 1, multiplies
    the bias, too, and has weight decay.

    Args:
        by: "class" to balance classes, as in the paper, "group" to balance groups.
        epochs: the number of epochs for the factors.
        batch_size: the batch size for the factors.
        lr: the first learning rate of SGD for the factors.
        momentum: the momentum of SGD for the factors.
        weight_decay: the weight decay for the factors.
    """
    inputs = features("train")
    with torch.no_grad():
        logits = nn.functional.linear(inputs, head.weight.to(inputs), head.bias.to(inputs))
    draw, targets = balanced_draws(dataset, generator, by), dataset.train.targets
    optimizer = sgd(lr, momentum, weight_decay)
    factors = train_layer(
        "lws", lambda: Factors(logits), logits, targets, cross_entropy, draw, generator, epochs, batch_size, optimizer
    ).factors
    return linear(head.weight * factors[:, None], head.bias * factors)


class Factors(nn.Module):
    """A trainable factor on the logit of each class, 1 at first."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.factors = nn.Parameter(torch.ones_like(logits[0]))

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factors
