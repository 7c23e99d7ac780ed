"""One training step: draw the examples of an epoch, run the forward and backward pass, and update the weights."""

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from imbalance.config.experiment import Experiment, takes_full_batches
from imbalance.data.images.augment import Augmentation, augment, draw_ids, draws, inside
from imbalance.data.images.stored_images import DiskImages
from imbalance.data.texts.tokens import Tokens
from imbalance.methods.batch import Batch, Inputs, Partners
from imbalance.training.distributed.processes import across_processes, async_item
from imbalance.training.features import features
from imbalance.training.lbfgs import Fits, Problem, Solver
from imbalance.training.learner import Learner
from imbalance.training.optim import SharpnessAware, clip, gradients, set_rate
from imbalance.training.own_code import check_value
from imbalance.training.read_ahead import Crops, ReadAhead, original_crop
from imbalance.utils.seeds import derived_seed
from imbalance.utils.torch_state import random_state, set_random_state


@dataclass(frozen=True)
class Images:
    """Function from a slice of an epoch's examples to a tuple with the inputs (B, …) of the model for each view.

    For S stacked epochs of the same data the inputs are (S·B, …). Row numbers are moved to the device, and random numbers
    of augmentations are drawn, once an epoch. In each step the copy would wait for the device, and the draws would take
    a hundred small operations.

    inputs: inputs of all examples of the training split.
    rows: (M,) or (S, M) drawn row numbers of the training split, on the device of `inputs`: the CPU for images on disk
        and for texts.
    augmentations: names of the augmentations, in the order in which they are applied.
    drawn: for each view, and in it for each augmentation, R random numbers of each example, (M, R) or (S, M, R).
    normalise: function from a batch of `inputs` to the input of the model.
    read_ahead: reader of images on disk, which replaces `inputs` and `rows`; None for other inputs and for stacked epochs.
    part: index of these images among the `parts` of `read_ahead`.
    """

    inputs: Tensor | DiskImages | Tokens
    rows: Tensor
    augmentations: Sequence[Augmentation]
    drawn: Sequence[Sequence[Tensor]]
    normalise: Callable[[Inputs], Inputs]
    read_ahead: ReadAhead | None = None
    part: int = 0

    def __call__(self, batch_slice: slice) -> tuple[Inputs, ...]:
        if self.read_ahead:
            batches: tuple[Inputs, ...] = self.read_ahead.read(batch_slice, self.part)
        else:
            # index_select is several times as fast as [] on a CPU.
            batches = (self.inputs.index_select(0, self.rows[..., batch_slice].flatten()),)
        if not self.augmentations and len(batches) == 1:
            return (self.normalise(batches[0]),) * len(self.drawn)
        images = cast(tuple[Tensor, ...], batches if len(batches) > 1 else batches * len(self.drawn))
        drawn = [[uniform[..., batch_slice, :].flatten(0, -2) for uniform in view] for view in self.drawn]
        return tuple(self.normalise(augment(batch, self.augmentations, view)) for batch, view in zip(images, drawn))


