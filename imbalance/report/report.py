"""Write a report on all runs under a work_dir: tables, figures, and one HTML page that needs no network.

    imbalance report --work_dir=runs --folder=report

The folder gets these files:

- results.md, .tex and .csv: for every config, the mean of each metric over seeds, with its 95 % interval.
- groups.md, .tex and .csv: for every test group, the mean accuracy over seeds with its interval, and the interval of a
  single run's accuracy that comes from the number of test examples in the group.
- runs.csv: a row for every run.
- Figures as PNG and PDF, if matplotlib is installed: learning curves, learning rates, box plots over seeds, decision
  boundaries in two dimensions.
- index.html: all of these on one page, with the figures that `imbalance reproduce figure1` to `figure5` have written to
  the same folder.
- report.json: which runs these files are about. If neither runs nor options have changed, the files are left as they are.

Runs that diverged, were interrupted or are incomplete are counted beside each mean, and left out of it. So are debug runs,
which trained on one batch.
"""

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.config.metric_names import check_metrics
from imbalance.errors import BadInput, Damaged
from imbalance.metrics.intervals import (
    Interval,
    Mean,
    bounds,
    caveat,
    count_combinations,
    mean,
    mean_over_examples,
    wilson_ends,
    worst_over_examples,
)
from imbalance.report import plots, tables
from imbalance.report.collect import Row, collect, is_collected, separate_repeated, values_under, write_csv
from imbalance.report.page import page
from imbalance.report.page.contents import FILES, readable_predictions
from imbalance.report.run_index import SETTLED, code_version, file_stamp, run_directories, runs_stamp
from imbalance.report.saved_runs import evaluation_groups
from imbalance.report.settings import default_metrics, selection_rule, varying_keys
from imbalance.utils.files import refuse_run_directory, write_atomic
from imbalance.utils.output import counted
from imbalance.utils.read import read_json, read_text, seal, short_hash

TABLES = tuple(f"{name}.{suffix}" for name in ("results", "groups") for suffix in ("md", "tex", "csv"))
FIGURES = tuple(f"{name}.{suffix}" for name in plots.NAMES for suffix in ("png", "pdf"))
OUTPUTS = ("runs.csv", "index.html", *TABLES, *FIGURES)
PAPER_FIGURES = tuple(f"figure{number}.png" for number in range(1, 6))  # written by imbalance reproduce
STAMPS = "report.json"  # file of a report that says of which runs it is
EXAMPLES = "test/examples/"  # beginning of the keys of a row that hold the number of test examples of each group
Key = tuple[str, str]  # a setting: config and overrides
Numbers = Mean | Interval


def by_setting(rows: list[Row]) -> dict[Key, list[Row]]:
    """Group the rows of runs by (config, overrides); the runs of a group differ only in the seed."""
    groups = {}
    for row in rows:
        groups.setdefault((row["name"], row["overrides"]), []).append(row)
    return groups


