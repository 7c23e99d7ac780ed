"""Collect the page's data about each run: config, curves, confusion matrix, calibration, confident errors and log."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.errors import BadInput
from imbalance.metrics.scores import log_odds, probabilities, reliability, saved_group_mask
from imbalance.report.collect import Row
from imbalance.report.page.examples import Example, read_test_split, render_example
from imbalance.report.page.overview import Overview, readable_predictions, thinned
from imbalance.report.saved_runs import readable_evaluations, summary_of
from imbalance.report.settings import NOT_COMPARED
from imbalance.utils.read import MOST_TEXT, read_bytes

# Most characters that the curves, logs, metrics and errors of all runs may take, so that a page of many runs stays small.
CURVES, LOGS, NUMBERS, EXAMPLES = 3_000_000, 1_500_000, 1_500_000, 1_500_000
LOG_LINES = 120
MOST_CLASSES = 30  # with more classes, the page shows no matrix and no counts by class
ERRORS = 6  # most errors that are shown for each group
Details = dict[str, Any]


def run_details(
    work_dir: Path, rows: list[Row], overview: Overview, pictured: int
) -> tuple[list[Details], list[Example]]:
    """Return a tuple: the details of every run, and the misclassified examples, to which the details refer by index.

    An example that several runs misclassify is listed once.

    Args:
        work_dir: folder of the run directories.
        rows: one row for each run, as `collect` returns it.
        overview: result of the function `overview` for the same rows.
        pictured: number of runs whose misclassified examples are listed. Only their data sets are read, because reading
            a large data set may take minutes.
    """
    # By data section and seed: the index in `examples` of each test row.
    index_by_task: dict[tuple[str, int], dict[int, int]] = {}
    examples: list[Example] = []
    details = [details_of_run(work_dir, row, overview, len(rows)) for row in rows]
    for i in choose_pictured(overview, pictured):
        wanted = sorted({error["row"] for group in details[i]["errors"] for error in group["examples"]})
        if not wanted:
            continue
        index_of = index_by_task.setdefault(_task_key(rows[i]), {})
        new = [row for row in wanted if row not in index_of]
        if new:
            split, why_not = read_test_split(work_dir / rows[i]["run"])
            if split is None:
                details[i]["not_shown"] = why_not
                continue
            for row in new:
                index_of[row] = len(examples)
                examples.append(render_example(split, row))
        for group in details[i]["errors"]:
            for error in group["examples"]:
                error["shown"] = index_of[error["row"]]
    return details, examples


def choose_pictured(overview: Overview, pictured: int) -> list[int]:
    """Return the indices of at most `pictured` runs: the first done run of every setting, then the second, and so on.

    A setting is a config file with overrides; its runs differ only in the seed.
    """
    by_setting: dict[int, list[int]] = {}
    for i, run in enumerate(overview["runs"]):
        if run["status"] == "done":
            by_setting.setdefault(run["setting"], []).append(i)
    turns = max(map(len, by_setting.values()), default=0)
    order = [runs[turn] for turn in range(turns) for runs in by_setting.values() if turn < len(runs)]
    return order[:pictured]


def details_of_run(work_dir: Path, row: Row, overview: Overview, runs: int) -> Details:
    """Return the details of one run.

    Args:
        runs: number of runs on the page. The more runs, the fewer details of each.
    """
    directory = work_dir / row["run"]
    summary = summary_of(directory) if row["status"] not in ("incomplete", "damaged") else {}
    lines, _ = readable_evaluations(directory)
    saved = readable_predictions(directory)[0] if row["status"] == "done" else None
    if saved and not has_all_names(saved, summary):
        saved = None
    common = overview["common"]
    config = {key.removeprefix("config."): value for key, value in row.items() if key.startswith("config.")}
    return {
        "command": f"python main.py --config={shlex.quote(str(directory / 'config.json'))}",
        "config": {
            key: value for key, value in config.items() if key not in common and f"config.{key}" not in NOT_COMPARED
        },
        "metrics": val_and_test_metrics(row, NUMBERS // (runs * 25)),
        "curves": thinned(lines, points=max(8, min(60, CURVES // (runs * 18 * 6)))),
        "counts": example_counts(summary),
        "made": {key: summary[key] for key in ("device", "commit", "versions", "data", "seconds") if summary.get(key)},
        "reason": summary.get("reason"),
        "log": shortened_log(directory, LOGS // runs),
        "confusion": confusion(saved, summary) if saved else None,
        "reliability": reliability_curve(saved) if saved else [],
        "errors": surest_errors(saved, summary, EXAMPLES // (runs * 110)) if saved else [],
    }


def has_all_names(saved: dict[str, np.ndarray], summary: dict[str, Any]) -> bool:
    """Return True if a run's summary has a name for every class and group in the run's saved predictions."""
    classes, groups = (len(summary.get(kind, {}).get("test", ())) for kind in ("classes", "groups"))
    num_groups = saved["members"].shape[1] if "members" in saved else saved["groups"].max() + 1
    return saved["logits"].shape[1] == classes and num_groups <= groups


def confusion(saved: dict[str, np.ndarray], summary: dict[str, Any]) -> dict[str, Any]:
    """Return a run's confusion matrix; above MOST_CLASSES classes, only the 20 most confused pairs of classes."""
    names, classes = list(summary["classes"]["test"]), saved["logits"].shape[1]
    counts = np.bincount(saved["targets"] * classes + saved["logits"].argmax(1), minlength=classes**2)
    counts = counts.reshape(classes, classes)
    if classes <= MOST_CLASSES:
        return {"classes": names, "counts": counts.tolist()}
    off = counts - np.diag(counts.diagonal())
    worst = np.argsort(-off, axis=None)[:20]
    return {"pairs": [[names[i // classes], names[i % classes], int(off.flat[i])] for i in worst if off.flat[i]]}


def reliability_curve(saved: dict[str, np.ndarray]) -> list[dict[str, float]]:
    """Return the mean confidence, the accuracy and the number of test examples in each of ten bins of confidence."""
    bins = zip(*reliability(probabilities(saved["logits"]), saved["targets"], bins=10))
    return [{"confidence": round(float(c), 4), "accuracy": round(float(a), 4), "count": int(n)} for c, a, n in bins]


def example_counts(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the number of examples of each class and of each group, by split.

    The numbers by class are left out if there are more than MOST_CLASSES classes; likewise the numbers by group.
    """
    counts = {kind: summary[kind] for kind in ("classes", "groups") if kind in summary}
    return {kind: by_split for kind, by_split in counts.items() if len(by_split.get("test", ())) <= MOST_CLASSES}


def val_and_test_metrics(row: Row, most: int) -> dict[str, float]:
    """Return a run's metrics on val and test; leave out those of single classes if there are more than `most` metrics."""
    metrics = {k: round(v, 5) for k, v in row.items() if k.startswith(("val/", "test/")) and isinstance(v, float)}
    if len(metrics) <= most:
        return metrics
    return {k: v for k, v in metrics.items() if k.count("/") == 1 or "/group_accuracy/" in k}


def surest_errors(saved: dict[str, np.ndarray], summary: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Return, for each test group with errors, the number of wrong predictions and the most confident of them.

    The groups with the lowest accuracy come first.

    Args:
        saved: content of predictions/test.npz, by name.
        summary: content of summary.json.
        most: largest number of predictions to return, for all groups together. Each group gets at least one, so with
            many groups only the first `most` groups are returned.
    """
    names, groups = list(summary["classes"]["test"]), list(summary["groups"]["test"])
    predicted, confidence = saved["logits"].argmax(1), probabilities(saved["logits"]).max(1)
    sureness = log_odds(saved["logits"]).max(1)  # the confidence of many errors rounds to 1
    wrong = predicted != saved["targets"]
    members = np.zeros((len(wrong), len(groups)), dtype=bool)
    saved_members = saved_group_mask(saved)
    members[:, : saved_members.shape[1]] = saved_members
    totals, errors = members.sum(0), members[wrong].sum(0)
    worst_first = [g for g in np.argsort(-errors / np.maximum(totals, 1), kind="stable") if errors[g]]
    each = max(1, min(ERRORS, most // max(1, len(worst_first))))
    by_group = []
    for g in worst_first[: max(1, most)]:
        rows = np.flatnonzero(members[:, g] & wrong)
        surest = rows[np.argsort(-sureness[rows], kind="stable")][:each]
        examples = [
            {
                "row": int(i),
                "source": int(saved["indices"][i]),
                "target": names[saved["targets"][i]],
                "predicted": names[predicted[i]],
                "confidence": round(float(confidence[i]), 4),
            }
            for i in surest
        ]
        by_group.append({"group": groups[g], "wrong": int(errors[g]), "of": int(totals[g]), "examples": examples})
    return by_group


def shortened_log(directory: Path, most: int) -> str:
    """Return the text of a run's log.txt; leave out lines in the middle if it has more than about `most` characters."""
    try:
        lines = read_bytes(directory / "log.txt", most=MOST_TEXT).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    except (BadInput, OSError) as error:
        return f"log.txt cannot be read: {error}"
    half = LOG_LINES // 2
    while len(lines) > 2 * half or sum(map(len, lines)) + len(lines) > most:
        if half < 2:
            break
        lines = [*lines[:half], "…", *lines[-half:]] if len(lines) > 2 * half else lines
        half = half * 2 // 3
    return "\n".join(lines)


def _task_key(row: Row) -> tuple[str, int]:
    """Return a key that is equal for runs with the same test examples: the values of `config.data`, and the seed."""
    data = sorted((key, str(value)) for key, value in row.items() if key.startswith("config.data."))
    return str(data), row["seed"]
