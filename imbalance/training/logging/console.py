"""Console output: the text that a run prints before, during and after training."""

from collections.abc import Mapping, Sequence
from math import isnan, nan

from torch import Tensor, device, nn

from imbalance.config.metric_names import (
    CLASS_METRICS,
    PARITY_METRICS,
    SCORE_METRICS,
    SUMMARY_METRICS,
    describe_groups,
    shown,
)
from imbalance.data import Dataset
from imbalance.metrics.intervals import worst_over_examples
from imbalance.training.state.progress import Clock
from imbalance.utils.output import counted, duration

SPLITS = ("val", "test")  # the splits that a run is judged on at its end


def describe(dataset: Dataset, model: nn.Module, device: device) -> str:
    """Return lines with the number of examples of each class and group in each split, and the size of the model."""
    lines = list(dataset.notes)
    for name, source in (("train", dataset), ("val", dataset.eval_dataset), ("test", dataset.eval_dataset)):
        split = getattr(source, name)
        lines.append(f"{name:5} {len(split):7,}  {_counts(source.class_names, source.class_counts(split))}")
        if source.group_names != source.class_names:
            lines.append(f"{'':13}  {_counts(source.group_names, source.group_counts(split))}")
        if source.evaluation_names:
            lines.append(f"{'':13}  evaluated: {_counts(source.evaluation_names, source.eval_group_counts(split))}")
    parameters = sum(p.numel() for p in model.parameters())
    return "\n".join([*lines, f"model {parameters:,} parameters on {device}"])


def evaluation(values: Mapping[str, float], epochs: int, clock: Clock) -> str:
    """Return the line that is printed for an evaluation: epoch and step, metrics, speed and remaining time.

    Args:
        values: line of metrics.jsonl as a dictionary.
        epochs: number of epochs of the run.
    """
    parts = [f"epoch {values['epoch']}/{epochs}", f"step {values['step']:,}"]
    for split in ("train", "val", "test"):
        if f"{split}/loss" in values:
            shown = {"balanced": "balanced", f"worst of {describe_groups(values, split)}": "worst_group"}
            accuracies = (f"{words} {_percent(values[f'{split}/{name}_accuracy'])}" for words, name in shown.items())
            parts.append(f"{split} loss {values[f'{split}/loss']:.4g} {' '.join(accuracies)}")
    rate = clock.steps_per_second()
    left = clock.seconds_left(values["epoch"], epochs)
    return " | ".join([*parts, f"{rate:,.1f} steps/s, {duration(left)} left"])


def progress(epoch: int, epochs: int, batch: int, batches: int, clock: Clock) -> str:
    """Return the line that a terminal shows between evaluations: epoch and batch, speed and remaining time.

    Args:
        epoch, epochs: number of the current epoch, counted from 0, and number of epochs of the run.
        batch, batches: number of batches done, and number of batches in the epoch.
    """
    left = clock.seconds_left(epoch + batch / batches, epochs)
    return f"epoch {epoch + 1}/{epochs}  batch {batch:,}/{batches:,}  {clock.steps_per_second():,.1f} steps/s  {duration(left)} left"


def final(values: Mapping[str, float], dataset: Dataset, score: str, debug: bool = False) -> str:
    """Return what is printed at the end of a run: the metrics of every class and group on val and test, and the score.

    For two classes, `auprc` is followed by that of the rarer class, which is often much lower than the mean of the two.

    Args:
        values: metrics of summary.json, by name.
        score: name of the metric that is the score.
        debug: whether the run evaluated a single batch of each split.
    """
    tables = {"group": ("group_accuracy", dataset.group_names)} if dataset.group_names != dataset.class_names else {}
    if dataset.evaluation_names:
        tables = {
            "evaluation group": ("group_accuracy", dataset.evaluation_names),
            "training group": ("training_group_accuracy", dataset.group_names),
        }
    titles = [f"{title}, accuracy in %" for title in tables]
    width = max(map(len, (*dataset.class_names, *dataset.group_names, *dataset.eval_group_names, *titles, "test, %")))
    known = (*SUMMARY_METRICS, *PARITY_METRICS, *SCORE_METRICS)
    if dataset.num_classes == 2:
        rarer = f"auprc/{dataset.class_names[int(dataset.class_counts(dataset.train).argmin())]}"
        known = tuple(name for kind in known for name in ((kind, rarer) if kind == "auprc" else (kind,)))
    names = [name for name in known if not isnan(values.get(f"val/{name}", nan))]
    wide = max(width, *map(len, names))
    lines = ["", f"{'':{wide}}" + "".join(f"{split:>10}" for split in SPLITS)]
    for name in names:
        lines.append(f"{name:{wide}}" + "".join(f"{shown(values[f'{split}/{name}'], name):>10}" for split in SPLITS))
    lines.append(f"Metrics by group are over {describe_groups(values, 'test')}.")
    if not debug:
        lines.append(worst_group(values, dataset))
    for split in SPLITS:
        lines += ["", f"{f'{split}, %':{width}}" + "".join(f"{kind:>11}" for kind in CLASS_METRICS)]
        for name in dataset.class_names:
            row = (f"{_percent(values[f'{split}/{kind}/{name}']):>11}" for kind in CLASS_METRICS)
            lines.append(f"{name:{width}}" + "".join(row))
    for title, (kind, group_names) in tables.items():
        lines += ["", f"{f'{title}, accuracy in %':{width}}" + "".join(f"{split:>10}" for split in SPLITS)]
        for name in group_names:
            row = (f"{_percent(values[f'{split}/{kind}/{name}']):>10}" for split in SPLITS)
            lines.append(f"{name:{width}}" + "".join(row))
    return "\n".join([*lines, "", f"score: {score} {values[score]:.4f}"])


def worst_group(values: Mapping[str, float], dataset: Dataset) -> str:
    """Return a line about the worst group of the whole test split: its name, size and accuracy, and the 95 % interval.

    The interval is that of the accuracy on the worst group, whichever group that truly is; see `worst_over_examples`.

    Args:
        values: metrics of summary.json, by name.
    """
    sizes = dict(zip(dataset.eval_group_names, dataset.eval_group_counts(dataset.test).tolist(), strict=True))
    accuracies = {name: values[f"test/group_accuracy/{name}"] for name, size in sizes.items() if size}
    worst = min(accuracies, key=lambda name: accuracies[name])
    right = [round(accuracy * sizes[name]) for name, accuracy in accuracies.items()]
    low, high = worst_over_examples(right, [sizes[name] for name in accuracies])
    size = counted(sizes[worst], "example")
    return (
        f"Worst test group: {worst}, {_percent(accuracies[worst])} % of {size}; "
        f"95 % interval of the worst group {_percent(low)} to {_percent(high)} %."
    )


def _counts(names: Sequence[str], counts: Tensor) -> str:
    """Return each name followed by its count, as in "cat 12, dog 4"."""
    return ", ".join(f"{name} {n:,}" for name, n in zip(names, counts.tolist(), strict=True))


def _percent(value: float) -> str:
    """Return a fraction as text in percent; "-" for nan."""
    return "-" if isnan(value) else f"{100 * value:.1f}"
