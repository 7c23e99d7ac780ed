"""Stack the models of many runs into one learner, so that one step trains all of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import pad

from imbalance.methods.batch import Batch, Inputs, Loss, Partners
from imbalance.methods.margins import hard_margins
from imbalance.training.learner import Learner
from imbalance.training.optim import StackedSGD, set_rate
from imbalance.training.stacked.vectorised import transposed
from imbalance.training.state.run_state import Run
from imbalance.training.step import Epoch, Images, StepOutput, draw_epoch


class Stack:
    """Stack of the models of many runs, used as the model and the objective of a learner.

    The objective is the sum of the objectives of all runs. The parameters and momenta of the runs are stacked along two
    new leading dimensions, and become views of the stacked tensors, so a step of the stack updates every run in place.
    Only the progress of the runs is updated separately, by `hand_over`. The first new dimension is the seed, and the
    second is the runs with that seed, which share the inputs of a batch. If seeds have different numbers of runs, all
    runs are in the first dimension.

    members: runs, ordered by seed.
    shape: sizes of the two new dimensions.
    learner: learner of all members, with a learning rate for each.
    recorded: outputs of the steps that are not handed over yet.
    """

    columns = ("values",)

    def __init__(self, members: Sequence[Run]):
        self.members = list(members)
        runs_of_seed = Counter(member.config.seed for member in self.members)
        even = len(set(runs_of_seed.values())) == 1
        self.shape = (len(runs_of_seed), len(members) // len(runs_of_seed)) if even else (len(members), 1)
        self.recorded: list[StepOutput] = []

        learners = [member.learner for member in self.members]
        first = learners[0]
        parameters = [nn.Parameter(self.stacked(each)) for each in zip(*(one.model.parameters() for one in learners))]
        momenta = [self.stacked(each) for each in zip(*map(momenta_of, learners))]
        dtype, device = parameters[0].dtype, parameters[0].device
        rates = torch.tensor([one.rate for one in learners], dtype=dtype, device=device).view(self.shape)
        decays = {p: group["weight_decay"] for group in first.optimizer.param_groups for p in group["params"]}
        momentum = first.optimizer.param_groups[0]["momentum"]
        optimizer = StackedSGD(parameters, momenta, [decays[p] for p in first.model.parameters()], momentum)
        self.parameters = dict(zip((name for name, _ in first.model.named_parameters()), parameters))
        self.loss_buffers = {
            name: buffer.unflatten(0, self.shape)
            for name, buffer in stack_module_state([one.loss for one in learners])[1].items()
        }
        # A step uses only those attributes of a learner's model, objective and optimizer that these stand-ins have.
        stand_ins: dict[str, Any] = dict(model=self, objective=self, optimizer=optimizer)
        self.learner = replace(first, rate=rates, **stand_ins)

        model, loss, objective = transposed(first.model).train(), first.loss, first.objective

        def step(parameters, loss_buffers, epoch, *columns):
            batch = Batch(*columns, epoch=epoch)
            call_model = cast(nn.Module, partial(functional_call, model, parameters))
            terms = objective.terms(call_model, lambda *labels: functional_call(loss, loss_buffers, labels), batch)
            return terms["logits"], objective.value(terms, batch)

        # Runs with one seed have their own importance weights, on which the factors on the two losses of a mixture depend.
        # They share all other columns of the batch.
        self.mixes = self.members[0].config.mix.name != "none"
        dims: Any = (None, None, 1)  # of the fields of `Partners`
        partners: Any = (Partners(*dims), 1) if self.mixes else (None, None)
        runs_step = vmap(step, in_dims=(0, 0, None, None, None, None, 1, None, partners[0]))
        self.step = vmap(runs_step, in_dims=(0, 0, None, 0, 1, 1, 1, 1, partners[1]))

    def stacked(self, tensors: Sequence[Tensor]) -> Tensor:
        """Stack one tensor of each member, and return the stacked tensor; `tensors` become views of it."""
        whole = torch.stack([tensor.detach() for tensor in tensors])
        for tensor, part in zip(tensors, whole):
            tensor.data = part
        return whole.unflatten(0, self.shape)

    def members_where(self, mask: Tensor) -> list[Run]:
        """Return the members that have True in `mask`, whose shape is `self.shape`."""
        return [member for member, chosen in zip(self.members, mask.flatten().tolist()) if chosen]

    def draw(self, number: int) -> Epoch:
        """Draw the examples of epoch `number`, counted from 0, for all members.

        Shapes in the result: rows, targets, groups, partners and shares of inputs (N, seeds); weights and factors on the
        losses of mixtures (N, seeds, runs); inputs (seeds, B, …).
        """
        drawn: dict[Any, Epoch] = {}
        for member in self.members:
            key = member if self.mixes else member.config.seed
            if key not in drawn:
                drawn[key] = draw_epoch(member.learner, number)
        epochs = [drawn[member if self.mixes else member.config.seed] for member in self.members]
        seed_epochs = epochs[:: self.shape[1]]
        rows, targets, groups = (
            torch.stack([getattr(epoch, name) for epoch in seed_epochs], 1) for name in ("rows", "targets", "groups")
        )
        weights = [
            epoch.weights if self.mixes else member.learner.weights(number)[epoch.rows]
            for member, epoch in zip(self.members, epochs)
        ]
        images = stacked_images(cast(list[Images], [epoch.images for epoch in seed_epochs]))
        mixed = self.stacked_mixtures(epochs) if self.mixes else None
        return Epoch(number, rows, targets, groups, torch.stack(weights, 1).unflatten(1, self.shape), images, mixed)

    def stacked_mixtures(self, epochs: Sequence[Epoch]) -> Any:
        """Return `Epoch.mixed` of the stack, from the epoch of each member."""
        labels, _, _, boxes, first_box_view = zip(*(cast(Any, epoch.mixed) for epoch in epochs))
        of_seeds = [cast(Any, epoch.mixed) for epoch in epochs[:: self.shape[1]]]
        assert not any(box is not None for box in boxes)  # no mixing with boxes has the tag `batched`
        targets, groups = (
            torch.stack([getattr(mixed[0], name) for mixed in of_seeds], 1) for name in ("targets", "groups")
        )
        shares = torch.stack([partners.shares for partners in labels], 1).unflatten(1, self.shape)
        images = stacked_images([mixed[1] for mixed in of_seeds])
        input_shares = torch.stack([mixed[2] for mixed in of_seeds], 1)
        return Partners(targets, groups, shares), images, input_shares, None, first_box_view[0]

    def terms(self, model: "Stack", loss: Loss, batch: Batch) -> dict[str, Tensor]:
        """Return two terms: the logits (seeds, runs, B, K), and the value of each member's objective (seeds, runs)."""
        columns = batch.views, batch.targets, batch.groups, batch.weights, batch.rows, batch.partners
        logits, values = self.step(self.parameters, self.loss_buffers, batch.epoch, *columns)
        return {"logits": logits, "values": values}

    def value(self, terms: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the sum of the members' objectives, so that the gradient of each member is that of its own objective.

        The sum is in float64, so that finite values do not overflow in it.
        """
        return terms["values"].sum(dtype=torch.float64)

    @torch.no_grad()
    def hand_over(self, epoch: Epoch, batches: int) -> None:
        """Add the recorded steps to the progress of every member.

        Args:
            epoch: epoch of these steps.
            batches: number of batches in the epoch.
        """
        if not self.recorded:
            return
        values = torch.stack([done.terms["values"].detach() for done in self.recorded], -1).flatten(0, 1)
        logits = torch.cat([done.logits.detach() for done in self.recorded], -2)
        drawn = slice(self.recorded[0].batch_slice.start, self.recorded[-1].batch_slice.stop)
        predictions, shape = logits.argmax(-1), logits.shape[:-1]
        targets = epoch.targets[drawn].T[:, None].expand(shape)
        margins = hard_margins(logits.flatten(0, -2), targets.flatten()).view(shape).flatten(0, 1)
        rows = epoch.rows[drawn].T[:, None].expand(shape).flatten(0, 1)
        records = zip(values, rows, predictions.flatten(0, 1), margins)
        for member, (own_values, own_rows, own_predictions, own_margins) in zip(self.members, records):
            progress, learner = member.progress, member.learner
            progress.drawn.append(own_rows)
            progress.predictions.append(own_predictions)
            progress.margins.append(own_margins)
            progress.values += own_values.unbind()
            progress.batch += len(self.recorded)
            progress.step += len(self.recorded)
            set_rate(learner.optimizer, learner.rate * learner.schedule(epoch.number + (progress.batch - 1) / batches))
        self.recorded = []


def stacked_images(images: Sequence[Images]) -> Callable[[slice], tuple[Inputs, ...]]:
    """Return a function from a slice of the examples that an epoch draws to the inputs of S models for these examples.

    The inputs are a tuple of (S, B, …) tensors, one for each view.

    Args:
        images: `Images` of the current epoch of each of the S runs; runs with the same data must be adjacent.
    """
    same_data = [list(alike) for _, alike in groupby(images, lambda one: id(one.inputs))]
    together = [
        replace(
            alike[0],
            rows=torch.stack([one.rows for one in alike]),
            drawn=[[torch.stack(uniforms) for uniforms in zip(*view)] for view in zip(*(one.drawn for one in alike))],
            read_ahead=None,
        )
        for alike in same_data
    ]

    def views(batch_slice: slice) -> tuple[Inputs, ...]:
        parts = [[unstacked(view, len(images.rows)) for view in images(batch_slice)] for images in together]
        return tuple(padded_alike(view) for view in zip(*parts))

    return views


def unstacked(inputs: Inputs, models: int) -> Inputs:
    """Return (S·B, …) inputs as (S, B, …), where `models` is S."""
    if isinstance(inputs, Tensor):
        return inputs.unflatten(0, (models, -1))
    return {name: tensor.unflatten(0, (models, -1)) for name, tensor in inputs.items()}


def padded_alike(inputs: Sequence[Inputs]) -> Inputs:
    """Concatenate inputs (S, B, …) along the first dimension; pad texts with masked zeros to the longest text."""
    if len(inputs) == 1:
        return inputs[0]
    if isinstance(inputs[0], Tensor):
        return torch.cat(cast(list[Tensor], inputs))
    texts = cast(Sequence[dict[str, Tensor]], inputs)
    longest = max(part["attention_mask"].shape[2] for part in texts)
    return {
        name: torch.cat([pad(part[name], (0, longest - part[name].shape[2])) for part in texts]) for name in texts[0]
    }


def momenta_of(learner: Learner) -> list[Tensor]:
    """Return the momentum of each parameter; an empty list if `config.optim.momentum` is 0."""
    states = learner.optimizer.state  # indexing creates an entry for a parameter without one, so test with `in`
    return [states[p]["momentum_buffer"] for p in learner.model.parameters() if p in states]
