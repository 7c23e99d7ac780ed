"""Collect the page's data about all runs together.

A setting is a config file with overrides; its runs differ only in the seed. A task is a data set with its options.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

import numpy as np

from imbalance.config.metric_names import PARITY_METRICS, SCORE_METRICS, SUMMARY_METRICS, in_percent
from imbalance.metrics.aggregates import bootstrap, improvement, interquartile_mean, profile
from imbalance.metrics.intervals import FEWEST, SMALL, bounds, expected_best, mean_with_diverged, quantiles
from imbalance.metrics.scores import equal_width_bins
from imbalance.report.collect import Row, values_under
from imbalance.report.page.contents import RULES, Content, short
from imbalance.report.saved_runs import GROUP_METRICS, evaluation_groups
from imbalance.report.settings import common_values, selection_rule, task_labels, varying_keys

Overview = dict[str, Any]
OWN_RULE = "each run's own rule"
LOWER_IS_BETTER = {"loss", "nll", "brier", "ece", "ece_equal_mass"}


class Shared:
    """Values that several runs have. The page holds each value once, and the runs refer to it by its index."""

    def __init__(self):
        self.indices: dict[str, int] = {}  # by JSON text

    def index(self, value: Any) -> int:
        """Return the index of a value for JSON."""
        return self.indices.setdefault(json.dumps(value, separators=(",", ":")), len(self.indices))

    def entries(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the index of the keys, followed by the values."""
        return [self.index(list(values)), *values.values()]

    def values(self) -> list[Any]:
        """Return all values, in the order of their indices."""
        return [json.loads(text) for text in self.indices]


def overview(rows: Sequence[Row], contents: Sequence[Content], metrics: Sequence[str], shared: Shared) -> Overview:
    """Return the settings, the runs, and their metrics by selection rule, as index.html.j2 embeds them.

    A setting is a config file with overrides. Settings that differ only in the data section of their configs are one
    method on several tasks.

    Args:
        rows: one row for each run, as `collect` returns it.
        contents: what `read_content` returns for each run.
        metrics: test metrics to list first.
        shared: values of the page that several runs have.
    """
    keys: dict[tuple[str, str], int] = {}
    for row in rows:
        keys.setdefault((row["name"], row["overrides"]), len(keys))
    setting_of_run = [keys[row["name"], row["overrides"]] for row in rows]
    first = {setting: row for row, setting in zip(reversed(rows), reversed(setting_of_run))}
    firsts = [first[i] for i in range(len(keys))]
    columns, tasks, methods = varying_keys(firsts), task_labels(firsts), method_names(firsts)
    runs = [run_overview(*run, shared) for run in zip(rows, contents, setting_of_run)]
    contents_of: dict[int, list[Content]] = {}
    for content, setting in zip(contents, setting_of_run):
        contents_of.setdefault(setting, []).append(content)
    chosen = chosen_by_val(rows, setting_of_run, [(name, task) for (name, _), task in zip(keys, tasks)])
    settings = []
    for (name, overrides), i in keys.items():
        row = first[i]
        columns_here = {key: row[f"config.{key}"] for key in columns if f"config.{key}" in row}
        settings.append(
            {
                "name": name,
                "method": methods[i],
                "chosen": i in chosen,  # the best on val among the settings of this method on this task
                "overrides": overrides,
                "columns": columns_here,
                "task": tasks[i],
                "rule": selection_rule(row),
                "curves": mean_curves([content["mean_curves"] for content in contents_of[i]]),
                "reliability": pooled_reliability([content["pooled"] for content in contents_of[i]]),
            }
        )
    shown = {key.removeprefix("test/") for keys in {tuple(run["metrics"][OWN_RULE]) for run in runs} for key in keys}
    order = [*metrics, *SUMMARY_METRICS, *PARITY_METRICS, *SCORE_METRICS]
    names = [name for name in dict.fromkeys(order) if name in shown]
    groups = evaluation_groups(rows, "test")
    over_tasks = aggregates(settings, runs, metrics)
    for run in runs:
        run["values"] = {
            rule: [short(values.get(f"test/{name}")) for name in names] for rule, values in run.pop("metrics").items()
        }
    return {
        "statuses": dict(Counter(row["status"] for row in rows).most_common()),
        "settings": settings,
        "columns": columns,
        "tasks": list(dict.fromkeys(tasks)),
        "common": common_values(rows, columns),
        "runs": runs,
        "metrics": [describe_metric(name, groups) for name in names],
        "rules": [{"name": OWN_RULE, "labels": None}, *({"name": n, "labels": labels} for n, labels, _ in RULES)],
        "t": [round(float(t), 4) for t in quantiles(max(Counter(setting_of_run).values()))],
        "aggregates": over_tasks,
        "tuning": tuning(rows, setting_of_run, settings),
        "few": SMALL,
    }


