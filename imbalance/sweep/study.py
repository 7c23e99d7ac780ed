"""Keep the trials of an Optuna study in Optuna's storage, and let any number of workers train them.

The workers can be on several machines that share their files. A trial is one run: a config, overrides and a seed, which
together are its "point". A trial has the same run directory as under `imbalance train`.

Optuna's storage says which trials exist and how they ended. A file lock says which trials a worker is training. The
operating system releases the lock when the worker ends, however it ends. So a trial that is `RUNNING` and not locked
belonged to a worker that died, and the next worker resumes the trial from its checkpoint.

Optuna can detect and retry stale trials too, but only within `study.optimize`. `study.optimize` trains one trial at a time, so
trials could not be stacked. It also retries a trial under a new number, so the retried trial would not resume from its
checkpoint. Therefore `_take` chooses among the waiting trials itself, through the storage.

| trial | state in Optuna | user attribute `status` |
|---|---|---|
| finished | COMPLETE, with its score | done |
| loss not finite | PRUNED: TPE ranks it below all others | diverged |
| ended by an error of the program | FAIL, with the traceback as `error`; `add` adds it again | crashed |
| stopped or killed | RUNNING | |
"""

import functools
import itertools
import json
import math
import sys
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from imbalance.errors import BadInput, Busy
from imbalance.sweep.runs import Run, batch_key, make_run, train_quietly
from imbalance.training.distributed.interrupt import Interrupt

BUSY_SECONDS = 5.0  # time until a run that another process was training is tried again
Point = dict[str, Any]  # "config", "seed" and overrides such as "optim.lr"


class Search(NamedTuple):
    """The search space of Optuna's sampler, and the number of trials."""

    sampler: str  # "random" or "tpe"
    trials: int  # total number of trials in the study
    space: dict[str, Any]  # by key, a list of values or {"low", "high", "log"}; "config" and "seed" have one value


class Outcome(NamedTuple):
    """The end of a trial.

    status: "done", "diverged", "crashed" or "unfinished".
    score: score of the trial's run; None if the run has none.
    directory: run directory; None if the run has not begun.
    """

    status: str
    score: float | None
    directory: str | None


class StudyLocation(NamedTuple):
    """The name of a study and where it is stored: all that a worker on any machine needs to open it."""

    name: str
    work_dir: str
    storage: str  # URL of Optuna's storage; "" for SQLite in the study's folder

    @property
    def folder(self) -> Path:
        return Path(self.work_dir) / "sweeps" / self.name

    @property
    def url(self) -> str:
        return self.storage or f"sqlite:///{self.folder / 'study.db'}"