def summarise(groups: dict[Key, list[Row]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return a table with a row for every setting: runs with the same config and overrides.

    A row has the config values in which settings differ, the mean of each test metric over seeds, and the number of
    runs left out of the means.

    Args:
        groups: by config and overrides, the rows of the runs.
        metrics: names of the test metrics.
    """
    columns = varying_keys([runs[0] for runs in groups.values()])
    other_groups = evaluation_groups((run for runs in groups.values() for run in runs), "test")
    table = []
    for (name, _), runs in groups.items():
        counts = Counter(run["status"] for run in runs)
        values = {
            metric: mean([_number(run.get(f"test/{metric}")) for run in runs], *bounds(metric)) for metric in metrics
        }
        not_done = [f"{n} {status}" for status, n in counts.items() if status != "done"]
        # A metric can have no value in a run that is done, such as MCC if all predictions are one class.
        without_value = [f"{metric}: {n} without a value" for metric in metrics if (n := missing_values(runs, metric))]
        seconds = mean([_number(run["seconds"]) for run in runs if run["status"] == "done"], low=0)
        rule = selection_rule(runs[0])
        table.append(
            {
                "config": name,
                **_values(runs[0], columns),
                **({"groups": evaluation_groups(runs, "test") or "training groups"} if other_groups else {}),
                "selection: labels it reads": f"{rule['name']}: {rule['labels']}",
                **values,
                "n": counts["done"],
                "left out": ", ".join([*not_done, *without_value]) or "–",
                "seconds": seconds,
            }
        )
    return table


def missing_values(runs: Sequence[Row], metric: str) -> int:
    """Return the number of runs that are done, and have no value of a test metric."""
    return sum(run["status"] == "done" and math.isnan(_number(run.get(f"test/{metric}"))) for run in runs)


def summarise_groups(groups: dict[Key, list[Row]], work_dir: Path) -> list[dict[str, Any]]:
    """Return a table with rows for the test groups, the worst group and the mean of the groups of every setting.

    A setting is all runs with the same config and overrides.

    Args:
        groups: by config and overrides, the rows of the runs.
        work_dir: folder of the run directories; their predictions are read if the evaluation groups overlap.
    """
    columns = varying_keys([runs[0] for runs in groups.values()])
    return [
        {
            "config": name,
            **_values(runs[0], columns),
            "test group": label,
            "examples": sum(totals),
            "accuracy": mean(accuracies.tolist(), 0, 1),
            "n": len(accuracies),
            "one run, over test examples": interval,
            "caution": caveat(totals) or "–",
        }
        for (name, _), runs in groups.items()
        for label, totals, accuracies, interval in _group_accuracies(
            [run for run in runs if run["status"] == "done"], work_dir
        )
    ]


def _group_accuracies(runs: list[Row], work_dir: Path) -> Iterator[tuple[str, list[int], np.ndarray, Interval]]:
    """Yield the accuracies of each test group of a setting, then of the worst group, then the mean over the groups.

    Yields:
        The label; the number of examples, in a list: of this group, or of each group for the worst group and the mean;
        the accuracy of every run; and the interval over test examples, whose ends are averaged over runs. The interval
        of a group is Wilson's; for the worst group and the mean see `worst_over_examples` and
        `mean_over_examples`.
    """
    if not runs:
        return
    labels = [key.removeprefix(EXAMPLES) for key, n in values_under(runs[0], EXAMPLES).items() if n]
    runs = [run for run in runs if all(run.get(f"test/group_accuracy/{label}") is not None for label in labels)]
    pairs = [(run, overlaps(run, work_dir)) for run in runs]
    pairs = [(run, overlap) for run, overlap in pairs if overlap is None or overlap]
    runs, overlapping = [run for run, _ in pairs], [overlap for _, overlap in pairs]
    if not runs or not labels:
        return
    totals = np.array([[run[EXAMPLES + label] for label in labels] for run in runs])
    accuracies = np.array([[run[f"test/group_accuracy/{label}"] for label in labels] for run in runs])
    right = np.rint(accuracies * totals).astype(int)

    def averaged(intervals: Iterable[Interval]) -> Interval:
        low, high = np.mean(list(intervals), axis=0).tolist()
        return Interval(low, high)

    for i, (label, low, high) in enumerate(
        zip(labels, *(ends.mean(0).tolist() for ends in wilson_ends(right, totals)))
    ):
        yield label, [int(totals[0, i])], accuracies[:, i], Interval(low, high)
    worst = map(worst_over_examples, right, totals)
    yield "the worst", totals[0].tolist(), accuracies.min(axis=1), averaged(worst)
    means = (mean_over_examples(*(overlap or (r, n))) for r, n, overlap in zip(right, totals, overlapping))
    yield "their mean", totals[0].tolist(), accuracies.mean(axis=1), averaged(means)


def overlaps(run: Row, work_dir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | tuple[()] | None:
    """Count a run's test examples in each combination of groups, if evaluation groups overlap or leave out examples.

    Args:
        run: row of the run.

    Returns:
        The counts of `count_combinations`; None if every example is in exactly one group; () if the saved predictions
        cannot be read.
    """
    if not values_under(run, "test/training_group_accuracy/"):
        return None
    saved = readable_predictions(work_dir / run["run"])[0] or {}
    return (
        count_combinations(saved["logits"].argmax(1) == saved["targets"], saved["members"])
        if "members" in saved
        else ()
    )


def as_text(table: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the table with every cell as text: a metric with its 95 % interval, in percent if it is a fraction."""

    def text(key: str, value: Any) -> str:
        if isinstance(value, Mean):
            return value.text(1, 1) if key == "seconds" else value.of_metric(key)
        return value.percent() if isinstance(value, Interval) else str(value)

    return [{key: text(key, value) for key, value in row.items()} for row in table]


def markdown(table: list[dict[str, str]]) -> str:
    return tables.markdown(list(table[0]), [list(row.values()) for row in table])


def latex(table: list[dict[str, str]]) -> str:
    return tables.latex(list(table[0]), [list(row.values()) for row in table], text=3)


def write_table(folder: Path, name: str, table: list[dict[str, Any]]) -> None:
    """Write <name>.md and .tex, and <name>.csv with separate columns for a metric's mean, interval ends and n."""
    write_atomic(folder / f"{name}.md", markdown(as_text(table)).encode())
    write_atomic(folder / f"{name}.tex", latex(as_text(table)).encode())
    flat = []
    for row in table:
        flat.append({})
        for key, value in row.items():
            parts = value._asdict() if isinstance(value, Numbers) else {"": value}
            parts.pop("values", None)
            flat[-1] |= {f"{key} {part}".strip(): number for part, number in parts.items()}
    tables.write_csv(folder / f"{name}.csv", list(flat[0]), flat)


def report(*, work_dir: str, folder: str, metrics: Sequence[str], pictured: int) -> None:
    """Write tables, figures and the HTML page to `folder`, and print the table of results.

    Args:
        metrics: test metrics, one column each; () for `default_metrics`. The page ranks methods by the first until its
            reader chooses another.
        pictured: number of runs for which the page shows misclassified examples; their data sets are read.
    """
    check_metrics(metrics)
    check_folder(Path(folder))
    runs, now = Path(work_dir), time.time_ns()
    stamp, newest = report_stamp(runs, Path(folder), metrics, pictured)
    if unchanged := is_current(Path(folder), stamp):
        print(read_text(Path(folder) / "results.md"))
        print(f"{unchanged}; neither runs nor options have changed, so the files are left as they are")
        return
    rows, warning = separate_repeated(collect(runs))
    if not rows:
        raise BadInput(f"--work_dir={work_dir} has no run directories; type a folder that has some, as --work_dir=runs")
    table = write(runs, rows, Path(folder), metrics or default_metrics(rows), pictured)
    print(markdown(as_text(table)))
    line = f"{Path(folder) / 'index.html'}: {counted(len(rows), 'run')} of {counted(len(table), 'setting')}"
    print(line)
    if warning:
        print(warning, file=sys.stderr)
    # Warnings about other runs are printed again
    if not warning and newest + SETTLED < now and len(rows) == len(run_directories(runs)):
        stamps = {"report": stamp, "outputs": file_stamp(folder, OUTPUTS)[0], "line": line}
        write_atomic(Path(folder) / STAMPS, json.dumps(seal(stamps)).encode())


def report_stamp(work_dir: Path, folder: Path, metrics: Sequence[str], pictured: int) -> tuple[str, int]:
    """Return a digest of all that a report depends on, and the time of the last change of a run in nanoseconds.

    The arguments are those of `write`. The data sets of the runs are left out, because it would take long to read them.
    """
    runs, newest = runs_stamp(work_dir, (*FILES, "model.json", "checkpoints/selected.pt"))
    figures = file_stamp(folder, PAPER_FIGURES)[0]
    options = f"{work_dir.absolute()} {list(metrics)} {pictured} {find_spec('matplotlib') is not None}"
    return short_hash(f"{runs} {figures} {options} {code_version()}".encode()), newest


def is_current(folder: Path, stamp: str) -> str:
    """Return the last line that the report in `folder` printed if it has this stamp and none of its files has changed; else "".

    Args:
        stamp: digest of `report_stamp`.
    """
    try:
        stamps = read_json(folder / STAMPS)
    except (OSError, Damaged):
        return ""
    is_same = stamps.get("report") == stamp and stamps.get("outputs") == file_stamp(folder, OUTPUTS)[0]
    return str(stamps.get("line", "")) if is_same else ""


def check_folder(folder: Path, flag: str = "--folder") -> None:
    """Raise `BadInput` if a report in `folder` would replace files that no report wrote.

    A report writes runs.csv first, so a folder in which runs.csv is that of a report is accepted.

    Args:
        flag: the beginning of the message.

    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{flag}: {folder} is a file; name a folder")
    refuse_run_directory(folder, folder, flag)
    if (folder / "runs.csv").is_file() and is_collected(folder / "runs.csv"):
        return
    if foreign := [name for name in (*OUTPUTS, STAMPS) if (folder / name).exists()]:
        raise BadInput(
            f"{flag}: {folder} has a file {foreign[0]}, which no report wrote, and which a report would replace; name another folder"
        )


def write(work_dir: Path, rows: list[Row], folder: Path, metrics: Sequence[str], pictured: int) -> list[dict[str, Any]]:
    """Write the report on the runs in `rows`, and return the table that results.md holds.

    Args:
        work_dir: folder of the run directories.
        rows: one row for each run to report on, as `collect` returns it.
        folder: folder to write the report to.
        metrics: test metrics, one column each.
        pictured: number of runs for which the page shows misclassified examples; their data sets are read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = by_setting(rows)
    table, group_table = summarise(groups, metrics), summarise_groups(groups, work_dir)
    write_csv(folder / "runs.csv", rows)
    write_table(folder, "results", table)
    if group_table:
        write_table(folder, "groups", group_table)
    figures = plots.draw(work_dir, groups, metrics, folder) if find_spec("matplotlib") else []
    if not find_spec("matplotlib"):
        print("the figures are left out, because matplotlib is not installed; type pip install matplotlib")
    # The page draws the other figures itself.
    drawn = [(title, path) for title, path in figures if path.stem == "boundaries"]
    drawn += [
        (f"Figure {path.stem[-1]} of Wang et al. (ICLR 2022)", path)
        for path in [folder / name for name in PAPER_FIGURES if (folder / name).exists()]
    ]
    write_atomic(folder / "index.html", page(work_dir, rows, metrics, drawn, pictured).encode())
    return table


def _values(row: Row, columns: list[str]) -> dict[str, Any]:
    return {key: row.get(f"config.{key}", "–") for key in columns}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
