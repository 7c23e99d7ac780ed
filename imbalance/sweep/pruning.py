"""Prune settings: let a pruner of Optuna stop a combination of config values early if it is worse than others.

A setting is judged by the mean of `config.score` over its seeds, after fixed numbers of epochs, the rungs. Every run
pauses at a rung, with a checkpoint. Once every run of a setting has reached the rung or has ended, the mean is added to a
log. The pruner then decides whether the setting continues. So a setting is pruned, never one of its seeds.

The log is a second study in the same storage, `<study> rungs`. Each trial of the log is one entry: a setting, the rung (or
`END` for its end), and the mean. Optuna numbers the trials of a study atomically, so all workers read the same log. The
decision on an entry depends only on this entry and those before it. So each worker computes the same decisions from the log
by itself, and a killed worker loses none.
"""

import json
import math
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from imbalance.config.experiment import Experiment
from imbalance.config.metric_names import needs_scores
from imbalance.config.schema import flatten
from imbalance.errors import BadInput, Damaged
from imbalance.metrics.intervals import bounds
from imbalance.report.saved_runs import Summary, evaluations_of, summary_of
from imbalance.sweep.storage import StudyLocation, import_optuna, open_study
from imbalance.utils.files import write_atomic
from imbalance.utils.read import seal

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

FACTOR = 3  # ASHA lets one setting in FACTOR pass a rung, and each rung has FACTOR times the epochs of the one before
FIRST_SHARE = 9  # the first rung has one in FIRST_SHARE of the epochs, if --first_rung does not say otherwise
UNPRUNED = 5  # settings that the median rule trains to the end before it prunes any, as by default in Optuna
RULE = "pruner"  # attribute of the study that holds its plan
# Keys whose value all settings of a study must share
SHARED_KEYS = ("trainer.epochs", "trainer.eval_every", "score", "debug")
END = 0  # rung of the entry of a setting whose runs have all ended


class Plan(NamedTuple):
    """The rule by which a study prunes settings, kept in the study.

    rule: "asha" or "median".
    rungs: numbers of epochs after which settings are compared, ascending.
    metric: name of the metric by which settings are compared.
    """

    rule: str
    rungs: tuple[int, ...]
    metric: str

    @property
    def lowest(self) -> float:
        """Return the smallest possible value of the metric; it stands for a seed that diverged."""
        return bounds(self.metric)[0]

    def values(self, directory: Path) -> dict[str, float]:
        """Return the metric of a run at each rung that the run has reached; the keys are the rungs as text.

        At a rung beyond the end of a run, the last evaluation of the run counts.

        Args:
            directory: run directory.

        Raises:
            BadInput: the run has no such metric.
        """
        summary = summary_of(directory)
        reached = self.rungs if summary["status"] == "done" else [r for r in self.rungs if r <= summary["epoch"]]
        values: dict[str, float] = {}
        for line in evaluations_of(directory, summary):
            if self.metric not in line:
                raise BadInput(
                    f"--pruner={self.rule}: the evaluations of {directory} have no {self.metric}; type --config.score=<metric> "
                    "with a metric of metrics.jsonl"
                )
            value = line[self.metric]
            for rung in reached:
                if line["epoch"] <= rung:
                    values[str(rung)] = self.lowest if value is None else value
        return values


def make_plan(rule: str, first_rung: int | None, configs: Sequence[Experiment]) -> Plan | None:
    """Return the plan by which a study prunes settings; None for the rule "none".

    Args:
        rule: "none", "asha" or "median".
        first_rung: number of epochs before the first comparison; None for a ninth of all epochs, rounded up to an
            evaluation.
        configs: configs of all settings of a grid, or of two example points of a search.

    Raises:
        BadInput: the settings cannot be compared by the rule.
    """
    if rule == "none":
        if first_rung is not None:
            raise BadInput(
                f"--first_rung={first_rung} has an effect with a pruner only; add --pruner=asha, or leave --first_rung out"
            )
        return None
    first = configs[0]
    for key in SHARED_KEYS:
        value, *others = dict.fromkeys(flatten(config.to_dict())[key] for config in configs)
        if others:
            raise BadInput(
                f"--pruner={rule} compares settings by the same score after the same epochs, but {key} is {value} in one setting "
                f"and {others[0]} in another; type one value, as --config.{key}={value}"
            )
    epochs, every = first.trainer.epochs, first.trainer.eval_every
    if first.debug:
        raise BadInput(
            f"--pruner={rule}: a debug run has one epoch, so nothing can be pruned; leave out --config.debug or --pruner"
        )
    if needs_scores(first.score) and not needs_scores(first.callbacks.monitor):
        raise BadInput(
            f"--pruner={rule} needs the score at every evaluation; {first.score} is computed there only if it is the "
            f"monitor, so add --config.callbacks.monitor={first.score}"
        )
    if first_rung is not None and first_rung % every:
        raise BadInput(
            f"--first_rung={first_rung}: runs are evaluated every {every} epochs; type a multiple of {every}, or add "
            "--config.trainer.eval_every=1"
        )
    rung = first_rung or every * math.ceil(max(1, epochs / FIRST_SHARE) / every)
    rungs = []
    while rung < epochs:
        rungs.append(rung)
        rung *= FACTOR
    if not rungs:
        raise BadInput(
            f"--pruner={rule}: no setting could be pruned, because the first comparison (after {rung} epochs) would not come "
            f"before the end ({epochs} epochs); train more epochs, or type a smaller --first_rung or --config.trainer.eval_every=1"
        )
    return Plan(rule, tuple(rungs), first.score)


