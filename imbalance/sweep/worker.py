"""Train the trials of an Optuna study, with any number of workers, on one machine or several that need not share files.

A worker takes a trial by setting the state of the trial from WAITING to RUNNING. Optuna lets only one worker do so. The
trial then names the worker, whose lease says whether the worker lives (`imbalance.sweep.lease`). If the worker has died,
one other worker sets the trial to FAIL, and adds a new trial: the next attempt at the same point. An attempt resumes from
the checkpoint of the attempt before, since both have the same run directory. If two workers add the same attempt at the
same time, the study has two trials for this attempt. The trial with the lower number counts; the other trial is its twin.
"""

import math
import sys
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from imbalance.errors import BadInput, Busy
from imbalance.sweep.lease import Lease, Observer
from imbalance.sweep.pruning import RungLog, mark_pruned, plan_of, setting_key
from imbalance.sweep.runs import Run, train_quietly
from imbalance.sweep.storage import StudyLocation, import_optuna, open_storage, open_study
from imbalance.sweep.study import (
    Attempts,
    Point,
    Search,
    attempts_in,
    finite_score,
    next_attempt,
    point_of,
    run_of,
    status,
)
from imbalance.sweep.trial_data import summary_digest
from imbalance.training.distributed.interrupt import Interrupt

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

BUSY_SECONDS = 5.0  # time until a run that another process was training is tried again


def work(
    location: StudyLocation, search: Search | None, wait: bool, workers: int, stacked: int, processes: int = 1
) -> None:
    """Train the trials of a study until none is left.

    If another process is training the run of a trial, try the trial again later.

    Args:
        search: search space from which Optuna adds trials; None if the study has all its trials already.
        wait: True to wait until the trials of other workers end too, and to resume the trials of workers that die.
            False to return once it is certain that every worker with a running trial is alive.
        workers: number of workers that share the trials, with this worker.
        stacked: largest number of trials that a worker trains together as one stacked model, if that is faster.
        processes: number of processes that train each trial together.

    Raises:
        BadInput: the config or the data of a trial is wrong. The trial stays in the study, unfinished.
        Interrupted: a signal asked this process to stop. The trial has a checkpoint, and a worker can resume it.
    """
    # The Interrupt handles signals between two runs. Each run has an Interrupt of its own.
    with Interrupt(), Worker(location, search, workers, stacked, processes) as worker:
        while True:
            if taken := worker.take():
                worker.train(taken)
            elif worker.others if wait else worker.undecided:
                time.sleep(1)
            else:
                return


class Taken(NamedTuple):
    """A trial that this worker holds, its run, and the epoch after which the run pauses (None to train to the end)."""

    id: int
    number: int
    run: Run
    pause: int | None


