"""A report on all runs under a work_dir: tables, figures, and one page that needs no network.

    imbalance report --work_dir=runs --folder=report

Writes results.md, .tex and .csv (every config's mean over seeds with its interval), groups.md, .tex and .csv (the same
of every test group, and how far the test examples alone decide it), runs.csv (every run), figures as PNG and PDF
(learning curves, learning rates, seeds, boundaries in two dimensions), and index.html with all of it. What
`imbalance reproduce figure1` to `figure5` have written to the same folder is on the page too. Runs that diverged, were interrupted
or are incomplete are counted beside each mean, and left out of it.
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
from imbalance.report.page.facts import read_predictions
from imbalance.report.saved_runs import evaluated_over
from imbalance.report.settings import own_rule, varying

EXAMPLES = "test/examples/"  # and the group, in a row: how many there are
Key = tuple[str, str]  # config and overrides
Numbers = Mean | Interval


def by_config(rows: list[Row]) -> dict[Key, list[Row]]:
    groups = {}
    for row in rows:
        groups.setdefault((row["name"], row["overrides"]), []).append(row)
    return groups


def summarise(groups: dict[Key, list[Row]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every setting: what tells it from the others, its means over seeds, and how many runs they leave out."""
    columns = varying([runs[0] for runs in groups.values()])
    apart = evaluated_over((run for runs in groups.values() for run in runs), "test")
    table = []
    for (name, _), runs in groups.items():
        counts = Counter(run["status"] for run in runs)
        values = {
            metric: mean([_number(run.get(f"test/{metric}")) for run in runs], *bounds(metric)) for metric in metrics
        }
        seconds = mean([_number(run["seconds"]) for run in runs if run["status"] == "done"], low=0)
        rule = own_rule(runs[0])
        table.append(
            {
                "config": name,
                **_differing(runs[0], columns),
                **({"groups": evaluated_over(runs, "test") or "those of training"} if apart else {}),
                "selection: labels it reads": f"{rule['name']}: {rule['labels']}",
                **values,
                "n": counts["done"],
                "left out": ", ".join(f"{n} {status}" for status, n in counts.items() if status != "done") or "–",
                "seconds": seconds,
            }
        )
    return table


def summarise_groups(groups: dict[Key, list[Row]], work_dir: Path) -> list[dict[str, Any]]:
    """A row for every test group of every setting, and one each for the worst and the mean of its groups.

    Args:
        work_dir: holds the runs, whose predictions are read where their groups overlap.
    """
    columns = varying([runs[0] for runs in groups.values()])
    return [
        {
            "config": name,
            **_differing(runs[0], columns),
            "test group": label,
            "examples": sum(totals),
            "accuracy": mean(accuracies, 0, 1),
            "n": len(accuracies),
            "one run, over test examples": interval,
            "which says little": caveat(totals, interval) or "–",
        }
        for (name, _), runs in groups.items()
        for label, totals, accuracies, interval in _of_groups(
            [run for run in runs if run["status"] == "done"], work_dir
        )
    ]


def _of_groups(runs: list[Row], work_dir: Path) -> Iterator[tuple[str, list[int], np.ndarray, Interval]]:
    """What it is, how many examples each of its groups has, every run's accuracy, and their mean interval over test
    examples: Wilson's of a group, by bootstrap of their worst and their mean."""
    if not runs:
        return
    labels = [key.removeprefix(EXAMPLES) for key, n in runs[0].items() if key.startswith(EXAMPLES) and n]
    runs = [run for run in runs if all(run.get(f"test/group_accuracy/{label}") is not None for label in labels)]
    found = [overlaps(run, work_dir) for run in runs]
    runs, overlapping = (
        [r for r, of in zip(runs, found) if of is None or of],
        [of for of in found if of is None or of],
    )
    if not runs or not labels:
        return
    totals = np.array([[run[EXAMPLES + label] for label in labels] for run in runs])
    accuracies = np.array([[run[f"test/group_accuracy/{label}"] for label in labels] for run in runs])
    right = np.rint(accuracies * totals).astype(int)

    def averaged(intervals: Iterable[Interval]) -> Interval:
        return Interval(*np.mean(list(intervals), axis=0).tolist())

    for i, label in enumerate(labels):
        of_runs = (wilson(r, n) for r, n in zip(right[:, i], totals[:, i]))
        yield label, [int(totals[0, i])], accuracies[:, i], averaged(of_runs)
    for label, statistic in (("the worst", np.nanmin), ("their mean", np.nanmean)):
        of_runs = (
            over_examples(*found[:2], statistic, combinations=found[2]) if found else over_examples(r, n, statistic)
            for r, n, found in zip(right, totals, overlapping)
        )
        yield label, totals[0].tolist(), statistic(accuracies, axis=1), averaged(of_runs)


def overlaps(run: Row, work_dir: Path) -> tuple[np.ndarray, ...] | None:
    """`count_combinations` of a run's test examples, where its evaluation groups overlap or leave some out; None where they do not.

    () where its predictions cannot be read.
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
    """Metrics in %, with their 95 % intervals."""
    return [
        {
            key: value.text(1, 1) if key == "seconds" else value.percent() if isinstance(value, Numbers) else str(value)
            for key, value in row.items()
        }
        for row in table
    ]


def markdown(table: list[dict[str, str]]) -> str:
    return tables.markdown(list(table[0]), [row.values() for row in table])


def latex(table: list[dict[str, str]]) -> str:
    return tables.latex(list(table[0]), [row.values() for row in table], text=3)


def write_table(folder: Path, name: str, table: list[dict[str, Any]]) -> None:
    """<name>.md and .tex for reading, <name>.csv with the mean, the ends of its interval and n of each metric apart."""
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
    """Write tables, figures and the page to `folder`.

    Args:
        metrics: of test, the columns of the tables; the page ranks by the first until its reader chooses another.
        pictured: runs whose surest errors the page shows as pictures or rows, for which their data are read.
    """
    check_metrics(metrics)
    runs = Path(work_dir)
    rows = collect(runs)
    if not rows:
        raise BadInput(f"--work_dir={work_dir}: no runs there")
    table = write(runs, rows, Path(folder), metrics, pictured)
    print(markdown(as_text(table)))
    print(f"{Path(folder) / 'index.html'}: {len(rows)} runs, {len(table)} configs")


def write(runs: Path, rows: list[Row], into: Path, metrics: Sequence[str], pictured: int) -> list[dict[str, Any]]:
    """What `report` writes, of `rows` of runs under `runs`; returns the table of results."""
    into.mkdir(parents=True, exist_ok=True)
    groups = by_config(rows)
    table, of_groups = summarise(groups, metrics), summarise_groups(groups, runs)
    write_csv(into / "runs.csv", rows)
    write_table(into, "results", table)
    if of_groups:
        write_table(into, "groups", of_groups)
    figures = plots.draw(runs, groups, metrics, into)
    drawn = [(title, path) for title, path in figures if path.stem == "boundaries"]  # the page draws the others itself
    drawn += [(f"The paper's figure {path.stem[-1]}", path) for path in sorted(into.glob("figure[1-5].png"))]
    (into / "index.html").write_text(page(runs, rows, metrics, drawn, pictured), encoding="utf-8")
    return table


def _differing(row: Row, columns: list[str]) -> dict[str, Any]:
    return {key: row.get(f"config.{key}", "–") for key in columns}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