def keep_plan(study: "Study", plan: Plan | None) -> None:
    """Write the plan into the study.

    Raises:
        BadInput: the study has another plan, or has trials but no plan.
    """
    before = plan_of(study)
    if before == plan:
        return
    if before or study.get_trials(deepcopy=False):  # trials that ended without a plan have recorded no values
        words = f"prunes settings by {describe(before)}" if before else "prunes no settings"
        flags = f"--pruner={before.rule} --first_rung={before.rungs[0]}" if before else "--pruner=none"
        raise BadInput(f"study {study.study_name} {words}; type {flags}, or another name, --study=<name>")
    assert plan is not None
    study.set_user_attr(RULE, plan._asdict())


def plan_of(study: "Study") -> Plan | None:
    """Return the plan by which a study prunes settings; None if it prunes none."""
    kept = study.user_attrs.get(RULE)
    return kept and Plan(kept["rule"], tuple(kept["rungs"]), kept["metric"])


def describe(plan: Plan) -> str:
    """Return the plan in words."""
    rungs = ", ".join(map(str, plan.rungs))
    return f"{plan.rule}, which compares the means of {plan.metric} over seeds after {rungs} epochs"


def setting_key(point: Mapping[str, Any]) -> str:
    """Return a text that two points share if they differ only in the seed, so belong to one setting."""
    return json.dumps({key: value for key, value in point.items() if key != "seed"}, sort_keys=True)


class Standing(NamedTuple):
    """State of a setting according to the log.

    rungs: the rungs that the setting has reached, each with the mean of the metric.
    pruned_at: the rung at which the setting was pruned; None if it was not.
    ended: whether all runs of the setting have ended.
    """

    rungs: dict[int, float]
    pruned_at: int | None
    ended: bool


NEW = Standing({}, None, False)


class Entry(NamedTuple):
    """Entry of the log: a setting that has reached a rung or its end.

    setting: key of the setting, see `setting_key`.
    rung: the rung, or `END`.
    mean: mean of the metric over the seeds at the rung, or of the final score at the end.
    """

    setting: str
    rung: int
    mean: float

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the user attributes of the entry's trial in the log."""
        return {"setting": self.setting, "rung": self.rung}


