"""Trials in Optuna's storage, and workers that take them up: any number, on any number of machines with shared files.

A trial is one run: a config, overrides and a seed (its "point"), trained in the run directory that main.py would use.
Optuna's storage says which trials there are and what became of them. A file lock, which the system releases however
its holder ends, says which are being worked on: a trial that is `RUNNING` and not locked was left by a worker that
died, and the next worker goes on with it from its checkpoint.

Optuna has a heartbeat and a retry of stale trials for that, but only within `study.optimize`, which trains one trial at
a time and hands out the next in line: a retried trial is a new one, which would not go on from its checkpoint under its own
number, and several could not be trained at once. So `_take` chooses among waiting trials itself, through the storage.

| trial | state in Optuna | user attribute `status` |
|---|---|---|
| finished | COMPLETE, with its score | done |
| loss not finite | PRUNED: TPE ranks it below all others | diverged |
| ended by an error of the program | FAIL, with the traceback as `error`; asked for anew, it is tried again | crashed |
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
from imbalance.sweep.runs import Run, batch_key, configured, train_quietly
from imbalance.training.distributed.interrupt import Interrupt

PASSED_OVER = 5.0  # seconds until a run that another process was training is looked at again
Point = dict[str, Any]  # "config", "seed" and overrides such as "optim.lr"


class Search(NamedTuple):
    """Where Optuna's sampler looks beyond the trials that were asked for by name."""

    sampler: str  # "random" or "tpe"
    trials: int  # in the study, in all
    space: dict[str, Any]  # a list of values, or {"low", "high", "log"}; "config" and "seed" hold one value