@dataclass(frozen=True)
class Epoch:
    """Examples that an epoch draws, in order. A step takes a slice of them.

    number: number of the epoch, counted from 0.
    rows: (M,) rows of the training split.
    targets, groups, weights: (M,) labels and importance weights of the examples.
    images: function from a slice of the examples to the inputs of the model.
    mixed: None without mixing, else a tuple of five values:
        the partners of the examples, with fields (M,);
        a function from a slice of the examples to the inputs of their partners;
        the (M,) shares of the examples' own inputs;
        the (M, 4) boxes of pixels that come from the partners, or None if all pixels are mixed by the shares;
        the number of the first view that gets boxes.
    read_ahead: reader of the images of the next steps; None if the inputs are in memory.
    """

    number: int
    rows: Tensor
    targets: Tensor
    groups: Tensor
    weights: Tensor
    images: Callable[[slice], tuple[Inputs, ...]]
    mixed: tuple[Partners, Callable[[slice], tuple[Inputs, ...]], Tensor, Tensor | None, int] | None = None
    read_ahead: ReadAhead | None = None

    def labels(self, batch_slice: slice) -> Batch:
        """Return the batch of the examples in a slice, without their inputs."""
        rows, weights = self.rows[batch_slice], self.weights[batch_slice]
        targets, groups = self.targets[batch_slice], self.groups[batch_slice]
        return Batch((), targets, groups, weights, rows, epoch=self.number)

    def batch(self, batch_slice: slice, labels: Batch | None = None) -> Batch:
        """Return the batch of the examples in a slice.

        Args:
            labels: result of the method `labels` for the same slice, if the caller has it.
        """
        labels = labels or self.labels(batch_slice)
        views = self.images(batch_slice)
        if self.mixed is None:
            return labels._replace(views=views)
        # Every view is mixed with the same view of the same partner, in the same share. Texts cannot be mixed.
        (targets, groups, target_shares), images, shares, boxes, first_box_view = self.mixed
        own_views, other_views = cast(tuple[Tensor, ...], views), cast(tuple[Tensor, ...], images(batch_slice))
        by_shares = len(own_views) if boxes is None else first_box_view  # number of views that are mixed by shares
        leading = shares[batch_slice].movedim(0, -1)  # (B,), or (S, B) for S stacked epochs
        input_shares = leading.view(*leading.shape, *[1] * (own_views[0].dim() - leading.dim()))
        mixed = [torch.lerp(o, own, input_shares) for o, own in zip(other_views[:by_shares], own_views[:by_shares])]
        if boxes is not None:
            from_partner = inside(boxes[batch_slice], *own_views[0].shape[2:])
            pairs = zip(other_views[by_shares:], own_views[by_shares:])
            mixed += [torch.where(from_partner, other, own) for other, own in pairs]
        partners = Partners(targets[batch_slice], groups[batch_slice], target_shares[batch_slice])
        return labels._replace(views=tuple(mixed), partners=partners)


def draw_epoch(learner: Learner, number: int) -> Epoch:
    """Draw the examples of epoch `number`, counted from 0. Only the config, its seed and `number` decide the result."""
    train, device = learner.dataset.train, learner.accelerator.device
    order = learner.sampler(number)
    mix = learner.mixing(number, order)
    rows = order.to(device)
    ids = draw_ids(number, rows) if learner.dataset.augmentations else rows
    read_ahead = draw_reading(learner, number, order, [mix.partners] if mix else [])
    images = draw_images(learner, order, rows, ids, read_ahead)
    all_weights = learner.weights(number)
    weights, mixed = all_weights[rows], None
    if mix:
        assert mix.target_shares is not None  # the learner's mixing fills it
        partners = mix.partners.to(device)
        others = rows[partners]
        other_images = replace(draw_images(learner, order[mix.partners], others, ids[partners], read_ahead), part=1)
        # Each loss counts with the weight of its own example: λ·w_i·ℓ_i + (1 − λ)·w_j·ℓ_j = w·(s·ℓ_i + (1 − s)·ℓ_j),
        # where w is `weights` and s is `shares` below.
        own, weights = weights, torch.lerp(all_weights[others], weights, mix.target_shares)
        shares = mix.target_shares * own / weights.clamp(min=torch.finfo(weights.dtype).tiny)
        mixed = (
            Partners(train.targets[others], train.method_groups[others], shares),
            other_images,
            mix.shares,
            mix.boxes,
            mix.first_box_view,
        )
    return Epoch(number, rows, train.targets[rows], train.method_groups[rows], weights, images, mixed, read_ahead)


def view_seeds(learner: Learner) -> list[int]:
    """Return a seed for the augmentations of each view: the run's seed, then seeds derived from the run's seed."""
    return [learner.seed, *(derived_seed(learner.seed, "view", view) for view in range(1, learner.objective.views))]


def draw_reading(learner: Learner, number: int, order: Tensor, partners: Sequence[Tensor]) -> ReadAhead | None:
    """Return the reader of an epoch's images if they are on disk, else None.

    Args:
        number: number of the epoch, counted from 0.
        order: (M,) row numbers of the training split that the epoch draws, on the CPU.
        partners: with mixing, a list of one tensor, the (M,) positions of the partners in `order`; else an empty list.
    """
    train = learner.dataset.train
    if not isinstance(train.inputs, DiskImages):
        return None
    crops = None
    if name := original_crop(train.inputs, learner.dataset.augmentations):
        crops = Crops(view_seeds(learner), name, train.on_cpu["indices"][order], draw_ids(number, order))
    return ReadAhead(train.inputs, order, [torch.arange(len(order)), *partners], crops)


