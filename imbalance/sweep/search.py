"""Many runs of one config over a grid, or by random or TPE search, and what came of them.

    imbalance sweep --config=digits_poly --grid=optim.lr=0.01,0.03,0.1 --seeds=3
    imbalance sweep --config=digits_poly --search=optim.lr=0.001:1:log --sampler=tpe --trials=20

The same command goes on after a kill: what is done is never run again, and what was under way goes on from its
checkpoint. Started on several machines with shared files it is one sweep. --launcher=slurm sends the workers to a
cluster as an array instead. A grid that grows adds trials to the study. Optuna's dashboard shows it:

    pip install optuna-dashboard && optuna-dashboard sqlite:///runs/sweeps/digits_poly/study.db
"""

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imbalance.config.overrides import OverrideText, value_at
from imbalance.config.resolve import config_file, load, override
from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.metrics.intervals import bounds, mean
from imbalance.report.tables import markdown
from imbalance.sweep import study as studies
from imbalance.sweep.runs import not_of_seeds
from imbalance.sweep.study import Place, Point, Search
from imbalance.sweep.workers import launch


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
    at_once: int,
    study: str | None,
    storage: str,
    launcher: str,
    slurm: Sequence[str],
) -> int:
    """Work on the study until no trial is left, and print what came of all.

    Args:
        config: files or names; more than one multiply the grid.
        overrides: of all trials.
        grid: axes, see `parse`.
        search: axes or ranges in which `sampler` looks, at seed 0, until there are `trials`.

    Returns:
        1 if trials are left or crashed, else 0.
    """
    if bool(grid) == bool(search):
        raise BadInput("a sweep needs one of --grid and --search")
    keys = [text.partition("=")[0] for text in (*grid, *search)]
    if twice := next((key for key in keys if keys.count(key) > 1), ""):
        raise BadInput(f"{twice}: two axes; put all of its values in one, with commas")
    where = Place(study or Path(config[0]).stem, work_dir, storage)
    common = dict(not_of_seeds(overrides))
    if grid:
        axes = dict(parse(config[0], text) for text in grid)
        points = studies.grid({"config": list(config), **{k: [v] for k, v in common.items()}, **axes, "seed": list(range(seeds))})  # fmt: skip
        studies.add(where, [read(point) for point in points])
        found = None
    else:
        found = search_of(where, config, common, search, sampler, trials)
    crashed = launch(where, found, jobs, at_once, launcher, slurm)
    return report(where, crashed)


def search_of(
    place: Place, config: Sequence[str], common: Mapping[str, Any], search: Sequence[str], sampler: str, trials: int
) -> Search:
    if len(config) > 1:
        raise BadInput("--search takes one config")
    axes = dict(parse(config[0], text) for text in search)
    # The ends of every range, before anything is trained.
    for end in ("low", "high"):
        point = {key: axis[end] if isinstance(axis, dict) else axis[0] for key, axis in axes.items()}
        point = read({"config": config[0], **common, **point})
        studies.configured(config[0], {k: v for k, v in point.items() if k != "config"}, 0, place.work_dir)
    for key, axis in axes.items():  # the values of a section that the config does not have, as that section has them
        if isinstance(axis, list):
            axes[key] = [read({**point, **common, key: value})[key] for value in axis]
        elif isinstance(read({**point, **common, key: OverrideText(axis["low"])})[key], float):
            axes[key] = axis | {end: float(axis[end]) for end in ("low", "high")}
    space = {"config": list(config), **{key: [point[key]] for key in common}, **axes, "seed": [0]}
    failed = studies.open_study(place).get_trials(states=(studies.import_optuna().trial.TrialState.FAIL,))
    return Search(sampler, trials + len(failed), space)


