"""Train and tabulate the runs of figures 3 to 5 of Wang et al. (ICLR 2022), with the paper's values beside ours.

The paper's values are the means and standard deviations of its published runs, in published.csv. All values are
group-balanced test accuracies: the mean of the groups' accuracies. Every run saves the logits of all its evaluations. So
figure 4 reads the runs of figure 3 at another epoch, and `imbalance select` can apply any other selection rule to them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.errors import BadInput
from imbalance.experiments.published import Published, find_published, published
from imbalance.metrics.intervals import Interval, mean, mean_over_examples
from imbalance.metrics.selection import KEPT
from imbalance.report import kept_results
from imbalance.report.kept_results import Row, numbers
from imbalance.report.plot_style import PALETTE, save, subplots
from imbalance.report.saved_runs import evaluations_of, summary_of
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, add_own_values, check_common_overrides, run_all
from imbalance.sweep.variants import Variant

Rows = Mapping[str, Mapping[str, Variant]]  # by data set and row of the paper's figure, our config with overrides
Line = Mapping[str, Any]  # a line of metrics.jsonl, which is one evaluation
Choice = Callable[[Sequence[Line]], Line]  # chooses the evaluation of a run that a figure shows


class Result(NamedTuple):
    """The results of a run at the chosen evaluation. Accuracies are fractions."""

    seed: int
    status: str  # "done", "diverged" or "unfinished"
    chosen: int  # epoch of the chosen evaluation
    epoch: int  # epoch of the last evaluation
    epochs: int  # number of epochs in the config
    test: float  # test accuracy, as the mean over groups
    interval: Interval | None  # interval of `test` over test examples; None if the run is not done
    train: float  # accuracy over all training examples
    summary: Mapping[str, Any]  # summary.json; empty if the run has none yet


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
    stacked: int,
) -> None:
    """Train the unfinished runs of a figure, print the table, and draw the figure.

    Args:
        name: name of the figure, such as "figure3".
        title: title of the figure.
        rows: for each data set, the rows of the figure and their configs.
        choose: returns the evaluation that the figure shows, from all evaluations of a run.
        data: data sets in `rows`; if none, all.
        train: False to train nothing, and show all runs that were started before.
        overrides: config values by key, for all runs, such as `data_dir`.
        stacked: largest number of runs that one process trains as one stacked model.
    """
    results = {}
    for data_set in data or rows:
        if data_set not in rows:
            raise BadInput(f"--data={data_set} is no data set of this figure; type one of {', '.join(rows)}")
        common = add_own_values(check_common_overrides(overrides), KEPT)
        runs = {
            row: [variant.run(common, seed, work_dir) for seed in range(seeds)]
            for row, variant in rows[data_set].items()
        }
        if train:
            # Seed by seed, and the losses of a pair together, so that finished runs can be compared before all are done.
            run_all([runs[row][seed] for seed in range(seeds) for row in in_pairs(runs)], jobs, stacked)
        for row, row_runs in runs.items():
            results[data_set, row] = [result for run in row_runs if (result := result_of(run, choose))]
    if not find_spec("matplotlib"):
        print("the figure is left out, because matplotlib is not installed; type pip install matplotlib\n")
    print_ledger(name, rows, results)
    if find_spec("matplotlib"):
        draw(name, title, results, folder)


def in_pairs(rows: Iterable[str]) -> list[str]:
    """Sort names of rows so that names that differ only in their first word ("ce", "poly") are neighbours."""
    names = list(rows)
    others = list(dict.fromkeys(name.partition(" ")[2] for name in names))
    return sorted(names, key=lambda name: others.index(name.partition(" ")[2]))


def last(evaluations: Sequence[Line]) -> Line:
    return evaluations[-1]


def best_group_average(evaluations: Sequence[Line]) -> Line:
    """Return the evaluation with the best mean val accuracy of the groups; the first if several are equally good.

    The paper calls this rule "re-weighted".

    `imbalance select` has a rule of this name, which reads saved logits. This function reads metrics.jsonl, which unfinished
    runs have too.
    """
    return max(evaluations, key=lambda line: group_average(line, "val"))


def group_average(line: Line, split: str) -> float:
    """Return the mean of the accuracies of all groups with examples in the split."""
    return float(np.mean([v for k, v in line.items() if k.startswith(f"{split}/group_accuracy/") and v is not None]))


def result_of(run: Run, choose: Choice) -> Result | None:
    """Return the result of a run, or None if the run has no evaluation yet."""
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
    """Return the 95 % interval over test examples for the mean of the groups' test accuracies.

    Args:
        counts: number of test examples of each group.
    """
    totals = {group: n for group, n in counts.items() if n}
    right = [round(line[f"test/group_accuracy/{group}"] * n) for group, n in totals.items()]
    return mean_over_examples(right, [*totals.values()])


def done(results: list[Result]) -> list[Result]:
    return [result for result in results if result.status == "done"]


def unfinished(results: list[Result]) -> list[Result]:
    return [result for result in results if result.status == "unfinished"]


def print_ledger(name: str, rows: Rows, results_of: Mapping[tuple[str, str], list[Result]]) -> None:
    """Print a table of the paper's values and ours, with the device, time and commit of our runs.

    Unfinished runs are left out of the means; the table shows their progress.

    Args:
        name: name of the figure, such as "figure3".
        results_of: the results of our runs, by data set and row.
    """
    heads = [
        "data", "row", "config", "paper: test, mean ± standard deviation", "n",
        "ours: test, mean ± 95 % t-interval; of one run, 95 % interval over test examples",
        "n", "train", "diverged", "unfinished, and in no mean", "device", "minutes a run", "commit",
    ]  # fmt: skip
    cells = []
    for (data, row), results in results_of.items():
        theirs, ours = published(f"{name} {data}", row), done(results)
        test, train = (
            mean([r.test for r in ours], 0, 1),
            f"{100 * np.mean([r.train for r in ours]):.1f}" if ours else "–",
        )
        minutes = mean([r.summary["seconds"] / 60 for r in ours], low=0)
        devices, commits = (", ".join(sorted({part(r.summary) for r in ours})) or "–" for part in (device, commit))
        diverged = sum(r.status == "diverged" for r in results)
        alone = f" ({ours[0].interval.percent()})" if len(ours) == 1 and ours[0].interval else ""
        so_far = "; ".join(map(progress, unfinished(results))) or "–"
        claimed = f"{theirs.value:.1f} ± {theirs.standard_deviation:.1f}"
        cells.append([data, row, rows[data][row], claimed, theirs.n, test.percent() + alone, test.n, train, diverged,
                      so_far, devices, minutes.text(1, 1), commits])  # fmt: skip
    print(markdown(heads, cells), end="")


def progress(result: Result) -> str:
    """Describe the progress of an unfinished run: its epoch and its accuracies."""
    epoch = f"epoch {result.epoch} of {result.epochs}"
    selected = f", selected {result.chosen}" if result.chosen != result.epoch else ""
    return f"seed {result.seed}, {epoch}{selected}: test {100 * result.test:.1f}, train {100 * result.train:.1f}"


def device(summary: Mapping[str, Any]) -> str:
    return summary["device"]


def commit(summary: Mapping[str, Any]) -> str:
    """Return a run's shortened commit, followed by "+" if the code had uncommitted changes."""
    text = summary["commit"] or "unknown"
    return text[:7] + ("+" if text.endswith("+") else "")


