"""A report on all runs under a work_dir: tables, figures, and one page that needs no network.

    imbalance report --work_dir=runs --folder=report

Writes results.md, .tex and .csv (every config's mean over seeds with its interval), groups.md, .tex and .csv (the same
of every test group, and how far the test examples alone decide it), runs.csv (every run), figures as PNG and PDF
(learning curves, learning rates, seeds, boundaries in two dimensions), and index.html with all of it. What
`imbalance reproduce figure1` to `figure5` have written to the same folder is on the page too. Runs that diverged, were interrupted
or are incomplete are counted beside each mean, and left out of it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.errors import BadInput

from . import plots, tables
from .collect import Row, collect, write_csv
from .intervals import Interval, Mean, mean, over_examples, wilson
from .page import page

EXAMPLES = "test/examples/"  # and the group, in a row: how many there are
Key = tuple[str, str]  # config and overrides
Numbers = Mean | Interval


def by_config(rows: list[Row]) -> dict[Key, list[Row]]:
    groups = {}
    for row in rows:
        groups.setdefault((row["name"], row["overrides"]), []).append(row)
    return groups


def labels_used(row: Row) -> str:
    """What of val the rule reads that chose the weights to test."""
    monitor = row["config.callbacks.monitor"]
    if row["config.callbacks.select"] == "last":
        return "last: none"
    return f"best {monitor.removeprefix('val/')}: " + ("val groups" if "group" in monitor else "val classes")


def summarise(groups: dict[Key, list[Row]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every config: its means over seeds, and how many runs they leave out."""
    table = []
    for (name, overrides), runs in groups.items():
        counts = Counter(run["status"] for run in runs)
        values = {metric: mean([_number(run.get(f"test/{metric}")) for run in runs]) for metric in metrics}
        seconds = mean([_number(run["seconds"]) for run in runs if run["status"] == "done"])
        table.append(
            {
                "config": name,
                "overrides": overrides,
                "selection: labels it reads": labels_used(runs[0]),
                **values,
                "n": counts["done"],
                "left out": ", ".join(f"{n} {status}" for status, n in counts.items() if status != "done") or "–",
                "seconds": seconds,
            }
        )
    return table


def summarise_groups(groups: dict[Key, list[Row]]) -> list[dict[str, Any]]:
    """A row for every test group of every config, and one each for the worst and the mean of its groups."""
    return [
        {
            "config": name,
            "overrides": overrides,
            "test group": label,
            "examples": examples,
            "accuracy": mean(accuracies),
            "n": len(accuracies),
            "one run, over test examples": Interval(*np.mean(intervals, axis=0).tolist()),
        }
        for (name, overrides), runs in groups.items()
        for label, examples, accuracies, intervals in _of_groups([run for run in runs if run["status"] == "done"])
    ]


def _of_groups(runs: list[Row]) -> Iterator[tuple[str, int, np.ndarray, list[Interval]]]:
    """What it is, how many examples, and of each run the accuracy with its interval over test examples: Wilson's of a
    group, by bootstrap of their worst and their mean."""
    if not runs:
        return
    labels = [key.removeprefix(EXAMPLES) for key, n in runs[0].items() if key.startswith(EXAMPLES) and n]
    totals = np.array([[run[EXAMPLES + label] for label in labels] for run in runs])
    accuracies = np.array([[run[f"test/group_accuracy/{label}"] for label in labels] for run in runs])
    right = np.rint(accuracies * totals).astype(int)
    for i, label in enumerate(labels):
        yield label, totals[0, i], accuracies[:, i], [wilson(r, n) for r, n in zip(right[:, i], totals[:, i])]
    for label, statistic in (("the worst", np.nanmin), ("their mean", np.nanmean)):
        intervals = [over_examples(r, n, statistic) for r, n in zip(right, totals)]
        yield label, totals[0].sum(), statistic(accuracies, axis=1), intervals


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
    """<name>.md and .tex for reading, <name>.csv with the mean, half-width and n of each metric apart."""
    (folder / f"{name}.md").write_text(markdown(as_text(table)), encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(as_text(table)), encoding="utf-8")
    flat = []
    for row in table:
        flat.append({})
        for key, value in row.items():
            parts = value._asdict() if isinstance(value, Numbers) else {"": value}
            flat[-1] |= {f"{key} {part}".strip(): number for part, number in parts.items()}
    tables.write_csv(folder / f"{name}.csv", list(flat[0]), flat)


def report(*, work_dir: str, folder: str, metrics: Sequence[str]) -> None:
    """Write tables, figures and the page to `folder`.

    Args:
        metrics: of test, the columns of the tables.
    """
    runs, into = Path(work_dir), Path(folder)
    rows = collect(runs)
    if not rows:
        raise BadInput(f"--work_dir={work_dir}: no runs there")
    into.mkdir(parents=True, exist_ok=True)
    groups = by_config(rows)
    table, of_groups = summarise(groups, metrics), summarise_groups(groups)
    write_csv(into / "runs.csv", rows)
    write_table(into, "results", table)
    if of_groups:
        write_table(into, "groups", of_groups)
    figures = plots.draw(runs, groups, metrics, into)
    figures += [(f"The paper's figure {path.stem[-1]}", path) for path in sorted(into.glob("figure[1-5].png"))]
    (into / "index.html").write_text(page(rows, as_text(table), as_text(of_groups), figures, metrics), encoding="utf-8")
    print(markdown(as_text(table)))
    print(f"{into / 'index.html'}: {len(rows)} runs, {len(groups)} configs, {len(figures)} figures")


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
