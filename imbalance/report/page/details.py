"""What the page says of one run: its config, curves, confusion matrix, calibration, surest errors and log."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.metrics.scores import probabilities, reliability, saved_group_mask
from imbalance.report.collect import Row
from imbalance.report.page.facts import Facts, read_predictions, thinned
from imbalance.report.page.pictures import Shown, examples_of, shown
from imbalance.report.saved_runs import readable_evaluations, summary_of
from imbalance.report.settings import APART

# All runs together may take so many characters of each, so that a page of a thousand runs stays small.
CURVES, LOGS, NUMBERS, EXAMPLES = 3_000_000, 1_500_000, 1_500_000, 1_500_000
LOG_LINES = 120
MOST_CLASSES = 30  # of a confusion matrix shown whole
ERRORS = 6  # of a group
Details = dict[str, Any]


def details(work_dir: Path, rows: list[Row], facts: Facts, pictured: int) -> tuple[list[Details], list[Shown]]:
    """Of every run in order; and the examples that they refer to, each once however many runs get it wrong.

    The data set is read for `pictured` runs, one of each setting first: reading it may take minutes where it is large.
    """
    of_task: dict[tuple[str, int], dict[int, int]] = {}  # data section and seed, row of test → place in `pictures`
    pictures: list[Shown] = []
    found = [detail(work_dir, row, facts, len(rows)) for row in rows]
    for i in picked(facts, pictured):
        wanted = sorted({error["row"] for group in found[i]["errors"] for error in group["examples"]})
        if not wanted:
            continue
        places = of_task.setdefault(_source(rows[i]), {})
        new = [row for row in wanted if row not in places]
        examples, why_not = examples_of(work_dir / rows[i]["run"]) if new else (None, None)
        if why_not:
            found[i]["not_shown"] = why_not
            continue
        for row in new:
            places[row] = len(pictures)
            pictures.append(shown(examples, row))
        for group in found[i]["errors"]:
            for error in group["examples"]:
                error["shown"] = places[error["row"]]
    return found, pictures


def picked(facts: Facts, pictured: int) -> list[int]:
    """The runs whose errors are shown: the first that is done of every setting, then the second ones, and so on."""
    by_setting: dict[int, list[int]] = {}
    for i, run in enumerate(facts["runs"]):
        if run["status"] == "done":
            by_setting.setdefault(run["setting"], []).append(i)
    turns = max(map(len, by_setting.values()), default=0)
    order = [runs[turn] for turn in range(turns) for runs in by_setting.values() if turn < len(runs)]
    return order[:pictured]


def detail(work_dir: Path, row: Row, facts: Facts, runs: int) -> Details:
    directory = work_dir / row["run"]
    summary = summary_of(directory) if row["status"] not in ("incomplete", "damaged") else {}
    lines, _ = readable_evaluations(directory)
    saved = read_predictions(directory) if row["status"] == "done" else None
    if saved and not named(saved, summary):
        saved = None
    common = facts["common"]
    config = {key.removeprefix("config."): value for key, value in row.items() if key.startswith("config.")}
    return {
        "command": f"python main.py --config={shlex.quote(str(directory / 'config.json'))}",
        "config": {key: value for key, value in config.items() if key not in common and f"config.{key}" not in APART},
        "metrics": numbers(row, NUMBERS // (runs * 25)),
        "curves": thinned(lines, points=max(8, min(60, CURVES // (runs * 18 * 6)))),
        "counts": counts(summary),
        "made": {key: summary[key] for key in ("device", "commit", "versions", "data", "seconds") if summary.get(key)},
        "reason": summary.get("reason"),
        "log": log_of(directory, LOGS // runs),
        "confusion": confusion(saved, summary) if saved else None,
        "reliability": curve(saved) if saved else [],
        "errors": surest_errors(saved, summary, EXAMPLES // (runs * 110)) if saved else [],
    }


def named(saved: dict[str, np.ndarray], summary: dict[str, Any]) -> bool:
    """Whether a run's summary has a name for every class and group that its predictions have."""
    classes, groups = (len(summary.get(kind, {}).get("test", ())) for kind in ("classes", "groups"))
    there = saved["members"].shape[1] if "members" in saved else saved["groups"].max() + 1
    return saved["logits"].shape[1] == classes and there <= groups


