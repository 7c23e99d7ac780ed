"""Keep the trials of an Optuna study in Optuna's storage, and let any number of workers train them.

The workers can be on several machines, which need not share files. A trial is one run: a config, overrides and a
seed, which together are its "point". A trial has the same run directory as under `imbalance train`.

A worker takes a trial by setting the state of the trial from WAITING to RUNNING. Optuna lets only one worker do so. The
trial then names the worker, whose lease says whether the worker lives (`imbalance.sweep.lease`). If the worker has died,
one other worker sets the trial to FAIL, and adds a new trial: the next attempt at the same point. An attempt resumes from
the checkpoint of the attempt before, since both have the same run directory. If two workers add the same attempt at the
same time, the study has two trials for this attempt. The trial with the lower number counts; the other trial is its twin.

| trial | state in Optuna | `status` |
|---|---|---|
| finished | COMPLETE, with its score | done |
| loss not finite | PRUNED: TPE ranks it below all others | diverged |
| its setting was pruned | PRUNED, with the setting's mean over seeds as intermediate value | pruned |
| ended by an error of the program | FAIL, with the traceback as `error`; `add` adds the next attempt | crashed |
| its worker died | FAIL; a worker adds the next attempt | lost |
| twin of another trial | FAIL | duplicate |
| stopped, or paused until its setting is compared with others | WAITING again | unfinished |

`imbalance.sweep.pruning` says how settings are compared and pruned. A trial has these user attributes:

- `point`: the config, the overrides and the seed;
- `identity`: the key of the point, the number of the attempt, and a key that is equal for trials that can be stacked together;
- `worker`: the name of the worker that holds the trial;
- `rungs`: the values by which the pruner compares the trial's setting;
- `result`, once the trial has ended: status, run directory, seconds, and the digest of the data. In a trial of an older
  version these entries are user attributes themselves.
"""

import hashlib
import itertools
import json
import math
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from imbalance.errors import BadInput, Busy
from imbalance.sweep.lease import Lease, Observer
from imbalance.sweep.pruning import Plan, RungLog, keep_plan, mark_pruned, plan_of, setting_key
from imbalance.sweep.runs import Run, batch_key, make_run, train_quietly
from imbalance.sweep.storage import StudyLocation, import_optuna, open_storage, open_study
from imbalance.sweep.trial_data import PresentData, recorded_digest, summary_digest
from imbalance.training.distributed.interrupt import Interrupt

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

BUSY_SECONDS = 5.0  # time until a run that another process was training is tried again
Point = dict[str, Any]  # "config", "seed" and overrides such as "optim.lr"


class Search(NamedTuple):
    """Search space of Optuna's sampler, and the number of trials to run in it."""

    sampler: str  # "random" or "tpe"
    trials: int  # total number of points of this space in the study
    space: dict[str, Any]  # by key, a list of values or {"low", "high", "log"}; "config" and "seed" have one value

    def has(self, point: Point) -> bool:
        """Return whether `point` (config, overrides and seed) lies in the search space."""

        def fits(value: Any, axis: Any) -> bool:
            return axis["low"] <= value <= axis["high"] if isinstance(axis, Mapping) else value in axis

        return point.keys() == self.space.keys() and all(fits(point[key], axis) for key, axis in self.space.items())

    def count(self, attempts: "Attempts") -> int:
        """Return the number of points in a study that lie in this search space.

        Trials for which a worker is still choosing a point count too.

        Args:
            attempts: attempts in the study.
        """
        points = sum(self.has(point_of(trial)) for trial, _ in attempts.newest.values())
        return points + sum(not trial.state.is_finished() for trial in attempts.nameless)


# Points and their trials