def import_optuna():
    try:
        import optuna
    except ImportError:
        raise BadInput(
            "a study needs optuna, which is not installed; type pip install -c constraints.txt -e '.[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def queue_lock(location: StudyLocation) -> FileLock:
    """Return the lock that a process must hold while it reads the waiting trials of the study or adds trials."""
    return FileLock(location.folder / "queue.lock")


def open_storage(location: StudyLocation):
    """Open Optuna's storage, and create it if it does not exist.

    Raises:
        BadInput: the storage cannot be opened.
    """
    optuna = import_optuna()
    location.folder.mkdir(parents=True, exist_ok=True)
    wait = {"connect_args": {"timeout": 60}} if location.url.startswith("sqlite") else None
    with queue_lock(location):
        try:
            return optuna.storages.RDBStorage(location.url, engine_kwargs=wait)
        except Exception as error:  # SQLAlchemy and each database's package raise errors of many kinds
            reason = str(error).splitlines()[0]
            raise BadInput(
                f"--storage={location.url} cannot be opened: {reason}; type the URL of a database that SQLAlchemy can open, such as "
                f"--storage=sqlite:///study.db, or leave --storage out to keep the study in {location.folder}"
            ) from None


def open_study(location: StudyLocation, sampler: str = "random", storage=None):
    """Open the study, and create it if it does not exist.

    Args:
        sampler: "random" or "tpe".
        storage: the opened storage; opened here if None.
    """
    optuna, storage = import_optuna(), storage or open_storage(location)
    with queue_lock(location):
        return optuna.create_study(
            study_name=location.name,
            storage=storage,
            sampler=optuna.samplers.TPESampler() if sampler == "tpe" else optuna.samplers.RandomSampler(),
            direction="maximize",
            load_if_exists=True,
        )


def grid(values: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Return every combination of the values, by key; the values of the last key change fastest."""
    return [dict(zip(values, point)) for point in itertools.product(*values.values())]


def add(location: StudyLocation, points: Sequence[Point]) -> None:
    """Add a trial for every point that the study does not have yet, and for every point whose trial crashed.

    Args:
        points: for each run, a dictionary with its config, overrides and seed.

    Raises:
        BadInput: a point is not a valid run. No trial is added.
    """
    for point in points:
        run_of(point, location.work_dir)  # raises before anything is trained
    study = open_study(location)
    with queue_lock(location):
        states = import_optuna().trial.TrialState
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != states.FAIL]
        known = {canonical(trial.user_attrs["point"]) for trial in trials if "point" in trial.user_attrs}
        bounds = study.user_attrs.get("bounds", {})
        for point in points:
            for key, value in _numbers(point).items():
                low, high = bounds.get(key, (value, value))
                bounds[key] = min(low, value), max(high, value)
        study.set_user_attr("bounds", bounds)
        for point in points:
            if canonical(point) not in known:
                known.add(canonical(point))
                study.enqueue_trial(_numbers(point), user_attrs={"point": point})


def work(location: StudyLocation, search: Search | None, wait: bool, workers: int, stacked: int) -> int:
    """Train trials until none is left, and return the number of trials that crashed in this worker.

    A trial whose run another process is training is skipped and tried again later.

    Args:
        search: search space from which Optuna adds trials; None if the study has all its trials already.
        wait: True to wait until the trials of other workers end too, and to resume the trials of workers that die.
        workers: number of workers that share the trials, this one included.
        stacked: largest number of trials to train as one stacked model; used only where stacking is faster.

    Raises:
        BadInput: the config or the data of a trial is wrong. The trial stays in the study, unfinished.
        Interrupted: a signal asked this process to stop. The trial has a checkpoint, and a worker can resume it.
    """
    storage, crashed = open_storage(location), 0
    study = open_study(location, search.sampler if search else "random", storage)
    busy: dict[
        str, float
    ] = {}  # run directories that a process outside the study is using, and the time when this was noticed
    with Interrupt():  # handles signals between two runs; each run has an Interrupt of its own
        while True:
            skipped = {directory for directory, noticed in busy.items() if time.monotonic() - noticed < BUSY_SECONDS}
            taken, others = _take(study, storage, location, search, workers, stacked, skipped)
            if taken:
                with ExitStack() as locks:
                    for trial in taken:
                        locks.callback(trial.lock.release)
                    try:
                        crashed += _train_trials(study, [trial.trial for trial in taken], location, search)
                    except Busy as error:
                        if error.args[0] not in busy:
                            print(f"{error}; this trial is tried again later", file=sys.stderr, flush=True)
                        busy[error.args[0]] = time.monotonic()
            elif others and wait:
                time.sleep(1)
            else:
                return crashed


class _Taken(NamedTuple):
    trial: Any
    lock: FileLock


def _take(
    study,
    storage,
    location: StudyLocation,
    search: Search | None,
    workers: int,
    stacked: int,
    skipped: Collection[str] = (),
) -> tuple[list[_Taken], int]:
    """Lock one waiting trial, or several to train as one stacked model; return them and the number of other workers' trials.

    Of several trials with the same run directory, only one is taken.

    Args:
        skipped: run directories whose trials are not taken; these trials count as other workers' trials.
    """
    optuna = import_optuna()
    states, others, taken, directories = optuna.trial.TrialState, 0, [], set()
    study_id = storage.get_study_id_from_name(location.name)
    with queue_lock(location):
        left = study.get_trials(deepcopy=False, states=(states.RUNNING,))
        waiting = study.get_trials(deepcopy=False, states=(states.WAITING,))
        most = min(stacked, math.ceil((len(left) + len(waiting)) / workers))
        for candidate in (*left, *waiting):
            if taken and (len(taken) >= most or not _stack_together(location, taken[0].trial, candidate)):
                continue
            directory = _run_directory(candidate, location)
            if directory in skipped:
                others += 1
                continue
            if directory in directories:
                continue
            try:
                lock = _lock_trial(location, candidate.number)
            except Timeout:
                others += 1
                continue
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, candidate.number)
            if storage.get_trial(trial_id).state != candidate.state:  # the trial ended since its state was read
                lock.release()
                continue
            if candidate.state == states.WAITING:
                storage.set_trial_state_values(trial_id, states.RUNNING)
            # The trial keeps the values it was added with, or those suggested before its worker died.
            taken.append(_Taken(optuna.trial.Trial(study, trial_id), lock))
            directories.add(directory)
        if not taken and search and len(study.get_trials(deepcopy=False)) < search.trials:
            trial = study.ask()
            taken.append(_Taken(trial, _lock_trial(location, trial.number)))
    return taken, others


def _run_directory(trial, location: StudyLocation) -> str | None:
    """Return the run directory of a trial; None if Optuna has not chosen the config values of the trial yet."""
    point = trial.user_attrs.get("point")
    return str(_cached_run(canonical(point), location.work_dir).directory) if point else None


def _stack_together(location: StudyLocation, *trials) -> bool:
    """Return True if the trials can be trained as one stacked model, and train faster that way."""
    points = [trial.user_attrs.get("point") for trial in trials]
    keys = {point and _batch_key(canonical(point), location.work_dir) for point in points}
    return len(keys) == 1 and None not in keys


def _batch_key(point: str, work_dir: str) -> str | None:
    return batch_key(_cached_run(point, work_dir))


@functools.cache
def _cached_run(point: str, work_dir: str) -> Run:
    return run_of(_with_tuples(json.loads(point)), work_dir)


def _train_trials(study, trials: list, location: StudyLocation, search: Search | None) -> int:
    """Train the runs of the trials, record how they ended, and return the number of crashed trials: all or none."""
    states, runs = import_optuna().trial.TrialState, []
    for trial in trials:
        runs.append(run_of(_suggest(study, trial, search), location.work_dir))
        trial.set_user_attr("run_directory", str(runs[-1].directory))
    try:
        summaries = train_quietly(runs)
    except BadInput:  # and Busy, a kind of BadInput
        raise
    except Exception as error:
        for trial in trials:
            trial.set_user_attr("status", "crashed")
            trial.set_user_attr("error", traceback.format_exc())
            print(
                f"trial {trial.number} crashed: {type(error).__name__}: {error}; type the same command again to retry it",
                file=sys.stderr,
                flush=True,
            )
            study.tell(trial.number, state=states.FAIL)
        return len(trials)
    for trial, run, summary in zip(trials, runs, summaries):
        trial.set_user_attr("status", summary["status"])
        trial.set_user_attr("seconds", summary["seconds"])
        if summary["status"] == "done" and summary["score"] is not None:
            study.tell(trial.number, summary["score"])
        else:
            study.tell(trial.number, state=states.PRUNED)
        score = f"{summary['score']:.4f}" if summary["score"] is not None else summary["status"]
        print(f"trial {trial.number}: {score}  {run.directory}", file=sys.stderr, flush=True)
    return 0


def _suggest(study, trial, search: Search | None) -> Point:
    """Return the point of a trial: its config, overrides and seed. Optuna's sampler chooses them if the trial has none.

    Record the numbers in the point as Optuna's parameters, which Optuna's dashboard plots.
    """
    if "point" in trial.user_attrs:
        point = _with_tuples(trial.user_attrs["point"])
        for key, value in _numbers(point).items():
            if key in trial.params:  # a worker that died recorded it already, perhaps with narrower bounds
                continue
            low, high = study.user_attrs["bounds"][key]
            suggest = trial.suggest_int if isinstance(value, int) else trial.suggest_float
            suggest(key, low, high)
        return point
    assert search is not None, "a trial without a point comes from a search"
    point = {}
    for key, values in search.space.items():
        if isinstance(values, Mapping):
            whole = isinstance(values["low"], int) and isinstance(values["high"], int)
            suggest = trial.suggest_int if whole else trial.suggest_float
            point[key] = suggest(key, values["low"], values["high"], log=values["log"])
        else:
            point[key] = values[0] if len(values) == 1 else trial.suggest_categorical(key, values)
    trial.set_user_attr("point", point)
    return point


def points_of(study) -> list[tuple[Point, Any]]:
    """Return every point (config, overrides and seed) of the study with its newest trial.

    A point whose trial crashed and was added again has several trials.
    """
    newest = {}
    for trial in study.get_trials(deepcopy=False):
        if "point" in trial.user_attrs:
            newest[canonical(trial.user_attrs["point"])] = trial
    return [(_with_tuples(trial.user_attrs["point"]), trial) for trial in newest.values()]


def outcomes(study) -> list[tuple[Point, Outcome]]:
    """Return every point of the study with the outcome of its newest trial."""
    return [
        (point, Outcome(status(trial), trial.value, trial.user_attrs.get("run_directory")))
        for point, trial in points_of(study)
    ]


def status(trial) -> str:
    """Return the status of a trial: "done", "diverged", "crashed" or "unfinished"."""
    return trial.user_attrs.get("status", "unfinished")


def _lock_trial(location: StudyLocation, trial: int) -> FileLock:
    """Acquire the lock of a trial, and return the lock. It is held until it is released or this process ends.

    Raises:
        Timeout: another worker holds the lock.
    """
    lock = FileLock(location.folder / f"trial-{trial}.lock")
    lock.acquire(blocking=False)
    return lock


def run_of(point: Point, work_dir: str) -> Run:
    """Return the run of a point.

    Raises:
        BadInput: the point is not a valid run.
    """
    overrides = {key: value for key, value in point.items() if key not in ("config", "seed")}
    return make_run(point["config"], overrides, point["seed"], work_dir)


def _numbers(point: Point) -> dict[str, float]:
    return {k: v for k, v in point.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def canonical(point: Point) -> str:
    """Return a point (config, overrides and seed) as JSON with sorted keys: equal points have equal texts."""
    return json.dumps(point, sort_keys=True)


def _with_tuples(point: Point) -> Point:
    """Return the point with tuples in place of lists: JSON has turned the tuples of the config into lists."""
    return {key: _as_tuple(value) for key, value in point.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
