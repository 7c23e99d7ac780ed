"""What an epoch draws, and one step's way forward and back over this process's share of a batch, in one part or several."""

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil

import torch
from accelerate import Accelerator
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.data.images.augment import Augmentation, augment, draw_ids, draws
from imbalance.data.images.stored_images import StoredImages
from imbalance.data.texts.tokens import Tokens
from imbalance.methods.batch import Batch, Inputs, Partners
from imbalance.training.distributed.processes import across_processes, async_item
from imbalance.training.learner import Learner
from imbalance.training.optim import clip, gradients, set_rate
from imbalance.utils.seeds import derived_seed, random_state, set_random_state


@dataclass(frozen=True)
class Images:
    """From places in an epoch's order to the model's inputs (B, …), one for each view; of S epochs of the same data, (S·B, …).

    What a step indexes with is moved, and what it augments with is drawn, once an epoch: a copy from the CPU in every
    step would wait for the device to finish all that it was given, and the draws are a hundred small operations.

    inputs: of the training split.
    rows: (M,) or (S, M) of that, where it is indexed: images on disk, and texts, are on the CPU.
    drawn: for each view, (M, count) or (S, M, count) random numbers for each of `augmentations`.
    """

    inputs: Tensor | StoredImages | Tokens
    rows: Tensor
    augmentations: Sequence[Augmentation]
    drawn: Sequence[Sequence[Tensor]]
    normalise: Callable[[Tensor], Tensor]

    def __call__(self, places: slice) -> tuple[Inputs, ...]:
        # Several times as fast as [] on a CPU.
        batch = self.inputs.index_select(0, self.rows[..., places].flatten())
        if not self.augmentations:  # texts are never augmented
            return (self.normalise(batch),) * len(self.drawn)
        drawn = [[uniform[..., places, :].flatten(0, -2) for uniform in of_view] for of_view in self.drawn]
        return tuple(self.normalise(augment(batch, self.augmentations, of_view)) for of_view in drawn)


@dataclass(frozen=True)
class Epoch:
    """The examples that an epoch draws, in order; what a step needs of them is a slice.

    number: from 0.
    rows: (M,) of the training split.
    targets, groups, weights: (M,).
    images: from places in this order to the model's inputs.
    mixed: what they are mixed with, all of it (M,), and the partners' images and the shares of the inputs; None without.
    """

    number: int
    rows: Tensor
    targets: Tensor
    groups: Tensor
    weights: Tensor
    images: Callable[[slice], tuple[Inputs, ...]]
    mixed: tuple[Partners, Callable[[slice], tuple[Tensor, ...]], Tensor] | None = None  # of tensors alone

    def labels(self, places: slice) -> Batch:
        """The examples there, but for what the model sees of them."""
        return Batch((), self.targets[places], self.groups[places], self.weights[places], self.rows[places])

    def batch(self, places: slice, labels: Batch | None = None) -> Batch:
        """The examples there, whose `labels` may be at hand."""
        _, *labels, _ = labels or self.labels(places)
        views = self.images(places)
        if self.mixed is None:
            return Batch(views, *labels)
        # Every view is mixed with the same view of the same partner, in the same share.
        (targets, groups, target_shares), images, shares = self.mixed
        of_inputs = shares[places].view(-1, *[1] * (views[0].dim() - 1))
        partners = Partners(targets[places], groups[places], target_shares[places])
        return Batch(
            tuple(torch.lerp(other, own, of_inputs) for other, own in zip(images(places), views)), *labels, partners
        )


