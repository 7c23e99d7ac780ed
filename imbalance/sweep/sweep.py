"""Train a config over a grid, or by random or TPE search, and print the score of every setting.

A setting is a combination of config values; its runs differ only in the seed.

    imbalance sweep --config=digits_poly --grid=optim.lr=0.01,0.03,0.1 --seeds=3
    imbalance sweep --config=digits_poly --search=optim.lr=0.001:1:log --sampler=tpe --trials=20

After a kill, type the same command again: it skips the finished runs, and resumes the unfinished runs from their
checkpoints. Typed on several machines that share their files, the command runs one sweep on all of them. With
--launcher=slurm the workers are an array of Slurm jobs. A larger grid adds trials to the study. Optuna's dashboard shows
the study:

    pip install optuna-dashboard && optuna-dashboard sqlite:///runs/sweeps/digits_poly/study.db

Without Optuna a grid is trained too, but on one machine and without a study: the run directories say what is finished.
"""

import ast
import json
import math
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imbalance.config.overrides import OverrideText, value_at
from imbalance.config.resolve import config_file, load, override, resolve
from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.metrics.intervals import bounds, mean
from imbalance.report.tables import markdown
from imbalance.sweep import study as studies
from imbalance.sweep.launch import launch
from imbalance.sweep.runs import check_common_overrides, run_all
from imbalance.sweep.study import Outcome, Point, Search, StudyLocation


def sweep(
    *,
    config: Sequence[str],
    overrides: Mapping[str, Any],
    grid: Sequence[str],
    search: Sequence[str],
    sampler: str,
    trials: int,
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    study: str | None,
    storage: str,
    launcher: str,
    slurm: Sequence[str],
) -> int:
    """Train the trials of an Optuna study until none is left, and print the mean score of each combination of values.

    Args:
        config: config files or names; with several, the grid is trained for each.
        overrides: config values by key, for all trials.
        grid: axes, as `parse_axis` reads them.
        search: axes or ranges that `sampler` searches at seed 0, until the study has `trials` trials.
        jobs: number of workers.
        stacked: largest number of trials that one worker trains as one stacked model.
        study: name of the Optuna study; the first config's name if None.
        storage: URL of Optuna's storage; "" for a file under `work_dir`.

    Returns:
        1 if trials are unfinished or crashed, else 0.
    """
    if bool(grid) == bool(search):
        raise BadInput("a sweep needs either --grid or --search; type one of them, such as --grid=optim.lr=0.01,0.1")
    keys = [text.partition("=")[0] for text in (*grid, *search)]
    if repeated := next((key for key in keys if keys.count(key) > 1), ""):
        raise BadInput(f"{repeated} has two axes; type all of its values in one axis, with commas between them")
    location = StudyLocation(study or Path(config[0]).stem, work_dir, storage)
    common = dict(check_common_overrides(overrides))
    if grid:
        axes = dict(parse_axis(config[0], text) for text in grid)
        points = studies.grid({"config": list(config), **{k: [v] for k, v in common.items()}, **axes, "seed": list(range(seeds))})  # fmt: skip
        points = [parse_values(point) for point in points]
        if not (find_spec("optuna") or study or storage or launcher == "slurm"):
            return report(train_points(points, work_dir, jobs, stacked), None, 0)
        studies.add(location, points)
        search_space = None
    else:
        search_space = make_search(location, config, common, search, sampler, trials)
    crashed = launch(location, search_space, jobs, stacked, launcher, slurm)
    return report(studies.outcomes(studies.open_study(location)), location.url, crashed)


def train_points(points: Sequence[Point], work_dir: str, jobs: int, stacked: int) -> list[tuple[Point, Outcome]]:
    """Train the run of every point without a study, and return every point with its outcome.

    Args:
        jobs: number of worker processes.
        stacked: most runs that one process trains as one stacked model.
    """
    print("Optuna is not installed, so the runs are listed in no study", file=sys.stderr)
    runs = [studies.run_of(point, work_dir) for point in points]
    summaries = run_all(runs, jobs, stacked)
    return [
        (point, Outcome(summary["status"], summary["score"], str(run.directory)))
        for point, run, summary in zip(points, runs, summaries)
    ]


