"""Last layers that are trained anew on balanced draws (Kang et al., ICLR 2020)."""

import math
from collections.abc import Callable, Iterator, Mapping
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
    """Classifier re-training: a new last layer by cross-entropy on balanced draws of the training set.

    Kang et al., "Decoupling Representation and Classifier for Long-tailed Recognition", ICLR 2020, section 4.1: the
    features stay as they are, the layer starts afresh, and its learning rate falls as a half cosine.

    Args:
        by: what is balanced: "class", as in the paper, or "group".
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
            bound = 1 / math.sqrt(head.in_features)  # nn.Linear's own initialisation, from this generator
            for parameter in layer.parameters():
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
        return layer.to(inputs)

    sgd = dict(lr=lr, momentum=momentum, weight_decay=weight_decay)
    return trained_on_balanced("crt", fresh, inputs, dataset, generator, by, epochs, batch_size, sgd)


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
    """Learnable weight scaling: f_j · w_j, with one factor a class learnt as `crt` learns its layer.

    Kang et al., ICLR 2020, section 4.3 (equation 5 with f_j learnt on the training set): features, w_j and b_j stay as
    they are; as in their code f_j starts at 1, scales the bias too, and decays with the others' weight decay.

    Args:
        by: what is balanced: "class", as in the paper, or "group".
        epochs: the number of epochs for the factors.
        batch_size: the batch size for the factors.
        lr: the first learning rate of SGD for the factors.
        momentum: the momentum of SGD for the factors.
        weight_decay: the weight decay for the factors.
    """
    inputs = features("train")
    with torch.no_grad():
        logits = nn.functional.linear(inputs, head.weight.to(inputs), head.bias.to(inputs))
    sgd = dict(lr=lr, momentum=momentum, weight_decay=weight_decay)
    factors = trained_on_balanced(
        "lws", lambda: Factors(logits), logits, dataset, generator, by, epochs, batch_size, sgd
    ).factors
    return linear(head.weight * factors[:, None], head.bias * factors)


class Factors(nn.Module):
    """One a class, on its logits, 1 to begin with."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.factors = nn.Parameter(torch.ones_like(logits[0]))

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factors


def is_finite(layer: nn.Module) -> bool:
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
    sgd: Mapping[str, float],
) -> T:
    """`start()`, a module from `inputs` of train to logits, trained by cross-entropy on balanced draws.

    Its learning rate falls as a half cosine.

    Raises:
        Diverged: it is not finite at the end; then it is trained once more, to tell from which step on.
    """
    random = generator.get_state()

    def made(look: bool) -> T:
        """The module; if asked to look, after every step at what it has made."""
        generator.set_state(random)
        layer = start()
        # Fused, as `training.optim.sgd`: the others raise where a rate is more than float32 has.
        optimizer = torch.optim.SGD(layer.parameters(), **sgd, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

        def losses() -> Iterator[Tensor]:
            for _ in range(epochs):
                drawn = balanced(lambda by: dataset.labels(dataset.train, by), generator, by=by)
                for batch in shuffled(drawn, generator).to(inputs.device).split(batch_size):
                    yield cross_entropy(layer(inputs[batch]), dataset.train.targets[batch]).mean()
                schedule.step()

        def check(step: int, loss: Tensor) -> None:
            if not is_finite(layer):
                raise Diverged(
                    f"config.head.name: '{name}' made a last layer that is not finite by its step {step} (epoch "
                    f"{schedule.last_epoch}), learning rate {optimizer.param_groups[0]['lr']:g}, whose loss is "
                    f"{loss.item():g}"
                )

        minimise(losses(), optimizer, check if look else None)
        return layer

    layer = made(look=False)
    if not is_finite(layer):
        layer = made(look=True)
    return layer