def draw_epoch(learner: Learner, number: int) -> Epoch:
    """Epoch `number`, which follows from the config and the seed alone."""
    train, device = learner.dataset.train, learner.accelerator.device
    order = learner.sampler(number)
    mix = learner.mixing(number, order)
    rows = order.to(device)
    when = draw_ids(number, rows) if learner.dataset.augmentations else rows
    images = images_of(learner, order, rows, when)
    of_all = learner.weights(number)
    weights, mixed = of_all[rows], None
    if mix:
        places = mix.partners.to(device)
        others = rows[places]
        of_others = images_of(learner, order[mix.partners], others, when[places])
        # Each loss counts with its own example's weight: λ·w_i·ℓ_i + (1 − λ)·w_j·ℓ_j is w·(s·ℓ_i + (1 − s)·ℓ_j) with
        own, weights = weights, torch.lerp(of_all[others], weights, mix.target_shares)
        shares = mix.target_shares * own / weights.clamp(min=torch.finfo(weights.dtype).tiny)
        mixed = Partners(train.targets[others], train.method_groups[others], shares), of_others, mix.shares
    return Epoch(number, rows, train.targets[rows], train.method_groups[rows], weights, images, mixed)


def images_of(learner: Learner, order: Tensor, rows: Tensor, when: Tensor) -> Images:
    """Of an epoch's order: (M,) rows of the training split, on the CPU and on the device, and `draw_ids`.

    The first view draws with the run's seed, each further view with a seed derived from it.
    """
    train, names = learner.dataset.train, learner.dataset.augmentations
    stored = order if train.inputs.device.type == "cpu" else rows
    seeds = [learner.seed, *(derived_seed(learner.seed, "view", view) for view in range(1, learner.objective.views))]
    drawn = [draws(train.indices[rows], when, names, seed) for seed in seeds]
    return Images(train.inputs, stored, names, drawn, learner.normalise)


@dataclass(frozen=True)
class StepOutput:
    """What a step did.

    places: of this process's share of the batch, in the epoch.
    logits: (B/processes, K) of that share.
    terms: of the whole batch, what the objective is a function of.
    value: what the objective made of them.
    finite: whether `value` is; if not, the optimiser has not gone down its gradient.
    request: the greatest of all processes.
    """

    places: slice
    logits: Tensor
    terms: dict[str, Tensor]
    value: Tensor
    finite: bool
    request: int


def take_step(
    config: Experiment, learner: Learner, epoch: Epoch, batch: int, batches: int, request: Callable[[], int]
) -> StepOutput:
    """A step on one of the epoch's `batches`. The gradients stay, to be looked at.

    Args:
        request: what this process wants to happen after the step; asked when the forward pass is under way.
    """
    accelerator, optimizer, size = learner.accelerator, learner.optimizer, config.trainer.batch_size
    whole, mine = batch_places(batch, size, accelerator.process_index, accelerator.num_processes)
    set_rate(optimizer, learner.rate * learner.schedule(epoch.number + batch / batches))

    labels = epoch.labels(whole)
    of_mine = labels if accelerator.num_processes == 1 else None
    terms, backward = forward(learner, epoch, mine, learner.micro_batches, of_mine)
    logits = terms["logits"]
    terms, asked = across_processes(accelerator, shared(learner, terms), request(), len(labels.rows))
    value = learner.objective.value(terms, labels)
    seen = value
    if config.trainer.compile == "reduce-overhead":  # whose next CUDA graphs write to where these are
        logits, seen = logits.clone(), value.clone()
    read = async_item(seen, asked)
    backward(value)
    finite, asked = read()
    if finite:
        optimizer_step(learner, config.trainer.clip_norm)
    return StepOutput(mine, logits, terms, seen, finite, asked)


def optimizer_step(learner: Learner, clip_norm: float) -> None:
    """Go down the gradients, those of the whole batch, once they are clipped to `clip_norm`; 0 leaves them as they are."""
    optimizer, scaler = learner.optimizer, learner.accelerator.scaler
    if clip_norm:
        if scaler:
            scaler.unscale_(optimizer)
        clip(gradients(optimizer), clip_norm, getattr(optimizer, "stacked", 0))
    if scaler:
        scaler.step(optimizer)  # skipped where float16 gradients overflow
        scaler.update()
    else:
        optimizer.step()


