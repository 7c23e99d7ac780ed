"""Write a report on all runs under a work_dir: tables, figures, and one HTML page that needs no network.

    imbalance report --work_dir=runs --folder=report

The folder gets these files:

- results.md, .tex and .csv: the mean of every config over seeds, with its interval.
- groups.md, .tex and .csv: the same for every test group, with the interval over test examples of one run.
- runs.csv: a row for every run.
- Figures as PNG and PDF: learning curves, learning rates, box plots over seeds, decision boundaries in two dimensions.
- index.html: all of these on one page, with the figures that `imbalance reproduce figure1` to `figure5` have written to
  the same folder.

Runs that diverged, were interrupted or are incomplete are counted beside each mean, and left out of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.config.metric_names import check_metrics
from imbalance.errors import BadInput
from imbalance.metrics.intervals import Interval, Mean, bounds, caveat, count_combinations, mean, over_examples, wilson
from imbalance.report import plots, tables
from imbalance.report.collect import Row, collect, write_csv
from imbalance.report.page import page
from imbalance.report.page.overview import read_predictions
from imbalance.report.saved_runs import evaluation_groups
from imbalance.report.settings import selection_rule, varying_keys

EXAMPLES = "test/examples/"  # prefix of a row's keys that hold the number of test examples of a group
Key = tuple[str, str]  # a setting: config and overrides
Numbers = Mean | Interval


def by_setting(rows: list[Row]) -> dict[Key, list[Row]]:
    """Return the rows of every setting."""
    groups = {}
    for row in rows:
        groups.setdefault((row["name"], row["overrides"]), []).append(row)
    return groups


def summarise(groups: dict[Key, list[Row]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for every setting: its varying config values, its means over seeds, and the number of runs left out."""
    columns = varying_keys([runs[0] for runs in groups.values()])
    other_groups = evaluation_groups((run for runs in groups.values() for run in runs), "test")
    table = []
    for (name, _), runs in groups.items():
        counts = Counter(run["status"] for run in runs)
        values = {
            metric: mean([_number(run.get(f"test/{metric}")) for run in runs], *bounds(metric)) for metric in metrics
        }
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
                "left out": ", ".join(f"{n} {status}" for status, n in counts.items() if status != "done") or "–",
                "seconds": seconds,
            }
        )
    return table


def summarise_groups(groups: dict[Key, list[Row]], work_dir: Path) -> list[dict[str, Any]]:
    """Return a row for every test group of every setting, and two more rows: the worst group and the mean of the groups.

    Args:
        work_dir: folder of the runs, whose predictions are read if the evaluation groups overlap.
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
            "caution": caveat(totals, interval) or "–",
        }
        for (name, _), runs in groups.items()
        for label, totals, accuracies, interval in _group_accuracies(
            [run for run in runs if run["status"] == "done"], work_dir
        )
    ]


def _group_accuracies(runs: list[Row], work_dir: Path) -> Iterator[tuple[str, list[int], np.ndarray, Interval]]:
    """Yield every test group of a setting, then the worst group and the mean of the groups.

    Yields:
        The label, the number of examples in each group, the accuracy of every run, and the interval over test examples,
        averaged over runs. It is Wilson's interval for a group, and a bootstrap interval for the worst and the mean.
    """
    if not runs:
        return
    labels = [key.removeprefix(EXAMPLES) for key, n in runs[0].items() if key.startswith(EXAMPLES) and n]
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

    for i, label in enumerate(labels):
        intervals = (wilson(r, n) for r, n in zip(right[:, i], totals[:, i]))
        yield label, [int(totals[0, i])], accuracies[:, i], averaged(intervals)
    for label, statistic in (("the worst", np.nanmin), ("their mean", np.nanmean)):
        intervals = []
        for r, n, overlap in zip(right, totals, overlapping):
            r, n, members = overlap or (r, n, None)
            intervals.append(over_examples(r, n, statistic, combinations=members))
        yield label, totals[0].tolist(), statistic(accuracies, axis=1), averaged(intervals)


def overlaps(run: Row, work_dir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | tuple[()] | None:
    """Count a run's test examples by their groups, as `count_combinations` does, if evaluation groups overlap or leave out examples.

    Returns:
        None if every example is in exactly one group; () if the predictions cannot be read.
    """
    if not any(key.startswith("test/training_group_accuracy/") for key in run):
        return None
    saved = read_predictions(work_dir / run["run"]) or {}
    return (
        count_combinations(saved["logits"].argmax(1) == saved["targets"], saved["members"])
        if "members" in saved
        else ()
    )


def as_text(table: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the table with every cell as text: metrics in %, with their 95 % intervals."""
    return [
        {
            key: value.text(1, 1) if key == "seconds" else value.percent() if isinstance(value, Numbers) else str(value)
            for key, value in row.items()
        }
        for row in table
    ]


def markdown(table: list[dict[str, str]]) -> str:
    return tables.markdown(list(table[0]), [list(row.values()) for row in table])


def latex(table: list[dict[str, str]]) -> str:
    return tables.latex(list(table[0]), [list(row.values()) for row in table], text=3)


def write_table(folder: Path, name: str, table: list[dict[str, Any]]) -> None:
    """Write <name>.md and .tex, and <name>.csv with separate columns for a metric's mean, interval ends and n."""
    (folder / f"{name}.md").write_text(markdown(as_text(table)), encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(as_text(table)), encoding="utf-8")
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
        metrics: test metrics, one column each. The page ranks by the first until its reader chooses another.
        pictured: number of runs whose data set is read, to show their most confident errors on the page.
    """
    check_metrics(metrics)
    runs = Path(work_dir)
    rows = collect(runs)
    if not rows:
        raise BadInput(f"--work_dir={work_dir} has no runs; type the folder that holds run directories, such as runs")
    table = write(runs, rows, Path(folder), metrics, pictured)
    print(markdown(as_text(table)))
    print(f"{Path(folder) / 'index.html'}: {len(rows)} runs, {len(table)} configs")


def write(runs: Path, rows: list[Row], into: Path, metrics: Sequence[str], pictured: int) -> list[dict[str, Any]]:
    """Write the report on some runs, and return the table of results.

    Args:
        runs: folder of the run directories.
        rows: runs to report on, as `collect` returns them.
        into: folder to write to.
    """
    into.mkdir(parents=True, exist_ok=True)
    groups = by_setting(rows)
    table, group_table = summarise(groups, metrics), summarise_groups(groups, runs)
    write_csv(into / "runs.csv", rows)
    write_table(into, "results", table)
    if group_table:
        write_table(into, "groups", group_table)
    figures = plots.draw(runs, groups, metrics, into)
    drawn = [
        (title, path) for title, path in figures if path.stem == "boundaries"
    ]  # the page draws the other figures itself
    drawn += [(f"The paper's figure {path.stem[-1]}", path) for path in sorted(into.glob("figure[1-5].png"))]
    (into / "index.html").write_text(page(runs, rows, metrics, drawn, pictured), encoding="utf-8")
    return table


def _values(row: Row, columns: list[str]) -> dict[str, Any]:
    return {key: row.get(f"config.{key}", "–") for key in columns}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
