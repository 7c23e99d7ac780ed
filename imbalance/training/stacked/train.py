"""Stacked training: train runs that differ only in seed, learning rate, importance weights and head as one batched model.

A step of a small model spends its time on starting operations, not on computing. So the parameters of M models are
stacked along new leading dimensions, and one operation computes all models (`torch.func.vmap`, in
`imbalance.training.stacked.models`). Evaluation does the same. The same code takes the steps of a stack and of a single
run. Every run has its own learner, progress and log, and begins, saves and ends by the code of
`imbalance.training.loop`. So each run directory equals, up to rounding, the one that `imbalance train` writes, and
either command can resume a run of the other.
"""

import json
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from imbalance.config.experiment import Experiment, first_run, takes_full_batches, validate
from imbalance.config.registries import registries
from imbalance.config.resolve import defining_values
from imbalance.config.run_directory import read_summary
from imbalance.config.schema import flatten, look_up, required_arguments
from imbalance.config.tags import tags_of
from imbalance.config.user_modules import user_code_errors
from imbalance.errors import Diverged, Interrupted
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.evaluate import LogitsInMemory, Outcome, evaluate, newly_interpolating
from imbalance.training.finish import (
    load_selected,
    predictions_file,
    record_split,
    split_names,
    write_early_summary,
    write_pause,
    write_results,
)
from imbalance.training.learner import learner_on, load_dataset, make_source
from imbalance.training.logging import console, trackers
from imbalance.training.logging.run_log import RunLog
from imbalance.training.loop import (
    SAVE,
    begin,
    check_finite,
    close_epoch,
    evaluate_epoch,
    evaluation_is_due,
    is_paused,
    save,
)
from imbalance.training.stacked.fingerprint import fingerprint
from imbalance.training.stacked.fits import FitStack, first_members
from imbalance.training.stacked.models import Stack
from imbalance.training.state import forensics
from imbalance.training.state.provenance import check_done
from imbalance.training.state.run_state import Run
from imbalance.training.step import count_batches, take_step

# Sections whose functions can be stacked if they have the tag `batched`.
BATCHED = ("sampler", "model", "adapter", "objective", "optim", "mix")
SECONDS_BETWEEN_LINES = 10
T = TypeVar("T")
WRITERS = 8  # threads that write files, because writing waits for the disk, and many files can wait at once


def in_common(config: Experiment) -> str | None:
    """Return, as text, all values of a config except seed, learning rate, importance weights and head.

    The head is not excepted if it decides which examples are in train, or if it is no linear layer. For the optimiser "lbfgs"
    `optim.weight_decay` and `optim.decayed` are excepted, too. Runs can be stacked if these texts are equal. Return None if the
    config cannot be stacked.
    """
    trainer = config.trainer
    can_stack = trainer.accumulation == 1 and trainer.mixed_precision == "no"
    can_stack &= not (config.debug or trainer.compile != "no" or trainer.channels_last)
    can_stack &= first_run(config) is None and not trainer.ema_decay
    can_stack &= not (trainer.shard or trainer.activation_checkpointing)
    can_stack &= not from_files(config.data)  # each run would need its own random crops
    can_stack &= not trackers.uses_wandb(config)  # wandb allows one run in a process
    if not can_stack or not all(
        tags_of(look_up(registries()[section], config.section(section).name)).batched for section in BATCHED
    ):
        return None
    shared = flatten(defining_values(config)) | {"data_dir": config.data_dir}
    own = ("seed", "optim.lr", *(key for key in shared if key.startswith("weights.")))
    head = tags_of(look_up(registries()["head"], config.head.name))
    if head.held_out is None and head.module is None and not takes_full_batches(config):
        own = (*own, *(key for key in shared if key.startswith("head.")))
    if takes_full_batches(config):
        own = (*own, "optim.weight_decay", "optim.decayed")
    return json.dumps({key: value for key, value in shared.items() if key not in own}, sort_keys=True)


def from_files(data: Mapping[str, Any]) -> bool:
    """Return whether a section `config.data`, or the section of its source, reads batches from image files."""
    source = data.get("source")
    return data.get("images_from") == "files" or (isinstance(source, Mapping) and from_files(source))


def gains_from_batching(config: Experiment) -> bool:
    """Return whether models of `config` probably train faster on this machine when stacked.

    On a CPU linear models and MLPs train at least 5 times as fast when stacked. Convolutions keep a core busy: with one
    thread and batches of 64, eight LeNets took 1.1 to 1.6 times as long stacked as one by one, and ConvNets 1.1 to 2.1
    times. A GPU is idle for most of a small model's step, so all models are stacked there: on an H200 four epochs of twenty
    ConvNets took 8.7 s stacked, and 5.2 s in one run alone. `--stacked=1` turns stacking off.
    """
    return config.model.name in ("linear", "mlp") or torch.cuda.is_available()


def draws_data(config: Experiment) -> bool:
    """Return whether the data set of `config` depends on the seed."""
    data = look_up(registries()["data"], config.data.name)
    seeded = tags_of(data).seeded
    return "seed" in required_arguments(data) and (seeded is None or seeded(config.data))


