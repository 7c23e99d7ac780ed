"""Many runs at once: learning rates, weights and seeds of one experiment, trained in one process as one batched model.

A small model's step takes its time to start its operations, not to do them. Here the parameters of M models, stacked
along a new first dimension, go through each operation together (`torch.func.vmap`). Only the steps are batched: every
run has its own learner, progress and log, and what begins, evaluates, saves and ends it is the code of `train`. So each
leaves the run directory that main.py would make, equal up to rounding, and either can go on with what the other left.
"""

import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import pad

from imbalance.config import experiment, first_run, flatten, tables, validate
from imbalance.errors import Diverged, Interrupted
from imbalance.margins import hard_margins
from imbalance.methods.batch import Batch, Inputs
from imbalance.methods.tags import tags_of
from imbalance.schema import asks, entry
from imbalance.training import console, forensics, trackers
from imbalance.training.interrupt import Interrupt
from imbalance.training.learner import load_dataset, make_learner
from imbalance.training.log import RunLog
from imbalance.training.loop import SAVE, begin, end_epoch, finish, record_end, save
from imbalance.training.origin import check_done
from imbalance.training.processes import read_later, start_accelerator
from imbalance.training.run import Run
from imbalance.training.step import Epoch, draw_epoch

BATCHED = ("sampler", "model", "objective", "optim", "mix")  # the sections whose tags say whether they can be
SECONDS_BETWEEN_LINES = 10


def in_common(config: ConfigDict) -> str | None:
    """What runs that are trained at once must agree in: all but seed, learning rate and weights, as text.

    None for a config that can only be trained by itself.
    """
    plain = config.trainer.accumulation == 1 and config.trainer.mixed_precision == "no"
    plain &= not (config.debug or config.trainer.compile or config.trainer.channels_last)
    plain &= first_run(config) is None
    plain &= not trackers.uses_wandb(config)  # which has one run a process
    if not plain or not all(tags_of(entry(tables()[section], config[section].name)).batched for section in BATCHED):
        return None
    shared = flatten(experiment(config)) | {"data_dir": config.data_dir}
    own = ("seed", "optim.lr", *(key for key in shared if key.startswith("weights.")))
    return json.dumps({key: value for key, value in shared.items() if key not in own}, sort_keys=True)


def gains_from_batching(config: ConfigDict) -> bool:
    """Whether models of `config` are known to be trained faster at once.

    One ConvNet keeps a CPU busy, and several at once are slower there. On a GPU it has not been measured yet: that is
    what `imbalance bench --only=sweep` does there.
    """
    return config.model.name in ("linear", "mlp")


def train_at_once(runs: Sequence[tuple[ConfigDict, Path]]) -> list[dict[str, Any]]:
    """Train runs whose `in_common` is the same, and return all of their summaries, in order.

    A run whose loss becomes non-finite ends as it would by itself, with a summary that says "diverged", and the others
    go on.

    Args:
        runs: the config and the run directory of each.

    Raises:
        BadInput: the config or the data is wrong.
        Interrupted: a signal came; all have a checkpoint, and the same call goes on from there.
    """
    configs = [validate(config) for config, _ in runs]
    accelerator = start_accelerator(configs[0])
    with Interrupt() as interrupt, ExitStack() as logs:
        members, datasets = [], {}
        for config, (_, directory) in zip(configs, runs):
            log = logs.enter_context(RunLog(Path(directory), config, writes=True))
            done = log.claim()
            if done:
                check_done(config, done, log.directory / "summary.json", log.line)
                continue
            # Data that ask for no seed are the same at all of them.
            drawn = config.seed if "seed" in asks(entry(tables()["data"], config.data.name)) else None
            if drawn not in datasets:
                datasets[drawn] = load_dataset(config)
            learner = make_learner(config, accelerator, log.directory, datasets[drawn])
            # Another `Interrupt`, that nobody hears: so all of them stay at the same step.
            members.append(begin(config, learner, log, Interrupt()))
        for member in members:
            member.progress.together = len(members)
        interrupt.defer()

        # Those that stand at the same step, more than one only where a crash came in between two saves, and whose inputs
        # have the same shape: a seed's draw of train decides how many categories there are to encode.
        def alike(member: Run) -> tuple:
            return place(member), member.learner.dataset.input_shape, member.learner.dataset.vocabulary

        for _, together in groupby(sorted(members, key=alike), key=alike):
            fit(list(together), interrupt)
    return [json.loads((Path(directory) / "summary.json").read_text()) for _, directory in runs]


def place(member: Run) -> tuple[int, int]:
    return member.progress.epoch, member.progress.batch


