"""Train a config over a grid, or by random or TPE search, and print the score of every setting.

A setting is a combination of config values; its runs differ only in the seed.

    imbalance sweep --config=digits_poly --grid=optim.lr=0.01,0.03,0.1 --seeds=3
    imbalance sweep --config=digits_poly --search=optim.lr=0.001:1:log --sampler=tpe --trials=20

After a kill, type the same command again: it skips the finished runs, and resumes the unfinished runs from their
checkpoints. Typed on several machines that share their files, the command runs one sweep on all of them. With
--launcher=slurm the workers are an array of Slurm jobs. The same command with a larger grid adds trials to the study.
Optuna's dashboard shows the study:

    pip install optuna-dashboard && optuna-dashboard runs/sweeps/digits_poly/study.journal

--pruner=asha, or --pruner=median, stops a setting early if its mean over seeds is worse than that of other settings. To
train each run on several GPUs, add --processes_per_run=<number of GPUs>.

Without Optuna a grid is trained on one machine, without a study: the run directories show which runs are finished.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import compress
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.config.override_flags import OverrideText
from imbalance.config.overrides import parse_literal, value_at
from imbalance.config.registries import registries
from imbalance.config.resolve import (
    STORAGE_KEYS,
    config_file,
    load,
    override,
    override_text,
    resolve,
    short_folder_name,
)
from imbalance.config.schema import MissingKeys, flatten, keyword_annotations, look_up
from imbalance.errors import BadInput
from imbalance.metrics.intervals import bounds, mean, mean_with_diverged
from imbalance.report.tables import markdown
from imbalance.sweep import study as studies
from imbalance.sweep.launch import launch
from imbalance.sweep.pruning import SHARED_KEYS, Plan, describe, keep_plan, make_plan, mark_pruned, plan_of
from imbalance.sweep.runs import check_common_overrides, check_config_names, run_all
from imbalance.sweep.storage import StudyLocation
from imbalance.sweep.study import Outcome, Point, Search
from imbalance.sweep.trial_data import data_part
from imbalance.utils.output import counted


def sweep(
    *,
    config: Sequence[str],
    overrides: Mapping[str, Any],
    grid: Sequence[str],
    search: Sequence[str],
    sampler: str,
    sampler_seed: int,
    trials: int,
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    study: str | None,
    storage: str,
    launcher: str,
    slurm: Sequence[str],
    pruner: str,
    first_rung: int | None,
    processes_per_run: int,
) -> int:
    """Train the trials of an Optuna study until none is left, and print the mean score of each combination of values.

    Args:
        config: config files or names; with several, the grid is trained for each.
        overrides: config values by key, for all trials.
        grid: axes of the grid as typed, such as "optim.lr=0.01,0.1"; see `parse_axis`.
        search: axes or ranges from which `sampler` draws points, at seed 0; not together with `grid`.
        sampler: "random" or "tpe".
        sampler_seed: seed of the sampler. With "random", equal seeds choose equal values; with "tpe", if the scores and the
            order of the trials are equal, too.
        trials: total number of points of `search` in the study, with points of earlier calls; points of grids do not count.
        seeds: number of seeds of each point of the grid.
        work_dir: folder of the run directories.
        jobs: number of workers.
        stacked: largest number of trials that one worker trains together as one stacked model.
        study: name of the Optuna study; None for the name that `study_name` makes of configs, overrides and pruner.
        storage: "journal:<file>", or the URL of a database; "" for a file under `work_dir`.
        launcher: "local", or "slurm" for an array of jobs.
        slurm: parameters for submitit, such as "timeout_min=60".
        pruner: rule by which settings end early: "none", "median" or "asha".
        first_rung: number of epochs after which settings are compared for the first time; None for a ninth of all epochs.
        processes_per_run: number of processes, each with its own GPU if there are GPUs, that train a run together.

    Returns:
        1 if trials are unfinished or crashed, else 0.
    """
    if bool(grid) == bool(search):
        raise BadInput("a sweep needs either --grid or --search; type one of them, such as --grid=optim.lr=0.01,0.1")
    keys = [text.partition("=")[0] for text in (*grid, *search)]
    for key, flag in (("config", "--config"), ("seed", "--seeds"), ("work_dir", "--work_dir")):
        if key in keys:
            instead = (
                "leave it out, because a search trains at seed 0"
                if search and key == "seed"
                else f"type {flag}=<value> instead"
            )
            raise BadInput(f"{key} cannot be an axis; {instead}")
    if stored := next((key for key in keys if key.partition(".")[0] in STORAGE_KEYS), ""):
        raise BadInput(f"{stored} cannot be an axis, because all its values have the same run directory; leave it out")
    if repeated := next((key for key in keys if keys.count(key) > 1), ""):
        raise BadInput(f"{repeated} has two axes; type all of its values in one axis, with commas between them")
    check_config_names(config)
    common = dict(check_common_overrides(overrides))
    if fixed := next((key for key in keys if key in common), ""):
        raise BadInput(f"--config.{fixed} is given, and {fixed} is an axis too; leave one of them out")
    common = parse_common(config[0], common)
    if grid:
        axes = dict(parse_axis(config[0], text) for text in grid)
        points = studies.grid({"config": list(config), **{k: [v] for k, v in common.items()}, **axes, "seed": list(range(seeds))})  # fmt: skip
        needs_study = study or storage or launcher == "slurm" or pruner != "none" or processes_per_run > 1
        try:
            points = [parse_values(point) for point in points]
            if not (find_spec("optuna") or needs_study):
                return report(train_points(points, work_dir, jobs, stacked), None)
            plan = plan_for(pruner, first_rung, (point for point in points if point["seed"] == 0), work_dir)
            location = StudyLocation(study or study_name(points[0], config, common, plan), work_dir, storage)
            studies.add(location, points, plan)
        except MissingKeys as error:
            raise missing_on_axis(error, axes) from None
        keys = {studies.key_of(point) for point in points}

        def is_wanted(point: Point) -> bool:
            return studies.key_of(point) in keys

        launch(location, None, jobs, stacked, launcher, slurm, processes_per_run, is_wanted)
        return report_study(location, is_wanted)
    space, example = make_space(config, common, search, work_dir)
    plan = plan_for(pruner, first_rung, examples(space, example), work_dir)
    location = StudyLocation(study or study_name(example, config, common, plan), work_dir, storage)
    check_search(location, space)
    searched = Search(sampler, trials, space, sampler_seed)
    opened = studies.open_study(location)
    keep_plan(opened, plan)
    studies.renew(opened, location)
    if searched.count(studies.attempts_in(opened.get_trials(deepcopy=False))) >= trials:
        print(
            f"the study has all {trials} trials of this search already, so --sampler and --sampler_seed choose nothing; for "
            "other values type --study=<another name>",
            file=sys.stderr,
        )
    launch(location, searched, jobs, stacked, launcher, slurm, processes_per_run, searched.has)
    return report_study(location, searched.has)


def plan_for(pruner: str, first_rung: int | None, points: Iterable[Point], work_dir: str) -> Plan | None:
    """Return the plan by which `pruner` prunes the settings of `points`; None for the pruner "none"."""
    used = pruner != "none"
    return make_plan(pruner, first_rung, [studies.run_of(point, work_dir).config for point in points if used])


def examples(space: Mapping[str, Any], example: Point) -> list[Point]:
    """Return points of a search space for `make_plan`, which raises `BadInput` if they differ in a key of `SHARED_KEYS`.

    The points are `example` and, for each axis in `SHARED_KEYS`, a point with each value of a list or each end of a range.

    Args:
        space: the search space, as `Search` takes it.
        example: any point of the space.
    """
    axes = ((key, space.get(key, [])) for key in SHARED_KEYS)
    ends = [(key, [axis["low"], axis["high"]] if isinstance(axis, Mapping) else axis) for key, axis in axes]
    example = {"seed": 0, **example}
    return [example, *({**example, key: value} for key, values in ends for value in values)]


def train_points(points: Sequence[Point], work_dir: str, jobs: int, stacked: int) -> list[tuple[Point, Outcome]]:
    """Train the run of every point without a study; return every point, paired with the outcome of its run.

    Args:
        jobs: number of worker processes.
        stacked: largest number of runs that one process trains together as one stacked model.
    """
    print("Optuna is not installed, so the runs are listed in no study", file=sys.stderr)
    runs = [studies.run_of(point, work_dir) for point in points]
    summaries = run_all(runs, jobs, stacked)
    return [
        (point, Outcome(summary["status"], studies.finite_score(summary["score"]), str(run.directory), number, None))
        for number, (point, run, summary) in enumerate(zip(points, runs, summaries))
    ]


def study_name(point: Point, config: Sequence[str], common: Iterable[str], plan: Plan | None) -> str:
    """Return the default name of a study, made of its configs' names, the overrides that its trials share, and the pruner.

    Args:
        point: any point of the study.
        config: config files or names.
        common: keys of the overrides that all trials share.
        plan: plan by which settings are pruned; None without pruning.
    """
    overrides = (override_text(key, point[key]) for key in sorted(common))
    pruner = [f"pruner={plan.rule}"] if plan else []
    return short_folder_name(",".join(["+".join(Path(path).stem for path in config), *overrides, *pruner]))


def parse_common(path: str, common: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the overrides that all trials share, once for all trials.

    The values whose type depends on an axis of the grid stay `OverrideText`, to be parsed for each point.

    Args:
        path: a config file or name; values are parsed to the type that the key has in this config.
        common: the overrides, by key.
    """
    try:
        point = parse_values({"config": path, **common})
    except BadInput:  # raised again for the first point, unless an axis adds what is missing
        return dict(common)
    return {key: point[key] for key in common}


