"""Training loop: train and evaluate a config.

Read this file from top to bottom. `run` resolves a config, `train` builds its learner, `train_epoch` takes the steps,
evaluates and saves, and `imbalance.training.finish` tests the selected weights.

The sampler draws the examples of an epoch, the importance weights say how much each counts, and the examples may be
mixed. The method then computes terms for each example, one of which is a loss, and its objective reduces the terms of a
batch to one scalar. One step is in `imbalance.training.step`; it is the same for micro-batches and for several
processes. `imbalance.training.stacked.train` trains many runs as one.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from imbalance.config.experiment import Experiment, first_run, validate
from imbalance.config.metric_names import needs_scores
from imbalance.config.resolve import resolve, run_directory
from imbalance.config.schema import MissingKeys, short_repr
from imbalance.config.user_modules import user_code_errors
from imbalance.data import Dataset, given_dataset
from imbalance.data.identity import digest
from imbalance.data.population import check_population
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.methods.weights import effective_sample_size
from imbalance.metrics.warnings import data_warnings
from imbalance.models.weights import pretrained_digest
from imbalance.training.checks import check_data
from imbalance.training.distributed.heartbeat import exchange
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import from_main, start_accelerator
from imbalance.training.evaluate import (
    Evaluation,
    LogitsInMemory,
    evaluate,
    measure_scores,
    newly_interpolating,
    split_metrics,
    training_metrics,
)
from imbalance.training.finish import finish, first_results, load_selected, write_early_summary, write_pause
from imbalance.training.lbfgs import Solver
from imbalance.training.learner import Learner, make_learner
from imbalance.training.logging import console, trackers
from imbalance.training.logging.run_log import RunLog, check_directory_config, check_writable
from imbalance.training.oom_retry import oom_retry, suppress_out_of_memory, with_freed_memory
from imbalance.training.state import checkpoint, forensics
from imbalance.training.state.finite import all_steps_skipped, is_finite
from imbalance.training.state.progress import Clock
from imbalance.training.state.provenance import check_done
from imbalance.training.state.run_state import Run, is_remembered, remember
from imbalance.training.state.sharded import finish_saving
from imbalance.training.step import count_batches, draw_epoch, take_step
from imbalance.utils.malloc import keep_freed_memory
from imbalance.utils.read import short_hash
from imbalance.utils.torch_state import own_torch_state

# The logits of steps are kept, up to so many steps and bytes, before they are reduced to predictions and margins.
REDUCED_STEPS, REDUCED_BYTES = 100, 2**26
SAVE = 1  # request to save and go on; SAVE plus the number of a signal requests to save and stop


class Result(NamedTuple):
    """Result of a finished run.

    score: value that the metric `config.score` has for the selected weights; nan if it is 0/0.
    summary: content of summary.json: `summary["metrics"]["test/worst_group_accuracy"]`, counts, versions, …
    directory: run directory, which `imbalance.load` takes.
    """

    score: float
    summary: dict[str, Any]
    directory: Path


@own_torch_state()
def run(
    config: str | Path | Mapping[str, Any] | Experiment,
    overrides: Mapping[str, Any] | None = None,
    *,
    directory: str | Path | None = None,
    data: Any = None,
    **table: Any,
) -> Result:
    """Train and evaluate a config, as `imbalance train` does; if its run is finished already, return the saved result.

        result = imbalance.run("digits_poly", {"optim.lr": 0.1, "seed": 3})
        result = imbalance.run("arrays_poly", data=frame, target="income", attributes=("sex",))

    Args:
        config: path of a config file, name of a config in configs/, or a config itself; see
            `imbalance.config.experiment.Experiment`.
        overrides: values by key, as after `--config.` on the command line.
        directory: run directory. The default is the one that the command line uses, and for a config made in Python
            `work_dir/<data>_<loss>/<hash of the config>/seed=<n>`. If `data` has the splits, a hash of the data is part
            of the default, so that each fold of a cross-validation has a run directory of its own. A data frame without
            splits adds no hash: another frame in the same run directory is refused, so pass `directory` with it.
        data: tensors, arrays, torch data sets or a Dataset, to use instead of the data that `config.data` names, see
            `imbalance.data.as_dataset`; or a data frame, with `target` to name the column of the classes. The saved
            config then has the data `name="in_memory"`.
        table: with a data frame, the keyword arguments of `imbalance.data.frame_dataset`: `target`, `classes`,
            `attributes`, `split`, `val_fraction`, `test_fraction`, `numeric`, `categorical`, `missing`.

    Raises:
        BadInput: the config or the data is wrong.
        Diverged: a loss, a weight or an output became non-finite; the last checkpoint is from before that, and is
            finite.
        Interrupted: a signal came; a checkpoint is written, and the same call resumes from it.
        OSError: data cannot be read, or results cannot be written; the same call resumes the run.
    """
    changes = {} if overrides is None else overrides
    if data is not None and isinstance(changes, Mapping):
        if ignored := [str(key) for key in changes if str(key) == "data" or str(key).startswith("data.")]:
            raise BadInput(
                f"overrides: {', '.join(ignored)} given beside data=, which replaces all of config.data; pass what prepares a data frame "
                "as a keyword argument, such as val_fraction=0.3, and leave the rest out"
            )
        changes = {**changes, "data": {"name": "in_memory"}}
    try:
        resolved, default = resolve(config, changes)
    except MissingKeys as error:
        raise missing_values(error, changes) from None
    dataset = (
        None if data is None and not table else check_population(given_dataset(data, resolved.seed, table), "data")
    )
    if directory is not None:
        directory = checked_directory(directory)
    elif dataset is not None and (isinstance(data, Mapping | Dataset) or table.get("split")):
        name = short_hash(json.dumps(digest(dataset)).encode())[:12]
        directory = default.parent.with_name(f"{default.parent.name},data={name}") / default.name
    else:
        directory = default
    summary = train(resolved, directory, dataset)
    return Result(float("nan") if summary["score"] is None else summary["score"], summary, directory)


def missing_values(error: MissingKeys, changes: Mapping[str, Any]) -> BadInput:
    """Return the error for overrides without which the config lacks keys. Its message names the keys as Python writes them.

    A mapping in `changes`, such as `{"trainer": {"epochs": 2}}`, replaces a section; then the user most likely wants to change
    the keys of the mapping, and not to remove all others.
    """
    first, missing = next(iter(error.values)), {key: f"<{fits}>" for key, fits in error.values.items()}
    section = first.rpartition(".")[0]
    advice, values = f"config.{first}: missing; add", changes.get(section)
    if isinstance(values, Mapping | ConfigDict):
        kept = {f"{section}.{key}": repr(value) for key, value in values.items()}
        missing = kept | (missing if "name" in values else {})
        advice = (
            f"overrides: {section!r} replaces the whole section, which lacks {len(error.values)} of its keys, such as {first}; "
            "to change some keys, pass"
        )
    return BadInput(f"{advice} overrides={{{', '.join(f'{key!r}: {value}' for key, value in missing.items())}}}")


@user_code_errors()
@own_torch_state()
def train(
    config: Mapping[str, Any] | ConfigDict | Experiment,
    directory: str | Path | None = None,
    dataset: Dataset | None = None,
    pause: int | None = None,
) -> dict[str, Any]:
    """Train and evaluate a config that already contains all overrides, and return the content of summary.json.

    Args:
        directory: run directory; by default `run_directory(config)`.
        dataset: data set, if `config.data.name` is "in_memory".
        pause: number of epochs after which the run writes a checkpoint and returns with the status "interrupted", so that
            a later call can resume it; None to train to the end. A run that ends earlier does not pause.
    """
    config = validate(config)
    directory = run_directory(config) if directory is None else checked_directory(directory)
    if first := first_run(config):
        train(first, directory / "first", dataset)
    accelerator = start_accelerator(config)
    with Interrupt() as interrupt, RunLog(directory, config, accelerator.is_main_process) as log:
        summary = from_main(accelerator, log.claim)
        if summary:
            path = directory / "summary.json"
            from_main(accelerator, lambda: check_done(config, summary, path, log.line, dataset))
            score = "nan" if summary["score"] is None else f"{summary['score']:.4f}"
            log.line(
                f"{directory}: this run was done before, so nothing was trained; its score, {config.score}, is {score}"
            )
            return {**summary, "run_directory": str(directory)}  # the run may have been moved since
        run = begin(config, make_learner(config, accelerator, directory, dataset), log, interrupt)
        interrupt.defer()
        try:
            fit(run, pause)
            if is_paused(run, pause):
                finish_saving(run)
                return write_pause(run)
            return finish(run)
        except (Diverged, Interrupted) as error:
            write_early_summary(run, error.status, str(error))
            raise


def checked_directory(directory: str | Path) -> Path:
    """Return `directory` as a path, or raise `BadInput` if it cannot be a run directory."""
    text = os.fspath(directory) if isinstance(directory, str | os.PathLike) else ""
    if not text or "\0" in text:
        raise BadInput(f"directory: {short_repr(directory)} given; the path of a folder is needed")
    return Path(text)


@user_code_errors()
@own_torch_state()
def train_in_memory(config: Experiment, dataset: Dataset) -> Run:
    """Train a config on a loaded data set without a run directory, and return the run with its selected weights loaded.

    Nothing is written or printed. Signals are not caught, because without a run directory nothing can be resumed.

    Raises:
        BadInput: the config or the data is wrong.
        Diverged: a value became non-finite.
    """
    first = first_run(config)
    results = first_results(train_in_memory(first, dataset)) if first else None
    accelerator, nowhere = start_accelerator(config), Path(os.devnull)
    learner = make_learner(config, accelerator, nowhere, dataset, results)
    run = begin(config, learner, RunLog(nowhere, config, writes=False), Interrupt())
    fit(run)
    load_selected(run)
    return run


def begin(config: Experiment, learner: Learner, log: RunLog, interrupt: Interrupt) -> Run:
    """Check the config against the data, log the data and the model, and resume the run or start it."""
    check_data(config, learner.dataset)
    log.line(f"{log.directory}\n{console.describe(learner.dataset, learner.model, learner.accelerator.device)}")
    for warning in data_warnings(config, learner.dataset):
        log.line(f"WARNING: {warning}")
    if learner.smallest_batch > 1:
        log.line("batch normalisation needs two examples: a last batch of one is left out of its epoch")
    sample_size, examples = effective_sample_size(learner.weights(0)), len(learner.dataset.train)
    log.line(f"importance weights: effective sample size {sample_size:,.1f} of {examples:,}")
    if learner.accelerator.device.type == "cpu":
        keep_freed_memory()
        if config.trainer.compile != "no":
            log.line(
                f"config.trainer.compile: {config.trainer.compile!r} given; compiled steps of small networks are slower on a "
                "CPU (LeNet takes 1.8 times as long), and compiling takes time first; 'no' is usually faster here"
            )
    scaler = learner.accelerator.scaler
    first_scale = scaler.get_scale() if scaler else 1.0
    pretrained = pretrained_digest(config.model)
    progress = checkpoint.resume(config, learner, log, pretrained)
    clock = Clock(progress, config.callbacks.checkpoint_minutes)
    run = Run(config, learner, progress, log, interrupt, clock, first_scale, pretrained)
    remember(run)
    return run


def fit(run: Run, pause: int | None = None) -> None:
    """Train the remaining epochs, or those before the pause, and save a checkpoint at the end.

    Args:
        pause: number of epochs of the run after which training stops; None to train to the end.

    Raises:
        Diverged: a step made a value non-finite.
        Interrupted: a signal came; a checkpoint is written.
    """
    try:
        while run.progress.epoch < run.epochs and not run.progress.ended and not is_paused(run, pause):
            train_epoch(run)
    except Interrupted:
        save(run)
        raise
    finally:
        finish_saving(run)
    if all_steps_skipped(run) and not is_paused(run, pause):  # the scale of the gradients may still need to fall
        raise Diverged(
            f"non-finite float16 gradients in all {run.progress.step} steps, so the network weights never changed; use "
            "config.trainer.mixed_precision='bf16' or 'no'"
        )
    save(run)


def is_paused(run: Run, pause: int | None) -> bool:
    """Return whether a run has trained `pause` epochs, and has epochs left to train; False if `pause` is None."""
    return pause is not None and pause <= run.progress.epoch < run.epochs and not run.progress.ended


def train_epoch(run: Run) -> None:
    """Take the remaining steps of the current epoch, save and evaluate when due, and go on to the next epoch.

    After an out-of-memory error, restore the state that `remember` last copied, and return; the caller calls again.

    Raises:
        Diverged: the state, or an output of the model, is not finite.
        Interrupted: a signal came; the caller saves, and a resumed run continues here.
    """
    config, learner, progress, log = run.config, run.learner, run.progress, run.log
    epoch = with_freed_memory(lambda: draw_epoch(learner, progress.epoch), "to draw the examples of an epoch")
    batches = count_batches(config, epoch)
    request = partial(current_request, run, batches)
    learner.model.train()
    for batch in range(progress.batch, batches):
        # Take a step.
        done = None
        with suppress_out_of_memory(), exchange("a step"):
            done = take_step(config, learner, epoch, batch, batches, request)
        if done is None:
            oom_retry(run)
            return
        if not done.finite:
            raise forensics.find(run, progress.step + 1)
        learner.optimizer.zero_grad()

        # Record the step.
        progress.values.append(done.value.detach())
        progress.drawn.append(epoch.rows[done.batch_slice])
        progress.logits.append(done.logits.detach())
        progress.batch, progress.step = batch + 1, progress.step + 1
        log.bar(lambda: console.progress(progress.epoch, config.trainer.epochs, progress.batch, batches, run.clock))
        steps, step_bytes = len(progress.logits), done.logits.nbytes
        if steps == REDUCED_STEPS or steps * step_bytes > REDUCED_BYTES or progress.batch == batches:
            progress.reduce_logits(learner.dataset.train.targets)

        # Once in a while: save.
        if done.request > SAVE:
            raise Interrupted(done.request - SAVE)
        if done.request == SAVE:
            save(run, wait=False)

    # Once in a while: evaluate.
    (interpolated,) = newly_interpolating([run])
    evaluation = None
    if evaluation_is_due(run, interpolated):
        check_finite(run)
        (evaluation,) = evaluate_epoch([run])

    # Record the evaluation, and go on. No signal interrupts this part, so that all of it is done exactly once.
    close_epoch(run, interpolated, evaluation)


def current_request(run: Run, batches: int) -> int:
    """Return what this process asks all processes to do after the current step.

    The request is 0 for nothing, SAVE to save a checkpoint, or SAVE plus a signal number to save and stop.

    Args:
        batches: number of batches in the epoch.
    """
    if run.interrupt.signum:
        return SAVE + run.interrupt.signum
    return SAVE if run.log.writes and run.clock.save_is_due(run.progress.batch + 1 == batches) else 0


def check_finite(run: Run) -> None:
    """Check that the state of the run is finite, before it is saved or evaluated.

    Raises:
        Diverged: the state is not finite; the error names the step that made it so.
    """
    if not is_remembered(run) and not is_finite(run.learner):
        raise forensics.find(run, run.progress.step)


def save(run: Run, wait: bool = True) -> None:
    """Check that the state of the run is finite, and write a checkpoint; `wait` as for `checkpoint.save_run`."""
    check_finite(run)
    run.progress.reduce_logits(run.learner.dataset.train.targets)
    remember(run)
    checkpoint.save_run(run, wait)


def is_last_epoch(run: Run, interpolated: bool) -> bool:
    """Return whether the current epoch is the last, apart from a stop by `config.callbacks.patience`.

    Args:
        interpolated: whether this is the first epoch in which every training prediction was correct.
    """
    ended = isinstance(run.learner.optimizer, Solver) and run.learner.optimizer.ended
    stopped = interpolated and run.config.callbacks.stop_at_interpolation
    return run.progress.epoch + 1 == run.epochs or stopped or ended


def evaluation_is_due(run: Run, interpolated: bool) -> bool:
    """Return whether the current epoch ends with an evaluation.

    Args:
        interpolated: whether this is the first epoch in which every training prediction was correct.
    """
    return is_last_epoch(run, interpolated) or (run.progress.epoch + 1) % run.config.trainer.eval_every == 0


def evaluate_epoch(runs: Sequence[Run]) -> list[Evaluation]:
    """Evaluate each run after an epoch, and return an evaluation for each.

    All runs must have the same `config.trainer` and `config.callbacks`.

    Raises:
        Interrupted: a signal came; a resumed run evaluates the epoch again.
    """
    if not runs:
        return []
    config = runs[0].config
    keep_logits = config.callbacks.keep_logits or needs_scores(config.callbacks.monitor)
    train_metrics = training_metrics(runs)
    outcomes = {
        name: evaluate(runs, name, [LogitsInMemory() for _ in runs] if keep_logits else [])
        for name in config.trainer.eval_splits
    }
    return [
        Evaluation(metrics, {name: split_outcomes[i] for name, split_outcomes in outcomes.items()})
        for i, metrics in enumerate(train_metrics)
    ]


def close_epoch(run: Run, interpolated: bool, evaluation: Evaluation | None) -> None:
    """Record the evaluation of the current epoch, if there is one, and go on to the next epoch.

    Args:
        interpolated: whether this is the first epoch in which every training prediction was correct.
        evaluation: result of `evaluate_epoch`; None if the epoch ends without an evaluation.

    Raises:
        Diverged: an output of the model is not finite.
    """
    config, learner, progress, log = run.config, run.learner, run.progress, run.log
    epochs_done, ended, values = progress.epoch + 1, is_last_epoch(run, interpolated), {}
    if evaluation:
        values = {"step": progress.step, "epoch": epochs_done, "lr": learner.optimizer.param_groups[0]["lr"]}
        values |= {**evaluation.train_metrics, **learner.group_metrics, **learner.objective.metrics()}
        for name, outcome in evaluation.outcomes.items():
            values |= split_metrics(run, name, outcome)
            if config.callbacks.keep_logits and outcome.logits is not None:
                log.logits(name, epochs_done, outcome.logits)
            if needs_scores(config.callbacks.monitor):
                values |= measure_scores(run, name, outcome)
    if interpolated:
        progress.interpolation_epoch = epochs_done
    if config.callbacks.monitor in values:
        compare_with_best(run, epochs_done, values[config.callbacks.monitor])
    progress.ended |= ended
    if values:
        log.metrics(values)
        log.progress(console.evaluation(values, run.epochs, run.clock), last=progress.ended)
    progress.next_epoch()
    if values:
        remember(run)


def compare_with_best(run: Run, epoch: int, value: float) -> None:
    """Update the best value of the monitored metric if `value` is greater.

    With `config.callbacks.select="best"`, keep the network weights too. End training once `config.callbacks.patience`
    evaluations in a row brought no greater value.

    Args:
        epoch: number of epochs done.
        value: value of the monitored metric after these epochs.
    """
    progress = run.progress
    if not value > progress.best:
        progress.stale += 1
        progress.ended |= progress.stale == run.config.callbacks.patience
        return
    progress.best, progress.best_epoch, progress.stale = value, epoch, 0
    if run.config.callbacks.select == "best":
        remember(run)
        progress.best_weights = run.remembered[run.learner.evaluated_part]


@user_code_errors()
def dry_run(config: Experiment, directory: Path) -> None:
    """Raise any error that a run of `config` in `directory` would raise before its first step, and leave no file."""
    accelerator = start_accelerator(config)
    trackers.check(config)
    from_main(accelerator, lambda: check_writable(directory))
    check_directory_config(config, directory)
    # Of a two-stage method only the first run is checked, because the second needs the results of the first.
    first = first_run(config)
    learner = make_learner(validate(first) if first else config, accelerator, directory)
    check_data(config, learner.dataset)
    learner.weights(0), learner.sampler(0)