def run_overview(row: Row, content: Content, setting: int, shared: Shared) -> dict[str, Any]:
    """Return the dictionary of one run in the overview; its key `metrics` has the test metrics by selection rule.

    Args:
        content: what `read_content` returns for the run.
        setting: index of the run's setting.
        shared: values of the page that several runs have.
    """
    own = {}
    if row["status"] == "done":
        own = {key: value for key, value in values_under(row, "test/").items() if value is not None}
    by_rule = {OWN_RULE: content["scores"] | own}
    if row["status"] == "done" and row.get("config.head.name", "none") == "none":
        by_rule |= content["by_rule"]
    prefix = "test/group_accuracy/"
    groups = {key.removeprefix(prefix): short(value) for key, value in values_under(own, prefix).items()}
    examples = {key.removeprefix("test/examples/"): n for key, n in values_under(row, "test/examples/").items()}
    return {
        "setting": setting,
        "seed": row["seed"],
        "status": row["status"],
        "path": row["run"],
        "score": short(row["score"]),
        "seconds": None if row["seconds"] is None else round(row["seconds"], 1),
        "selected": row["selected_epoch"],
        "warnings": [*(row.get("warnings") or []), *content["warnings"]],
        "groups": shared.entries(groups),
        "examples": shared.index(examples),
        "metrics": by_rule,
    }