def make_space(
    config: Sequence[str], common: Mapping[str, Any], search: Sequence[str], work_dir: str
) -> tuple[dict[str, Any], Point]:
    """Return the search space of the flag --search in the form that `Search` takes, and one point in the space.

    Args:
        config: config files or names; there must be exactly one.
        common: config values by key, the same in all trials.
        search: axes or ranges, as `parse_axis` reads them.

    Raises:
        BadInput: an end of a range is not valid.
    """
    if len(config) > 1:
        raise BadInput(
            f"--search takes one config, and --config has {len(config)}; type one sweep command for each config"
        )
    axes = dict(parse_axis(config[0], text) for text in search)
    point = {}
    ends = [
        {key: axis[end] if isinstance(axis, dict) else axis[0] for key, axis in axes.items()} for end in ("high", "low")
    ]
    others = [{**ends[1], key: value} for key, axis in axes.items() if isinstance(axis, list) for value in axis[1:]]
    for point in (*others, *ends):  # check every value of a list, and both ends of a range, before anything is trained
        point = parse_values({"config": config[0], **common, **point})
        try:
            studies.make_run(config[0], {k: v for k, v in point.items() if k != "config"}, 0, work_dir)
        except MissingKeys as error:
            raise missing_on_axis(error, axes) from None
    # A key that the config file does not have gets its type from the signature of what its section names, so parse it here.
    for key, axis in axes.items():
        if isinstance(axis, list):
            axes[key] = [parse_values({**point, **common, key: value})[key] for value in axis]
        elif isinstance(parse_values({**point, **common, key: OverrideText(axis["low"])})[key], float):
            axes[key] = axis | {end: float(axis[end]) for end in ("low", "high")}
    return {"config": list(config), **{key: [point[key]] for key in common}, **axes, "seed": [0]}, point