def draw(name: str, title: str, results_of: Mapping[tuple[str, str], list[Result]], folder: str) -> None:
    """Draw bars of the paper's values and ours side by side, in a panel for each data set, and save the figure."""
    data_sets = list(dict.fromkeys(data for data, _ in results_of))
    figure, axes = subplots(1, len(data_sets), 4.4 * len(data_sets), 4.0, squeeze=False)
    for axis, data in zip(axes[0], data_sets):
        rows = {row: results for (other, row), results in results_of.items() if other == data}
        draw_rows(axis, rows, [published(f"{name} {data}", row) for row in rows])
        none = "" if any(rows.values()) else ": no run of ours yet"
        axis.set(title=f"{title}, {data}{none}", ylabel="group-balanced test accuracy, %")
    handles = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(data_sets))
    save(figure, folder, name)


def draw_rows(axis, rows: Mapping[str, list[Result]], theirs: list[Published]) -> None:
    """Draw bars of the paper's values with standard deviations, and of ours with 95 % intervals, in one panel.

    Our intervals are over seeds; the interval of a single run is over test examples. An unfinished run is drawn as a point,
    labelled with its last epoch.
    """
    at = np.arange(len(rows))
    bars = [axis.bar(at - 0.2, [t.value for t in theirs], 0.38, yerr=[t.standard_deviation for t in theirs],
                     color=PALETTE[5], capsize=2, label="paper, ± standard deviation")]  # fmt: skip
    ours = {x + 0.2: done(results) for x, results in enumerate(rows.values()) if done(results)}
    means = [mean([100 * r.test for r in results], 0, 100) for results in ours.values()]
    if ours:
        bars.append(axis.bar(ours.keys(), [m.value for m in means], 0.38, color=PALETTE[0],
                    label="ours, 95 % interval over seeds,\nof one run over test examples"))  # fmt: skip
    for (x, (first, *_)), row_mean in zip(ours.items(), means):
        arms = row_mean.arms  # two runs have no interval
        if row_mean.n == 1 and first.interval:
            arms = row_mean.value - 100 * first.interval.low, 100 * first.interval.high - row_mean.value
        axis.errorbar(x, row_mean.value, np.transpose([arms]), color="black", capsize=2)
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