def draw_images(learner: Learner, order: Tensor, rows: Tensor, ids: Tensor, read_ahead: ReadAhead | None) -> Images:
    """Draw the random numbers of an epoch's augmentations, and return the `Images` of the epoch.

    Each view uses its seed of `view_seeds`. No numbers are drawn for a random crop of the original images, because
    `read_ahead` makes the crop.

    Args:
        order: (M,) row numbers of the training split that the epoch draws, on the CPU.
        rows: the same row numbers on the device.
        ids: (M,) numbers from `draw_ids`, one for each drawn example, which seed its augmentation.
    """
    train, augmentations = learner.dataset.train, learner.dataset.augmentations
    crop = original_crop(train.inputs, augmentations)
    names: list[Augmentation] = [name for name in augmentations if name != crop]
    stored = order if train.inputs.device.type == "cpu" else rows
    drawn = [draws(train.indices[rows], ids, names, seed) for seed in view_seeds(learner)]
    return Images(train.inputs, stored, names, drawn, learner.normalise, read_ahead)


@dataclass(frozen=True)
class StepOutput:
    """Output of one step.

    batch_slice: slice of the epoch's examples that is this process's share of the batch.
    logits: (B/processes, K) logits of that share.
    terms: columns of the global batch that the objective reads, by name.
    value: value of the objective, which the step minimises.
    finite: whether `value` is finite; if not, the weights were not updated.
    request: greatest request of all processes, see `imbalance.training.loop.current_request`.
    """

    batch_slice: slice
    logits: Tensor
    terms: dict[str, Tensor]
    value: Tensor
    finite: bool
    request: int


def take_step(
    config: Experiment, learner: Learner, epoch: Epoch, batch: int, batches: int, request: Callable[[], int]
) -> StepOutput:
    """Take a step on one batch of an epoch. The gradients stay until the caller sets them to zero.

    Args:
        batch: number of the batch in the epoch, counted from 0.
        batches: number of batches in the epoch.
        request: function that returns the request of this process for the end of the step. It is called once the
            forward pass is queued.
    """
    if isinstance(learner.optimizer, Solver | Fits):
        return take_full_step(learner, epoch, request)
    accelerator, optimizer, size = learner.accelerator, learner.optimizer, config.trainer.batch_size
    global_slice, local_slice = batch_slices(batch, size, accelerator.process_index, accelerator.num_processes)
    set_rate(optimizer, learner.rate * learner.schedule(epoch.number + batch / batches))
    if epoch.read_ahead:
        rank, world = accelerator.process_index, accelerator.num_processes
        following = (batch_slices(later, size, rank, world)[1] for later in range(batch + 1, batches))
        epoch.read_ahead.advance(local_slice, following)

    global_batch = epoch.labels(global_slice)
    local_batch = global_batch if accelerator.num_processes == 1 else None
    random = random_state() if isinstance(optimizer, SharpnessAware) else {}
    terms, backward = forward(learner, epoch, local_slice, learner.micro_batches, local_batch)
    logits = terms["logits"]
    columns = objective_columns(learner, terms)
    terms, requested = across_processes(accelerator, columns, request(), len(global_batch.rows))
    value = learner.objective.value(terms, global_batch)
    check_value(config, value)
    kept_value = value
    if learner.records_graphs:
        # CUDA graphs reuse these buffers in the next step, so clone them.
        logits, kept_value = logits.clone(), value.clone()
    read = async_item(kept_value, requested)
    if isinstance(optimizer, SharpnessAware):

        def pass_of(weights: Tensor) -> None:
            """Run a forward pass, and add the gradients of the objective with these importance weights to the parameters."""
            set_random_state(random)
            again, backward_again = forward(learner, epoch, local_slice, learner.micro_batches, local_batch)
            columns = objective_columns(learner, again)
            again, _ = across_processes(accelerator, columns, 0, len(global_batch.rows))
            backward_again(learner.objective.value(again, global_batch._replace(weights=weights)))

        first = lambda weights: backward(learner.objective.value(terms, global_batch._replace(weights=weights)))  # noqa: E731
        sharpness_aware_passes(learner, optimizer, global_batch, first, pass_of)
    else:
        backward(value)
    finite, requested = read()
    if finite:
        optimizer_step(learner, config.trainer.clip_norm)
    return StepOutput(local_slice, logits, terms, kept_value, finite, requested)


