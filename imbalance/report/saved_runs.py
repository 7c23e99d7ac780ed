"""Saved runs: read the summary and the evaluations of a run directory."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imbalance.config.metric_names import describe_groups
from imbalance.errors import BadInput

OF_GROUPS = ("worst_group_accuracy", "group_balanced_accuracy")  # metrics over the groups that a run is evaluated by


Summary = dict[str, Any]  # what summary.json says


def summary_of(directory: Path) -> Summary:
    path = directory / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(summary, dict) and "status" in summary:
            return summary
    except ValueError:
        pass
    raise BadInput(f"{path}: damaged; `imbalance train` of the run's config makes it again")


def evaluations_of(directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last one that a kill cut short is left out."""
    path = directory / "metrics.jsonl"
    try:
        written = path.read_bytes()
        lines = [json.loads(line) for line in written[: written.rfind(b"\n") + 1].splitlines()]
    except ValueError as error:
        raise BadInput(f"{path}: damaged ({error})") from None
    if not all(isinstance(line, dict) and isinstance(line.get("epoch"), int) for line in lines):
        raise BadInput(f"{path}: damaged (a line without its epoch)")
    return lines


def readable_evaluations(directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The evaluations of a run, none before the first; and what is to be said where they cannot be read."""
    try:
        return evaluations_of(directory), []
    except FileNotFoundError:
        return [], []
    except (BadInput, OSError):
        return [], ["metrics.jsonl is damaged, so that there are no curves"]


def evaluated_over(metrics: Iterable[Mapping[str, Any]], split: str) -> str:
    """Over which groups the runs' `OF_GROUPS` are, as `4 evaluation groups`, where any has such apart from those of training.

    "" where none has: all that is said of groups is then over the same ones.
    """
    found = dict.fromkeys(describe_groups(of_run, split) for of_run in metrics if f"{split}/{OF_GROUPS[0]}" in of_run)
    return " or ".join(found) if any("evaluation" in words for words in found) else ""


def metric(summary: Summary, name: str) -> float:
    """A metric of a run that is done; nan of one that diverged, or where the metric is 0/0.

    Raises:
        BadInput: the run has no such metric, as its data have no such class or group.
    """
    metrics = summary["metrics"] if summary["status"] == "done" else {name: None}
    if name not in metrics:
        kind = name.rpartition("/")[0]
        there = ", ".join(key for key in metrics if key.startswith(f"{kind}/"))
        raise BadInput(f"--metric: {name!r} given, which {summary['run_directory']} has not; it has {there}")
    value = metrics[name]
    return float("nan") if value is None else value
