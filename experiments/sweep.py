"""Many runs of one config over a grid, or by random or TPE search, and what came of them.

    python -m experiments.sweep --config=configs/digits_poly.py --grid=optim.lr=0.01,0.03,0.1 --seeds=3
    python -m experiments.sweep --config=configs/digits_poly.py --search=optim.lr=0.001:1:log --sampler=tpe --trials=20

The same command goes on after a kill: what is done is never run again, and what was under way goes on from its
checkpoint. Started on several machines with shared files it is one sweep. --launcher=slurm sends the workers to a
cluster as an array instead. A grid that grows adds trials to the study. Optuna's dashboard shows it:

    pip install optuna-dashboard && optuna-dashboard sqlite:///runs/sweeps/digits_poly/study.db
"""

import ast
import json
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments import study as studies
from experiments.intervals import mean
from experiments.launch import launch, place
from experiments.runs import SEEDS, exit_status
from experiments.study import Place, Search
from imbalance.config import flatten, load
from imbalance.errors import BadInput

CONFIG = flags.DEFINE_list("config", [], "Config files; more than one multiplies the grid.")
GRID = flags.DEFINE_multi_string("grid", [], "<key>=<value>,<value>,…; several multiply.")
SEARCH = flags.DEFINE_multi_string("search", [], "<key>=<low>:<high>[:log], or <key>=<value>,<value>,…; at seed 0.")
SAMPLER = flags.DEFINE_enum("sampler", "tpe", ["random", "tpe"], "What chooses in --search.")
TRIALS = flags.DEFINE_integer("trials", 20, "Trials of --search, in all.", lower_bound=1)


def sweep() -> int:
    if not CONFIG.value or bool(GRID.value) == bool(SEARCH.value):
        raise BadInput("a sweep needs --config and one of --grid and --search")
    where = place(Path(CONFIG.value[0]).stem)
    if GRID.value:
        axes = dict(parse(CONFIG.value[0], text) for text in GRID.value)
        points = studies.grid({"config": CONFIG.value, **axes, "seed": list(range(SEEDS.value))})
        search = None
        studies.add(where, points)
    else:
        search = search_of(where)
    crashed = launch(where, search)
    return report(where, crashed)


def search_of(place: Place) -> Search:
    if len(CONFIG.value) > 1:
        raise BadInput("--search takes one config")
    axes = dict(parse(CONFIG.value[0], text) for text in SEARCH.value)
    # The ends of every range, before anything is trained.
    for end in ("low", "high"):
        point = {key: axis[end] if isinstance(axis, dict) else axis[0] for key, axis in axes.items()}
        studies.configured(CONFIG.value[0], point, 0, place.work_dir)
    failed = studies.open_study(place).get_trials(states=(studies.import_optuna().trial.TrialState.FAIL,))
    return Search(SAMPLER.value, TRIALS.value + len(failed), {"config": CONFIG.value, **axes, "seed": [0]})


def parse(path: str, text: str) -> tuple[str, Any]:
    """`optim.lr=0.01,0.1` as ("optim.lr", [0.01, 0.1]), and `optim.lr=1e-3:1:log` as a range."""
    key, _, values = text.partition("=")
    low, *rest = values.split(":")
    ranges = rest and rest[1:] in ([], ["log"])
    try:
        if ranges:
            axis = {"low": ast.literal_eval(low), "high": ast.literal_eval(rest[0]), "log": rest[1:] == ["log"]}
            if not axis["low"] < axis["high"]:
                raise ValueError
        else:
            axis = list(ast.literal_eval(f"[{values}]")) if values else []
    except (ValueError, SyntaxError, TypeError):
        axis = values.split(",") if not rest else []  # names need no quotes
    if not axis:
        raise BadInput(f"{text!r}: not <key>=<value>,<value>,… or <key>=<low>:<high>[:log]")
    # As the config file has it: 1 is no learning rate, 1.0 is.
    if Path(path).is_file() and isinstance(flatten(load(path)).get(key), float):
        try:
            axis = {k: v if k == "log" else float(v) for k, v in axis.items()} if ranges else [*map(float, axis)]
        except (TypeError, ValueError):
            raise BadInput(f"{text!r}: config.{key} is a number") from None
    return key, axis


def report(place: Place, crashed: int) -> int:
    """Print the mean of the score over seeds for every point, and one line of JSON."""
    found = studies.points_of(studies.open_study(place))
    by_point, counts = {}, {}
    for point, trial in found:
        by_point.setdefault(tuple((k, v) for k, v in point.items() if k != "seed"), []).append(trial)
        counts[studies.status(trial)] = counts.get(studies.status(trial), 0) + 1
    keys = list(dict.fromkeys(key for point in by_point for key, _ in point))
    print("| " + " | ".join(keys) + " | score, mean ± 95 % t-interval | n | diverged |")
    print("|---" * (len(keys) + 3) + "|")
    for point, trials in by_point.items():
        over_seeds, diverged = (
            mean([studies.score(t) for t in trials]),
            sum(studies.status(t) == "diverged" for t in trials),
        )
        values = " | ".join(str(dict(point).get(key, "")) for key in keys)
        print(f"| {values} | {over_seeds.text()} | {over_seeds.n} | {diverged} |")
    complete = [(point, trial) for point, trial in found if trial.value is not None]
    best = max(complete, key=lambda pair: pair[1].value, default=None)
    print(json.dumps({"study": place.url, "trials": counts, "best": best and best[1].user_attrs["run_directory"]}))
    left = counts.get("unfinished", 0)
    if left:
        print(f"{left} trials unfinished; the same command goes on", file=sys.stderr)
    return 1 if left or crashed else 0


def main(argv: list[str]) -> int:
    return exit_status(sweep, argv)


if __name__ == "__main__":
    app.run(main)