def mean_curves(curves: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Average the learning curves of several runs: at each epoch, over the runs that have a value at that epoch."""
    keys = dict.fromkeys(key for curve in curves for key in curve if key != "epoch")
    epochs = sorted({epoch for curve in curves for epoch in curve.get("epoch", [])})
    index = {epoch: i for i, epoch in enumerate(epochs)}
    means: dict[str, list[Any]] = {"epoch": epochs}
    for key in keys:
        values = np.full((len(curves), len(epochs)), np.nan)
        for i, curve in enumerate(curves):
            for epoch, value in zip(curve.get("epoch", []), curve.get(key, [])):
                values[i, index[epoch]] = np.nan if value is None else value
        valid = ~np.isnan(values)
        sums, counts = np.where(valid, values, 0).sum(0), valid.sum(0)
        means[key] = [short(total / n) if n else None for total, n in zip(sums, counts)]
    return means


def pooled_reliability(curves: list[Sequence[Sequence[float]] | None]) -> list[dict[str, float | None]]:
    """Pool the reliability curves of several runs into ten bins of equal width.

    Return three values for each bin that has examples: the mean confidence, the accuracy and the number of examples.
    """
    known = [[np.array(values) for values in curve] for curve in curves if curve]
    if not known:
        return []
    confidence, accuracy, count = (np.concatenate(parts) for parts in zip(*known))
    bin_of = equal_width_bins(confidence, 10)
    return [
        {
            "confidence": short(np.average(confidence[inside], weights=count[inside])),
            "accuracy": short(np.average(accuracy[inside], weights=count[inside])),
            "count": int(count[inside].sum()),
        }
        for inside in (bin_of == b for b in range(10))
        if inside.any()
    ]


def method_names(firsts: list[Row]) -> list[str]:
    """Return a short name for the method of each setting.

    The name is that of the config file, without the data set's name and without the words that all names begin with.

    Args:
        firsts: one row for each setting (config with overrides): the row of any of its runs.
    """
    names = [row["name"].removeprefix(f"{row.get('config.data.name', '')}_").split("_") for row in firsts]
    shared = 0
    while all(len(words) > shared + 1 and words[shared] == names[0][shared] for words in names) and len(firsts) > 1:
        shared += 1
    return ["_".join(words[shared:]) for words in names]


def chosen_by_val(rows: Sequence[Row], setting_of_run: list[int], name_and_task: list[tuple[str, str]]) -> set[int]:
    """Return, for every config file and task, the index of the setting with the best mean val score.

    A setting is a config file with overrides, and a task is a data set with its options. The mean is over the seeds
    that all settings of the config file and task have in common. If they have none in common, it is over all seeds of
    each setting. A seed that diverged has the smallest possible score, see `mean_with_diverged`. Of equally good
    settings, the one with more seeds is chosen, because the user probably chose it before training these seeds. A
    setting that a sweep has pruned is not chosen, unless all settings are pruned.

    Args:
        rows: one row for each run.
        setting_of_run: index of the setting of each row.
        name_and_task: config file and task of each setting.
    """
    scores: dict[int, dict[int, float]] = {setting: {} for setting in setting_of_run}
    lowest: dict[int, float] = {}
    for row, setting in zip(rows, setting_of_run):
        if row["status"] == "diverged" or row["score"] is not None:
            scores[setting][row["seed"]] = nan if row["score"] is None else row["score"]
            lowest[setting] = _lowest_score(row)
    pruned = {setting for row, setting in zip(rows, setting_of_run) if row["status"] == "pruned"}
    rivals: dict[tuple[str, str], list[int]] = {}
    for setting in scores:
        rivals.setdefault(name_and_task[setting], []).append(setting)
    chosen = set()
    for every in rivals.values():
        settings = [setting for setting in every if setting not in pruned] or every
        ended = [setting for setting in settings if not all(map(isnan, scores[setting].values()))] or settings[:1]
        shared = set.intersection(*(set(scores[setting]) for setting in ended))

        def merit(setting: int, shared: set[int] = shared) -> tuple[float, int]:
            compared = [score for seed, score in scores[setting].items() if seed in shared or not shared]
            mean = mean_with_diverged(compared, lowest[setting]) if compared else 0.0
            return round(mean, 9), len(scores[setting])

        chosen.add(max(ended, key=merit))
    return chosen


def _lowest_score(row: Row) -> float:
    """Return the smallest value that the score of a run can have."""
    return bounds(str(row.get("config.score", "")))[0]


def tuning(rows: Sequence[Row], setting_of_run: list[int], settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the best val score to expect after k settings have been tried, for each k, config file and task.

    A setting is a config file with overrides, and a task is a data set with its options. Config files with fewer than
    three settings on a task are left out. A run that diverged has the smallest possible score.

    Args:
        rows: one row for each run.
        setting_of_run: index of the setting of each row.
        settings: name, task and method of each setting.
    """
    scores: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row, setting in zip(rows, setting_of_run):
        if row["status"] == "diverged" or row["score"] is not None:
            key = (row["name"], settings[setting]["task"])
            score = _lowest_score(row) if row["score"] is None else row["score"]
            scores.setdefault(key, {}).setdefault(setting, []).append(score)
    methods = {setting["name"]: setting["method"] for setting in settings}
    return [
        {"name": methods[name].replace("_", " "), "task": task, "k": k + 1, "score": short(value)}
        for (name, task), by_setting in scores.items()
        if len(by_setting) >= 3
        for k, value in enumerate(expected_best([float(np.mean(values)) for values in by_setting.values()]))
    ]


def aggregates(
    settings: list[dict[str, Any]], runs: list[dict[str, Any]], metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return, by metric, the aggregates of Agarwal et al. (2021) over all tasks, for methods with runs on every task.

    A setting is a config file with overrides. The scores of a method on a task are those of its setting with the best
    val score. Only seeds that all methods have on all tasks count. The result is empty if there is only one task.

    Args:
        settings: name, task and method of each setting.
        runs: the runs of the overview, with their metrics.
        metrics: names of the test metrics.
    """
    tasks = list(dict.fromkeys(setting["task"] for setting in settings))
    by_metric = {}
    for metric in metrics if len(tasks) > 1 else ():
        by_method: dict[str, dict[str, dict[int, float]]] = {}
        for run in runs:
            value = run["metrics"][OWN_RULE].get(f"test/{metric}")
            setting = settings[run["setting"]]
            if value is not None and setting["chosen"]:
                method = setting["method"].replace("_", " ")
                by_method.setdefault(method, {}).setdefault(setting["task"], {})[run["seed"]] = value
        complete = {method: by_task for method, by_task in by_method.items() if len(by_task) == len(tasks)}
        seeds = [set(by_seed) for by_task in complete.values() for by_seed in by_task.values()]
        shared = sorted(set.intersection(*seeds)) if seeds else []
        if len(shared) < FEWEST or metric in LOWER_IS_BETTER:
            continue
        scores = {m: np.array([[by_task[t][s] for s in shared] for t in tasks]) for m, by_task in complete.items()}
        baseline = next((m for name in ("erm", "ce") for m in scores if m == name), next(iter(scores)))
        low = min(float(values.min()) for values in scores.values())
        thresholds = np.linspace(low, 1, 41)
        rows: list[dict[str, Any]] = [
            {
                "method": method,
                "iqm": bootstrap(
                    interquartile_mean, values, paired=False, low=bounds(metric)[0], high=bounds(metric)[1]
                ),
                "improvement": None
                if method == baseline
                else bootstrap(improvement, values, scores[baseline], paired=True, low=0, high=1),
                "profile": [short(share) for share in profile(values, thresholds)],
            }
            for method, values in scores.items()
        ]
        rows.sort(key=lambda row: -row["iqm"].value)
        by_metric[metric] = {
            "tasks": len(tasks), "seeds": len(shared), "baseline": baseline, "rows": rows,
            "thresholds": [short(t) for t in thresholds],
        }  # fmt: skip
    return by_metric


def describe_metric(name: str, groups: str) -> dict[str, Any]:
    """Return a metric's label, its bounds, whether lower is better, and whether the page shows it in %.

    Args:
        groups: the groups that group metrics are computed over, in words such as `4 evaluation groups`; "" if the label
            need not name them.
    """
    low, high = bounds(name)
    label = {"auroc": "AUROC", "auprc": "AUPRC", "nll": "NLL", "ece": "ECE", "ece_equal_mass": "ECE, equal mass",
             "mcc": "MCC", "brier": "Brier score", "g_mean": "G-mean"}.get(name, name.replace("_", " "))  # fmt: skip
    return {
        "name": name,
        "label": f"{label} over {groups}" if groups and name in GROUP_METRICS else label,
        "lower": name in LOWER_IS_BETTER,
        "percent": in_percent(name),
        "low": low,
        "high": None if high == np.inf else high,
    }
