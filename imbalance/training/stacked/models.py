"""The models of many runs as one learner, whose step is a step of each of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import pad

from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.margins import hard_margins
from imbalance.training.learner import Learner
from imbalance.training.optim import StackedSGD, set_rate
from imbalance.training.run import Run
from imbalance.training.stacked.vectorised import transposed
from imbalance.training.step import Epoch, Images, StepOutput, draw_epoch


class Stack:
    """What `take_step` takes as a learner and as its objective: the sum of the members' own.

    The members' parameters and momenta are stacked along two new dimensions, and from then on are views of the stack's:
    what it learns they have learned, and only their progress is handed over. The first dimension is that of seeds, the
    second of runs with one seed, which share the inputs of a batch; where there are not as many at every seed, all are in
    the first.

    members: ordered by seed.
    learner: of all of them, with a rate for each.
    recorded: the steps that no member knows of yet.
    """

    columns = ("values",)

    def __init__(self, members: Sequence[Run]):
        self.members = list(members)
        of_seeds = Counter(member.config.seed for member in self.members)
        even = len(set(of_seeds.values())) == 1
        self.shape = (len(of_seeds), len(members) // len(of_seeds)) if even else (len(members), 1)
        self.recorded: list[StepOutput] = []

        learners = [member.learner for member in self.members]
        first = learners[0]
        parameters = [nn.Parameter(self.stacked(each)) for each in zip(*(one.model.parameters() for one in learners))]
        momenta = [self.stacked(each) for each in zip(*map(momenta_of, learners))]
        like = dict(dtype=parameters[0].dtype, device=parameters[0].device)
        rates = torch.tensor([one.rate for one in learners], **like).view(self.shape)
        decays = {p: group["weight_decay"] for group in first.optimizer.param_groups for p in group["params"]}
        momentum = first.optimizer.param_groups[0]["momentum"]
        optimizer = StackedSGD(parameters, momenta, [decays[p] for p in first.model.parameters()], momentum)
        self.parameters = dict(zip((name for name, _ in first.model.named_parameters()), parameters))
        self.of_losses = {
            name: buffer.unflatten(0, self.shape)
            for name, buffer in stack_module_state([one.loss for one in learners])[1].items()
        }
        self.learner = replace(first, model=self, objective=self, optimizer=optimizer, rate=rates)

        model, loss, objective = transposed(first.model).train(), first.loss, first.objective

        def step(parameters, of_loss, *batch):
            batch = Batch(*batch)
            of_batch = partial(functional_call, model, parameters)
            terms = objective.terms(of_batch, lambda *given: functional_call(loss, of_loss, given), batch)
            return terms["logits"], objective.value(terms, batch)

        of_seed = vmap(step, in_dims=(0, 0, None, None, None, 1, None))  # weights apart, a batch is that of the seed
        self.step = vmap(of_seed, in_dims=(0, 0, 0, 1, 1, 1, 1))

    def stacked(self, tensors: Sequence[Tensor]) -> Tensor:
        """As one, of which they become views."""
        whole = torch.stack([tensor.detach() for tensor in tensors])
        for tensor, part in zip(tensors, whole):
            tensor.data = part
        return whole.unflatten(0, self.shape)

    def members_of(self, chosen: Tensor) -> list[Run]:
        """Those where `chosen`, a mask of the stack's shape, is true."""
        return [member for member, is_one in zip(self.members, chosen.flatten().tolist()) if is_one]

    def draw(self, number: int) -> Epoch:
        """Epoch `number` of all: rows, targets and groups (N, seeds), weights (N, seeds, runs), inputs (seeds, B, …)."""
        epochs: dict[int, Epoch] = {}
        for member in self.members:
            if member.config.seed not in epochs:
                epochs[member.config.seed] = draw_epoch(member.learner, number)
        of_seeds = [epochs[member.config.seed] for member in self.members[:: self.shape[1]]]
        of_all = [
            torch.stack([getattr(epoch, name) for epoch in of_seeds], 1) for name in ("rows", "targets", "groups")
        ]
        weights = [member.learner.weights(number)[epochs[member.config.seed].rows] for member in self.members]
        images = of_each([epoch.images for epoch in of_seeds])
        return Epoch(number, *of_all, torch.stack(weights, 1).unflatten(1, self.shape), images)

    def terms(self, model: "Stack", loss: Loss, batch: Batch) -> dict[str, Tensor]:
        """Logits (seeds, runs, B, K) and each member's own value (seeds, runs)."""
        logits, values = self.step(self.parameters, self.of_losses, *batch[:-1])
        return {"logits": logits, "values": values}

    def value(self, terms: dict[str, Tensor], batch: Batch) -> Tensor:
        """Of no value the gradient depends on another model; in float64 only one that is not finite makes the sum so."""
        return terms["values"].sum(dtype=torch.float64)

    @torch.no_grad()
    def hand_over(self, epoch: Epoch, batches: int) -> None:
        """Bring every member's progress to where the stack is: what was recorded of the epoch."""
        if not self.recorded:
            return
        values = torch.stack([done.terms["values"].detach() for done in self.recorded], -1).flatten(0, 1)
        logits = torch.cat([done.logits.detach() for done in self.recorded], -2)
        drawn = slice(self.recorded[0].places.start, self.recorded[-1].places.stop)
        predictions, shape = logits.argmax(-1), logits.shape[:-1]
        targets = epoch.targets[drawn].T[:, None].expand(shape)
        margins = hard_margins(logits.flatten(0, -2), targets.flatten()).view(shape).flatten(0, 1)
        rows = epoch.rows[drawn].T[:, None].expand(shape).flatten(0, 1)
        for member, *of_member in zip(self.members, values, rows, predictions.flatten(0, 1), margins):
            progress, learner = member.progress, member.learner
            for kept, found in zip((progress.drawn, progress.predictions, progress.margins), of_member[1:]):
                kept.append(found)
            progress.values += of_member[0].unbind()
            progress.batch += len(self.recorded)
            progress.step += len(self.recorded)
            set_rate(learner.optimizer, learner.rate * learner.schedule(epoch.number + (progress.batch - 1) / batches))
        self.recorded = []