def read(point: Mapping[str, Any]) -> Point:
    """A point whose values are read as its config has them, with all of it said: a new section's as its name asks."""
    changes = {key: value for key, value in point.items() if key not in ("config", "seed")}
    if not any(isinstance(value, OverrideText) for value in changes.values()):
        return dict(point)
    config = override(load(config_file(point["config"])), changes)

    def value(key: str) -> Any:
        found = value_at(config, key)
        return found.to_dict() if hasattr(found, "to_dict") else found

    return {key: value(key) if key in changes else given for key, given in point.items()}


def parse(path: str, text: str) -> tuple[str, Any]:
    """`optim.lr=0.01,0.1` as ("optim.lr", [0.01, 0.1]), and `optim.lr=1e-3:1:log` as a range.

    What the config at `path` does not have is `Written`, still to be read.
    """
    key, _, values = text.partition("=")
    low, *rest = values.split(":")
    ranges = rest and rest[1:] in ([], ["log"])
    try:
        if ranges:
            axis = {"low": ast.literal_eval(low), "high": ast.literal_eval(rest[0]), "log": rest[1:] == ["log"]}
            if not axis["low"] < axis["high"]:
                raise ValueError
        else:
            axis = apart(values)
    except (ValueError, SyntaxError, TypeError):
        axis = []
    if not axis or "" in axis:
        raise BadInput(f"{text!r}: not <key>=<value>,<value>,… or <key>=<low>:<high>[:log]")
    base = load(config_file(path))
    known = flatten(base)
    if ranges:
        # As the config file has it: 1 is no learning rate, 1.0 is.
        whole = not isinstance(known.get(key), float) and all(isinstance(axis[end], int) for end in ("low", "high"))
        return key, axis | {end: axis[end] if whole else float(axis[end]) for end in ("low", "high")}
    if key in known:
        axis = [value_at(override(base, {key: OverrideText(value)}), key) for value in axis]
        return key, axis
    return key, [OverrideText(value) for value in axis]


def apart(text: str) -> list[str]:
    """The values between commas, but for the commas within brackets: `(4,),(4,4)` are two."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def best_setting(by_point: Mapping[tuple, Sequence[Any]]) -> dict[str, Any]:
    """The setting with the best mean score over its seeds, that score, and of its runs the best one's directory."""
    complete = {point: [trial for trial in trials if trial.value is not None] for point, trials in by_point.items()}
    means = {point: sum(t.value for t in trials) / len(trials) for point, trials in complete.items() if trials}
    if not means:
        return {"setting": None, "score": None, "seeds": 0, "best": None}
    point = max(means, key=means.__getitem__)
    best = max(complete[point], key=lambda trial: trial.value)
    return {
        "setting": dict(point),
        "score": means[point],
        "seeds": len(complete[point]),
        "best": best.user_attrs["run_directory"],
    }


def report(place: Place, crashed: int) -> int:
    """Print the mean of the score over seeds for every point, and one line of JSON."""
    found = studies.points_of(studies.open_study(place))
    by_point, counts = {}, {}
    for point, trial in found:
        by_point.setdefault(tuple((k, v) for k, v in point.items() if k != "seed"), []).append(trial)
        counts[studies.status(trial)] = counts.get(studies.status(trial), 0) + 1
    keys = list(dict.fromkeys(key for point in by_point for key, _ in point))
    rows = []
    for point, trials in by_point.items():
        score = dict(point).get("score") or load(config_file(dict(point)["config"])).score
        over_seeds = mean([studies.score(t) for t in trials], *bounds(score))
        diverged = sum(studies.status(t) == "diverged" for t in trials)
        rows.append([*(dict(point).get(key, "") for key in keys), over_seeds.text(), over_seeds.n, diverged])
    print(markdown([*keys, "score, mean ± 95 % t-interval", "n", "diverged"], rows), end="")
    best = best_setting(by_point)
    print(json.dumps({"study": place.url, "trials": counts, **best}))
    left = counts.get("unfinished", 0)
    if left:
        print(f"{left} trials unfinished; the same command goes on", file=sys.stderr)
    return 1 if left or crashed else 0
