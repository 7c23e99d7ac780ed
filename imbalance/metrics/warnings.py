"""Warn about unreliable training, selection or scores; each warning is a line in the log, in summary.json and in the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from imbalance.config.experiment import Experiment
from imbalance.config.metric_names import PARITY_RATIOS, RANKING_METRICS, top_k_named
from imbalance.config.registries import registries
from imbalance.config.schema import look_up
from imbalance.config.tags import tags_of
from imbalance.data import Dataset
from imbalance.data.population import missing_examples
from imbalance.methods.objectives.registry import OBJECTIVES

FEW = 10  # val examples; with fewer, a single example moves an accuracy by more than ten points


def data_warnings(config: Experiment, dataset: Dataset) -> list[str]:
    """Return warnings about the config and the data of a run, before the run begins.

    There is a warning about

    - each class and group without examples;
    - a val metric in config.callbacks.monitor or config.score that depends on classes or groups with few val examples;
    - an objective that compares several augmented copies of an example, if the data set has no augmentation;
    - a loss, and weights or a sampler, that correct the same imbalance;
    - a loss whose gradients overflow float16.
    """
    evaluated = dataset.eval_dataset
    named = dict.fromkeys((config.callbacks.monitor, config.score))
    val_metrics = [name.removeprefix("val/") for name in named if name.startswith("val/")]
    by_inferred = [name for name in val_metrics if "inferred_group" in name]
    by_group = [
        name
        for name in val_metrics
        if ("group" in name or name in ("adjusted_accuracy", *PARITY_RATIOS)) and name not in by_inferred
    ]
    of_all = ("accuracy", "mcc", *(f"top{k}_accuracy" for k in top_k_named(*named)))
    by_class = [name for name in val_metrics if name not in (*by_group, *by_inferred, *of_all)]
    warnings, methods = missing_examples(dataset), dataset.for_methods
    for kind, kinds, names, counts, metrics in (
        ("group", "groups", evaluated.eval_group_names, evaluated.eval_group_counts(evaluated.val), by_group),
        ("inferred group", "inferred groups", methods.group_names, methods.group_counts(methods.val), by_inferred),
        ("class", "classes", evaluated.class_names, evaluated.class_counts(evaluated.val), by_class),
    ):
        few = [(name, n) for name, n in zip(names, counts.tolist(), strict=True) if 0 < n < FEW]
        if metrics and few:
            listed = ", ".join(f"{name} ({n})" for name, n in few[:5]) + (
                f" and {len(few) - 5} more" if len(few) > 5 else ""
            )
            warnings.append(
                f"val/{metrics[0]} depends on {len(few)} {kind if len(few) == 1 else kinds} with fewer than {FEW} val examples: "
                f"{listed}"
            )
    warnings += filter(None, (equal_views(config, dataset), corrected_twice(config)))
    loss = config.loss
    if config.trainer.mixed_precision == "fp16" and loss.name == "poly" and loss.left == "exponential":
        # The slope α·exp(α(1 − m)) of the loss is the largest float16 number at this margin m.
        margin = 1 - math.log(torch.finfo(torch.float16).max / loss.alpha) / loss.alpha
        warnings.append(
            f"config.loss.left='exponential': at margins below {margin:.3g} the gradient is infinite in float16, so a step "
            "with such an example is skipped; use config.trainer.mixed_precision='bf16', or another config.loss.left"
        )
    return warnings


def equal_views(config: Experiment, dataset: Dataset) -> str:
    """Return a warning if the objective compares augmented views, and the data set has no augmentation; else ""."""
    views = getattr(look_up(OBJECTIVES, config.objective.name), "views", 1)
    if views == 1 or dataset.augmentations:
        return ""
    return (
        f"config.objective.name={config.objective.name!r} compares {views} views of each example, and this data set has no "
        "augmentation, so the views are equal before mixing and dropout; use another objective, or image files with names in "
        "config.data.augment"
    )


def corrected_twice(config: Experiment) -> str:
    """Return a warning if a loss or a head corrects the class imbalance, and another section does too; else "".

    A section with the factor τ = 0 of its offsets, or with β = 0 or the exponent 0 of its weights, corrects nothing.
    """

    def corrects(section: str) -> bool:
        values = getattr(config, section)
        tags = tags_of(look_up(registries()[section], values.name))
        return tags.balances and 0 not in (values.get("tau"), values.get("beta"), values.get("exponent"))

    # The section that a warning advises to change comes last. A sampler with weights is refused before.
    pairs = [("loss", "weights"), ("loss", "sampler"), ("loss", "head"), ("weights", "head"), ("sampler", "head")]
    neutral = {"weights": "uniform", "sampler": "shuffle", "head": "none"}
    for section, other in pairs:
        if corrects(section) and corrects(other):
            return (
                f"config.{section}.name={getattr(config, section).name!r} and config.{other}.name={getattr(config, other).name!r} "
                f"both correct the imbalance, so it is corrected twice; use config.{other}.name={neutral[other]!r}, or another "
                f"config.{section}.name"
            )
    return ""


def run_warnings(
    config: Experiment,
    evaluations: Sequence[Mapping[str, Any]],
    values: Mapping[str, float],
    dataset: Dataset,
    selected_epoch: int,
) -> list[str]:
    """Return warnings about a finished run: about its selected epoch, and about predictions that are all one class.

    The selected epoch is doubtful if config.callbacks.monitor had no value at some evaluations, had its best value at several,
    or was best at the first one; or if the early model of the head "self" is from the same epoch or a later one. A score
    without a value is told too, and a training that config.callbacks.patience ended although the metric never changed.

    Args:
        evaluations: the lines of metrics.jsonl.
        values: the metrics of the selected epoch.
        selected_epoch: the number of epochs after which the weights were selected.
    """
    warnings, monitor = [], config.callbacks.monitor
    monitored = [(line["epoch"], line[monitor]) for line in evaluations if line.get(monitor) is not None]
    selects, patience = config.callbacks.select == "best", config.callbacks.patience
    # Equal values, or none, end a training after so many evaluations; the first value of all is a gain.
    was_cut = "" if selects or not patience else f", and config.callbacks.patience={patience} ended training"
    if not monitored and not config.debug and (selects or (was_cut and len(evaluations) == patience)):
        consequence = ", so the weights of the last epoch were tested" if selects else was_cut
        warnings.append(f"{monitor} had no value at any evaluation{consequence}")
    without_value = len(evaluations) - len(monitored)
    if monitored and without_value and (selects or patience):
        consequence = ", which could not be selected" if selects else ""
        consequence += f", and which config.callbacks.patience={patience} counts as no improvement" if patience else ""
        warnings.append(f"{monitor} had no value at {without_value} of {len(evaluations)} evaluations{consequence}")
    if config.score in values and math.isnan(values[config.score]) and not config.debug:
        warnings.append(
            f"config.score: {config.score} has no value for the tested weights, so this run has no score; use a metric that "
            "these data have"
        )
    if len(monitored) > 1:
        is_ranking = monitor.split("/")[1] in RANKING_METRICS  # such a metric seldom has equal values
        other = "" if is_ranking else "config.callbacks.monitor=val/auroc, or "
        instead = f"use {other}config.callbacks.select=last"
        if config.head.name != "none":
            instead += f", because config.head.name={config.head.name!r} changes the predictions after the selection"
        best = max(value for _, value in monitored)
        tied = [epoch for epoch, value in monitored if value == best]
        was_constant = len(tied) == len(monitored)
        number_text = f"{len(monitored)} evaluations" + (" with a value" if without_value else "")
        if selects and was_constant:
            warnings.append(
                f"{monitor} was {best:.4f} at all {number_text}: the first of these epochs was selected; {instead}"
            )
        elif selects and len(tied) > 1:
            warnings.append(
                f"{monitor} had its best value at {len(tied)} of {number_text}: the first of these epochs was selected; "
                f"{instead}"
            )
        elif selects and tied[0] == monitored[0][0]:
            warnings.append(
                f"{monitor} was best at the first of {number_text}, epoch {tied[0]}, and no later epoch improved it"
            )
        elif was_cut and was_constant and len(monitored) - 1 == patience:
            warnings.append(
                f"{monitor} was {best:.4f} at all {number_text}{was_cut}; use {other}config.callbacks.patience=0"
            )
    if config.head.name == "self" and selected_epoch <= config.head.first_epochs and not config.debug:
        warnings.append(
            f"config.head.first_epochs: {config.head.first_epochs}, and the selected epoch is {selected_epoch}: the early model "
            "is no earlier than the trained one, so the examples on which the two disagree are noise; use fewer first_epochs"
        )
    for split in ("val", "test"):
        shares = {name: values.get(f"{split}/predicted/{name}") for name in dataset.eval_dataset.class_names}
        warnings += [f"every {split} example is predicted as {name}" for name, share in shares.items() if share == 1]
    return warnings