def missing_on_axis(error: MissingKeys, axes: Mapping[str, Any]) -> BadInput:
    """Return the error for a name on an axis that needs keys which another name on the axis does not take.

    A flag `--config.<key>` would give the keys to all names. Return `error` if no such name is on an axis.

    Args:
        axes: values of the axes by key, as `parse_axis` returns them.
    """
    section = next(iter(error.values)).rpartition(".")[0]
    names = axes.get(f"{section}.name", [])
    table = registries().get(section, {})
    arguments = {name: keyword_annotations(look_up(table, name)) for name in names if isinstance(name, str)}
    keys = {key: key.rpartition(".")[2] for key in error.values}
    takes = {name: all(key in arguments[name] for key in keys.values()) for name in arguments}
    if all(takes.values()) or not any(takes.values()):
        return error
    needs, lacks = (next(name for name in takes if takes[name] is value) for value in (True, False))
    words = " ".join(f"{key}=<{fits}>" for key, fits in error.values.items())
    return BadInput(
        f"axis {section}.name: {needs} needs {', '.join(keys)}, which {lacks} does not take; leave {needs} out of the axis, and "
        f'compare it by imbalance compare --variant="{section}.name={needs} {words}"'
    )


def check_search(location: StudyLocation, space: Mapping[str, Any]) -> None:
    """Raise `BadInput` if the study has trials whose fixed values differ from those of this search.

    Optuna's sampler would learn from such trials, although they are not comparable.

    Args:
        space: the search space, as `Search` takes it.
    """
    fixed = {key: values for key, values in space.items() if isinstance(values, list) and len(values) == 1}
    for point, trial in studies.points_of(studies.open_study(location)):
        other = [key for key, values in fixed.items() if key != "seed" and point.get(key) not in values]
        if other := [*other, *(point.keys() - space.keys())]:
            raise BadInput(
                f"study {location.name}: its trial {trial.number} has {other[0]}={point.get(other[0], 'as in the config file')}, "
                "which this search does not vary; type another name, --study=<name>. Finished runs are then read, not trained again"
            )


