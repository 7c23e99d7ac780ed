"""Console output: the text that a run prints before, during and after training."""

from collections.abc import Mapping, Sequence
from io import StringIO
from math import isnan, nan
from typing import NamedTuple

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


class Table(NamedTuple):
    """A table of the results of a run: the heads of its columns, and rows of texts. The first cell of a row names the row."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def result_tables(values: Mapping[str, float], dataset: Dataset) -> list[Table]:
    """Return tables of the metrics at the end of a run: all metrics on val and test, every class, and every group.

    For two classes, `auprc` is followed by that of the rarer class, which is often much lower than the mean of the two.

    Args:
        values: metrics of summary.json, by name.
    """
    known = (*SUMMARY_METRICS, *PARITY_METRICS, *SCORE_METRICS)
    if dataset.num_classes == 2:
        rarer = f"auprc/{dataset.class_names[int(dataset.class_counts(dataset.train).argmin())]}"
        known = tuple(name for kind in known for name in ((kind, rarer) if kind == "auprc" else (kind,)))
    names = [name for name in known if not isnan(values.get(f"val/{name}", nan))]
    metrics = [[name, *(shown(values[f"{split}/{name}"], name) for split in SPLITS)] for name in names]
    tables = [Table(("", *SPLITS), metrics)]
    for split in SPLITS:
        rows = [
            [name, *(_percent(values[f"{split}/{kind}/{name}"]) for kind in CLASS_METRICS)]
            for name in dataset.class_names
        ]
        tables.append(Table((f"{split}, %", *CLASS_METRICS), rows))
    groups = {"group": ("group_accuracy", dataset.group_names)} if dataset.group_names != dataset.class_names else {}
    if dataset.evaluation_names:
        groups = {
            "evaluation group": ("group_accuracy", dataset.evaluation_names),
            "training group": ("training_group_accuracy", dataset.group_names),
        }
    for title, (kind, group_names) in groups.items():
        rows = [[name, *(_percent(values[f"{split}/{kind}/{name}"]) for split in SPLITS)] for name in group_names]
        tables.append(Table((f"{title}, accuracy in %", *SPLITS), rows))
    return tables


def final(values: Mapping[str, float], dataset: Dataset, score: str, debug: bool) -> str:
    """Return what is printed at the end of a run, as plain text: the tables of `result_tables`, and the score.

    Args:
        values: metrics of summary.json, by name.
        score: name of the metric that is the score.
        debug: whether the run evaluated a single batch of each split.
    """
    tables, lines = result_tables(values, dataset), []
    width = max(len(row[0]) for table in tables for row in (table.heads, *table.rows))
    for heads, rows in tables:
        columns = [max(10, *map(len, column)) + 1 for column in list(zip(heads, *rows))[1:]]
        for name, *cells in (heads, *rows):
            lines.append(f"{name:{width}}" + "".join(f"{cell:>{column}}" for cell, column in zip(cells, columns)))
        lines.append("")
    return "\n".join(["", *lines, *_last_lines(values, dataset, score, debug)])


def final_on_terminal(values: Mapping[str, float], dataset: Dataset, score: str, debug: bool, columns: int) -> str:
    """Return what `final` returns, with tables that rich draws for a terminal; the row of the score is bold.

    Args:
        columns: width of the terminal in characters.

    Raises:
        ImportError: rich is not installed.
    """
    from rich import box, console, table, text

    file = StringIO()
    drawn = console.Console(file=file, force_terminal=True, width=columns, highlight=False)
    for heads, rows in result_tables(values, dataset):
        picture = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for i, head in enumerate(heads):
            picture.add_column(text.Text(head), justify="right" if i else "left")
        for row in rows:
            picture.add_row(*map(text.Text, row), style="bold" if row[0] == score.partition("/")[2] else None)
        drawn.print(picture)
    drawn.print(text.Text("\n".join(_last_lines(values, dataset, score, debug))))
    return file.getvalue().rstrip("\n")


def _last_lines(values: Mapping[str, float], dataset: Dataset, score: str, debug: bool) -> list[str]:
    """Return the lines below the tables: which groups the metrics by group are over, the worst of them, and the score."""
    lines = [f"Metrics by group are over {describe_groups(values, 'test')}."]
    lines += [] if debug else [worst_group(values, dataset)]
    return [*lines, f"score: {score} {values[score]:.4f}"]


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
