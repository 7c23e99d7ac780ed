"""What figures 3 to 5 share: runs of the paper's rows, and the paper's own values beside ours.

The paper's are the means and standard deviations of its published runs, in published.csv. Ours is group-balanced test
accuracy too, the mean of the groups' accuracies. Every run keeps the logits of all its evaluations, so that a figure
about another epoch reads the same runs, and `imbalance.sweep.select` any other rule.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imbalance.errors import BadInput
from imbalance.experiments.published import Published, published
from imbalance.metrics.intervals import Interval, mean, over_examples
from imbalance.metrics.selection import KEPT
from imbalance.report.figures import PALETTE, save, subplots
from imbalance.report.saved_runs import evaluations_of, summary_of
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, not_of_seeds, run_all
from imbalance.sweep.variants import Variant

Rows = Mapping[str, Mapping[str, Variant]]  # of each data set: what the paper calls a row → the config
Line = Mapping[str, Any]  # of metrics.jsonl
Choice = Callable[[list[Line]], Line]  # the evaluation of a run that a figure is about


class Result(NamedTuple):
    """What a run has come to, at the evaluation that the figure is about. Accuracies are fractions."""

    seed: int
    status: str  # "done", "diverged" or "unfinished"
    chosen: int  # that evaluation's epoch
    epoch: int  # the last one evaluated
    epochs: int  # that the run is to have
    test: float  # the mean over groups
    interval: Interval | None  # of that over test examples, where the run is done
    train: float  # over all examples
    summary: Mapping[str, Any]  # empty of one that was never stopped


def compare(
    name: str,
    title: str,
    rows: Rows,
    choose: Choice,
    *,
    data: Sequence[str],
    train: bool,
    overrides: Mapping[str, Any],
    folder: str,
    seeds: int,
    work_dir: str,
    jobs: int,
    at_once: int,
) -> None:
    """Train what is missing, unless asked not to, print the table and draw the bars of one figure.

    Args:
        data: some of `rows`; if none, all.
        overrides: of every run: where the data are.
    """
    found = {}
    for data_set in data or rows:
        if data_set not in rows:
            raise BadInput(f"--data={data_set}; valid: {', '.join(rows)}")
        common = {**not_of_seeds(overrides), **KEPT}
        runs = {
            row: [variant.run(common, seed, work_dir) for seed in range(seeds)]
            for row, variant in rows[data_set].items()
        }
        if train:
            run_all([run for of_row in runs.values() for run in of_row], jobs, at_once)
        for row, of_row in runs.items():
            found[data_set, row] = [result for run in of_row if (result := result_of(run, choose))]
    print_ledger(name, rows, found)
    draw(name, title, found, folder)


def last(evaluations: list[Line]) -> Line:
    return evaluations[-1]


def best_group_average(evaluations: list[Line]) -> Line:
    """By what the paper calls re-weighted val accuracy, of equal ones the first: the rule of that name in
    `imbalance.sweep.select`, read from metrics.jsonl, which unfinished runs have too."""
    return max(evaluations, key=lambda line: group_average(line, "val"))


def group_average(line: Line, split: str) -> float:
    """The mean of the accuracies of all groups that the split has."""
    return np.mean([v for k, v in line.items() if k.startswith(f"{split}/group_accuracy/") and v is not None])


def result_of(run: Run, choose: Choice) -> Result | None:
    """None where there is no evaluation yet."""
    if not (run.directory / "metrics.jsonl").exists():
        return None
    evaluations = evaluations_of(run.directory)
    summary = summary_of(run.directory) if (run.directory / "summary.json").exists() else {}
    status = summary["status"] if summary and summary["status"] != "interrupted" else "unfinished"
    if not evaluations and status == "unfinished":
        return None
    epoch, chosen, test, train, interval = 0, 0, np.nan, np.nan, None
    if evaluations:
        line, epoch = choose(evaluations), evaluations[-1]["epoch"]
        chosen, test, train = line["epoch"], group_average(line, "test"), line["train/accuracy"]
    if status == "done":
        interval = test_interval(line, summary["groups"]["test"])
    return Result(run.config.seed, status, chosen, epoch, run.config.trainer.epochs, test, interval, train, summary)


def test_interval(line: Line, counts: Mapping[str, int]) -> Interval:
    """How far the test examples, `counts` of each group, alone decide the mean of the groups' accuracies."""
    totals = {group: n for group, n in counts.items() if n}
    right = [round(line[f"test/group_accuracy/{group}"] * n) for group, n in totals.items()]
    return over_examples(right, [*totals.values()], np.nanmean)


def done(results: list[Result]) -> list[Result]:
    return [result for result in results if result.status == "done"]


def unfinished(results: list[Result]) -> list[Result]:
    return [result for result in results if result.status == "unfinished"]