def batches_of(config: Experiment, epoch: Epoch) -> int:
    """How many batches are made of what an epoch draws."""
    return 1 if config.debug else ceil(len(epoch.rows) / config.trainer.batch_size)


def batch_places(batch: int, size: int, rank: int, world: int) -> tuple[slice, slice]:
    """Where a batch of `size` is in an epoch's order, and a process's share of it: every world-th example."""
    start, stop = batch * size, (batch + 1) * size
    return slice(start, stop), slice(start + rank, stop, world)


def shared(learner: Learner, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The columns that the objective is a function of."""
    return {name: column for name, column in terms.items() if name == "losses" or name in learner.objective.columns}


def forward(
    learner: Learner, epoch: Epoch, places: slice, parts: int, labels: Batch | None = None
) -> tuple[dict[str, Tensor], Callable[[Tensor], None]]:
    """The terms of the examples at `places`, and the function that goes backward from an objective of them.

    In several parts, for want of memory, the terms are first computed without a graph. By the chain rule the derivative
    of the objective by each of their rows is then the row's coefficient, with which every part is computed again and
    goes backward by itself. That is the step of the whole batch for every objective, also one that mixes examples, for
    about a third more time; only batch normalisation differs, which sees one part.
    """
    accelerator, objective = learner.accelerator, learner.objective
    world = accelerator.num_processes  # the processes' gradients are averaged, where their sum is meant
    if parts == 1:
        terms = objective.terms(learner.model, learner.loss, epoch.batch(places, labels))
        return terms, lambda value: go_backward(accelerator, value * world if world > 1 else value)

    # On every process as many, some perhaps empty: the processes wait for one another.
    share = range(len(epoch.rows))[places]
    cuts = [len(share) * i // parts for i in range(parts + 1)]
    pieces = [
        slice(piece.start, piece.stop, piece.step) for piece in map(share.__getitem__, map(slice, cuts, cuts[1:]))
    ]
    random, buffers = random_state(), [buffer.clone() for buffer in learner.model.buffers()]
    with torch.no_grad():
        of_pieces = [cloned(objective.terms(learner.model, learner.loss, epoch.batch(piece))) for piece in pieces]
    terms = {name: torch.cat([of_piece[name] for of_piece in of_pieces]) for name in of_pieces[0]}
    leaves = {name: column.requires_grad_() for name, column in shared(learner, terms).items()}

    def backward(value: Tensor) -> None:
        found = torch.autograd.grad(value * world, leaves.values(), allow_unused=True)
        coefficients = cloned({name: of_rows for name, of_rows in zip(leaves, found) if of_rows is not None})
        # The second pass starts from where the first did: the same dropout, running means moved once.
        set_random_state(random)
        with torch.no_grad():
            for buffer, before in zip(learner.model.buffers(), buffers):
                buffer.copy_(before)
        for i, piece in enumerate(pieces):
            # Only the last part's backward pass exchanges gradients.
            with nullcontext() if i + 1 == parts else accelerator.no_sync(learner.model):
                of_piece = objective.terms(learner.model, learner.loss, epoch.batch(piece))
                sums = ((c[cuts[i] : cuts[i + 1]] * of_piece[name]).sum() for name, c in coefficients.items())
                go_backward(accelerator, functools.reduce(torch.add, sums))

    return terms, backward


def cloned(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a part, which a CUDA graph writes to where it writes those of the next part."""
    return {name: column.clone() for name, column in columns.items()}


def go_backward(accelerator: Accelerator, value: Tensor) -> None:
    """As `accelerator.backward`, which divides by one first: of a small model's step, a twentieth."""
    value = accelerator.scaler.scale(value) if accelerator.scaler else value
    # RunContext a gradient, torch imports SymPy to compare its shape: half a second, for which a GPU saves a kernel a step.
    value.backward(None if value.device.type == "cpu" else one(value.dtype, value.device))


@functools.cache
def one(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a backward pass begins with, which torch otherwise makes anew in every step."""
    return torch.ones((), dtype=dtype, device=device)