def grid(values: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Return every combination of the values, by key; the values of the last key change fastest."""
    return [dict(zip(values, point)) for point in itertools.product(*values.values())]


def canonical(point: Point) -> str:
    """Return a point (config, overrides and seed) as JSON with sorted keys: equal points have equal texts."""
    return json.dumps(point, sort_keys=True)


def key_of(point: Point) -> str:
    """Return the key of a point of a grid, which is equal for equal points."""
    return hashlib.sha256(canonical(point).encode()).hexdigest()[:16]


def point_of(trial: "FrozenTrial") -> Point:
    """Return the point of a trial, with tuples in place of JSON's lists, because configs hold tuples."""
    return {key: _as_tuple(value) for key, value in trial.user_attrs["point"].items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def result(trial: "FrozenTrial") -> Mapping[str, Any]:
    """Return the known entries among a trial's status, run_directory, seconds and data (the digest of the data)."""
    return trial.user_attrs.get("result", trial.user_attrs)


def status(trial: "FrozenTrial") -> str:
    """Return how a trial ended: "done", "diverged", "pruned", "crashed", "lost" or "duplicate".

    Return "unfinished" if the trial has not ended.
    """
    if not trial.state.is_finished():
        return "unfinished"
    recorded = result(trial).get("status", "lost")
    # A worker can die after it has recorded the result, and before it has set the state and the score.
    is_lost = trial.state.name == "FAIL" and recorded not in ("crashed", "duplicate")
    return "lost" if is_lost else recorded


class Outcome(NamedTuple):
    """State of a trial, and the result if the trial has ended.

    status: result of the function `status`; "unfinished" for a trial that has not ended.
    score: score of the trial's run; None if the run has none.
    directory: run directory; None if the run has not begun.
    number: number of the trial in its study.
    data: digest of the run's data; None for a trial that has not ended.
    pruned: for a pruned trial, the epoch after which its setting was pruned, and the setting's mean over seeds then.
    """

    status: str
    score: float | None
    directory: str | None
    number: int
    data: str | None
    pruned: tuple[int, float] | None = None


def outcomes(study: "Study", wanted: Callable[[Point], bool]) -> list[tuple[Point, Outcome]]:
    """Return every point of the study for which `wanted` is true, paired with the outcome of a trial.

    If several trials have the same point, they share a run. Then the newest finished trial counts; if none is finished,
    the first.
    """
    by_point: dict[str, tuple[Point, Outcome]] = {}
    for point, trial in points_of(study):
        ended = trial.state.is_finished()
        if wanted(point) and (ended or canonical(point) not in by_point):
            facts = result(trial)
            data = facts.get("data") if ended else None
            pruned = (facts["epoch"], facts["mean"]) if ended and facts.get("status") == "pruned" else None
            outcome = Outcome(status(trial), trial.value, facts.get("run_directory"), trial.number, data, pruned)
            by_point[canonical(point)] = point, outcome
    return list(by_point.values())


class Attempts(NamedTuple):
    """Trials of a study, divided into those that count and all others.

    newest: for each point, by its key, a pair: the newest attempt at the point, and the number of this attempt.
    duplicates: twins of other trials; twins do not count.
    nameless: trials for which Optuna has not chosen a point.
    """

    newest: "dict[str, tuple[FrozenTrial, int]]"
    duplicates: "list[FrozenTrial]"
    nameless: "list[FrozenTrial]"


def attempts_in(trials: "Iterable[FrozenTrial]") -> Attempts:
    """Divide the trials of a study into those that count and all others.

    Args:
        trials: all trials of the study, sorted by number.
    """
    newest, duplicates, nameless, known = {}, [], [], set()
    for trial in trials:
        if "point" not in trial.user_attrs:
            nameless.append(trial)
            continue
        if identity := trial.user_attrs.get("identity"):
            key, attempt = identity["key"], identity["attempt"]
        else:  # by an older version, which numbered no attempts
            key = key_of(trial.user_attrs["point"])
            attempt = newest[key][1] + 1 if key in newest else 0
        if (key, attempt) in known:
            duplicates.append(trial)
            continue
        known.add((key, attempt))
        if key not in newest or attempt > newest[key][1]:
            newest[key] = trial, attempt
    return Attempts(newest, duplicates, nameless)


def points_of(study: "Study") -> "list[tuple[Point, FrozenTrial]]":
    """Return every point (config, overrides and seed) of the study, each with the newest attempt at it."""
    newest = attempts_in(study.get_trials(deepcopy=False)).newest
    return [(point_of(trial), trial) for trial, _ in newest.values()]


def count_left(location: StudyLocation, search: Search | None) -> int:
    """Return how many trials are left: unfinished trials of the study, and trials that the search has yet to add."""
    attempts = attempts_in(open_study(location).get_trials(deepcopy=False))
    unfinished = sum(status(trial) in ("unfinished", "lost") for trial, _ in attempts.newest.values())
    return unfinished + (max(0, search.trials - search.count(attempts)) if search else 0)


# Add trials


def add(location: StudyLocation, points: Sequence[Point], plan: Plan | None = None) -> None:
    """Add an attempt at every point that the study does not have yet, and at every point whose newest attempt crashed.

    A point whose trial is finished gets another attempt if the data have changed since then. So a score always belongs
    to the present data.

    Args:
        points: for each run, a dictionary with its config, overrides and seed.
        plan: plan by which settings are pruned; None without pruning.

    Raises:
        BadInput: a point is not a valid run, or the study has another plan; then no trial is added. Or `renew` raises it.
    """
    runs = [run_of(point, location.work_dir) for point in points]  # raises before anything is added
    study = open_study(location)
    keep_plan(study, plan)
    newest = attempts_in(study.get_trials(deepcopy=False)).newest
    every = [*points, *(point_of(trial) for trial, _ in newest.values())]
    distributions = _distributions(every)
    for point, run in zip(points, runs):
        key = key_of(point)
        if key not in newest:
            attempt = _waiting_trial(point, key, 0, _stack_key(run), distributions)
            newest[key] = attempt, 0
            study.add_trial(attempt)
    renew(study, location)


def renew(study: "Study", location: StudyLocation) -> None:
    """Add another attempt at each point whose newest attempt crashed, or finished before its data changed.

    Data that cannot be read any more count as unchanged.

    Raises:
        BadInput: the data have changed, and the study has pruned settings by their scores on the former data.
    """
    present, plan = PresentData(), plan_of(study)
    for key, (trial, attempt) in attempts_in(study.get_trials(deepcopy=False)).newest.items():
        ended = status(trial)
        if ended in ("done", "diverged"):
            now = present.digest(point_of(trial), location.work_dir)
            if now is None or now == recorded_digest(result(trial)):
                continue
            if plan:
                raise BadInput(
                    f"study {location.name} has pruned settings by scores on data that have changed since; restore the data, "
                    "or begin another study with --study=<new name> --work_dir=<new folder>"
                )
        if ended in ("done", "diverged", "crashed"):
            study.add_trial(_next_attempt(trial, key, attempt))


def _waiting_trial(point: Point, key: str, attempt: int, stack: str | None, distributions: Mapping[str, Any]):
    """Return a trial to add to a study.

    Numbers of the point are also its Optuna parameters, which Optuna's dashboard plots.

    Args:
        key: key of the point.
        attempt: number of the attempt at the point.
        stack: key that is equal for trials that can be stacked together; None if the trial trains alone.
        distributions: Optuna's distribution of each number, by key.
    """
    optuna, numbers = import_optuna(), _numbers(point)
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params=numbers,
        distributions={name: distributions[name] for name in numbers},
        user_attrs={"point": point, "identity": {"key": key, "attempt": attempt, "stack": stack}},
    )


def _next_attempt(trial: "FrozenTrial", key: str, attempt: int):
    """Return a new trial, the next attempt at the point of `trial`.

    Args:
        key: key of the point.
        attempt: number of the attempt that `trial` is.
    """
    optuna = import_optuna()
    stack = trial.user_attrs.get("identity", {}).get("stack")
    identity = {"key": key, "attempt": attempt + 1, "stack": stack}
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={"point": trial.user_attrs["point"], "identity": identity},
    )


