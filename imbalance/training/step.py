"""What an epoch draws, and one step's way forward and back over this process's share of a batch, in one part or several."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil

import torch
from accelerate import Accelerator
from ml_collections import ConfigDict
from torch import Tensor

from imbalance.data.augment import augment, occasions
from imbalance.seeds import random_state, set_random_state
from imbalance.training.learner import Learner
from imbalance.training.processes import across_processes, read_later


@dataclass(frozen=True)
class Partners:
    """What each example of an epoch is mixed with: as there, and (M,) the example's own share."""

    targets: Tensor
    groups: Tensor
    images: Callable[[slice], Tensor]
    shares: Tensor


@dataclass(frozen=True)
class Epoch:
    """The examples that an epoch draws, in order; what a step needs of them is a slice.

    number: from 0.
    rows: (M,) of the training split.
    targets, groups, weights: (M,).
    images: from places in this order to the model's inputs, augmented and normalised.
    partners: None without mixing.
    """

    number: int
    rows: Tensor
    targets: Tensor
    groups: Tensor
    weights: Tensor
    images: Callable[[slice], Tensor]
    partners: Partners | None


def draw_epoch(learner: Learner, number: int) -> Epoch:
    """Epoch `number`, which follows from the config and the seed alone."""
    train, device = learner.dataset.train, learner.accelerator.device
    order = learner.sampler(number)
    mixed = learner.mixing(number, order)
    when = occasions(number, order) if learner.dataset.augmentations else order
    images = loader(learner, order, when)
    rows = order.to(device)
    partners = None
    if mixed:
        places, shares = mixed
        others = rows[places.to(device)]
        of_others = loader(learner, order[places], when[places])
        partners = Partners(train.targets[others], train.groups[others], of_others, shares)
    return Epoch(number, rows, train.targets[rows], train.groups[rows], learner.weights(number)[rows], images, partners)


def loader(learner: Learner, order: Tensor, when: Tensor) -> Callable[[slice], Tensor]:
    """From places in `order` to the model's inputs.

    What a step indexes with is moved here, once an epoch: a copy from the device in every step would wait for the
    device to finish all that it was given.

    Args:
        order: (M,) rows of the training split, on the CPU.
        when: (M,) see `occasions`.
    """
    train, device, names = learner.dataset.train, learner.accelerator.device, learner.dataset.augmentations
    stored = order.to(train.inputs.device)  # images on disk are indexed on the CPU
    indices, when = train.indices[order.to(device)], when.to(device)

    def images(places: slice) -> Tensor:
        batch = train.inputs.index_select(0, stored[places])  # several times as fast as [] on a CPU
        if names:
            batch = augment(batch, indices[places], when[places], names, learner.seed)
        return learner.normalise(batch)

    return images


@dataclass(frozen=True)
class Done:
    """What a step did.

    places: of this process's share of the batch, in the epoch.
    logits: (B/processes, K) of that share.
    losses: (B,) of the whole batch.
    value: what the objective made of them.
    finite: whether `value` is; if not, the optimiser has not gone down its gradient.
    request: the greatest of all processes.
    """

    places: slice
    logits: Tensor
    losses: Tensor
    value: Tensor
    finite: bool
    request: int


def take_step(
    config: ConfigDict, learner: Learner, epoch: Epoch, batch: int, batches: int, request: Callable[[], int]
) -> Done:
    """A step on one of the epoch's `batches`. The gradients stay, to be looked at.

    Args:
        request: what this process wants to happen after the step; asked when the forward pass is under way.
    """
    accelerator, optimizer, size = learner.accelerator, learner.optimizer, config.trainer.batch_size
    whole, mine = batch_places(batch, size, accelerator.process_index, accelerator.num_processes)
    rate = config.optim.lr * learner.schedule(epoch.number + batch / batches)
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate

    logits, losses, backward = forward(learner, epoch, mine, config.trainer.accumulation)
    losses, asked = across_processes(accelerator, losses, request(), min(size, len(epoch.rows) - whole.start))
    value = learner.objective(losses, epoch.weights[whole], epoch.groups[whole])
    read = read_later(value, asked)
    backward(value)
    finite, asked = read()
    if finite and accelerator.scaler:
        accelerator.scaler.step(optimizer)  # skipped where float16 gradients overflow
        accelerator.scaler.update()
    elif finite:
        optimizer.step()
    return Done(mine, logits, losses, value, finite, asked)