@user_code_errors()
def train_stacked(runs: Sequence[tuple[Experiment, Path]], pause: int | None = None) -> list[dict[str, Any]]:
    """Train runs for which `in_common` returns the same text; return each summary.json's content, in the order of `runs`.

    The runs train in the groups of `groups_of`, one group after another.

    A run whose loss becomes non-finite ends as it would alone, with the status "diverged" in its summary.json. The
    other runs go on.

    Args:
        runs: config and run directory of each run.
        pause: number of epochs, counted from the start of the run, after which a run pauses, as in
            `imbalance.training.loop.train`; None for no pause.

    Raises:
        BadInput: the config or the data is wrong.
        Interrupted: a signal came; all runs have a checkpoint, and the same call resumes them.
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
        for config, log, summary in zip(configs, opened, claimed):
            if summary:
                check_done(config, summary, log.directory / "summary.json", log.line)
                continue
            data_seed = config.seed if draws_data(config) else None
            if data_seed not in datasets:
                datasets[data_seed] = load_dataset(config)
            if config.seed not in sources:
                sources[config.seed] = make_source(config, accelerator, log.directory, datasets[data_seed])
            learner = learner_on(sources[config.seed], config, accelerator)
            # Each member gets its own `Interrupt`, which receives no signal. Only the shared one does, so that all
            # members stop at the same step.
            members.append(begin(config, learner, log, Interrupt()))
        interrupt.defer()
        groups = groups_of(members)
        for number, together in enumerate(groups):
            for member in together:
                member.progress.together = len(together)
                member.clock.start()  # leave out the time of the groups before this one
            try:
                fit(together, interrupt, pause)
            except Interrupted as error:
                for later in groups[number + 1 :]:
                    save_all(later)
                    for member in later:
                        write_early_summary(member, error.status, str(error))
                raise
    return [read_summary(Path(directory)) for _, directory in runs]


def groups_of(members: Sequence[Run]) -> list[list[Run]]:
    """Divide runs into groups that can train as one stacked model; the groups are in the order of their first runs.

    The runs of a group are at the same step, and one loss and one objective serve all of them. So an own loss that depends
    on the seed or on the data, other than through its buffers, puts runs into different groups. Steps can differ after a
    crash between the saves of two runs. Sizes and categories of the data can differ, because the seed may draw the
    examples in train. Then a sampler may draw different numbers of examples, too. Fits by "lbfgs" need the same data.
    """
    drawn: dict[Any, int] = {}  # number of examples that an epoch draws, by seed and epoch

    def key(member: Run) -> Hashable:
        learner, full_batches = member.learner, takes_full_batches(member.config)
        dataset = learner.dataset
        epoch = min(member.progress.epoch, member.epochs - 1)
        if (learner.seed, epoch) not in drawn:
            drawn[learner.seed, epoch] = len(learner.sampler(epoch))
        return (
            position(member),
            drawn[learner.seed, epoch],
            id(dataset.train) if full_batches else 0,
            fingerprint([len(dataset.train), dataset.input_shape, dataset.vocabulary]),
            fingerprint([dataset.class_names, dataset.group_names, dataset.evaluation_names, dataset.inferred_names]),
            fingerprint(dataset.augmentations),
            fingerprint(learner.loss, stacks_buffers=not full_batches),
            fingerprint(learner.objective),
        )

    groups: dict[Hashable, list[Run]] = {}
    for member in members:
        groups.setdefault(key(member), []).append(member)
    return list(groups.values())


def position(member: Run) -> tuple[int, int]:
    """Return the current epoch of a run of the stack, and the number of batches that are done in this epoch."""
    return member.progress.epoch, member.progress.batch


def fit(members: list[Run], interrupt: Interrupt, pause: int | None) -> None:
    """Train `members`, which are all at the same step, until each run has ended or pauses; write the results of each.

    Args:
        pause: number of epochs, counted from the start of the run, after which a run pauses; None for no pause.
    """
    printed, stack, ending = time.monotonic(), None, []
    members.sort(key=lambda member: member.config.seed)
    try:
        while members:
            ending = [replace(member, interrupt=interrupt) for member in members if member.progress.ended]
            paused = [member for member in members if is_paused(member, pause)]
            members[:] = [member for member in members if not member.progress.ended and member not in paused]
            save_all(paused)
            for member in paused:
                write_pause(member)
            save_all(ending)
            finish_all(ending)
            ending = []
            if not members:
                break
            if stack is None or stack.members != members:
                stack = make_stack(members)
            train_epoch(stack, members, interrupt)
            end_epochs(members)
            if interrupt.signum:
                raise Interrupted(interrupt.signum)
            if members and time.monotonic() - printed > SECONDS_BETWEEN_LINES:
                printed = time.monotonic()
                print(f"{len(members)} stacked runs: {progress_line(members[0])}", file=sys.stderr, flush=True)
    except Interrupted as error:
        save_all(members)
        for member in [*members, *ending]:
            write_early_summary(member, error.status, str(error))
        raise


def make_stack(members: Sequence[Run]) -> Stack | FitStack:
    """Return a stack of `members`, which must be at the same step."""
    return FitStack(members) if takes_full_batches(members[0].config) else Stack(members)


def shared_by_fit(members: Sequence[Run], evaluate: Callable[[list[Run]], Sequence[T]]) -> dict[Run, T]:
    """Return the result of `evaluate` for each member; members that are the same fit are evaluated once.

    Args:
        evaluate: function from a list of runs to one result for each.
    """
    firsts = first_members(members)
    unique = list(dict.fromkeys(firsts.values()))
    results = dict(zip(unique, evaluate(unique)))
    return {member: results[first] for member, first in firsts.items()}


def apply_to_all(members: list[Run], action: Callable[[Run], Any], threads: int = 1) -> bool:
    """Call `action` on every run, and return True if no run diverged. Each run that diverges is removed from `members`.

    Args:
        threads: number of threads; more than one only if the action just writes files. Actions that draw random numbers
            or react to signals need 1, so that they run in order in the calling thread.
    """

    def attempt(member: Run) -> Diverged | None:
        try:
            action(member)
        except Diverged as error:
            return error

    none_diverged = True
    with ThreadPoolExecutor(threads) as pool:
        errors = map(attempt, list(members)) if threads == 1 else pool.map(attempt, list(members))
        for member, error in zip(list(members), errors):
            if error:
                member.progress.seconds = member.clock.seconds()
                write_early_summary(member, error.status, str(error))
                members.remove(member)
                none_diverged = False
    return none_diverged


def save_all(members: list[Run]) -> bool:
    """Write a checkpoint of every run; return True if no run diverged. Each run that diverged leaves `members`."""
    all_finite = apply_to_all(members, check_finite)
    return apply_to_all(members, save, WRITERS) and all_finite


def end_epochs(members: list[Run]) -> None:
    """Evaluate together all runs whose evaluation is due, and move every run on to the next epoch.

    Each run that diverges is removed from `members`.
    """
    interpolated = shared_by_fit(members, newly_interpolating)
    due = [member for member in members if evaluation_is_due(member, interpolated[member])]
    apply_to_all(members, lambda member: check_finite(member) if member in due else None)
    due = [member for member in due if member in members]
    evaluations = shared_by_fit(due, evaluate_epoch)
    apply_to_all(members, lambda member: close_epoch(member, interpolated[member], evaluations.get(member)))


def finish_all(members: list[Run]) -> None:
    """Evaluate stacked runs together on every split, and write the results of each.

    Each run that diverges is removed from `members`.
    """
    apply_to_all(members, load_selected)
    values = {member: {**member.learner.group_metrics, **member.learner.objective.metrics()} for member in members}

    def outcomes_of(name: str) -> dict[Run, Outcome]:
        return shared_by_fit(members, lambda unique: evaluate(unique, name, [LogitsInMemory() for _ in unique]))

    def record(name: str, outcomes: dict[Run, Outcome]) -> None:
        def write(member: Run) -> None:
            outcome = outcomes[member]
            with predictions_file(member, name) as sink:
                sink.append(cast(Tensor, outcome.logits))
                values[member].update(record_split(member, name, outcome, sink))

        apply_to_all(members, write, WRITERS)

    for name in split_names(members[0]) if members else ():
        if members:  # all may have diverged on the split before
            record(name, outcomes_of(name))
    apply_to_all(members, lambda member: write_results(member, values[member]), WRITERS)


def progress_line(member: Run) -> str:
    """Return the line of progress of a run that is between two epochs."""
    return console.progress(member.progress.epoch - 1, member.epochs, 1, 1, member.clock)


def train_epoch(stack: Stack | FitStack, members: list[Run], interrupt: Interrupt) -> None:
    """Take the remaining steps of the current epoch. Each run that becomes non-finite is removed from `members`."""
    first = members[0]
    epoch = stack.draw(first.progress.epoch)
    batches = count_batches(first.config, epoch)

    def request() -> int:
        if interrupt.signum:
            return SAVE + interrupt.signum
        return SAVE if first.clock.save_is_due(epoch_ends=False) else 0

    for batch in range(first.progress.batch, batches):
        done = take_step(first.config, stack.learner, epoch, batch, batches, request)
        stack.learner.optimizer.zero_grad()
        if not done.finite:
            stack.hand_over(epoch, batches)
            # If the sum is not finite, some value is not finite, or so large that the sum overflows in float64.
            values, largest = done.terms["values"].double().abs(), torch.finfo(torch.float64).max / len(members)
            bad = stack.members_where(~(values < largest))
            members[:] = [member for member in members if member not in bad]
            apply_to_all(bad, raise_diverged)
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
        train_epoch(make_stack(members), members, interrupt)  # the rest of the epoch, with the finite members


def raise_diverged(member: Run) -> None:
    """Find the step at which the loss of `member`, one of the stacked runs, became non-finite, and raise the error.

    Raises:
        Diverged: always.
    """
    raise forensics.find(member, member.progress.step + 1)
