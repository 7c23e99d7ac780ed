"""cRT and LWS: heads that are trained on batches with equally many examples of each class or group.

Kang et al., "Decoupling Representation and Classifier for Long-tailed Recognition", ICLR 2020.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from imbalance.config.schema import By, Count, Fraction, NonNegative, Positive, Repeats
from imbalance.data import Dataset
from imbalance.errors import Diverged
from imbalance.methods.heads.descent import minimise
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import cross_entropy
from imbalance.methods.samplers import balanced, shuffled

T = TypeVar("T", bound=nn.Module)


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

    optimizer = sgd(lr, momentum, weight_decay)
    return trained_on_balanced("crt", fresh, inputs, dataset, generator, by, epochs, batch_size, optimizer)


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
    optimizer = sgd(lr, momentum, weight_decay)
    factors = trained_on_balanced(
        "lws", lambda: Factors(logits), logits, dataset, generator, by, epochs, batch_size, optimizer
    ).factors
    return linear(head.weight * factors[:, None], head.bias * factors)


def sgd(lr: float, momentum: float, weight_decay: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.SGD]:
    """Return a function from parameters to an SGD optimiser with these hyperparameters.

    SGD is fused as in `training.optim.sgd`, because the other implementations raise if the learning rate overflows
    float32.
    """
    return partial(torch.optim.SGD, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)


class Factors(nn.Module):
    """A trainable factor on the logit of each class, 1 at first."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.factors = nn.Parameter(torch.ones_like(logits[0]))

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factors


def is_finite(layer: nn.Module) -> bool:
    """Return whether all parameters of `layer` are finite."""
    return bool(torch.cat([parameter.isfinite().flatten() for parameter in layer.parameters()]).all())


def trained_on_balanced(
    name: str,
    start: Callable[[], T],
    inputs: Tensor,
    dataset: Dataset,
    generator: Generator,
    by: By,
    epochs: int,
    batch_size: int,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.SGD],
) -> T:
    """Train a module from inputs to logits by cross-entropy on balanced samples of train, and return the module.

    The learning rate falls as a half cosine.

    Args:
        name: the name of the head, for messages.
        start: builds the untrained module.
        inputs: (N, D) inputs of the module for the examples of train.
        by: "class" to balance classes, "group" to balance groups.
        make_optimizer: builds the optimiser of the parameters of the module.

    Raises:
        Diverged: the trained module is not finite. The training is repeated to name the step that made it so.
    """
    random = generator.get_state()

    def train(checks_steps: bool) -> T:
        """Train a new module, and return it.

        Args:
            checks_steps: raise `Diverged` after the first step that makes the module non-finite.
        """
        generator.set_state(random)
        layer = start()
        optimizer = make_optimizer(layer.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

        def losses() -> Iterator[Tensor]:
            for _ in range(epochs):
                rows = balanced(lambda by: dataset.labels(dataset.train, by), generator, by=by)
                for batch in shuffled(rows, generator).to(inputs.device).split(batch_size):
                    yield cross_entropy(layer(inputs[batch]), dataset.train.targets[batch]).mean()
                schedule.step()

        def check(step: int, loss: Tensor) -> None:
            if not is_finite(layer):
                raise Diverged(
                    f"config.head.name: '{name}' gave the last layer NaN or infinite weights at its step {step} (epoch "
                    f"{schedule.last_epoch}, learning rate {optimizer.param_groups[0]['lr']:g}, loss {loss.item():g}); "
                    "use a smaller config.head.lr or config.head.weight_decay"
                )

        minimise(losses(), optimizer, check if checks_steps else None)
        return layer

    layer = train(checks_steps=False)
    if not is_finite(layer):
        layer = train(checks_steps=True)
    return layer