def print_ledger(name: str, rows: Rows, found: Mapping[tuple[str, str], list[Result]]) -> None:
    """What was claimed, what came out, on what, in what time, by which code; and what is still under way."""
    heads = [
        "data", "row", "config", "paper: test, mean ± standard deviation", "n",
        "ours: test, mean ± 95 % t-interval; of one run, 95 % bootstrap interval over test examples",
        "n", "train", "diverged", "unfinished, and in no mean", "device", "minutes a run", "commit",
    ]  # fmt: skip
    cells = []
    for (data, row), results in found.items():
        theirs, ours = published(f"{name} {data}", row), done(results)
        test, train = (
            mean([r.test for r in ours], 0, 1),
            f"{100 * np.mean([r.train for r in ours]):.1f}" if ours else "–",
        )
        minutes = mean([r.summary["seconds"] / 60 for r in ours], low=0)
        devices, commits = (", ".join(sorted({of(r.summary) for r in ours})) or "–" for of in (device, commit))
        diverged = sum(r.status == "diverged" for r in results)
        alone = f" ({ours[0].interval.percent()})" if len(ours) == 1 else ""
        so_far = "; ".join(map(progress, unfinished(results))) or "–"
        claimed = f"{theirs.value:.1f} ± {theirs.standard_deviation:.1f}"
        cells.append([data, row, rows[data][row], claimed, theirs.n, test.percent() + alone, test.n, train, diverged,
                      so_far, devices, minutes.text(1, 1), commits])  # fmt: skip
    print(markdown(heads, cells), end="")


def progress(result: Result) -> str:
    """Of a run that has not finished: how far it is, and what it has so far."""
    epoch = f"epoch {result.epoch} of {result.epochs}"
    selected = f", selected {result.chosen}" if result.chosen != result.epoch else ""
    return f"seed {result.seed}, {epoch}{selected}: test {100 * result.test:.1f}, train {100 * result.train:.1f}"


def device(summary: Mapping[str, Any]) -> str:
    return summary["device"]


def commit(summary: Mapping[str, Any]) -> str:
    """Short, and "+" where the code had changes."""
    whole = summary["commit"] or "unknown"
    return whole[:7] + ("+" if whole.endswith("+") else "")


def draw(name: str, title: str, found: Mapping[tuple[str, str], list[Result]], folder: str) -> None:
    """Bars of the paper's values beside ours, a panel for each data set."""
    data_sets = list(dict.fromkeys(data for data, _ in found))
    figure, axes = subplots(1, len(data_sets), 4.4 * len(data_sets), 4.0, squeeze=False)
    for axis, data in zip(axes[0], data_sets):
        rows = {row: results for (of, row), results in found.items() if of == data}
        draw_rows(axis, rows, [published(f"{name} {data}", row) for row in rows])
        none = "" if any(rows.values()) else ": no run of ours yet"
        axis.set(title=f"{title}, {data}{none}", ylabel="group-balanced test accuracy, %")
    handles = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(data_sets))
    save(figure, folder, name)


def draw_rows(axis, rows: Mapping[str, list[Result]], theirs: list[Published]) -> None:
    """The paper's values with its standard deviations, ours with 95 % intervals: over seeds, or of one run over test
    examples. A run that has not finished is a point, with its last epoch beside it.
    """
    at = np.arange(len(rows))
    bars = [axis.bar(at - 0.2, [t.value for t in theirs], 0.38, yerr=[t.standard_deviation for t in theirs],
                     color=PALETTE[5], capsize=2, label="paper, ± standard deviation")]  # fmt: skip
    ours = {x + 0.2: done(results) for x, results in enumerate(rows.values()) if done(results)}
    means = [mean([100 * r.test for r in results], 0, 100) for results in ours.values()]
    if ours:
        bars.append(axis.bar(ours.keys(), [m.value for m in means], 0.38, color=PALETTE[0],
                    label="ours, 95 % interval over seeds,\nof one run over test examples"))  # fmt: skip
    for (x, (first, *_)), of_row in zip(ours.items(), means):
        alone = [of_row.value - 100 * first.interval.low, 100 * first.interval.high - of_row.value]
        ends = alone if of_row.n == 1 else of_row.arms  # of two, which have no interval, none is drawn
        axis.errorbar(x, of_row.value, np.transpose([ends]), color="black", capsize=2)
    for container, colour in zip(bars, ("black", "white")):
        axis.bar_label(container, fmt="%.1f", label_type="center", fontsize=7, color=colour)
    points = [(x + 0.2, 100 * r.test, r.epoch) for x, rs in enumerate(rows.values()) for r in unfinished(rs)]
    if points:
        x, y, epochs = zip(*points)
        axis.plot(x, y, "D", color=PALETTE[1], markerfacecolor="white", markersize=5, clip_on=False, zorder=3,
                  label="ours, unfinished, with the epoch so far")  # fmt: skip
        for epoch, point in zip(epochs, zip(x, y)):
            axis.annotate(epoch, point, xytext=(5, 0), textcoords="offset points", va="center", fontsize=7,
                          color=PALETTE[1], bbox={"color": "white", "pad": 0.4})  # fmt: skip
    shown = [*(t.value for t in theirs), *(m.value for m in means), *(y for _, y, _ in points)]
    axis.set_ylim(min(50, *(y - 1 for y in shown)), None)
    axis.set_xticks(at, rows, rotation=35, ha="right", rotation_mode="anchor")
    axis.grid(axis="x", visible=False)
