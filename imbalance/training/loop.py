"""The training loop: from a config to a score.

The loop goes through a config in the order in which data flow: the sampler draws an epoch's examples, the weights say
how much each counts, they are mixed, the method computes its terms of each (always a loss), and its objective makes
them one scalar. A first run comes before all of it, a new head after it. The step itself is in `imbalance.training.step`,
and is the same for parts of a batch and for several processes; `imbalance.training.stacked.train` stacks it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imbalance.config.experiment import Experiment, first_run, validate
from imbalance.config.metric_names import needs_scores
from imbalance.config.resolve import resolve, run_directory
from imbalance.data import Dataset, as_dataset
from imbalance.data.population import check_population
from imbalance.errors import Diverged, Interrupted
from imbalance.methods.weights import effective_sample_size
from imbalance.metrics.warnings import data_warnings
from imbalance.training.checks import check_data
from imbalance.training.distributed.heartbeat import exchange
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import from_main, start_accelerator
from imbalance.training.evaluate import Outcome, evaluate, interpolating, measure_scores, metrics_of, training_metrics
from imbalance.training.finish import finish, record_end
from imbalance.training.learner import Learner, make_learner
from imbalance.training.logging import console
from imbalance.training.logging.run_log import RunLog
from imbalance.training.oom_retry import compute_in_smaller_parts
from imbalance.training.run import Run
from imbalance.training.state import checkpoint, forensics
from imbalance.training.state.finite import all_skipped, is_finite, is_known, remember
from imbalance.training.state.progress import Clock
from imbalance.training.state.provenance import check_done
from imbalance.training.step import batches_of, draw_epoch, take_step
from imbalance.utils.malloc import keep_freed_memory

REDUCED_STEPS = 100  # after so many steps their logits become predictions and margins
SAVE = 1  # a request to save and go on; greater by a signal's number, to save and stop


class Result(NamedTuple):
    """A run that is done.

    score: `config.score` of the selected weights; nan where it is 0/0.
    summary: what summary.json says: `summary["metrics"]["test/worst_group_accuracy"]`, counts, versions, …
    directory: its run directory, for `imbalance.load`.
    """

    score: float
    summary: dict[str, Any]
    directory: Path


def run(
    config: str | Path | Mapping[str, Any] | Experiment,
    overrides: Mapping[str, Any] | None = None,
    *,
    directory: str | Path | None = None,
    data: Dataset | Mapping[str, Any] | None = None,
) -> Result:
    """Train, select and test what a config says, or return what is done already: `imbalance train`, from Python.

        result = imbalance.run("digits_poly", {"optim.lr": 0.1, "seed": 3})

    Args:
        config: a config file, or the name of one in configs/; or a config itself: see `imbalance.config.experiment.Experiment`.
        overrides: values by key, as after `--config.` on the command line.
        directory: the run directory; by default that of the same command line, and for a config made in Python
            `work_dir/<data>_<loss>/<hash of the config>/seed=<n>`.
        data: tensors, arrays, torch data sets or a Dataset instead of what `config.data` says, which the run then notes
            as `name="in_memory"`; see `imbalance.data.as_dataset`.

    Raises:
        BadInput: the config or the data is wrong.
        Diverged: a loss, a weight or an output became non-finite; the last checkpoint is from before that.
        Interrupted: a signal came; a checkpoint is written, and the same call goes on from it.
        OSError: data cannot be read, or results not be written; here, too, the same call goes on.
    """
    dataset = None if data is None else check_population(as_dataset(data))
    given = {} if data is None else {"data": {"name": "in_memory"}}
    resolved, default = resolve(config, {**(overrides or {}), **given})
    directory = Path(directory or default)
    summary = train(resolved, directory, dataset)
    return Result(float("nan") if summary["score"] is None else summary["score"], summary, directory)


def train(
    config: Mapping[str, Any] | Experiment,
    directory: str | Path | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """`run` of a config itself, and of a Dataset if it says that one is given; returns what summary.json says."""
    config = validate(config)
    directory = Path(directory or run_directory(config))
    if first := first_run(config):
        train(first, directory / "first", dataset)
    accelerator = start_accelerator(config)
    with Interrupt() as interrupt, RunLog(directory, config, accelerator.is_main_process) as log:
        summary = from_main(accelerator, log.claim)
        if summary:
            path = directory / "summary.json"
            from_main(accelerator, lambda: check_done(config, summary, path, log.line, dataset))
            score = "nan" if summary["score"] is None else f"{summary['score']:.4f}"
            log.line(f"{directory}: done before; {config.score} {score}")
            return summary
        run = begin(config, make_learner(config, accelerator, directory, dataset), log, interrupt)
        interrupt.defer()
        try:
            fit(run)
            return finish(run)
        except (Diverged, Interrupted) as error:
            record_end(run, error)
            raise


def begin(config: Experiment, learner: Learner, log: RunLog, interrupt: Interrupt) -> Run:
    """Check what only the data can show, say what will be trained, and take up the run where it was left."""
    check_data(config, learner.dataset)
    log.line(f"{log.directory}\n{console.describe(learner.dataset, learner.model, learner.accelerator.device)}")
    for warning in data_warnings(config, learner.dataset):
        log.line(f"WARNING: {warning}")
    ess, drawn = effective_sample_size(learner.weights(0)), len(learner.dataset.train)
    log.line(f"weights: effective sample size {ess:,.1f} of {drawn:,}")
    if learner.accelerator.device.type == "cpu":
        keep_freed_memory()
    scaler = learner.accelerator.scaler
    first_scale = scaler.get_scale() if scaler else 1.0
    progress = checkpoint.resume(config, learner, log)
    clock = Clock(progress, config.callbacks.checkpoint_minutes)
    run = Run(config, learner, progress, log, interrupt, clock, first_scale)
    remember(run)
    return run


def fit(run: Run) -> None:
    """Train epoch by epoch and evaluate, from where `progress` stands to the end.

    Raises:
        Diverged: a step made something that is not finite.
        Interrupted: a signal came; a checkpoint is written.
    """
    try:
        while run.progress.epoch < run.epochs and not run.progress.ended:
            train_epoch(run)
            end_epoch(run)
    except Interrupted:
        save(run)
        raise
    if all_skipped(run):
        raise Diverged(f"non-finite gradients in float16 in all of {run.progress.step} steps: none has been applied")
    save(run)


def train_epoch(run: Run) -> None:
    """The steps of one epoch, from `progress.batch` on."""
    config, learner, progress, log, interrupt, clock = (
        run.config,
        run.learner,
        run.progress,
        run.log,
        run.interrupt,
        run.clock,
    )
    epoch = draw_epoch(learner, progress.epoch)
    batches = batches_of(config, epoch)
    learner.model.train()

    def request() -> int:
        if interrupt.signum:
            return SAVE + interrupt.signum
        return SAVE if log.writes and clock.save_is_due(progress.batch + 1 == batches) else 0

    for batch in range(progress.batch, batches):
        done = None
        with suppress(torch.cuda.OutOfMemoryError), exchange("a step"):
            done = take_step(config, learner, epoch, batch, batches, request)
        if done is None:  # what the step held is free, now that its exception is gone
            compute_in_smaller_parts(run)
            train_epoch(run)
            return
        if not done.finite:
            raise forensics.find(run, progress.step + 1)
        learner.optimizer.zero_grad()

        progress.values.append(done.value.detach())
        progress.drawn.append(epoch.rows[done.places])
        progress.logits.append(done.logits.detach())
        progress.batch, progress.step = batch + 1, progress.step + 1
        log.bar(lambda: console.progress(progress.epoch, config.trainer.epochs, progress.batch, batches, clock))
        if len(progress.logits) == REDUCED_STEPS or progress.batch == batches:
            progress.reduce_logits(learner.dataset.train.targets)
        if done.request > SAVE:
            raise Interrupted(done.request - SAVE)
        if done.request == SAVE:
            save(run)


def check(run: Run) -> None:
    """Before the state is used: look whether it is finite.

    Raises:
        Diverged: it is not; the error names the step that made it.
    """
    if not is_known(run) and not is_finite(run.learner):
        raise forensics.find(run, run.progress.step)


def save(run: Run) -> None:
    """Write a checkpoint, if all of it is finite."""
    check(run)
    remember(run)
    checkpoint.save_run(run)


def end_epoch(run: Run) -> None:
    """Evaluate an epoch whose steps are done, where that is due, and go on to the next.

    Raises:
        Diverged: the state is not finite, or what it makes of an example.
        Interrupted: a signal came; the evaluation is to be done again.
    """
    (interpolated,) = interpolating([run])
    evaluated = None
    if is_due(run, interpolated):
        check(run)
        (evaluated,) = evaluate_epoch([run])
    close_epoch(run, interpolated, evaluated)


def ends(run: Run, interpolated: bool) -> bool:
    """Whether the epoch under way is the last, unless the monitored metric is going to end the run."""
    return run.progress.epoch + 1 == run.epochs or (interpolated and run.config.callbacks.stop_at_interpolation)


def is_due(run: Run, interpolated: bool) -> bool:
    """Whether the epoch under way is to be evaluated."""
    return ends(run, interpolated) or (run.progress.epoch + 1) % run.config.trainer.eval_every == 0


Evaluated = tuple[
    dict[str, float], dict[str, Outcome]
]  # metrics of the training steps, and what was made of each split


def evaluate_epoch(runs: Sequence[Run]) -> list[Evaluated]:
    """What there is to measure of each run after an epoch; all of them have the same trainer and callbacks."""
    if not runs:
        return []
    config = runs[0].config
    keep = config.callbacks.keep_logits or needs_scores(config.callbacks.monitor)
    of_train = training_metrics(runs)
    of_splits = {name: evaluate(runs, name, keep) for name in config.trainer.eval_splits}
    return [(values, {name: outcomes[i] for name, outcomes in of_splits.items()}) for i, values in enumerate(of_train)]


def close_epoch(run: Run, interpolated: bool, evaluated: Evaluated | None) -> None:
    """Record what was made of the epoch under way, if it was evaluated, and go on to the next.

    Raises:
        Diverged: what the model makes of an example is not finite.
    """
    config, learner, progress, log = run.config, run.learner, run.progress, run.log
    done, ended, values = progress.epoch + 1, ends(run, interpolated), {}
    if evaluated:
        of_train, of_splits = evaluated
        values = {"step": progress.step, "epoch": done, "lr": learner.optimizer.param_groups[0]["lr"]}
        values |= of_train | learner.group_metrics | learner.objective.metrics()
        for name, outcome in of_splits.items():
            values |= metrics_of(run, name, outcome)
            if outcome.logits is not None:
                if config.callbacks.keep_logits:
                    log.logits(name, done, outcome.logits)
                if needs_scores(config.callbacks.monitor) and name != "train":
                    values |= measure_scores(learner.dataset.eval_dataset, name, outcome.logits)
    # From here on nothing can be interrupted, so that all of it is done once.
    if interpolated:
        progress.interpolation_epoch = done
    if config.callbacks.monitor in values:
        compare(run, done, values[config.callbacks.monitor])
    progress.ended |= ended
    if values:
        log.metrics(values)
        log.progress(console.evaluation(values, run.epochs, run.clock), last=progress.ended)
    progress.next_epoch()
    if values:
        remember(run)


def compare(run: Run, epoch: int, value: float) -> None:
    """Note whether the monitored `value` is the best so far; of equal ones the first stays.

    If it is, and is what will be selected, keep the weights; if it has not been for long enough, end the training.
    """
    progress = run.progress
    if not value > progress.best:
        progress.stale += 1
        progress.ended |= progress.stale == run.config.callbacks.patience
        return
    progress.best, progress.best_epoch, progress.stale = value, epoch, 0
    if run.config.callbacks.select == "best":
        remember(run)
        progress.best_weights = run.good["state"]["model"]
