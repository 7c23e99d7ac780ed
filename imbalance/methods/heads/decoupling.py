"""cRT and LWS: heads that are trained anew, or scaled, after the network.

Kang et al., "Decoupling Representation and Classifier for Long-tailed Recognition", ICLR 2020. Two variants of cRT are
those of SubpopBench (Yang et al., ICML 2023): one without any correction, and one with importance weights.
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
from imbalance.methods.weights import importance


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
    features do not change. The layer starts at random weights, and the learning rate falls to 0 along half a cosine.

    Args:
        by: "class" to balance classes, as in the paper, "group" to balance groups.
        epochs: the number of epochs for the new layer.
        batch_size: the batch size for the new layer.
        lr: the first learning rate of SGD for the new layer.
        momentum: the momentum of SGD for the new layer.
        weight_decay: the weight decay for the new layer.
    """
    draw = balanced_draws(dataset, generator, by)
    return _retrained(
        "crt", head, dataset, features, generator, draw, None, epochs, batch_size, lr, momentum, weight_decay
    )


def vanilla_crt(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    generator: Generator,
    *,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> nn.Module:
    """Train a new last layer by cross-entropy, like `crt`, but on the training set as it is, without balanced sampling.

    VanillaCRT of SubpopBench (Yang et al., "Change is Hard: A Closer Look at Subpopulation Shift", ICML 2023). It shows how
    much of the effect of `crt` comes from a second training of the layer alone.

    Args:
        epochs: the number of epochs for the new layer.
        batch_size: the batch size for the new layer.
        lr: the first learning rate of SGD for the new layer.
        momentum: the momentum of SGD for the new layer.
        weight_decay: the weight decay for the new layer.
    """
    draw = every_row(dataset)
    return _retrained(
        "vanilla_crt", head, dataset, features, generator, draw, None, epochs, batch_size, lr, momentum, weight_decay
    )


def reweight_crt(
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
    """Train a new last layer by cross-entropy, like `crt`, but with importance weights in place of balanced sampling.

    ReWeightCRT of SubpopBench (Yang et al., "Change is Hard: A Closer Look at Subpopulation Shift", ICML 2023). An example
    has the weight 1 / n, where n is the number of training examples of its class or group. Here the mean weight
    of all examples is 1; in the released code, the mean weight of the classes or groups is 1.

    Args:
        by: "class" to count the examples of classes, "group" to count those of groups.
        epochs: the number of epochs for the new layer.
        batch_size: the batch size for the new layer.
        lr: the first learning rate of SGD for the new layer.
        momentum: the momentum of SGD for the new layer.
        weight_decay: the weight decay for the new layer.
    """
    weights = importance(lambda by: dataset.labels(dataset.train, by), by=by, exponent=1.0)
    draw = every_row(dataset)
    return _retrained(
        "reweight_crt",
        head,
        dataset,
        features,
        generator,
        draw,
        weights,
        epochs,
        batch_size,
        lr,
        momentum,
        weight_decay,
    )


def every_row(dataset: Dataset) -> Callable[[], Tensor]:
    """Return a function that draws every training row once."""
    return lambda: torch.arange(len(dataset.train.targets))


def _retrained(
    name: str,
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    generator: Generator,
    draw: Callable[[], Tensor],
    weights: Tensor | None,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> nn.Module:
    """Return a new last layer, trained by cross-entropy with `weights` on the rows that `draw` returns for each epoch."""
    inputs = features("train")

    def fresh() -> nn.Linear:
        layer = nn.Linear(head.in_features, head.out_features, device="cpu")
        with torch.no_grad():
            bound = 1 / math.sqrt(head.in_features)  # the initialisation of nn.Linear, drawn from `generator`
            for parameter in layer.parameters():
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
        return layer.to(inputs)

    optimizer = sgd(lr, momentum, weight_decay)
    targets, factors = dataset.train.targets, None if weights is None else weights.to(inputs)
    return train_layer(
        name, fresh, inputs, targets, cross_entropy, draw, generator, epochs, batch_size, optimizer, weights=factors
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