def make_search(
    location: StudyLocation,
    config: Sequence[str],
    common: Mapping[str, Any],
    search: Sequence[str],
    sampler: str,
    trials: int,
) -> Search:
    """Return the search space that the command line describes, and check that the ends of every range are valid.

    Args:
        config: config files or names; there must be exactly one.
        common: config values by key, the same in all trials.
        search: axes or ranges, as `parse_axis` reads them.
    """
    if len(config) > 1:
        raise BadInput(
            f"--search takes one config, and --config has {len(config)}; type one sweep command for each config"
        )
    axes = dict(parse_axis(config[0], text) for text in search)
    point = {}
    for end in ("low", "high"):  # check both ends before anything is trained
        point = {key: axis[end] if isinstance(axis, dict) else axis[0] for key, axis in axes.items()}
        point = parse_values({"config": config[0], **common, **point})
        studies.make_run(config[0], {k: v for k, v in point.items() if k != "config"}, 0, location.work_dir)
    # A key that the config file does not have gets its type from the signature of what its section names, so parse it here.
    for key, axis in axes.items():
        if isinstance(axis, list):
            axes[key] = [parse_values({**point, **common, key: value})[key] for value in axis]
        elif isinstance(parse_values({**point, **common, key: OverrideText(axis["low"])})[key], float):
            axes[key] = axis | {end: float(axis[end]) for end in ("low", "high")}
    space = {"config": list(config), **{key: [point[key]] for key in common}, **axes, "seed": [0]}
    failed = studies.open_study(location).get_trials(states=(studies.import_optuna().trial.TrialState.FAIL,))
    return Search(sampler, trials + len(failed), space)


def parse_values(point: Mapping[str, Any]) -> Point:
    """Return a point (config, overrides, seed) with every `OverrideText` parsed to the type of the config's value."""
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
        path: a config file or name, whose value of the key tells the type.
    """
    key, _, axis = text.partition("=")
    low, *rest = axis.split(":")
    is_range = bool(rest) and rest[1:] in ([], ["log"])
    ends, values = {}, []
    try:
        if is_range:
            ends = {"low": ast.literal_eval(low), "high": ast.literal_eval(rest[0])}
            valid = ends["low"] < ends["high"]
        else:
            values = split_values(axis)
            valid = "" not in values
    except (ValueError, SyntaxError, TypeError):
        valid = False
    if not valid:
        raise BadInput(
            f"{text!r} is neither a list nor a range of values; type <key>=<value>,<value>,… or <key>=<low>:<high>[:log]"
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


def best_setting(by_point: Mapping[tuple, Sequence[Outcome]]) -> dict[str, Any]:
    """Return the config values with the best mean score over seeds, this mean, and the directory of their best run.

    Args:
        by_point: by config values without the seed, the outcomes of the trials of all seeds.
    """
    scores = {
        point: [(trial.score, trial.directory) for trial in trials if trial.score is not None]
        for point, trials in by_point.items()
    }
    means = {point: sum(score for score, _ in values) / len(values) for point, values in scores.items() if values}
    if not means:
        return {"setting": None, "score": None, "seeds": 0, "best": None}
    point = max(means, key=means.__getitem__)
    _, best = max(scores[point], key=lambda value: value[0])
    return {"setting": dict(point), "score": means[point], "seeds": len(scores[point]), "best": best}


def report(outcomes: Sequence[tuple[Point, Outcome]], url: str | None, crashed: int) -> int:
    """Print the mean score of each setting over seeds, and a line of JSON with the best; return the exit status.

    Args:
        outcomes: every point with the outcome of its trial.
        url: URL of the study's storage; None without a study.
        crashed: number of trials that crashed in this command.
    """
    by_point, counts = {}, {}
    for point, trial in outcomes:
        by_point.setdefault(tuple((k, v) for k, v in point.items() if k != "seed"), []).append(trial)
        counts[trial.status] = counts.get(trial.status, 0) + 1
    keys = list(dict.fromkeys(key for point in by_point for key, _ in point))
    rows = []
    for point, trials in by_point.items():
        score = dict(point).get("score") or resolve(dict(point)["config"], {})[0].score
        over_seeds = mean([math.nan if t.score is None else t.score for t in trials], *bounds(score))
        diverged = sum(trial.status == "diverged" for trial in trials)
        rows.append([*(dict(point).get(key, "") for key in keys), over_seeds.text(), over_seeds.n, diverged])
    print(markdown([*keys, "score, mean ± 95 % t-interval", "n", "diverged"], rows), end="")
    best = best_setting(by_point)
    print(json.dumps({"study": url, "trials": counts, **best}))
    left = counts.get("unfinished", 0)
    if left:
        print(f"{left} trials are unfinished; type the same command again to resume them", file=sys.stderr)
    return 1 if left or crashed else 0
