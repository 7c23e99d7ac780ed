"""What the page says of all runs: its settings, what differs between them, and each run's metrics by every rule."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from imbalance.config.metric_names import SCORE_METRICS, SUMMARY_METRICS
from imbalance.metrics.aggregates import bootstrap, improvement, interquartile_mean, profile
from imbalance.metrics.intervals import FEWEST, SMALL, bounds, expected_best, quantiles
from imbalance.metrics.scores import Reliability, probabilities, reliability, score_metrics
from imbalance.report.collect import Row
from imbalance.report.saved_runs import OF_GROUPS, evaluated_over, readable_evaluations
from imbalance.report.settings import common, own_rule, task_labels, varying

Facts = dict[str, Any]
# What a rule is called, the labels that it reads, and the key of metrics.jsonl whose largest value chooses the epoch.
RULES: tuple[tuple[str, str, str], ...] = (
    ("last epoch", "none", "epoch"),
    ("best average accuracy", "val classes", "val/accuracy"),
    ("best balanced accuracy", "val classes", "val/balanced_accuracy"),
    ("best worst class", "val classes", "val/worst_class_recall"),
    ("best group average", "val groups", "val/group_balanced_accuracy"),
    ("best worst group", "val groups", "val/worst_group_accuracy"),
    ("oracle", "test groups", "test/worst_group_accuracy"),
)
OWN_RULE = "as each run chose"
LOWER_IS_BETTER = {"loss", "nll", "brier", "ece", "ece_equal_mass"}
PLAIN = {"loss", "nll", "brier", "mcc"}  # not shown in %

CURVES = ("accuracy", "balanced_accuracy", "worst_group_accuracy", "loss")
CURVE_POINTS = 80


def facts(work_dir: Path, rows: list[Row], metrics: Sequence[str]) -> Facts:
    """Everything that index.html.j2 embeds but the runs' own details.

    A setting is what the runs of several seeds share. Settings that differ in nothing but the data section of their
    configs are one method on several tasks.
    """
    keys: dict[tuple[str, str], int] = {}
    for row in rows:
        keys.setdefault((row["name"], row["overrides"]), len(keys))
    of_setting = [keys[row["name"], row["overrides"]] for row in rows]
    first = {setting: row for row, setting in zip(reversed(rows), reversed(of_setting))}
    columns = varying([first[i] for i in range(len(keys))])
    tasks = task_labels([first[i] for i in range(len(keys))])
    runs = [of_run(work_dir / row["run"], row, setting) for row, setting in zip(rows, of_setting)]
    methods = method_names([first[i] for i in range(len(keys))])
    chosen = chosen_by_val(rows, of_setting, [(name, task) for (name, _), task in zip(keys, tasks)])
    settings = []
    for (name, overrides), i in keys.items():
        row = first[i]
        columns_here = {key: row[f"config.{key}"] for key in columns if f"config.{key}" in row}
        settings.append(
            {
                "name": name,
                "method": methods[i],
                "chosen": i in chosen,  # of its method's settings on this task
                "overrides": overrides,
                "columns": columns_here,
                "task": tasks[i],
                "rule": own_rule(row),
                "curves": mean_curves([run["curves"] for run in runs if run["setting"] == i]),
                "reliability": pooled([run["reliability"] for run in runs if run["setting"] == i]),
            }
        )
    shown = {key.removeprefix("test/") for run in runs for key in run["metrics"][OWN_RULE]}
    order = [*metrics, *SUMMARY_METRICS, *SCORE_METRICS]
    names = [name for name in dict.fromkeys(order) if name in shown]
    over_tasks = aggregates(settings, runs, metrics)
    for run in runs:
        run["values"] = {
            rule: [_short(values.get(f"test/{name}")) for name in names] for rule, values in run.pop("metrics").items()
        }
        del run["curves"], run["reliability"]
    return {
        "statuses": dict(Counter(row["status"] for row in rows).most_common()),
        "settings": settings,
        "columns": columns,
        "tasks": list(dict.fromkeys(tasks)),
        "common": common(rows, columns),
        "runs": runs,
        "metrics": [describe_metric(name, evaluated_over(rows, "test")) for name in names],
        "rules": [{"name": OWN_RULE, "labels": None}, *({"name": n, "labels": labels} for n, labels, _ in RULES)],
        "t": [round(float(t), 4) for t in quantiles(max(Counter(of_setting).values()))],
        "aggregates": over_tasks,
        "tuning": tuning(rows, of_setting, settings),
        "few": SMALL,
    }


def of_run(directory: Path, row: Row, setting: int) -> dict[str, Any]:
    """A run's own numbers; `metrics` by rule, of what the rule's epoch is known."""
    done = row["status"] == "done"
    lines, damage = readable_evaluations(directory)
    own = {key: value for key, value in row.items() if key.startswith("test/") and value is not None} if done else {}
    curve, extra = None, {}
    if done and (saved := read_predictions(directory)):
        logits, targets = saved["logits"], saved["targets"]
        curve = reliability(probabilities(logits), targets)
        names = [str(label) for label in range(logits.shape[1])]
        extra = {f"test/{k}": v for k, v in score_metrics(logits, targets, names).items() if k in SCORE_METRICS}
    by_rule = {OWN_RULE: extra | own}
    if done and row.get("config.head.name", "none") == "none" and any("test/accuracy" in line for line in lines):
        by_rule |= {name: chosen for name, _, key in RULES if (chosen := choose(lines, key))}
    prefix = "test/group_accuracy/"
    return {
        "setting": setting,
        "seed": row["seed"],
        "status": row["status"],
        "path": row["run"],
        "score": _short(row["score"]),
        "seconds": None if row["seconds"] is None else round(row["seconds"], 1),
        "selected": row["selected_epoch"],
        "warnings": [*(row.get("warnings") or []), *damage],
        "groups": {key.removeprefix(prefix): _short(value) for key, value in own.items() if key.startswith(prefix)},
        "examples": {k.removeprefix("test/examples/"): n for k, n in row.items() if k.startswith("test/examples/")},
        "metrics": by_rule,
        "curves": thinned(lines),
        "reliability": curve,
    }


def read_predictions(directory: Path) -> dict[str, np.ndarray] | None:
    """The arrays of predictions/test.npz; None where it is not there, damaged, or has no examples."""
    try:
        with open(directory / "predictions" / "test.npz", "rb") as file, np.load(file) as saved:
            found = {key: saved[key] for key in ("logits", "targets", "groups", "indices")}
            members = saved.get("members")
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return None
    logits, *labels = found.values()
    if logits.ndim != 2 or not logits.size or any(of.shape != logits.shape[:1] for of in labels):
        return None
    in_range = found["targets"].min() >= 0 and found["targets"].max() < logits.shape[1]
    if members is not None:  # of evaluation groups
        in_range &= members.ndim == 2 and len(members) == len(logits) and members.dtype == bool
        found["members"] = members
    return found if in_range and np.isfinite(logits).all() else None


def choose(lines: list[dict[str, Any]], key: str) -> dict[str, Any] | None:
    """The evaluation whose `key` is largest, the first of equal ones; None where no evaluation has it or its test."""
    lines = [line for line in lines if line.get(key) is not None and line.get("test/accuracy") is not None]
    return max(lines, key=lambda line: line[key]) if lines else None


def thinned(lines: list[dict[str, Any]], points: int = CURVE_POINTS) -> dict[str, list[Any]]:
    """Columns of metrics.jsonl that are drawn, of at most `points` evaluations, spread evenly, the last among them."""
    if not lines:
        return {}
    at = sorted({round(i) for i in np.linspace(0, len(lines) - 1, min(points, len(lines)))})
    keys = [f"{split}/{metric}" for split in ("train", "val", "test") for metric in CURVES]
    keys += [key for key in lines[0] if key.startswith("val/group_accuracy/")]
    return {"epoch": [lines[i]["epoch"] for i in at]} | {
        key: [_short(lines[i].get(key)) for i in at] for key in keys if key in lines[0]
    }


def mean_curves(curves: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """By epoch, the mean over the runs that have it."""
    keys = dict.fromkeys(key for curve in curves for key in curve if key != "epoch")
    epochs = sorted({epoch for curve in curves for epoch in curve.get("epoch", [])})
    place = {epoch: i for i, epoch in enumerate(epochs)}
    found = {"epoch": epochs}
    for key in keys:
        values = np.full((len(curves), len(epochs)), np.nan)
        for i, curve in enumerate(curves):
            for epoch, value in zip(curve.get("epoch", []), curve.get(key, [])):
                values[i, place[epoch]] = np.nan if value is None else value
        there = ~np.isnan(values)
        sums, counts = np.where(there, values, 0).sum(0), there.sum(0)
        found[key] = [_short(total / n) if n else None for total, n in zip(sums, counts)]
    return found


def pooled(curves: list[Reliability | None]) -> list[dict[str, float]]:
    """The examples of all seeds in ten bins of equal width: confidence, accuracy and how many there are."""
    found = [curve for curve in curves if curve]
    if not found:
        return []
    confidence, accuracy, count = (np.concatenate(parts) for parts in zip(*found))
    place = np.minimum((confidence * 10).astype(int), 9)
    return [
        {
            "confidence": _short(np.average(confidence[inside], weights=count[inside])),
            "accuracy": _short(np.average(accuracy[inside], weights=count[inside])),
            "count": int(count[inside].sum()),
        }
        for inside in (place == b for b in range(10))
        if inside.any()
    ]


def method_names(firsts: list[Row]) -> list[str]:
    """The config files' names without that of the data set, and without further words that all of them begin with."""
    names = [row["name"].removeprefix(f"{row.get('config.data.name', '')}_").split("_") for row in firsts]
    shared = 0
    while all(len(words) > shared + 1 and words[shared] == names[0][shared] for words in names) and len(firsts) > 1:
        shared += 1
    return ["_".join(words[shared:]) for words in names]


