"""Many runs at once: learning rates, weights and seeds of one experiment, trained in one process as one batched model.

A small model's step takes its time to start its operations, not to do them. Here the parameters of M models, stacked
along new first dimensions, go through each operation together (`torch.func.vmap`, in `imbalance.training.stacked.models`), and
so do the examples that they are evaluated on. The step is that of the loop, of all models as one; every run has its own
learner, progress and log, and what begins, saves and ends it is the code of `train`. So each leaves the run directory
that main.py would make, equal up to rounding, and either can go on with what the other left.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from imbalance.config.experiment import Experiment, first_run, validate
from imbalance.config.registries import registries
from imbalance.config.resolve import defining_values
from imbalance.config.schema import flatten, look_up, required_arguments
from imbalance.config.tags import tags_of
from imbalance.errors import Diverged, Interrupted
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.evaluate import Outcome, evaluate, interpolating
from imbalance.training.finish import conclude, put_selected, record_end, record_split, splits_of
from imbalance.training.learner import learner_on, load_dataset, make_source
from imbalance.training.logging import console, trackers
from imbalance.training.logging.run_log import RunLog
from imbalance.training.loop import SAVE, begin, check, close_epoch, evaluate_epoch, is_due, save
from imbalance.training.run import Run
from imbalance.training.stacked.models import Stack
from imbalance.training.state import forensics
from imbalance.training.state.provenance import check_done
from imbalance.training.step import batches_of, take_step

BATCHED = ("sampler", "model", "objective", "optim", "mix")  # the sections whose tags say whether they can be
SECONDS_BETWEEN_LINES = 10
WRITERS = 8  # threads: every file is waited for until it is on the disk, which many can do at once


def in_common(config: Experiment) -> str | None:
    """What runs that are trained at once must agree in: all but seed, learning rate and weights, as text.

    None for a config that can only be trained by itself.
    """
    plain = config.trainer.accumulation == 1 and config.trainer.mixed_precision == "no"
    plain &= not (config.debug or config.trainer.compile != "no" or config.trainer.channels_last)
    plain &= first_run(config) is None
    plain &= not trackers.uses_wandb(config)  # which has one run a process
    if not plain or not all(
        tags_of(look_up(registries()[section], config.section(section).name)).batched for section in BATCHED
    ):
        return None
    shared = flatten(defining_values(config)) | {"data_dir": config.data_dir}
    own = ("seed", "optim.lr", *(key for key in shared if key.startswith("weights.")))
    return json.dumps({key: value for key, value in shared.items() if key not in own}, sort_keys=True)


def gains_from_batching(config: Experiment) -> bool:
    """Whether models of `config` are known to be trained faster at once.

    One ConvNet keeps a CPU busy, and several at once are slower there. On a GPU it has not been measured yet: that is
    what `imbalance bench --only=gpu` does there.
    """
    return config.model.name in ("linear", "mlp")


def draws_data(config: Experiment) -> bool:
    """Whether its data are others at another seed."""
    data = look_up(registries()["data"], config.data.name)
    seeded = tags_of(data).seeded
    return "seed" in required_arguments(data) and (seeded is None or seeded(config.data))


def train_stacked(runs: Sequence[tuple[Experiment, Path]]) -> list[dict[str, Any]]:
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
        members, datasets, sources = [], {}, {}
        opened = [
            logs.enter_context(RunLog(Path(directory), config, writes=True))
            for config, (_, directory) in zip(configs, runs)
        ]
        with ThreadPoolExecutor(WRITERS) as threads:
            claimed = list(threads.map(RunLog.claim, opened))
        for config, log, done in zip(configs, opened, claimed):
            if done:
                check_done(config, done, log.directory / "summary.json", log.line)
                continue
            drawn = config.seed if draws_data(config) else None
            if drawn not in datasets:
                datasets[drawn] = load_dataset(config)
            if config.seed not in sources:
                sources[config.seed] = make_source(config, accelerator, log.directory, datasets[drawn])
            learner = learner_on(sources[config.seed], config, accelerator)
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
    printed, stack, ending = time.monotonic(), None, []
    members.sort(key=lambda member: member.config.seed)
    try:
        while members:
            ending = [replace(member, interrupt=interrupt) for member in members if member.progress.ended]
            members[:] = [member for member in members if not member.progress.ended]
            save_all(ending)
            finish_all(ending)
            ending = []
            if not members:
                break
            if stack is None or stack.members != members:
                stack = Stack(members)
            train_epoch(stack, members, interrupt)
            end_epochs(members)
            if interrupt.signum:
                raise Interrupted(interrupt.signum)
            if members and time.monotonic() - printed > SECONDS_BETWEEN_LINES:
                printed = time.monotonic()
                print(f"{len(members)} runs at once: {how_far(members[0])}", file=sys.stderr, flush=True)
    except Interrupted as error:
        save_all(members)
        for member in [*members, *ending]:
            record_end(member, error)
        raise


def each(members: list[Run], action: Callable[[Run], Any], threads: int = 1) -> bool:
    """Do it for every member. Those that diverge in it end, and leave the list; whether none has.

    Args:
        threads: several for what only writes files; what draws random numbers or hears signals is done here, in order.
    """

    def attempt(member: Run) -> Diverged | None:
        try:
            action(member)
        except Diverged as error:
            return error

    whole = True
    with ThreadPoolExecutor(threads) as pool:
        errors = map(attempt, list(members)) if threads == 1 else pool.map(attempt, list(members))
        for member, error in zip(list(members), errors):
            if error:
                member.progress.seconds = member.clock.seconds()
                record_end(member, error)
                members.remove(member)
                whole = False
    return whole


def save_all(members: list[Run]) -> bool:
    """`save` of all. Those that diverge leave the list; whether none has."""
    whole = each(members, check)
    return each(members, save, WRITERS) and whole


def end_epochs(members: list[Run]) -> None:
    """`end_epoch` of all, evaluated together. Those that diverge leave the list."""
    interpolated = dict(zip(members, interpolating(members)))
    due = [member for member in members if is_due(member, interpolated[member])]
    each(members, lambda member: check(member) if member in due else None)
    due = [member for member in due if member in members]
    evaluated = dict(zip(due, evaluate_epoch(due)))
    each(members, lambda member: close_epoch(member, interpolated[member], evaluated.get(member)))


def finish_all(members: list[Run]) -> None:
    """`finish` of all, evaluated together. Those that diverge leave the list."""
    each(members, put_selected)
    values = {member: member.learner.group_metrics | member.learner.objective.metrics() for member in members}

    def record(name: str, outcomes: dict[Run, Outcome]) -> None:
        each(members, lambda member: values[member].update(record_split(member, name, outcomes[member])), WRITERS)

    for name in splits_of(members[0]) if members else ():
        if members:  # all may have diverged on the split before
            record(name, dict(zip(members, evaluate(members, name, keep_logits=True))))
    each(members, lambda member: conclude(member, values[member]), WRITERS)


def how_far(member: Run) -> str:
    """Between two epochs, a line on the epochs done."""
    return console.progress(member.progress.epoch - 1, member.epochs, 1, 1, member.clock)


def train_epoch(stack: Stack, members: list[Run], interrupt: Interrupt) -> None:
    """The steps of one epoch, from where the members stand. Those that become non-finite leave the list, and the stack."""
    first = members[0]
    epoch = stack.draw(first.progress.epoch)
    batches = batches_of(first.config, epoch)

    def request() -> int:
        if interrupt.signum:
            return SAVE + interrupt.signum
        return SAVE if first.clock.save_is_due(epoch_ends=False) else 0

    for batch in range(first.progress.batch, batches):
        done = take_step(first.config, stack.learner, epoch, batch, batches, request)
        stack.learner.optimizer.zero_grad()
        if not done.finite:
            stack.hand_over(epoch, batches)
            # In a sum that is not finite one is not, or in float64 is so large that the sum need not be.
            values, most = done.terms["values"].double().abs(), torch.finfo(torch.float64).max / len(members)
            bad = stack.members_of(~(values < most))
            members[:] = [member for member in members if member not in bad]
            each(bad, diverged)
            break
        stack.recorded.append(done)
        if done.request:
            stack.hand_over(epoch, batches)
        if done.request > SAVE:
            raise Interrupted(done.request - SAVE)
        if done.request == SAVE and not save_all(members):
            break
    else:
        stack.hand_over(epoch, batches)
        return
    if members:
        train_epoch(Stack(members), members, interrupt)  # the rest of the epoch, without those that are not finite


def diverged(member: Run) -> None:
    """End a run whose loss is not finite as it would end alone.

    Raises:
        Diverged: always.
    """
    raise forensics.find(member, member.progress.step + 1)