def fit(members: list[Run], interrupt: Interrupt) -> None:
    """Train members that stand at the same step, each to its end, and evaluate it there."""
    printed = time.monotonic()
    try:
        while members:
            for member in [member for member in members if member.progress.ended]:
                if each([member], save):
                    each([member], lambda member: finish(replace(member, interrupt=interrupt)))
                members.remove(member)
            train_epoch(members, interrupt)
            each(members, end_epoch)
            if interrupt.signum:
                raise Interrupted(interrupt.signum)
            if members and time.monotonic() - printed > SECONDS_BETWEEN_LINES:
                printed = time.monotonic()
                print(f"{len(members)} runs at once: {how_far(members[0])}", file=sys.stderr, flush=True)
    except Interrupted as error:
        each(members, save)
        for member in members:
            record_end(member, error)
        raise


def each(members: list[Run], action: Callable[[Run], Any]) -> bool:
    """Do it for every member. Those that diverge in it end, and leave the list; whether none has."""
    whole = True
    for member in list(members):
        try:
            action(member)
        except Diverged as error:
            member.progress.seconds = member.clock.seconds()
            record_end(member, error)
            members.remove(member)
            whole = False
    return whole


def how_far(member: Run) -> str:
    """Between two epochs, a line on the epochs done."""
    return console.progress(member.progress.epoch - 1, member.epochs, 1, 1, member.clock)


def train_epoch(members: list[Run], interrupt: Interrupt) -> None:
    """The steps of one epoch, from where the members stand. Those whose loss becomes non-finite leave the list."""
    if not members:
        return
    first, size = members[0], members[0].config.trainer.batch_size
    epochs = [draw_epoch(member.learner, member.progress.epoch) for member in members]
    stack = Stack(members, epochs)
    batches = ceil(stack.rows.shape[1] / size)
    for member in members:
        member.learner.model.train()
    for batch in range(first.progress.batch, batches):
        places = slice(batch * size, (batch + 1) * size)
        rate = first.learner.schedule(first.progress.epoch + batch / batches)
        logits, values = stack.forward(places)
        request = SAVE + interrupt.signum if interrupt.signum or first.clock.save_is_due(epoch_ends=False) else 0
        read = read_later(values.detach().abs().amax(), request)  # not finite if one of them is not
        gradients = stack.backward(values)
        all_finite, request = read()
        if not all_finite:
            stack.hand_back()
            bad = [member for member, finite in zip(members, values.isfinite().tolist()) if not finite]
            for member in bad:
                members.remove(member)
            each(bad, diverged)
            train_epoch(members, interrupt)  # this step again, without them
            return
        stack.descend(gradients, rate)
        stack.recorded.append((values.detach(), logits.detach()))
        if request:
            stack.hand_back()
        if request > SAVE:
            raise Interrupted(request - SAVE)
        if request == SAVE and not each(members, save):
            train_epoch(members, interrupt)  # the rest of the epoch, without those that are not finite
            return
    stack.hand_back()


def diverged(member: Run) -> None:
    """End a run whose loss is not finite as it would end alone.

    Raises:
        Diverged: always.
    """
    raise forensics.find(member, member.progress.step + 1)


