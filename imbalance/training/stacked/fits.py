"""Stacked fits: solve the problems of many runs with `config.optim.name="lbfgs"` together.

All runs of a stack have the same data. Runs that differ only in the seed, and whose result cannot depend on the seed,
are one fit: the fit is computed once, and recorded for each of these runs.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from imbalance.config.experiment import Experiment, methods, takes_full_batches
from imbalance.config.resolve import defining_values
from imbalance.config.schema import required_arguments
from imbalance.config.tags import tags_of
from imbalance.methods.margins import hard_margins
from imbalance.training.lbfgs import Fits, Solver
from imbalance.training.state.run_state import Run
from imbalance.training.step import Epoch, StepOutput, draw_epoch, problem_of

CHANCE = {"seed", "generator", "first"}  # arguments through which the result of a method depends on the seed


def seedless(config: Experiment) -> bool:
    """Return whether a run of `config` computes the same at every seed, if the data set is the same."""
    parts = methods(config)
    free = [parts[section] for section in ("groups", "weights", "loss", "objective", "head")]
    # The sampler draws every example for a full batch, so its random order has no effect.
    return (
        takes_full_batches(config)
        and config.model.get("init") == "zeros"
        and not any(CHANCE & required_arguments(part) or tags_of(part).held_out for part in free)
    )


@functools.lru_cache(maxsize=4096)  # called in every epoch
def values_but_seed(config: Experiment) -> str:
    """Return, as text, all values of a config but the seed; an empty text if the result depends on the seed."""
    values = {key: value for key, value in defining_values(config).items() if key != "seed"}
    return json.dumps(values, sort_keys=True) if seedless(config) else ""


def fit_key(member: Run) -> Any:
    """Return a key for `member`, a run of a stack; runs that are the same fit have equal keys."""
    if not takes_full_batches(member.config):  # to hash a config takes longer than this comparison
        return id(member)
    values = values_but_seed(member.config)
    return (id(member.learner.dataset.train), values) if values else id(member)


def first_members(members: Sequence[Run]) -> dict[Run, Run]:
    """Return for each member the first member that is the same fit."""
    firsts: dict[Any, Run] = {}
    return {member: firsts.setdefault(fit_key(member), member) for member in members}


class FitStack:
    """Fits of several runs with the same data, trained together; compare `imbalance.training.stacked.models.Stack`.

    members: the runs.
    learner: learner of all members together; its optimiser is their `Fits`.
    recorded: outputs of the steps that `hand_over` has not added to the members yet.
    """

    def __init__(self, members: Sequence[Run]):
        self.members = list(members)
        self.recorded: list[StepOutput] = []
        firsts = first_members(members)
        solvers: dict[Run, list[Solver]] = {}
        for member, first in firsts.items():
            assert isinstance(member.learner.optimizer, Solver)  # the config says lbfgs
            solvers.setdefault(first, []).append(member.learner.optimizer)
        self.places = [list(solvers).index(first) for first in firsts.values()]
        shared, learner = next(iter(solvers.values()))[0], members[0].learner
        shared.problem = shared.problem or problem_of(learner)
        for same in solvers.values():
            for solver in same:
                solver.problem = shared.problem
        weights = torch.stack([first.learner.weights(0) for first in solvers])
        optimizer: Any = Fits(shared.problem, list(solvers.values()), weights)
        self.learner = replace(learner, optimizer=optimizer)

    def members_where(self, mask: Tensor) -> list[Run]:
        """Return the members whose fit has True in `mask`, which has one entry for each of the M fits."""
        chosen = mask.tolist()
        return [member for member, place in zip(self.members, self.places) if chosen[place]]

    def draw(self, number: int) -> Epoch:
        """Return the examples of epoch `number`, which are all examples of train."""
        return draw_epoch(self.members[0].learner, number)

    def hand_over(self, epoch: Epoch, batches: int) -> None:
        """Add the recorded steps to the progress of every member; the arguments are those of `Stack.hand_over`."""
        for done in self.recorded:
            targets = epoch.targets.expand(done.logits.shape[:2])
            predictions = done.logits.argmax(2)
            margins = hard_margins(done.logits.flatten(0, 1), targets.flatten()).view_as(targets)
            for member, place in zip(self.members, self.places):
                progress = member.progress
                progress.drawn.append(epoch.rows)
                progress.predictions.append(predictions[place])
                progress.margins.append(margins[place])
                progress.values.append(done.terms["values"][place])
                progress.batch, progress.step = progress.batch + 1, progress.step + 1
        self.recorded = []