class Place(NamedTuple):
    """What a worker must know, wherever it runs."""

    name: str  # of the study
    work_dir: str
    storage: str  # Optuna's address of it; "": SQLite in the study's folder

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
        raise BadInput("optuna is not installed; pip install -c constraints.txt -e '.[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def queue(place: Place) -> FileLock:
    """What is held while the study's trials are looked through or added to."""
    return FileLock(place.folder / "queue.lock")


def open_storage(place: Place):
    """Optuna's storage, made where there is none."""
    optuna = import_optuna()
    place.folder.mkdir(parents=True, exist_ok=True)
    wait = {"engine_kwargs": {"connect_args": {"timeout": 60}}} if place.url.startswith("sqlite") else {}
    with queue(place):
        try:
            return optuna.storages.RDBStorage(place.url, **wait)
        except Exception as error:  # SQLAlchemy's of many kinds, and those of the database's own package
            raise BadInput(f"--storage: cannot open {place.url}: {str(error).splitlines()[0]}") from None


def open_study(place: Place, sampler: str = "random", storage=None):
    """The study, made where there is none; of a `storage` that is open."""
    optuna, storage = import_optuna(), storage or open_storage(place)
    with queue(place):
        return optuna.create_study(
            study_name=place.name,
            storage=storage,
            sampler=optuna.samplers.TPESampler() if sampler == "tpe" else optuna.samplers.RandomSampler(),
            direction="maximize",
            load_if_exists=True,
        )


def grid(values: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination, the last key's values changing fastest."""
    return [dict(zip(values, point)) for point in itertools.product(*values.values())]


def add(place: Place, points: Sequence[Point]) -> None:
    """Put the points in the study that are not in it yet; those whose trials crashed are put there once more."""
    for point in points:
        configured(*_run_of(point), place.work_dir)  # a mistake shows before anything is trained
    study = open_study(place)
    with queue(place):
        states = import_optuna().trial.TrialState
        there = [trial for trial in study.get_trials(deepcopy=False) if trial.state != states.FAIL]
        known = {canonical(trial.user_attrs["point"]) for trial in there if "point" in trial.user_attrs}
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


def work(place: Place, search: Search | None, wait: bool, workers: int, at_once: int) -> int:
    """Take up trials until none is left, and return how many crashed here.

    Args:
        wait: for trials that others work on, to take them up should their workers die.
        workers: among whom the trials are divided, this one included.
        at_once: the most to train at once, where that is faster.

    Raises:
        BadInput: the config or the data is wrong; the trial stays as it is. One whose run another process trains is
            passed over, and taken up later.
        Interrupted: a signal came; the trial has a checkpoint, and stays to be taken up.
    """
    storage, crashed = open_storage(place), 0
    study = open_study(place, search.sampler if search else "random", storage)
    busy: dict[str, float] = {}  # run directories that a process outside the study trains in, and when that was seen
    with Interrupt():  # between two runs; a run has its own
        while True:
            held = {directory for directory, seen in busy.items() if time.monotonic() - seen < PASSED_OVER}
            taken, others = _take(study, storage, place, search, workers, at_once, held)
            if taken:
                with ExitStack() as locks:
                    for trial in taken:
                        locks.callback(trial.lock.release)
                    try:
                        crashed += _perform(study, [trial.trial for trial in taken], place, search)
                    except Busy as error:
                        if error.args[0] not in busy:
                            print(f"{error}; its trial is taken up later", file=sys.stderr, flush=True)
                        busy[error.args[0]] = time.monotonic()
            elif others and wait:
                time.sleep(1)
            else:
                return crashed


class _Taken(NamedTuple):
    trial: Any
    lock: FileLock


def _take(
    study, storage, place: Place, search: Search | None, workers: int, at_once: int, held: Collection[str] = ()
) -> tuple[list[_Taken], int]:
    """Trials that nobody else works on, one or several to be trained at once, and how many others work on.

    Args:
        held: run directories to pass over, as others' work. Of trials that have one directory one is taken.
    """
    optuna = import_optuna()
    states, others, taken, directories = optuna.trial.TrialState, 0, [], set()
    study_id = storage.get_study_id_from_name(place.name)
    with queue(place):
        left = study.get_trials(deepcopy=False, states=(states.RUNNING,))
        waiting = study.get_trials(deepcopy=False, states=(states.WAITING,))
        most = min(at_once, math.ceil((len(left) + len(waiting)) / workers))
        for found in (*left, *waiting):
            if taken and (len(taken) >= most or not _go_together(place, taken[0].trial, found)):
                continue
            directory = _directory(found, place)
            if directory in held:
                others += 1
                continue
            if directory in directories:
                continue
            try:
                held_by_us = _lock_now(place, found.number)
            except Timeout:
                others += 1
                continue
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, found.number)
            if storage.get_trial(trial_id).state != found.state:  # it ended while we looked
                held_by_us.release()
                continue
            if found.state == states.WAITING:
                storage.set_trial_state_values(trial_id, states.RUNNING)
            # An enqueued trial's values, or those suggested before its worker died, come with it.
            taken.append(_Taken(optuna.trial.Trial(study, trial_id), held_by_us))
            directories.add(directory)
        if not taken and search and len(study.get_trials(deepcopy=False)) < search.trials:
            trial = study.ask()
            taken.append(_Taken(trial, _lock_now(place, trial.number)))
    return taken, others


def _directory(trial, place: Place) -> str | None:
    """Of the trial's run; None where its point is still to be suggested."""
    point = trial.user_attrs.get("point")
    return str(_configured(canonical(point), place.work_dir).directory) if point else None


def _go_together(place: Place, *trials) -> bool:
    """Whether the trials can be trained at once, and should be."""
    points = [trial.user_attrs.get("point") for trial in trials]
    keys = {point and _batch_key(canonical(point), place.work_dir) for point in points}
    return len(keys) == 1 and None not in keys


def _batch_key(point: str, work_dir: str) -> str | None:
    return batch_key(_configured(point, work_dir))


@functools.cache
def _configured(point: str, work_dir: str) -> Run:
    return configured(*_run_of(_with_tuples(json.loads(point))), work_dir)


def _perform(study, trials: list, place: Place, search: Search | None) -> int:
    """Train the trials' runs and record what became of them; returns how many crashed, which is all or none."""
    states, runs = import_optuna().trial.TrialState, []
    for trial in trials:
        runs.append(configured(*_run_of(_suggest(study, trial, search)), place.work_dir))
        trial.set_user_attr("run_directory", str(runs[-1].directory))
    try:
        summaries = train_quietly(runs)
    except BadInput:  # Busy, too
        raise
    except Exception as error:
        for trial in trials:
            trial.set_user_attr("status", "crashed")
            trial.set_user_attr("error", traceback.format_exc())
            print(f"trial {trial.number} crashed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
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
    """The trial's point; its numbers become the parameters that Optuna knows and its dashboard draws."""
    if "point" in trial.user_attrs:
        point = _with_tuples(trial.user_attrs["point"])
        for key, value in _numbers(point).items():
            if key in trial.params:  # suggested before the worker died, perhaps within narrower bounds
                continue
            low, high = study.user_attrs["bounds"][key]
            suggest = trial.suggest_int if isinstance(value, int) else trial.suggest_float
            suggest(key, low, high)
        return point
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
    """Every trial's point beside the trial, the newest of a point that crashed and was tried again."""
    newest = {}
    for trial in study.get_trials(deepcopy=False):
        if "point" in trial.user_attrs:
            newest[canonical(trial.user_attrs["point"])] = trial
    return [(_with_tuples(trial.user_attrs["point"]), trial) for trial in newest.values()]


def status(trial) -> str:
    return trial.user_attrs.get("status", "unfinished")


def score(trial) -> float:
    return trial.value if trial.value is not None else math.nan


def _lock_now(place: Place, trial: int) -> FileLock:
    """The lock of a trial, held until it is released or this process ends.

    Raises:
        Timeout: another worker holds it.
    """
    lock = FileLock(place.folder / f"trial-{trial}.lock")
    lock.acquire(blocking=False)
    return lock


def _run_of(point: Point) -> tuple[str, dict[str, Any], int]:
    return point["config"], {key: value for key, value in point.items() if key not in ("config", "seed")}, point["seed"]


def _numbers(point: Point) -> dict[str, float]:
    return {k: v for k, v in point.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def canonical(point: Point) -> str:
    """The same for equal points, whatever the order of their keys."""
    return json.dumps(point, sort_keys=True)


def _with_tuples(point: Point) -> Point:
    """Tuples, which JSON turns to lists, as the config has them."""
    return {key: _as_tuple(value) for key, value in point.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