def confusion(saved: dict[str, np.ndarray], summary: dict[str, Any]) -> dict[str, Any]:
    """Counts by target and prediction; of many classes the pairs that are confused most."""
    names, classes = list(summary["classes"]["test"]), saved["logits"].shape[1]
    counts = np.bincount(saved["targets"] * classes + saved["logits"].argmax(1), minlength=classes**2)
    counts = counts.reshape(classes, classes)
    if classes <= MOST_CLASSES:
        return {"classes": names, "counts": counts.tolist()}
    off = counts - np.diag(counts.diagonal())
    worst = np.argsort(-off, axis=None)[:20]
    return {"pairs": [[names[i // classes], names[i % classes], int(off.flat[i])] for i in worst if off.flat[i]]}


def curve(saved: dict[str, np.ndarray]) -> list[dict[str, float]]:
    found = reliability(probabilities(saved["logits"]), saved["targets"], bins=10)
    return [
        {"confidence": round(float(c), 4), "accuracy": round(float(a), 4), "count": int(n)} for c, a, n in zip(*found)
    ]


def counts(summary: dict[str, Any]) -> dict[str, Any]:
    """How many examples there are of each class and group; of many, nothing."""
    found = {kind: summary[kind] for kind in ("classes", "groups") if kind in summary}
    return {kind: of for kind, of in found.items() if len(of.get("test", ())) <= MOST_CLASSES}


def numbers(row: Row, most: int) -> dict[str, float]:
    """A run's metrics on val and test; without those of single classes where all would be too many."""
    found = {k: round(v, 5) for k, v in row.items() if k.startswith(("val/", "test/")) and isinstance(v, float)}
    return (
        found
        if len(found) <= most
        else {k: v for k, v in found.items() if k.count("/") == 1 or "/group_accuracy/" in k}
    )


def surest_errors(saved: dict[str, np.ndarray], summary: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Of each test group the wrong predictions with the highest confidence, and how many wrong ones there are.

    Worst groups first, and so few of each that they are `most` in all, though one of each of `most` groups.
    """
    names, groups = list(summary["classes"]["test"]), list(summary["groups"]["test"])
    probability = probabilities(saved["logits"])
    predicted, confidence = probability.argmax(1), probability.max(1)
    wrong = predicted != saved["targets"]
    members = np.zeros((len(wrong), len(groups)), dtype=bool)
    found = saved_group_mask(saved)
    members[:, : found.shape[1]] = found
    totals, errors = members.sum(0), members[wrong].sum(0)
    worst_first = [g for g in np.argsort(-errors / np.maximum(totals, 1), kind="stable") if errors[g]]
    each = max(1, min(ERRORS, most // max(1, len(worst_first))))
    found = []
    for g in worst_first[: max(1, most)]:
        rows = np.flatnonzero(members[:, g] & wrong)
        surest = rows[np.argsort(-confidence[rows], kind="stable")][:each]
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
        found.append({"group": groups[g], "wrong": int(errors[g]), "of": int(totals[g]), "examples": examples})
    return found


def log_of(directory: Path, most: int) -> str:
    """log.txt, of a long one the beginning and the end."""
    path = directory / "log.txt"
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    half = LOG_LINES // 2
    while len(lines) > 2 * half or sum(map(len, lines)) + len(lines) > most:
        if half < 2:
            break
        lines = [*lines[:half], "…", *lines[-half:]] if len(lines) > 2 * half else lines
        half = half * 2 // 3
    return "\n".join(lines)


def _source(row: Row) -> tuple[str, int]:
    """The same for runs whose test examples are the same."""
    data = sorted((key, str(value)) for key, value in row.items() if key.startswith("config.data."))
    return str(data), row["seed"]