def take_full_step(learner: Learner, epoch: Epoch, request: Callable[[], int]) -> StepOutput:
    """Take one iteration of L-BFGS, on all examples of train; the arguments are those of `take_step`.

    If the optimiser is a `Fits`, the tensors of the output have a leading dimension for its M fits.
    """
    optimizer: Any = learner.optimizer
    fits: Fits = optimizer if isinstance(optimizer, Fits) else fits_of(optimizer, learner, epoch)
    finite = bool(fits.state.values.isfinite().all())  # an iteration never ends where the objective is not finite
    if finite:
        fits.step()
    logits, values, whole = fits.logits(), fits.losses(), slice(0, len(epoch.rows))
    if fits is optimizer:
        return StepOutput(whole, logits, {"values": values}, values.sum(), finite, request())
    losses = learner.loss(logits[0], epoch.targets, epoch.groups)
    return StepOutput(whole, logits[0], {"losses": losses}, values[0], finite, request())


def fits_of(solver: Solver, learner: Learner, epoch: Epoch) -> Fits:
    """Return the `Fits` of a single run, whose optimiser is `solver`; an epoch only builds it if its state is new."""
    if not solver.fits:
        solver.problem = solver.problem or problem_of(learner)
        solver.fits = Fits(solver.problem, [[solver]], epoch.weights[None])
    return solver.fits


def problem_of(learner: Learner) -> Problem:
    """Return the problem that L-BFGS solves: the inputs of the last layer for all examples of train, and their labels."""
    train = learner.dataset.train
    inputs, body = train.inputs, learner.network.features
    # For a linear model on floats the inputs are the features, so they are not copied.
    flat = isinstance(inputs, Tensor) and inputs.is_floating_point() and isinstance(body, nn.Flatten)
    inputs = cast(Tensor, inputs).flatten(1) if flat else features(learner, train).flatten(1)
    is_odd = learner.dataset.num_classes == 2 and getattr(learner.loss, "is_relative", False)
    return Problem(inputs, train.targets, train.method_groups, learner.loss, is_odd)


def sharpness_aware_passes(
    learner: Learner,
    optimizer: SharpnessAware,
    batch: Batch,
    first: Callable[[Tensor], None],
    pass_of: Callable[[Tensor], None],
) -> None:
    """Run the backward passes of one step of a sharpness-aware optimiser, and leave the gradients in the parameters.

    Only the first forward pass, which has been run already, changes the state of the objective and the running statistics of
    batch normalisation.

    Args:
        batch: labels of the global batch.
        first: function that adds the gradients of the objective with given importance weights to the parameters, from the
            terms of the first forward pass.
        pass_of: function that adds the same gradients at the current network weights, from a new forward pass.
    """
    buffers = [buffer.clone() for buffer in learner.model.buffers()]
    learner.objective.eval()
    sharp = batch.weights
    if optimizer.shares is not None:
        sharp = batch.weights * optimizer.shares.to(batch.weights)[batch.targets]
    first(sharp)
    with optimizer.displaced():
        pass_of(sharp)
    if optimizer.shares is not None:
        pass_of(batch.weights - sharp)
    learner.objective.train()
    with torch.no_grad():
        for buffer, before in zip(learner.model.buffers(), buffers):
            buffer.copy_(before)


def optimizer_step(learner: Learner, clip_norm: float) -> None:
    """Clip the gradients to the norm `clip_norm` if it is not 0, and update the parameters."""
    optimizer, scaler = learner.optimizer, learner.accelerator.scaler
    if clip_norm:
        if scaler:
            scaler.unscale_(optimizer)
        clip(gradients(optimizer), clip_norm, getattr(optimizer, "stacked", 0))
    if scaler:
        scaler.step(optimizer)  # skips the step if float16 gradients overflow
        scaler.update()
    else:
        optimizer.step()


def count_batches(config: Experiment, epoch: Epoch) -> int:
    """Return the number of batches in an epoch; 1 in a debug run."""
    return 1 if config.debug else ceil(len(epoch.rows) / batch_size(config, epoch))


def batch_size(config: Experiment, epoch: Epoch) -> int:
    """Return the number of examples in a batch: `config.trainer.batch_size`, or all examples for an optimiser that needs all."""
    return len(epoch.rows) if takes_full_batches(config) else config.trainer.batch_size


def batch_slices(batch: int, size: int, rank: int, world: int) -> tuple[slice, slice]:
    """Return two slices of an epoch's examples: the global batch, and the part of it that this process computes.

    The part is every world-th example of the global batch.

    Args:
        batch: number of the batch in the epoch, counted from 0.
        size: number of examples in a global batch.
        rank, world: number of the process, and number of processes.
    """
    start, stop = batch * size, (batch + 1) * size
    return slice(start, stop), slice(start + rank, stop, world)


