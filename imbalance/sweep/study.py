"""Keep the trials of an Optuna study in Optuna's storage; `imbalance.sweep.worker` trains them.

A trial is one run: a config, overrides and a seed, which together are its "point". A trial has the same run directory as
under `imbalance train`. After a trial that crashed, or whose worker died, a new trial is the next attempt at the same
point. If two trials are the same attempt, the one with the lower number counts, and the other is its twin.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from imbalance.errors import BadInput
from imbalance.sweep.pruning import Plan, keep_plan, plan_of
from imbalance.sweep.runs import Run, batch_key, make_run
from imbalance.sweep.storage import StudyLocation, import_optuna, open_study
from imbalance.sweep.trial_data import PresentData, recorded_digest

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

Point = dict[str, Any]  # "config", "seed" and overrides such as "optim.lr"


class Search(NamedTuple):
    """Search space of Optuna's sampler, and the number of trials to run in it."""

    sampler: str  # "random" or "tpe"
    trials: int  # total number of points of this space in the study
    space: dict[str, Any]  # by key, a list of values or {"low", "high", "log"}; "config" and "seed" have one value
    seed: int = 0  # seed of the sampler

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


def finite_score(score: float | None) -> float | None:
    """Return `score`, or None if it is nan: the metric has no value on the data of the run, so nothing can be compared."""
    return None if score is None or math.isnan(score) else score


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
            outcome = Outcome(
                status(trial), finite_score(trial.value), facts.get("run_directory"), trial.number, data, pruned
            )
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


def has_ended(trial: "FrozenTrial") -> bool:
    """Return whether nothing of a trial is left to train; the trial of a worker that died is trained again."""
    return status(trial) not in ("unfinished", "lost")


def count_ended_and_left(location: StudyLocation, search: Search | None) -> tuple[int, int]:
    """Return the number of trials that have ended, and the number of trials that are left to train.

    The trials that the search has yet to add are left, too.
    """
    attempts = attempts_in(open_study(location).get_trials(deepcopy=False))
    ended = sum(has_ended(trial) for trial, _ in attempts.newest.values())
    to_add = max(0, search.trials - search.count(attempts)) if search else 0
    return ended, len(attempts.newest) - ended + to_add


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
            study.add_trial(next_attempt(trial, key, attempt))


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


def next_attempt(trial: "FrozenTrial", key: str, attempt: int):
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