def _numbers(point: Point) -> dict[str, float]:
    return {k: v for k, v in point.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _distributions(points: Sequence[Point]) -> dict[str, Any]:
    """Return Optuna's distribution for every key that has a number in some point: the range of its numbers."""
    distributions, values = import_optuna().distributions, {}
    for point in points:
        for key, value in _numbers(point).items():
            values.setdefault(key, set()).add(value)

    def distribution(numbers: set[float]):
        whole = all(isinstance(number, int) for number in numbers)
        kind = distributions.IntDistribution if whole else distributions.FloatDistribution
        return kind(min(numbers), max(numbers))

    return {key: distribution(numbers) for key, numbers in values.items()}


def _stack_key(run: Run) -> str | None:
    """Return a short key, equal for runs that can train as one stacked model; None for a run that trains alone."""
    key = batch_key(run)
    return key and hashlib.sha256(key.encode()).hexdigest()[:16]


def run_of(point: Point, work_dir: str) -> Run:
    """Return the run of a point.

    Raises:
        BadInput: the point is not a valid run.
    """
    overrides = {key: value for key, value in point.items() if key not in ("config", "seed")}
    return make_run(point["config"], overrides, point["seed"], work_dir)


# Train trials


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
        self.study = open_study(location, search.sampler if search else "random", self.storage)
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
                self.study.add_trial(_next_attempt(trial, key, number))
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
        if self.search.count(before) >= self.search.trials:
            self._fail(trial_id, status="duplicate")
            self.others += 1
            return
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
                done = summary["status"] == "done" and summary["score"] is not None
                state, value = (self.states.COMPLETE, summary["score"]) if done else (self.states.PRUNED, None)
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