def parse_values(point: Mapping[str, Any]) -> Point:
    """Return the point with its `OverrideText` values, typed on the command line, parsed to the types of the config."""
    changes = {key: value for key, value in point.items() if key not in ("config", "seed")}
    if not any(isinstance(value, OverrideText) for value in changes.values()):
        return dict(point)
    config = override(load(config_file(point["config"])), changes)

    def value(key: str) -> Any:
        parsed = value_at(config, key)
        return parsed.to_dict() if hasattr(parsed, "to_dict") else parsed

    return {key: value(key) if key in changes else old for key, old in point.items()}


def parse_axis(path: str, text: str) -> tuple[str, Any]:
    """Parse `optim.lr=0.01,0.1` to ("optim.lr", [0.01, 0.1]), and `optim.lr=1e-3:1:log` to a key and a range.

    If the config does not have the key, the values stay `OverrideText`, to be parsed later.

    Args:
        path: a config file or name; values are parsed to the type that the key has in this config.
    """
    key, _, axis = text.partition("=")
    low, *rest = axis.split(":")
    is_range = bool(rest) and rest[1:] in ([], ["log"])
    ends, values = {}, []
    try:
        if is_range:
            ends = {"low": parse_literal(low), "high": parse_literal(rest[0])}
            valid = ends["low"] < ends["high"]
        else:
            values = split_values(axis)
            valid = "" not in values
    except (ValueError, SyntaxError, TypeError):
        valid = False
    if not valid:
        raise BadInput(
            f"{text!r} is neither a list nor a range of values; type <key>=<value>,<value>,… or <key>=<low>:<high>[:log], "
            "with <low> smaller than <high>"
        )
    base = load(config_file(path))
    known = flatten(base)
    if is_range:
        # The ends of a range of floats can be typed as integers, as in 0:1, so take the type from the config file.
        whole = not isinstance(known.get(key), float) and all(isinstance(end, int) for end in ends.values())
        numbers = ends if whole else {name: float(end) for name, end in ends.items()}
        return key, numbers | {"log": rest[1:] == ["log"]}
    if key in known:
        return key, [value_at(override(base, {key: OverrideText(value)}), key) for value in values]
    return key, [OverrideText(value) for value in values]