def objective_columns(learner: Learner, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of `terms` that the objective reads."""
    return {name: column for name, column in terms.items() if name == "losses" or name in learner.objective.columns}


def forward(
    learner: Learner, epoch: Epoch, batch_slice: slice, micro_batches: int, labels: Batch | None = None
) -> tuple[dict[str, Tensor], Callable[[Tensor], None]]:
    """Return the terms of a slice's examples, and a function that runs the backward pass from the objective's value.

    With several micro-batches, which save memory, all terms are first computed without a graph. The derivative of the
    objective by the terms of an example becomes the coefficient of that example. Then each micro-batch is computed
    again, and the backward pass starts from the sum of its terms times their coefficients. By the chain rule the
    gradients are those of the whole batch, for every objective, even one that combines examples. Only batch
    normalisation differs, because it normalises each micro-batch alone. A step takes about a third more time.

    Args:
        labels: batch of the slice without its inputs, if the caller has it.
    """
    accelerator, objective = learner.accelerator, learner.objective
    world = accelerator.num_processes  # processes average their gradients, but the step needs the sum
    share = range(len(epoch.rows))[batch_slice]
    if learner.smallest_batch > 1:
        micro_batches = max(1, min(micro_batches, len(share) // learner.smallest_batch))
    if micro_batches == 1:
        terms = objective.terms(learner.model, learner.loss, epoch.batch(batch_slice, labels))
        return terms, lambda value: go_backward(accelerator, value * world if world > 1 else value)

    # Processes wait for one another, so each must have the same number of micro-batches, even if some are empty.
    cuts = [len(share) * i // micro_batches for i in range(micro_batches + 1)]
    ranges = (share[start:stop] for start, stop in pairwise(cuts))
    slices = [slice(part.start, part.stop, part.step) for part in ranges]
    random, buffers = random_state(), [buffer.clone() for buffer in learner.model.buffers()]
    with torch.no_grad():
        terms_of_slices = [cloned(objective.terms(learner.model, learner.loss, epoch.batch(part))) for part in slices]
    terms = {name: torch.cat([part[name] for part in terms_of_slices]) for name in terms_of_slices[0]}
    leaves = {name: column.requires_grad_() for name, column in objective_columns(learner, terms).items()}

    def backward(value: Tensor) -> None:
        derivatives = torch.autograd.grad(value * world, tuple(leaves.values()), allow_unused=True)
        coefficients = cloned({name: rows for name, rows in zip(leaves, derivatives) if rows is not None})
        # Restore the state before the first pass, so that dropout is the same and running means move only once.
        set_random_state(random)
        with torch.no_grad():
            for buffer, before in zip(learner.model.buffers(), buffers):
                buffer.copy_(before)
        for i, part in enumerate(slices):
            # Only the backward pass of the last micro-batch exchanges gradients.
            with nullcontext() if i + 1 == micro_batches else accelerator.no_sync(learner.model):
                terms = objective.terms(learner.model, learner.loss, epoch.batch(part))
                sums = ((c[cuts[i] : cuts[i + 1]] * terms[name]).sum() for name, c in coefficients.items())
                go_backward(accelerator, functools.reduce(torch.add, sums))
            if i == 0 and learner.records_graphs:
                # The first gradients lie in buffers that the graphs of the next micro-batch overwrite, so clone them.
                for parameter in learner.model.parameters():
                    parameter.grad = None if parameter.grad is None else parameter.grad.clone()

    return terms, backward


def cloned(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of the terms of a micro-batch, because CUDA graphs reuse their buffers for the next micro-batch."""
    return {name: column.clone() for name, column in columns.items()}


def go_backward(accelerator: Accelerator, value: Tensor) -> None:
    """Run the backward pass from `value`, as `accelerator.backward` does, but without its division by one.

    That division, by accelerate's number of accumulation steps, takes a twentieth of the time of a small model's step.
    """
    value = accelerator.scaler.scale(value) if accelerator.scaler else value
    # If torch is passed a gradient, it imports SymPy to compare shapes, which takes half a second. On a GPU the passed
    # gradient saves one kernel in each step; on a CPU it saves nothing, so pass none.
    value.backward(None if value.device.type == "cpu" else one(value.dtype, value.device))


@functools.cache
def one(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a scalar 1, from which a backward pass starts; cached, so that no step allocates it again."""
    return torch.ones((), dtype=dtype, device=device)