def batches_of(config: ConfigDict, epoch: Epoch) -> int:
    """How many batches are made of what an epoch draws."""
    return 1 if config.debug else ceil(len(epoch.rows) / config.trainer.batch_size)


def batch_places(batch: int, size: int, rank: int, world: int) -> tuple[slice, slice]:
    """Where a batch of `size` is in an epoch's order, and a process's share of it: every world-th example."""
    start, stop = batch * size, (batch + 1) * size
    return slice(start, stop), slice(start + rank, stop, world)


def model_inputs(epoch: Epoch, places: slice) -> Tensor:
    """What the model sees of the examples at `places`, mixed with others where the config says so."""
    inputs = epoch.images(places)
    if not epoch.partners:
        return inputs
    shares = epoch.partners.shares[places].view(-1, *[1] * (inputs.dim() - 1))
    return torch.lerp(epoch.partners.images(places), inputs, shares)


def predict(learner: Learner, epoch: Epoch, places: slice) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and losses (B,) of the examples at `places`; a mixture's loss is mixed like its inputs."""
    logits = learner.model(model_inputs(epoch, places))
    losses = learner.loss(logits, epoch.targets[places], epoch.groups[places])
    if partners := epoch.partners:
        others = learner.loss(logits, partners.targets[places], partners.groups[places])
        losses = torch.lerp(others, losses, partners.shares[places])
    return logits, losses


def forward(
    learner: Learner, epoch: Epoch, places: slice, parts: int
) -> tuple[Tensor, Tensor, Callable[[Tensor], None]]:
    """Logits and losses of the examples at `places`, and the function that goes backward from an objective of the losses.

    In several parts, for want of memory, the losses are first computed without a graph. By the chain rule the
    derivative of the objective by each of them is then the example's coefficient, with which every part is computed
    again and goes backward by itself. That is the step of the whole batch for every objective, also one that mixes
    examples, for about a third more time; only batch normalisation can tell, which sees one part.
    """
    accelerator = learner.accelerator
    world = accelerator.num_processes  # the processes' gradients are averaged, where their sum is meant
    if parts == 1:
        logits, losses = predict(learner, epoch, places)
        return logits, losses, lambda value: go_backward(accelerator, value * world if world > 1 else value)

    # On every process as many, some perhaps empty: the processes wait for one another.
    share = range(len(epoch.rows))[places]
    cuts = [len(share) * i // parts for i in range(parts + 1)]
    pieces = [
        slice(piece.start, piece.stop, piece.step) for piece in map(share.__getitem__, map(slice, cuts, cuts[1:]))
    ]
    random, buffers = random_state(), [buffer.clone() for buffer in learner.model.buffers()]
    with torch.no_grad():
        logits, losses = map(torch.cat, zip(*(predict(learner, epoch, piece) for piece in pieces)))
    losses.requires_grad_()

    def backward(value: Tensor) -> None:
        (coefficients,) = torch.autograd.grad(value * world, losses)
        # The second pass starts from where the first did: the same dropout, running means moved once.
        set_random_state(random)
        with torch.no_grad():
            for buffer, before in zip(learner.model.buffers(), buffers):
                buffer.copy_(before)
        for i, (piece, coefficient) in enumerate(zip(pieces, coefficients.tensor_split(cuts[1:-1])), start=1):
            # Only the last part's backward pass exchanges gradients.
            with nullcontext() if i == parts else accelerator.no_sync(learner.model):
                go_backward(accelerator, (coefficient * predict(learner, epoch, piece)[1]).sum())

    return logits, losses, backward


def go_backward(accelerator: Accelerator, value: Tensor) -> None:
    """As `accelerator.backward`, which divides by one first: of a small model's step, a twentieth."""
    (accelerator.scaler.scale(value) if accelerator.scaler else value).backward()