def split_values(text: str) -> list[str]:
    """Split a text at its commas, except at commas within brackets: `(4,),(4,4)` has two values."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


class Setting(NamedTuple):
    """Combination of config values, with the scores of its trials, which differ only in the seed.

    score: mean score over the seeds that did not diverge; nan if there are none.
    rank: number by which settings are compared: the mean score, if each diverged seed gets the lowest possible score.
    seeds: number of trials with a score.
    diverged: number of diverged trials.
    best: run directory of the run with the best score; None if no run has a score.
    pruned: number of epochs after which the setting was pruned, and its mean over seeds then; None if it was not pruned.
    """

    values: dict[str, Any]
    score: float
    rank: float
    seeds: int
    diverged: int
    best: str | None
    pruned: tuple[int, float] | None = None


def setting_of(values: Mapping[str, Any], trials: Sequence[Outcome], lowest: float) -> Setting:
    """Return the `Setting` of some config values, with the scores of its trials.

    Unfinished and crashed trials do not count.

    Args:
        values: config values that the trials have in common.
        lowest: smallest possible score.
    """
    done = [(trial.score, trial.directory) for trial in trials if trial.score is not None]
    diverged = sum(trial.status == "diverged" for trial in trials)
    scores = [score for score, _ in done]
    _, best = max(done, key=lambda pair: pair[0], default=(nan, None))
    return Setting(
        dict(values),
        sum(scores) / len(scores) if scores else nan,
        mean_with_diverged([*scores, *[nan] * diverged], lowest),
        len(done),
        diverged,
        best,
        next((trial.pruned for trial in trials if trial.pruned), None),
    )


def best_setting(settings: Sequence[Setting]) -> dict[str, Any]:
    """Return the unpruned setting with the best rank as a dictionary for JSON; its values are None if no run has a score."""
    best = max(unpruned(settings), key=lambda setting: setting.rank, default=None)
    if best is None or not best.seeds:
        nothing: dict[str, Any] = {"setting": None, "score": None, "seeds": 0, "diverged": 0, "best": None}
        return nothing
    return {
        "setting": best.values,
        "score": best.score,
        "seeds": best.seeds,
        "diverged": best.diverged,
        "score_with_diverged": best.rank,
        "best": best.best,
    }


def unpruned(settings: Iterable[Setting]) -> list[Setting]:
    """Return the settings that were not pruned: the score of a pruned setting is of an early epoch, not to be selected."""
    return [setting for setting in settings if not setting.pruned]


def report_study(location: StudyLocation, wanted: Callable[[Point], bool]) -> int:
    """Print the report of `report` on the points of a study for which `wanted` is true, and return the exit status."""
    study = studies.open_study(location)
    trials = studies.outcomes(study, wanted)
    for point, trial in trials:
        if trial.pruned:  # perhaps on another machine, whose files are not here
            mark_pruned(studies.run_of(point, location.work_dir).directory, trial.pruned[0])
    status = report(trials, location.shown_url, plan_of(study))
    explain_missing_runs([trial for _, trial in trials])
    return status


def explain_missing_runs(trials: Sequence[Outcome]) -> None:
    """Say on stderr which finished runs of a study have no run directory here; the study keeps their scores only.

    They may be on another machine, or removed.
    """
    finished = [trial.directory for trial in trials if trial.score is not None and trial.directory]
    missing = [directory for directory in finished if not Path(directory).is_dir()]
    if missing:
        print(
            f"{len(missing)} of {counted(len(finished), 'finished run')} have no run directory on this machine, such as "
            f"{missing[0]}; the scores are those that the study keeps; to train removed runs again, type another --study=<name>",
            file=sys.stderr,
        )


def explain_missing_scores(trials: Sequence[Outcome]) -> None:
    """Say on stderr how many finished runs have no score, because `config.score` has no value on their data."""
    finished = [trial for trial in trials if trial.status == "done"]
    if unscored := [trial for trial in finished if trial.score is None]:
        print(
            f"finished runs without a score: {len(unscored)} of {len(finished)}, because config.score has no value on their data; "
            "choose another metric with --config.score",
            file=sys.stderr,
        )


def report(trials: Sequence[tuple[Point, Outcome]], url: str | None, plan: Plan | None = None) -> int:
    """Print a table of every setting's mean score over seeds, and a line of JSON with the best setting.

    A setting is a combination of config values; its trials differ only in the seed. Return the exit status: 1 if a
    trial is unfinished or crashed, else 0.

    Args:
        trials: every point with the outcome of its trial.
        url: the study's storage, to print; None without a study.
        plan: plan by which settings were pruned; None without pruning.

    Raises:
        BadInput: trials were trained on different data.
    """
    check_same_data(trials)
    by_setting: dict[str, list[tuple[Point, Outcome]]] = {}
    for point, trial in trials:
        values = {key: value for key, value in point.items() if key != "seed"}
        by_setting.setdefault(studies.canonical(values), []).append((values, trial))
    keys = list(dict.fromkeys(key for pairs in by_setting.values() for key in pairs[0][0]))
    rows, settings, lowest = [], [], 0.0
    for pairs in by_setting.values():
        values, of_setting = pairs[0][0], [trial for _, trial in pairs]
        limits = bounds(values.get("score") or score_of(values["config"]))
        lowest = limits[0]
        setting = setting_of(values, of_setting, lowest)
        settings.append(setting)
        over_seeds = mean([nan if trial.score is None else trial.score for trial in of_setting], *limits)
        # The rank of a setting whose seeds all diverged is below that of every other one, and its mean is the lowest score.
        ranked = f"{max(setting.rank, lowest):.3f}" if setting.seeds or setting.diverged else "–"
        score, early = over_seeds.text(), ""
        if setting.pruned:
            epoch, early_mean = setting.pruned
            score, ranked, early = "–", "–", f"after epoch {epoch}, at {early_mean:.3f}"
        rows.append([*(values.get(key, "") for key in keys), score, over_seeds.n, setting.diverged, ranked, early])
    heads = [*keys, "score, mean ± 95 % t-interval", "n", "diverged", f"mean, diverged as {lowest:g}", "pruned"]
    shown = [*[True] * (len(heads) - 2), any(setting.diverged for setting in settings), plan is not None]
    print(markdown(list(compress(heads, shown)), [list(compress(row, shown)) for row in rows]), end="")
    counts: dict[str, int] = {}
    for _, trial in trials:
        counts[trial.status] = counts.get(trial.status, 0) + 1
    pruning = {"pruner": plan._asdict(), "pruned": len(settings) - len(unpruned(settings))} if plan else {}
    print(json.dumps({"study": url, "trials": counts, **pruning, **best_setting(settings)}))
    if plan:
        print(f"pruner: {describe(plan)}", file=sys.stderr)
    explain_choice(settings, lowest)
    explain_missing_scores([trial for _, trial in trials])
    if left := counts.get("unfinished", 0) + counts.get("lost", 0):
        print(f"{left} trials are unfinished; type the same command again to resume them", file=sys.stderr)
    return 1 if left or counts.get("crashed") else 0


def explain_choice(settings: Sequence[Setting], lowest: float) -> None:
    """Explain on stderr why the best setting is chosen, if another has a higher mean without its diverged seeds.

    Args:
        lowest: smallest possible score, which each diverged seed counts as.
    """
    rivals = unpruned(settings)
    best = max(rivals, key=lambda setting: setting.rank, default=None)
    survivors = [setting for setting in rivals if best and setting.score > best.score]
    for other in survivors[:1]:
        values = ", ".join(f"{key}={value}" for key, value in other.values.items())
        total = other.seeds + other.diverged
        print(
            f"{values}: mean {other.score:.3f} over {other.seeds} of {total} seeds, but {other.diverged} diverged and count as "
            f"{lowest:g}, so another setting is the best",
            file=sys.stderr,
        )


@functools.cache
def score_of(config: str) -> str:
    """Return the name of the metric that is the score of a config, without overrides."""
    return resolve(config, {})[0].score


def check_same_data(trials: Iterable[tuple[Point, Outcome]]) -> None:
    """Raise `BadInput` if two trials with the same `config.data` and seed were trained on different data.

    Machines whose files are not the same can share a study.
    """
    first: dict[str, Outcome] = {}
    for point, trial in trials:
        part = {key: value for key, value in data_part(point).items() if key != "data_dir"}
        other = first.setdefault(studies.canonical(part), trial) if trial.data else trial
        if trial.data != other.data:
            raise BadInput(
                f"trials {other.number} and {trial.number} of the study were trained on different data, so their scores cannot be "
                "compared; put the same data on all machines, and type the same command again: it "
                "trains again the trials whose data were not those"
            )