@dataclass
class Stack:
    """The members' models, for an epoch.

    members, epochs: M of them, and what each draws.
    recorded: values (M,) and logits (M, B, K) of the steps that no member knows of yet.
    """

    members: list[Run]
    epochs: list[Epoch]
    recorded: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self):
        first = self.members[0]
        self.rows, self.targets, self.groups, self.weights = (
            torch.stack([getattr(epoch, name) for epoch in self.epochs])
            for name in ("rows", "targets", "groups", "weights")
        )
        self.of_each = [list(member.learner.model.parameters()) for member in self.members]
        self.parameters = [torch.stack(tensors).detach().requires_grad_() for tensors in zip(*self.of_each)]
        decays = {p: group["weight_decay"] for group in first.learner.optimizer.param_groups for p in group["params"]}
        self.decays = [decays[parameter] for parameter in self.of_each[0]]
        self.momenta = [torch.stack(tensors) for tensors in zip(*map(momenta, self.members))]
        self.names = [name for name, _ in first.learner.model.named_parameters()]
        self.rates = self.weights.new_tensor([member.config.optim.lr for member in self.members])
        _, self.of_losses = stack_module_state([member.learner.loss for member in self.members])
        model, loss, objective = transposed(first.learner.model).train(), first.learner.loss, first.learner.objective

        def step(parameters, of_loss, *batch):
            batch = Batch(*batch)
            of_batch = partial(functional_call, model, parameters)
            terms = objective.terms(of_batch, lambda *given: functional_call(loss, of_loss, given), batch)
            return terms["logits"], objective.value(terms, batch)

        self.step = vmap(step)

    def forward(self, places: slice) -> tuple[Tensor, Tensor]:
        """Logits (M, B, K) and values (M,) of the examples at `places` of each epoch."""
        seeds = [member.config.seed for member in self.members]
        images = {seed: epoch.images for seed, epoch in zip(seeds, self.epochs)}  # one seed draws one batch
        batches = {seed: of_seed(places) for seed, of_seed in images.items()}
        inputs = stacked([batches[seed] for seed in seeds])
        labels = (of_all[:, places] for of_all in (self.targets, self.groups, self.weights, self.rows))
        return self.step(dict(zip(self.names, self.parameters)), self.of_losses, inputs, *labels)

    def backward(self, values: Tensor) -> tuple[Tensor, ...]:
        """Each model's gradient of its own value, stacked like the parameters: no value depends on another model."""
        return torch.autograd.grad(values.sum(), self.parameters)

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor], factor: float) -> None:
        """A step of `optim.sgd` for each model, at its own learning rate times `factor`."""
        config, self.factor = self.members[0].config, factor
        optim = config.optim
        if config.trainer.clip_norm:
            gradients = clipped(gradients, config.trainer.clip_norm)
        for i, (parameter, gradient) in enumerate(zip(self.parameters, gradients)):
            if self.decays[i]:
                gradient = gradient.add(parameter, alpha=self.decays[i])
            if optim.momentum:
                gradient = torch.add(gradient, self.momenta[i], alpha=optim.momentum, out=self.momenta[i])
            rates = (self.rates * factor).view(-1, *[1] * (parameter.dim() - 1))
            parameter.addcmul_(gradient, rates, value=-1)

    @torch.no_grad()
    def hand_back(self) -> None:
        """Bring every member to where the stack is: weights, momentum and progress."""
        each = zip(*(parameter.unbind() for parameter in self.parameters))
        torch._foreach_copy_([p for of_one in self.of_each for p in of_one], [p for of_one in each for p in of_one])
        for i, member in enumerate(self.members):
            for mine, of_all in zip(momenta(member), self.momenta):
                mine.copy_(of_all[i])
        if not self.recorded:
            return
        values, logits = zip(*self.recorded)
        values, logits = torch.stack(values, dim=1), torch.cat(logits, dim=1)
        begun = self.members[0].progress.batch * self.members[0].config.trainer.batch_size
        drawn = slice(begun, begun + logits.shape[1])
        predictions = logits.argmax(2)
        margins = hard_margins(logits.flatten(0, 1), self.targets[:, drawn].flatten()).view_as(predictions)
        for i, member in enumerate(self.members):
            config, learner, progress = member.config, member.learner, member.progress
            progress.values += values[i].unbind()
            progress.drawn.append(self.rows[i, drawn])
            progress.predictions.append(predictions[i])
            progress.margins.append(margins[i])
            progress.batch += len(self.recorded)
            progress.step += len(self.recorded)
            for group in learner.optimizer.param_groups:
                group["lr"] = config.optim.lr * self.factor
        self.recorded = []


def stacked(inputs: Sequence[Inputs]) -> Inputs:
    """One tensor, or mapping of tensors, of those of M models; texts are padded (with masked zeros) to the longest."""
    if isinstance(inputs[0], Tensor):
        return torch.stack(inputs)
    longest = max(of_one["attention_mask"].shape[1] for of_one in inputs)
    return {
        name: torch.stack([pad(of_one[name], (0, longest - of_one[name].shape[1])) for of_one in inputs])
        for name in inputs[0]
    }


def clipped(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """`optim.clip` of each model's gradients."""
    squares = [gradient.flatten(1).double().square().sum(1) for gradient in gradients]
    scales = (limit / torch.stack(squares).sum(0).sqrt()).clamp(max=1)
    return [gradient * scales.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)) for gradient in gradients]


def momenta(member: Run) -> list[Tensor]:
    """The momentum of each parameter; none where `config.optim.momentum` is 0."""
    states = member.learner.optimizer.state  # which makes an entry for what is asked for by []
    return [states[p]["momentum_buffer"] for p in member.learner.model.parameters() if p in states]


class TransposedLinear(nn.Linear):
    """A linear layer as (W xᵀ)ᵀ: batched, with few outputs, a product of that form and its gradients take a CPU a
    fifth of the time that those of x Wᵀ take (torch 2.13)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.addmm(self.bias[:, None], self.weight, inputs.T).T


def transposed(model: nn.Module) -> nn.Module:
    """A copy of `model` whose linear layers are computed in that form."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = TransposedLinear
    return model
