"""Where a selection or a score says less than it seems to: a line each, for the log, the summary and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from imbalance.config.experiment import Experiment
from imbalance.config.schema import entry
from imbalance.data import Dataset
from imbalance.data.population import remarks
from imbalance.methods.objectives.registry import OBJECTIVES

FEW = 10  # val examples, under which one of them moves an accuracy by ten points


def of_data(config: Experiment, dataset: Dataset) -> list[str]:
    """What the data alone show: classes and groups that are missing, or too few on val for what reads them."""
    evaluated = dataset.eval_dataset
    named = dict.fromkeys((config.callbacks.monitor, config.score))
    read = [name.removeprefix("val/") for name in named if name.startswith("val/")]
    by_inferred = [name for name in read if "inferred_group" in name]
    by_group = [name for name in read if ("group" in name or name == "adjusted_accuracy") and name not in by_inferred]
    by_class = [name for name in read if name not in (*by_group, *by_inferred, "accuracy", "mcc")]
    found, seen = remarks(dataset), dataset.for_methods
    for kind, kinds, names, counts, metrics in (
        ("group", "groups", evaluated.eval_group_names, evaluated.eval_group_counts(evaluated.val), by_group),
        ("inferred group", "inferred groups", seen.group_names, seen.group_counts(seen.val), by_inferred),
        ("class", "classes", evaluated.class_names, evaluated.class_counts(evaluated.val), by_class),
    ):
        few = [(name, n) for name, n in zip(names, counts.tolist(), strict=True) if 0 < n < FEW]
        if metrics and few:
            said = ", ".join(f"{name} {n}" for name, n in few[:5]) + (
                f" and {len(few) - 5} more" if len(few) > 5 else ""
            )
            found.append(
                f"val/{metrics[0]} reads {len(few)} {kind if len(few) == 1 else kinds} of fewer than {FEW} val examples: {said}"
            )
    views = getattr(entry(OBJECTIVES, config.objective.name), "views", 1)
    if views > 1 and not dataset.augmentations:
        found.append(
            f"config.objective.name={config.objective.name!r} compares {views} views of each example, and this data set "
            "has no augmentation: the views differ only by dropout in the model, if there is any; choose data with "
            "config.data.augment"
        )
    return found


def of_run(
    config: Experiment, evaluations: Sequence[Mapping[str, Any]], values: Mapping[str, float], dataset: Dataset
) -> list[str]:
    """What a finished run shows: a monitor that decided nothing, a model that predicts one class.

    Args:
        evaluations: the lines of metrics.jsonl.
        values: the metrics of the selected weights.
    """
    found, monitor = [], config.callbacks.monitor
    seen = [(line["epoch"], line[monitor]) for line in evaluations if line.get(monitor) is not None]
    chooses = config.callbacks.select == "best" or config.callbacks.patience > 0
    if chooses and not seen and not config.debug:
        found.append(f"{monitor} had no value at any evaluation: it selected nothing")
    if chooses and len(seen) > 1:
        best = max(value for _, value in seen)
        tied = [epoch for epoch, value in seen if value == best]
        if len(tied) == len(seen):
            found.append(f"{monitor} was {best:.4f} at all {len(seen)} evaluations: the first was selected")
        elif len(tied) > 1:
            found.append(f"{monitor} was best at {len(tied)} of {len(seen)} evaluations alike: the first was selected")
        elif tied[0] == seen[0][0]:
            found.append(f"{monitor} was best at the first of {len(seen)} evaluations, epoch {tied[0]}")
    for split in ("val", "test"):
        shares = {name: values.get(f"{split}/predicted/{name}") for name in dataset.eval_dataset.class_names}
        found += [f"every {split} example is predicted as {name}" for name, share in shares.items() if share == 1]
    return found