class Worker:
    """Worker of a study, with the trials that it holds and the trials that it may take next.

    The study is read only when the worker has no trial left to take, and not before every trial.

    others: number of trials that other workers held when the study was last read.
    undecided: number of workers that held trials at that time, and may have died.
    """

    def __init__(self, location: StudyLocation, search: Search | None, workers: int, stacked: int, processes: int = 1):
        self.location, self.search, self.workers, self.stacked = location, search, workers, stacked
        self.processes = processes
        self.storage = open_storage(location)
        self.study = open_study(location, self.storage)
        self.study_id = self.storage.get_study_id_from_name(location.name)
        self.states = import_optuna().trial.TrialState
        plan = plan_of(self.study)
        self.rungs = RungLog(location, plan, self.storage) if plan else None
        self.lease, self.observer = Lease(self.study, self.storage), Observer()
        self.waiting: deque[deque[FrozenTrial]] = deque()  # trials that can be stacked together stand together
        self.unfinished = self.others = self.undecided = 0
        self.held: list[Taken] = []
        self.busy: dict[str, float] = {}  # run directories that other processes use, and when this was noticed

    def __enter__(self) -> "Worker":
        self.lease.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for trial in self.held:
            self._release(trial)
        self.lease.__exit__(*error)

    # Take trials

    def take(self) -> list[Taken]:
        """Take a trial, or several to train as one stacked model, and return all trials that this worker holds.

        Of several trials with the same run directory, only one is taken.
        """
        if not self.waiting:
            self._read()
        self._claim_some()
        if not self.held and not self.waiting:
            self._read()
            self._claim_some()
            self._ask()
        return self.held

    def _read(self) -> None:
        """Read the study: find the trials that this worker may take, and free the trials of workers that have died.

        If there are several workers, each starts with a different trial, so that two workers seldom try to take the
        same trial.
        """
        while True:
            attributes = self.study.user_attrs  # read before the trials: a worker that has ended holds none any more
            living = self.observer.living(attributes)
            attempts = attempts_in(self.study.get_trials(deepcopy=False))
            for trial in attempts.duplicates:
                if trial.state == self.states.WAITING:
                    self._fail(self._id(trial), status="duplicate")
            running = [trial for trial, _ in attempts.newest.values() if trial.state == self.states.RUNNING]
            running += [trial for trial in attempts.nameless if trial.state == self.states.RUNNING]
            orphans = [trial for trial in running if self._is_orphan(trial, living)]
            for trial in orphans:
                self._fail_orphan(trial)
            lost = [(trial, key, n) for key, (trial, n) in attempts.newest.items() if status(trial) == "lost"]
            for trial, key, number in lost:
                self.study.add_trial(next_attempt(trial, key, number))
            pruned = self._compare_settings(attempts) if not orphans and not lost else False
            if not orphans and not lost and not pruned:
                break
        self.attempts = attempts
        self.others = len(running)
        holders = {trial.user_attrs.get("worker") for trial in running}
        self.undecided = len(holders - self.observer.proven)
        waiting = [trial for trial, _ in attempts.newest.values() if trial.state == self.states.WAITING]
        if self.rungs:
            waiting = self.rungs.due(waiting)
        self.unfinished = len(waiting) + len(running)
        place, number = living.index(self.lease.name), len(living)
        own = [trial for trial in waiting if trial.number % number == place] or waiting
        groups: dict[Any, deque[FrozenTrial]] = {}
        for trial in own:
            groups.setdefault((self._stack(trial) or trial.number, self._pause(trial)), deque()).append(trial)
        self.waiting = deque(groups.values())

    def _pause(self, trial: "FrozenTrial") -> int | None:
        """Return the epoch after which the run of a trial pauses; None if it trains to the end."""
        return self.rungs and self.rungs.next_rung(setting_key(trial.user_attrs["point"]))

    def _compare_settings(self, attempts: Attempts) -> bool:
        """Let the pruner compare the settings whose runs have all reached a rung, and prune trials of the settings it rejects.

        Return whether a trial was pruned.
        """
        if not self.rungs:
            return False
        by_setting: dict[str, list[FrozenTrial]] = {}
        for trial, _ in attempts.newest.values():
            by_setting.setdefault(setting_key(trial.user_attrs["point"]), []).append(trial)
        self.rungs.read()
        while True:
            entries = []
            for setting, trials in by_setting.items():
                values = [
                    None if status(trial) == "diverged" else trial.user_attrs.get("rungs", {}) for trial in trials
                ]
                ended = all(status(trial) in ("done", "diverged") for trial in trials)
                entries.append(self.rungs.entry(setting, values, [trial.value for trial in trials] if ended else None))
            waiting = [trial for trial, _ in attempts.newest.values() if trial.state == self.states.WAITING]
            if not any(entries) or (self.rungs.plan.rule == "asha" and self.rungs.due(waiting)):
                break  # the later ASHA decides, the more settings it compares
            self.rungs.add(filter(None, entries))
            self.rungs.read()
        pruned = False
        for setting, trials in by_setting.items():
            if at := self.rungs.pruned_at(setting):
                for trial in trials:
                    if trial.state == self.states.WAITING:
                        self._prune(trial, *at)
                        pruned = True
        return pruned

    def _prune(self, trial: "FrozenTrial", epoch: int, mean: float) -> None:
        """Set a waiting trial to PRUNED. If its run directory is on this machine, set the run's status to "pruned" too.

        Args:
            epoch: number of epochs after which the trial's setting was pruned.
            mean: the setting's mean over seeds after these epochs.
        """
        directory, trial_id = run_of(point_of(trial), self.location.work_dir).directory, self._id(trial)
        mark_pruned(directory, epoch)
        facts = {"status": "pruned", "epoch": epoch, "mean": mean, "run_directory": str(directory)}
        with suppress(import_optuna().exceptions.UpdateFinishedTrialError):
            self.storage.set_trial_intermediate_value(trial_id, epoch, mean)
            self.storage.set_trial_user_attr(trial_id, "result", facts)
            self.storage.set_trial_state_values(trial_id, self.states.PRUNED)

    def _is_orphan(self, trial: "FrozenTrial", living: Sequence[str]) -> bool:
        """Return whether a running trial belongs to a worker that died."""
        worker = trial.user_attrs.get("worker")
        if worker:
            return worker not in living
        # Its worker has just taken it, or died in that moment, or was of an older version.
        return not self.observer.changed_lately(f"trial {trial.number}", trial.datetime_start)

    def _fail_orphan(self, trial: "FrozenTrial") -> None:
        """Set a trial whose worker died to FAIL, if the trial is still running under that worker."""
        now = self.storage.get_trial(self._id(trial))
        if now.state == self.states.RUNNING and now.user_attrs.get("worker") == trial.user_attrs.get("worker"):
            self._fail(self._id(trial))

    def _claim_some(self) -> None:
        """Take the first waiting trial that is free, and others that can be stacked with it."""
        most = min(self.stacked, math.ceil(self.unfinished / self.workers))
        while self.waiting and not self.held:
            group, passed = self.waiting[0], []
            while group and len(self.held) < most:
                trial = group.popleft()
                run = run_of(point_of(trial), self.location.work_dir)
                directory = str(run.directory)
                if time.monotonic() - self.busy.get(directory, -math.inf) < BUSY_SECONDS:
                    self.others += 1
                elif any(run.directory == other.run.directory for other in self.held):
                    passed.append(trial)
                elif self._claim(trial):
                    self.held.append(Taken(self._id(trial), trial.number, run, self._pause(trial)))
                else:
                    self.others += 1
            group.extendleft(reversed(passed))
            if not group:
                self.waiting.popleft()

    def _claim(self, trial: "FrozenTrial") -> bool:
        """Try to take a waiting trial; return False if another worker has taken it."""
        try:
            if not self.storage.set_trial_state_values(self._id(trial), self.states.RUNNING):
                return False
        except import_optuna().exceptions.UpdateFinishedTrialError:
            return False
        self.storage.set_trial_user_attr(self._id(trial), "worker", self.lease.name)
        return True

    def _ask(self) -> None:
        """Take a new trial whose point Optuna's sampler chooses.

        Do nothing if this worker holds a trial already, or if the search has all its trials.
        """
        if self.held or not self.search or self.search.count(self.attempts) >= self.search.trials:
            return
        trial_id = self.storage.create_new_trial(self.study_id)
        self.storage.set_trial_user_attr(trial_id, "worker", self.lease.name)
        number = self.storage.get_trial_number_from_id(trial_id)
        # Other workers may have asked at the same time. All of them agree that the trials with the lowest numbers count.
        before = attempts_in(trial for trial in self.study.get_trials(deepcopy=False) if trial.number < number)
        place = self.search.count(before)
        if place >= self.search.trials:
            self._fail(trial_id, status="duplicate")
            self.others += 1
            return
        # The draw depends on the place of the trial alone, so neither the worker nor a restart changes it.
        from imbalance.utils.seeds import derived_seed  # imports torch

        self.study.sampler = make_sampler(self.search.sampler, derived_seed(self.search.seed, "search", place))
        point = _suggest(import_optuna().trial.Trial(self.study, trial_id), self.search.space)
        identity = {"key": f"trial {number}", "attempt": 0, "stack": None}
        self.storage.set_trial_user_attr(trial_id, "identity", identity)
        self.storage.set_trial_user_attr(trial_id, "point", point)
        pause = self.rungs and self.rungs.next_rung(setting_key(point))
        self.held.append(Taken(trial_id, number, run_of(point, self.location.work_dir), pause))

    # Train them

    def train(self, taken: Sequence[Taken]) -> None:
        """Train the runs of the trials that this worker holds, and record how they ended."""
        try:
            summaries = train_quietly([trial.run for trial in taken], taken[0].pause, self.processes)
        except Busy as error:
            if error.args[0] not in self.busy:
                print(f"{error}; this trial is tried again later", file=sys.stderr, flush=True)
            self.busy[error.args[0]] = time.monotonic()
            for trial in taken:
                self._release(trial)
        except BadInput:
            raise
        except Exception as error:
            for trial in taken:
                text = f"{type(error).__name__}: {error}; type the same command again to retry it"
                print(f"trial {trial.number} crashed: {text}", file=sys.stderr, flush=True)
                self._end(trial, self.states.FAIL, None, status="crashed", error=traceback.format_exc())
        else:
            for trial, summary in zip(taken, summaries):
                directory = trial.run.directory
                values = self.rungs.plan.values(directory) if self.rungs and summary["status"] != "diverged" else {}
                if values:
                    with suppress(import_optuna().exceptions.UpdateFinishedTrialError):  # another worker took it over
                        self.storage.set_trial_user_attr(trial.id, "rungs", values)
                if summary["status"] == "interrupted":  # it has reached its rung
                    self._release(trial)
                    value = values[str(trial.pause)]
                    text = f"trial {trial.number}: {value:.4f} after epoch {trial.pause}  {directory}"
                    print(text, file=sys.stderr, flush=True)
                    continue
                value = finite_score(summary["score"]) if summary["status"] == "done" else None
                state = self.states.PRUNED if value is None else self.states.COMPLETE
                facts = {key: summary[key] for key in ("status", "seconds")} | {"data": summary_digest(summary)}
                self._end(trial, state, value, **facts)
                text = f"{value:.4f}" if value is not None else summary["status"]
                print(f"trial {trial.number}: {text}  {directory}", file=sys.stderr, flush=True)
        self.held = []

    def _end(self, trial: Taken, state: Any, value: float | None, **facts: Any) -> None:
        """Record how a trial ended, unless another worker has taken the trial because this worker seemed dead.

        Args:
            state: state in Optuna.
            value: score of the run; None if there is none.
            facts: entries of the trial's `result`.
        """
        facts["run_directory"] = str(trial.run.directory)
        try:
            self.storage.set_trial_user_attr(trial.id, "result", facts)
            self.storage.set_trial_state_values(trial.id, state, None if value is None else [value])
        except import_optuna().exceptions.UpdateFinishedTrialError:
            print(
                f"trial {trial.number} was taken over by another worker, which records its result",
                file=sys.stderr,
                flush=True,
            )

    def _release(self, trial: Taken) -> None:
        """Give a trial back to the study, so that any worker can take it."""
        with suppress(import_optuna().exceptions.UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial.id, "worker", "")
            self.storage.set_trial_state_values(trial.id, self.states.WAITING)

    def _fail(self, trial_id: int, **facts: Any) -> None:
        """Set a trial to FAIL, unless it has ended since it was read.

        Args:
            facts: entries of the trial's `result`.
        """
        with suppress(import_optuna().exceptions.UpdateFinishedTrialError):
            if facts:
                self.storage.set_trial_user_attr(trial_id, "result", facts)
            self.storage.set_trial_state_values(trial_id, self.states.FAIL)

    def _id(self, trial: "FrozenTrial") -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)

    @staticmethod
    def _stack(trial: "FrozenTrial") -> str | None:
        return trial.user_attrs.get("identity", {}).get("stack")


def make_sampler(name: str, seed: int) -> "BaseSampler":
    """Return Optuna's sampler for one trial.

    Args:
        name: "random" or "tpe".
    """
    samplers = import_optuna().samplers
    return {"random": samplers.RandomSampler, "tpe": samplers.TPESampler}[name](seed=seed % 2**32)


def _suggest(trial: Any, space: Mapping[str, Any]) -> Point:
    """Return a point of the search space that Optuna's sampler chooses for a trial."""
    point = {}
    for key, values in space.items():
        if isinstance(values, Mapping):
            whole = isinstance(values["low"], int) and isinstance(values["high"], int)
            suggest = trial.suggest_int if whole else trial.suggest_float
            point[key] = suggest(key, values["low"], values["high"], log=values["log"])
        else:
            point[key] = values[0] if len(values) == 1 else trial.suggest_categorical(key, values)
    return point