def chosen_by_val(rows: list[Row], of_setting: list[int], alike: list[tuple[str, str]]) -> set[int]:
    """Of the settings of one config file on one task (`alike` of both) the one with the best mean score on val.

    Over the seeds at which all of them have a score, where there are such: a setting that was run over more seeds than
    the others is judged by those that it shares with them, and of equal ones it is the one that somebody went on with.
    """
    scores: dict[int, dict[int, float]] = {setting: {} for setting in of_setting}
    for row, setting in zip(rows, of_setting):
        if row["score"] is not None:
            scores[setting][row["seed"]] = row["score"]
    together: dict[tuple[str, str], list[int]] = {}
    for setting in scores:
        together.setdefault(alike[setting], []).append(setting)
    chosen = set()
    for settings in together.values():
        done = [setting for setting in settings if scores[setting]] or settings[:1]
        shared = set.intersection(*(set(scores[setting]) for setting in done))

        def merit(setting: int, shared: set[int] = shared) -> tuple[float, int]:
            found = [score for seed, score in scores[setting].items() if seed in shared or not shared]
            return (round(sum(found) / len(found), 9) if found else 0.0), len(scores[setting])

        chosen.add(max(done, key=merit))
    return chosen


def tuning(rows: list[Row], of_setting: list[int], settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By config file and task with at least three settings: the score that the best of k of them is expected to have."""
    scores: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row, setting in zip(rows, of_setting):
        if row["score"] is not None:
            key = (row["name"], settings[setting]["task"])
            scores.setdefault(key, {}).setdefault(setting, []).append(row["score"])
    methods = {setting["name"]: setting["method"] for setting in settings}
    return [
        {"name": methods[name].replace("_", " "), "task": task, "k": k + 1, "score": _short(value)}
        for (name, task), by_setting in scores.items()
        if len(by_setting) >= 3
        for k, value in enumerate(expected_best([float(np.mean(found)) for found in by_setting.values()]))
    ]


def aggregates(
    settings: list[dict[str, Any]], runs: list[dict[str, Any]], metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """By metric, what rliable says of the methods that were run on all tasks with the same seeds, of two or more tasks.

    A method is, on each task, the setting of it that val chooses.
    """
    tasks = list(dict.fromkeys(setting["task"] for setting in settings))
    found = {}
    for metric in metrics if len(tasks) > 1 else ():
        by_method: dict[str, dict[str, dict[int, float]]] = {}
        for run in runs:
            value = run["metrics"][OWN_RULE].get(f"test/{metric}")
            setting = settings[run["setting"]]
            if value is not None and setting["chosen"]:
                method = setting["method"].replace("_", " ")
                by_method.setdefault(method, {}).setdefault(setting["task"], {})[run["seed"]] = value
        whole = {method: by_task for method, by_task in by_method.items() if len(by_task) == len(tasks)}
        seeds = [set(by_seed) for by_task in whole.values() for by_seed in by_task.values()]
        shared = sorted(set.intersection(*seeds)) if seeds else []
        if len(shared) < FEWEST or metric in LOWER_IS_BETTER:
            continue
        scores = {m: np.array([[by_task[t][s] for s in shared] for t in tasks]) for m, by_task in whole.items()}
        baseline = next((m for name in ("erm", "ce") for m in scores if m == name), next(iter(scores)))
        low = min(float(of.min()) for of in scores.values())
        thresholds = np.linspace(low, 1, 41)
        rows = [
            {
                "method": method,
                "iqm": bootstrap(interquartile_mean, of, paired=False),
                "improvement": None
                if method == baseline
                else bootstrap(improvement, of, scores[baseline], paired=True),
                "profile": [_short(share) for share in profile(of, thresholds)],
            }
            for method, of in scores.items()
        ]
        rows.sort(key=lambda row: -row["iqm"].value)
        found[metric] = {
            "tasks": len(tasks), "seeds": len(shared), "baseline": baseline, "rows": rows,
            "thresholds": [_short(t) for t in thresholds],
        }  # fmt: skip
    return found


def describe_metric(name: str, groups: str) -> dict[str, Any]:
    """
    Args:
        groups: over which groups metrics of groups are, where it must be said.
    """
    low, high = bounds(name)
    label = {"auroc": "AUROC", "auprc": "AUPRC", "nll": "NLL", "ece": "ECE", "ece_equal_mass": "ECE, equal mass",
             "mcc": "MCC", "brier": "Brier score", "g_mean": "G-mean"}.get(name, name.replace("_", " "))  # fmt: skip
    return {
        "name": name,
        "label": f"{label} over {groups}" if groups and name in OF_GROUPS else label,
        "lower": name in LOWER_IS_BETTER,
        "percent": name not in PLAIN,
        "low": low,
        "high": None if high == np.inf else high,
    }


def _short(value: Any) -> float | None:
    """To five digits: what a page needs."""
    return None if value is None or value != value else float(f"{float(value):.5g}")
