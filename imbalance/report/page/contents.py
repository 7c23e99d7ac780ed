"""Read what the page shows of each run: scores, curves, confusion matrix, calibration, confident errors and log.

Each file of a run is read once. An index keeps the result, so a run is read again only if its files have changed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.metric_names import SCORE_METRICS
from imbalance.config.run_directory import read_predictions
from imbalance.errors import BadInput
from imbalance.metrics.scores import log_odds, probabilities, reliability, saved_group_mask, score_metrics
from imbalance.report.collect import Row, summary_or_status
from imbalance.report.run_index import Part, read_each
from imbalance.report.saved_runs import Summary, readable_evaluations
from imbalance.utils.read import MOST_TEXT, read_bytes

# For each selection rule: its name, the labels that it reads, and the key of metrics.jsonl that it maximises over epochs.
RULES: tuple[tuple[str, str, str], ...] = (
    ("last epoch", "none", "epoch"),
    ("best average accuracy", "val classes", "val/accuracy"),
    ("best balanced accuracy", "val classes", "val/balanced_accuracy"),
    ("best worst class", "val classes", "val/worst_class_recall"),
    ("best group average", "val groups", "val/group_balanced_accuracy"),
    ("best worst group", "val groups", "val/worst_group_accuracy"),
    ("oracle", "test groups", "test/worst_group_accuracy"),
)
FILES = ("config.json", "summary.json", "metrics.jsonl", "predictions/test.npz", "log.txt")  # of which the page depends
DRAWN = ("train/worst_group_accuracy", "val/worst_group_accuracy", "val/balanced_accuracy", "test/worst_group_accuracy")
MOST_GROUPS = 12  # most groups whose curves are drawn
# Most characters that the curves, logs, matrices and errors of all runs may take, so that a page of many runs stays small.
CURVES, LOGS, MATRICES, EXAMPLES = 3_000_000, 1_500_000, 6_000_000, 1_500_000
CURVE_POINTS, FEWEST_POINTS = 80, 8  # most and fewest points of a curve
LOG_LINES = 120
MOST_CLASSES = 30  # with more classes, the page shows no matrix and no counts by class
ERRORS = 6  # most errors that are shown for each group
Content = dict[str, Any]
Evaluations = list[dict[str, Any]]


class PageSize(NamedTuple):
    """The numbers of runs and of settings of a page, rounded up to powers of two; the more, the less the page shows of each."""

    runs: int
    settings: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "PageSize":
        settings = len({(row["name"], row["overrides"]) for row in rows})
        return cls(1 << max(0, len(rows) - 1).bit_length(), 1 << max(0, settings - 1).bit_length())


def page_contents(work_dir: Path, rows: Sequence[Row], size: PageSize | None = None) -> list[Content]:
    """Return the content of `read_content` for each run; unchanged runs are read from the index.

    Args:
        work_dir: folder of the run directories.
        rows: one row for each run, as `collect` returns it.
        size: size of the whole page; None if it shows only the runs of `rows`.
    """
    size = size or PageSize.of(rows)
    name = f"page/{size.runs}-{size.settings}"
    part = Part(name, FILES, lambda directory: read_content(directory, size), lambda content: not content["warnings"])
    contents = read_each(work_dir, [row["run"] for row in rows], part)
    return [content for content in contents if content is not None]


def read_content(directory: Path, size: PageSize) -> Content:
    """Return what the page shows of a run, apart from the values in its row.

    Args:
        size: size of the page.
    """
    summary = summary_or_status(directory)
    done = summary["status"] == "done"
    lines, warnings = readable_evaluations(directory, {} if summary["status"] in ("incomplete", "damaged") else summary)
    saved, reasons = readable_predictions(directory, summary) if done else (None, [])
    chosen = {}
    if any("test/accuracy" in line for line in lines):
        chosen = {name: line for name, _, key in RULES if (line := best_evaluation(lines, key))}
    content = {
        "warnings": [*warnings, *reasons],
        "by_rule": {rule: {k: v for k, v in line.items() if k.startswith("test/")} for rule, line in chosen.items()},
        "scores": {},
        "mean_curves": thinned(lines, CURVES // (size.settings * 16 * 6)),
        "pooled": None,
        "curves": thinned(lines, min(60, CURVES // (size.runs * 16 * 6))),
        "counts": example_counts(summary),
        "made": {key: summary[key] for key in ("device", "commit", "versions", "data") if summary.get(key)},
        "reason": summary.get("reason"),
        "log": shortened_log(directory, LOGS // size.runs),
        "confusion": None,
        "reliability": [],
        "errors": [],
    }
    if saved:
        logits, targets = saved["logits"], saved["targets"]
        probability = probabilities(logits)
        if not all(f"test/{name}" in summary["metrics"] for name in SCORE_METRICS):  # the run is of an older version
            scores = score_metrics(logits, targets, [str(label) for label in range(logits.shape[1])])
            content["scores"] = {f"test/{name}": value for name, value in scores.items() if name in SCORE_METRICS}
        content["pooled"] = [values.tolist() for values in reliability(probability, targets)]
        if has_all_names(saved, summary):
            content["confusion"] = confusion(saved, summary, MATRICES // size.runs)
            content["reliability"] = reliability_curve(probability, targets)
            content["errors"] = surest_errors(saved, probability, summary, EXAMPLES // (size.runs * 110))
    return content


def readable_predictions(
    directory: Path, summary: Summary | None = None
) -> tuple[dict[str, np.ndarray] | None, list[str]]:
    """Return a tuple: the arrays in a run's predictions/test.npz, and a list of warnings.

    If the file cannot be read, the arrays are None, and there is one warning. If the file is missing or has no
    examples, the arrays are None.

    Args:
        summary: content of the run's summary.json; None to read the file.
    """
    try:
        arrays = read_predictions(directory, "test", summary)
    except FileNotFoundError:
        return None, []
    except (BadInput, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        return None, [f"predictions/test.npz is damaged ({reason}), so the run has no confusion matrix and no errors"]
    return (arrays if arrays["logits"].size and np.isfinite(arrays["logits"]).all() else None), []


def best_evaluation(lines: Evaluations, key: str) -> dict[str, Any] | None:
    """Return the first line of metrics.jsonl with the largest value of `key`.

    Return None if no line has both `key` and test metrics.
    """
    lines = [line for line in lines if line.get(key) is not None and line.get("test/accuracy") is not None]
    return max(lines, key=lambda line: line[key]) if lines else None


def thinned(lines: Evaluations, points: int) -> dict[str, list[Any]]:
    """Return a run's learning curves, by key of metrics.jsonl, at evenly spaced evaluations, the last one included.

    Args:
        lines: the lines of metrics.jsonl.
        points: number of evaluations, at most CURVE_POINTS. If it is below FEWEST_POINTS, the curves have FEWEST_POINTS,
            but those of groups are left out.
    """
    if not lines:
        return {}
    most = min(CURVE_POINTS, max(FEWEST_POINTS, points))
    at = sorted({round(i) for i in np.linspace(0, len(lines) - 1, min(most, len(lines)))})
    groups = [key for key in lines[0] if key.startswith("val/group_accuracy/")][:MOST_GROUPS]
    keys = [*DRAWN, *(groups if points >= FEWEST_POINTS else [])]
    return {"epoch": [lines[i]["epoch"] for i in at]} | {
        key: [short(lines[i].get(key)) for i in at] for key in keys if key in lines[0]
    }


def has_all_names(saved: Mapping[str, np.ndarray], summary: Summary) -> bool:
    """Return True if a run's summary has a name for every class and group in the run's saved predictions."""
    classes, groups = (len(summary.get(kind, {}).get("test", ())) for kind in ("classes", "groups"))
    num_groups = saved["members"].shape[1] if "members" in saved else saved["groups"].max() + 1
    return saved["logits"].shape[1] == classes and num_groups <= groups


def confusion(saved: Mapping[str, np.ndarray], summary: Summary, most: int) -> dict[str, Any]:
    """Return a run's confusion matrix, or only the 20 most confused pairs of classes.

    Args:
        most: number of characters that the matrix may take; there is none for more than MOST_CLASSES classes either.
    """
    names, classes = list(summary["classes"]["test"]), saved["logits"].shape[1]
    counts = np.bincount(saved["targets"] * classes + saved["logits"].argmax(1), minlength=classes**2)
    counts = counts.reshape(classes, classes)
    if classes <= MOST_CLASSES and classes**2 * 3 <= max(most, 12):
        return {"classes": names, "counts": counts.tolist()}
    off = counts - np.diag(counts.diagonal())
    worst = np.argsort(-off, axis=None)[:20]
    return {"pairs": [[names[i // classes], names[i % classes], int(off.flat[i])] for i in worst if off.flat[i]]}


def reliability_curve(probability: np.ndarray, targets: np.ndarray) -> list[tuple[float, float, int]]:
    """Return the mean confidence, the accuracy and the number of test examples in each of ten bins of confidence."""
    bins = zip(*reliability(probability, targets, bins=10))
    return [(round(float(confidence), 4), round(float(accuracy), 4), int(n)) for confidence, accuracy, n in bins]


def example_counts(summary: Summary) -> dict[str, Any]:
    """Return the number of examples of each class and of each group, by split.

    The numbers by class are left out if there are more than MOST_CLASSES classes; likewise the numbers by group.
    """
    counts = {kind: summary[kind] for kind in ("classes", "groups") if kind in summary}
    return {kind: by_split for kind, by_split in counts.items() if len(by_split.get("test", ())) <= MOST_CLASSES}


def surest_errors(
    saved: Mapping[str, np.ndarray], probability: np.ndarray, summary: Summary, most: int
) -> list[dict[str, Any]]:
    """Return, for each test group with errors, the number of wrong predictions and the most confident of them.

    The groups with the lowest accuracy come first.

    Args:
        saved: content of predictions/test.npz, by name.
        probability: (N, K) probabilities of the predictions.
        summary: content of summary.json.
        most: largest number of predictions to return, for all groups together. Each group gets at least one, so with
            many groups only the first `most` groups are returned.
    """
    names, groups = list(summary["classes"]["test"]), list(summary["groups"]["test"])
    predicted, confidence = saved["logits"].argmax(1), probability.max(1)
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


def short(value: Any) -> float | None:
    """Round a number to five digits, to keep the page small; return None for nan."""
    return None if value is None or value != value else float(f"{float(value):.5g}")