class RungLog:
    """Log of the settings that have reached a rung, and the decisions of Optuna's pruner on the entries.

    standings: the standing of each setting after the entries read so far, by its key.
    """

    def __init__(self, location: StudyLocation, plan: Plan, storage: "BaseStorage | None" = None):
        optuna = import_optuna()
        pruner = (
            optuna.pruners.SuccessiveHalvingPruner(min_resource=plan.rungs[0], reduction_factor=FACTOR)
            if plan.rule == "asha"
            else optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED)
        )
        self.plan = plan
        self._log = open_study(location._replace(name=f"{location.name} rungs"), storage=storage)
        self._replayed = optuna.create_study(direction="maximize", pruner=pruner)  # in memory
        self._trials: dict[str, Any] = {}
        self._read = 0
        self.standings: dict[str, Standing] = {}

    def read(self) -> None:
        """Read the entries added since the last call, and let the pruner decide on each, in the order of the log."""
        entries = self._log.get_trials(deepcopy=False)
        for entry in entries[self._read :]:
            self._replay(entry.user_attrs["setting"], entry.user_attrs["rung"], entry.values[0])
        self._read = len(entries)

    def _replay(self, setting: str, rung: int, mean: float) -> None:
        standing = self.standings.get(setting, NEW)
        if rung in standing.rungs or standing.ended or standing.pruned_at:
            return  # another worker added the same entry at the same time
        if setting not in self._trials:
            self._trials[setting] = self._replayed.ask()
        trial, states = self._trials[setting], import_optuna().trial.TrialState
        if rung == END:
            self._replayed.tell(trial, mean)
            self.standings[setting] = standing._replace(ended=True)
            return
        trial.report(mean, rung)
        pruned = trial.should_prune()
        if pruned:
            self._replayed.tell(trial, state=states.PRUNED)
        self.standings[setting] = Standing({**standing.rungs, rung: mean}, rung if pruned else None, False)

    def next_rung(self, setting: str) -> int | None:
        """Return the first rung that a setting has not reached; None if it has reached all."""
        reached = self.standings.get(setting, NEW).rungs
        return next((rung for rung in self.plan.rungs if rung not in reached), None)

    def pruned_at(self, setting: str) -> tuple[int, float] | None:
        """Return the rung at which a setting was pruned, and the mean at this rung; None if it was not pruned."""
        standing = self.standings.get(setting, NEW)
        return (standing.pruned_at, standing.rungs[standing.pruned_at]) if standing.pruned_at else None

    def due(self, waiting: "Sequence[FrozenTrial]") -> "list[FrozenTrial]":
        """Return the waiting trials whose run is to continue now, in the order in which to train them.

        A run at a rung waits for the other runs of its setting. ASHA compares the score of a setting at a rung with the
        scores that other settings had there before, so the settings that have reached the fewest rungs come first. The
        median rule compares with settings that have ended, so only the setting that has reached the most rungs is trained.
        """

        def setting_of(trial: "FrozenTrial") -> str:
            return setting_key(trial.user_attrs["point"])

        def passed(trial: "FrozenTrial") -> int:
            return len(self.standings.get(setting_of(trial), NEW).rungs)

        free = [
            trial
            for trial in waiting
            if str(self.next_rung(setting_of(trial))) not in trial.user_attrs.get("rungs", {})
        ]
        if self.plan.rule == "asha":
            return sorted(free, key=passed)
        first = max(free, key=passed, default=None)
        return [trial for trial in free if first and setting_of(trial) == setting_of(first)]

    def entry(
        self, setting: str, seeds: Sequence[Mapping[str, float] | None], scores: Sequence[float | None] | None
    ) -> Entry | None:
        """Return the next entry of a setting, for its next rung or its end; None if it is pruned, has ended or must wait.

        Args:
            setting: key of the setting.
            seeds: for each seed, the metric at the rungs that its run has reached, or None if the run diverged.
            scores: for each seed, the final score, or None if the run diverged; in place of the list None while a run has
                not ended.
        """
        standing = self.standings.get(setting, NEW)
        if standing.pruned_at or standing.ended:
            return None
        rung, lowest = self.next_rung(setting), self.plan.lowest
        if rung is not None:
            values = [lowest if seed is None else seed.get(str(rung)) for seed in seeds]
        else:
            values = [lowest if score is None else score for score in scores] if scores else [None]
        known = [value for value in values if value is not None]
        return (
            Entry(setting, END if rung is None else rung, sum(known) / len(known))
            if len(known) == len(values)
            else None
        )

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries to the log; those of one rung are put in the order of `in_fair_order` for ASHA."""
        by_rung: dict[int, list[Entry]] = {}
        for entry in entries:
            by_rung.setdefault(entry.rung, []).append(entry)
        for rung, due in by_rung.items():
            before = [standing.rungs[rung] for standing in self.standings.values() if rung in standing.rungs]
            for entry in in_fair_order(due, before) if self.plan.rule == "asha" and rung != END else due:
                self._log.add_trial(import_optuna().trial.create_trial(value=entry.mean, user_attrs=entry.attributes))


def in_fair_order(entries: Iterable[Entry], before: Sequence[float]) -> list[Entry]:
    """Return entries of one rung in an order in which ASHA lets the best third of them (one in `FACTOR`) pass.

    ASHA compares an entry with the entries before it. In ascending order all would pass, because each is the best so far;
    in descending order only the first would. So the best entry left comes next if it passes, else the worst one left.

    Args:
        before: means of the entries that the rung has already.
    """
    left, means, order = sorted(entries, key=lambda entry: entry.mean), sorted(before), []
    while left:
        places = max(1, (len(means) + 1) // FACTOR)
        passes = len(means) < places or left[-1].mean >= means[-places]
        entry = left.pop(-1 if passes else 0)
        order.append(entry)
        insort(means, entry.mean)
    return order


def mark_pruned(directory: Path, epoch: int) -> Summary | None:
    """Set the status of a paused run to "pruned" in its summary.json, and return the summary; None if it cannot be read.

    Args:
        directory: run directory; it is missing on a machine that did not train the run.
        epoch: number of epochs after which the setting was pruned.
    """
    try:
        summary = summary_of(directory)
    except (OSError, Damaged):
        return None
    if summary["status"] == "interrupted":
        reason = f"the sweep pruned this setting after epoch {epoch}; imbalance train --config={directory / 'config.json'} goes on"
        summary = {**summary, "status": "pruned", "reason": reason}
        text = json.dumps(seal(summary), indent=2, allow_nan=False)
        write_atomic(directory / "summary.json", text.encode() + b"\n")
    return summary