# The table of kept results

KEPT_COLUMNS = {  # for each figure: the choice of epoch, and its column in results/rows.csv
    "figure3": {"last epoch": "test balanced"},
    "figure4": {"early-stopped": "best balanced: test balanced"},
}
PRECISION = (
    "trainer.mixed_precision",
    "trainer.channels_last",
)  # keys with which a run is still one of a row, in other arithmetic


def in_any_precision(row: Row) -> Row:
    """Return the row of a run as if it had none of the overrides in PRECISION."""
    parts = [part for part in row["overrides"].split(",") if part.partition("=")[0] not in PRECISION]
    return row | {"overrides": ",".join(parts) or "default"}


def kept_table(variants: Mapping[str, Variant], folder: Path) -> str:
    """Return a table of those rows of figures 3 and 4 that have a finished run in <folder>/rows.csv.

    Args:
        variants: the configs of figure 3 on CIFAR-10, by row; the rows of figure 4 are the same with early stopping.
        folder: folder that holds the tables of results, such as results/.
    """
    heads = ["row", "config", "published, mean ± standard deviation (n)", "ours, mean ± 95 % t-interval (n)", "agree",
             "right from epoch on", "precision", "hours a run"]  # fmt: skip
    table = []
    rows = [in_any_precision(row) for row in kept_results.read("rows", folder)]
    for figure, columns in KEPT_COLUMNS.items():
        for (name, variant), (when, column) in ((pair, *columns.items()) for pair in variants.items()):
            done_rows = [row for row in variant.rows(rows) if row["status"] == "done"]
            theirs = find_published(f"{figure} cifar", name + ("-ES" if figure == "figure4" else ""))
            if not done_rows or theirs is None:
                continue
            ours = 100 * numbers(done_rows, column)
            epochs = numbers(done_rows, "interpolation epoch")
            table.append([
                f"{name}, {when}", variant, f"{theirs.value:.1f} ± {theirs.standard_deviation:.1f} ({theirs.n})",
                f"{mean(ours.tolist(), 0, 100).text(1, 1)} ({len(ours)})", agreement(ours, theirs.value, theirs.standard_deviation, theirs.n),
                "never" if np.isnan(epochs).all() else f"{np.nanmean(epochs):.0f}",
                ", ".join(sorted({row["precision"] for row in done_rows})),
                f"{numbers(done_rows, 'seconds').mean() / 3600:.1f}",
            ])  # fmt: skip
    return markdown(heads, table) if table else "No run of these rows has finished yet.\n"


def agreement(ours: np.ndarray, value: float, deviation: float, n: int) -> str:
    """Return "yes" if our mean agrees with a published mean, else "no", and their difference with Welch's 95 % interval.

    The means agree if the interval contains zero.

    Args:
        ours: our value for each seed.
        deviation: standard deviation of the `n` published runs, whose mean is `value`.
    """
    from scipy import stats

    if len(ours) < 2:
        return "one seed decides nothing"
    result = stats.ttest_ind_from_stats(ours.mean(), ours.std(ddof=1), len(ours), value, deviation, n, equal_var=False)
    variances = ours.var(ddof=1) / len(ours), deviation**2 / n
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / (len(ours) - 1) + variances[1] ** 2 / (n - 1))
    half = stats.t.ppf(0.975, degrees) * sum(variances) ** 0.5
    difference = ours.mean() - value
    assert (abs(difference) < half) == (result.pvalue > 0.05)
    return f"{'yes' if abs(difference) < half else 'no'}: {difference:+.1f} ± {half:.1f}"