def of_each(images: Sequence[Images]) -> Callable[[slice], tuple[Inputs, ...]]:
    """What S `images` make of places, (S, B, …) for each view.

    Those of the same data, which follow one another, are gathered at once.
    """
    of_data = [list(alike) for _, alike in groupby(images, lambda of_one: id(of_one.inputs))]
    at_once = [
        replace(
            alike[0],
            rows=torch.stack([of_one.rows for of_one in alike]),
            drawn=[
                [torch.stack(uniforms) for uniforms in zip(*view)] for view in zip(*(of_one.drawn for of_one in alike))
            ],
        )
        for alike in of_data
    ]

    def views(places: slice) -> tuple[Inputs, ...]:
        of_parts = [[apart(view, len(of_some.rows)) for view in of_some(places)] for of_some in at_once]
        return tuple(padded_alike(of_view) for of_view in zip(*of_parts))

    return views


def apart(inputs: Inputs, models: int) -> Inputs:
    """(S, B, …) of (S·B, …)."""
    if isinstance(inputs, Tensor):
        return inputs.unflatten(0, (models, -1))
    return {name: of_name.unflatten(0, (models, -1)) for name, of_name in inputs.items()}


def padded_alike(inputs: Sequence[Inputs]) -> Inputs:
    """(S, B, …) of parts of it; texts are padded (with masked zeros) to the longest."""
    if len(inputs) == 1:
        return inputs[0]
    if isinstance(inputs[0], Tensor):
        return torch.cat(inputs)
    longest = max(of_some["attention_mask"].shape[2] for of_some in inputs)
    return {
        name: torch.cat([pad(of_some[name], (0, longest - of_some[name].shape[2])) for of_some in inputs])
        for name in inputs[0]
    }


def momenta_of(learner: Learner) -> list[Tensor]:
    """The momentum of each parameter; none where `config.optim.momentum` is 0."""
    states = learner.optimizer.state  # which makes an entry for what is asked for by []
    return [states[p]["momentum_buffer"] for p in learner.model.parameters() if p in states]
