"""Gradient descent for small sets of parameters: last layers, factors of logits, and shares in environments."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from imbalance.config.schema import By
from imbalance.data import Dataset
from imbalance.errors import Diverged
from imbalance.methods.samplers import balanced, shuffled

T = TypeVar("T", bound=nn.Module)


def minimise(
    losses: Iterable[Tensor], optimizer: torch.optim.Optimizer, after_step: Callable[[int, Tensor], None] | None = None
) -> None:
    """Take an optimiser step on each loss.

    Args:
        losses: an iterator over losses, which computes a loss only after the optimiser step on the previous loss.
        optimizer: the optimiser of the parameters.
        after_step: called after every step with the number of the step, from 0, and its loss.
    """
    for step, loss in enumerate(losses):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after_step:
            after_step(step, loss)


def sgd(lr: float, momentum: float, weight_decay: float) -> Callable[[nn.Module], torch.optim.SGD]:
    """Return a function that builds SGD with these hyperparameters for the parameters of a module."""
    return lambda layer: fused_sgd([{"params": list(layer.parameters()), "lr": lr}], momentum, weight_decay)


def fused_sgd(groups: list[dict[str, object]], momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Return SGD for optimiser parameter groups, each of which has its own learning rate.

    SGD is fused as in `training.optim.sgd`, because the other implementations raise if the learning rate overflows
    float32.
    """
    return torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay, fused=True)


def balanced_draws(dataset: Dataset, generator: Generator, by: By) -> Callable[[], Tensor]:
    """Return a function that draws the training rows of an epoch, equally many of each class or group."""
    return lambda: balanced(lambda by: dataset.labels(dataset.train, by), generator, by=by)


def is_finite(layer: nn.Module) -> bool:
    """Return whether all parameters of `layer` are finite."""
    return bool(torch.cat([parameter.isfinite().flatten() for parameter in layer.parameters()]).all())


def train_layer(
    name: str,
    start: Callable[[], T],
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    draw: Callable[[], Tensor],
    generator: Generator,
    epochs: int,
    batch_size: int,
    make_optimizer: Callable[[T], torch.optim.SGD],
    project: Callable[[T], None] | None = None,
    weights: Tensor | None = None,
) -> T:
    """Build a module that maps inputs to logits, train it with SGD, and return it.

    The learning rate follows half a cosine from its start to 0 over all epochs, and changes after each epoch only.

    Args:
        name: the name of the head, for messages.
        start: builds the untrained module.
        inputs, targets: (N, D) inputs of the module and (N,) classes for the examples of train.
        loss: function from logits (B, K) and targets (B,) to losses (B,).
        draw: draws the rows of an epoch; they are then shuffled.
        generator: the generator that `draw` uses; it also shuffles the rows.
        make_optimizer: builds the optimiser of the module.
        project: changes the module in place after every step; None for no change.
        weights: (N,) factors on the losses of the examples of train; None for equal weights.

    Raises:
        Diverged: the trained module is not finite. The training is repeated to name the first step that made it so.
    """
    random = generator.get_state()

    def train(checks_steps: bool) -> T:
        """Train a new module; if `checks_steps`, raise `Diverged` after the first step that makes it non-finite."""
        generator.set_state(random)
        layer = start()
        optimizer = make_optimizer(layer)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

        def losses() -> Iterator[Tensor]:
            for _ in range(epochs):
                for batch in shuffled(draw(), generator).to(inputs.device).split(batch_size):
                    losses_of_batch = loss(layer(inputs[batch]), targets[batch])
                    yield (losses_of_batch if weights is None else weights[batch] * losses_of_batch).mean()
                schedule.step()

        def after_step(step: int, loss: Tensor) -> None:
            if project:
                project(layer)
            if checks_steps and not is_finite(layer):
                raise Diverged(
                    f"config.head.name: '{name}' gave the last layer NaN or infinite weights at its step {step} (epoch "
                    f"{schedule.last_epoch}, learning rate {optimizer.param_groups[0]['lr']:g}, loss {loss.item():g}); "
                    "use a smaller config.head.lr or config.head.weight_decay"
                )

        minimise(losses(), optimizer, after_step)
        return layer

    layer = train(checks_steps=False)
    if not is_finite(layer):
        layer = train(checks_steps=True)
    return layer
