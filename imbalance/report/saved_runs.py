"""Read the summary, the evaluations and the metrics of saved runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imbalance.config.metric_names import TRAINING_GROUP_METRICS, describe_groups
from imbalance.config.run_directory import read_evaluations, read_summary
from imbalance.errors import BadInput, Damaged

GROUP_METRICS = ("worst_group_accuracy", "group_balanced_accuracy")  # computed over a run's evaluation groups


Summary = dict[str, Any]  # the content of summary.json


def summary_of(directory: Path) -> Summary:
    """Read the summary.json of a run directory.

    Raises:
        FileNotFoundError: the run has no summary yet.
        BadInput: the file is damaged.
    """
    try:
        return read_summary(directory)
    except Damaged as error:
        hint = f"type imbalance train --config={directory / 'config.json'} to write it again"
        raise Damaged(directory / "summary.json", error.reason, hint) from None


def evaluations_of(directory: Path, summary: Summary | None = None) -> list[dict[str, Any]]:
    """Read the evaluations of a run from metrics.jsonl; skip an incomplete last line, which a killed run leaves.

    Args:
        summary: content of the run's summary.json, {} if there is no such file; None to read the file.

    Raises:
        FileNotFoundError: the run has no evaluation yet.
        BadInput: the file is damaged.
    """
    try:
        return read_evaluations(directory, summary)
    except Damaged as error:
        raise Damaged(error.args[0], error.reason, f"remove {directory}, and train the run again") from None


def readable_evaluations(directory: Path, summary: Summary | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a tuple: the evaluations in a run's metrics.jsonl, and a list of warnings.

    If metrics.jsonl cannot be read, there are no evaluations and one warning. Before the first evaluation, both are
    empty.

    Args:
        summary: content of the run's summary.json, {} if there is no such file; None to read the file.
    """
    try:
        return evaluations_of(directory, summary), []
    except FileNotFoundError:
        return [], []
    except (BadInput, OSError):
        return [], ["metrics.jsonl is damaged, so the run has no learning curves"]


def evaluation_groups(metrics: Iterable[Mapping[str, Any]], split: str) -> str:
    """Return the groups over which the runs' `GROUP_METRICS` are computed, in words such as `4 evaluation groups`.

    Return "" if the evaluation groups of every run are its training groups.

    Args:
        metrics: the metrics of each run.
    """
    runs = list(metrics)
    if not any(f"{split}/{TRAINING_GROUP_METRICS[0]}" in run for run in runs):
        return ""
    return " or ".join(
        dict.fromkeys(describe_groups(run, split) for run in runs if f"{split}/{GROUP_METRICS[0]}" in run)
    )


def metric(summary: Summary, name: str) -> float:
    """Return a metric of a finished run; nan if the run diverged or the metric is 0/0.

    Raises:
        BadInput: the run has no such metric, because its data has no such class or group.
    """
    metrics = summary["metrics"] if summary["status"] == "done" else {name: None}
    if name not in metrics:
        kind = name.rpartition("/")[0]
        valid = ", ".join(key for key in metrics if key.startswith(f"{kind}/"))
        raise BadInput(f"--metric={name}: the run {summary['run_directory']} has no such metric; type one of {valid}")
    value = metrics[name]
    return float("nan") if value is None else value
