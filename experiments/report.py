"""A report on all runs under a work_dir: tables, figures, and one page that needs no network.

    python -m experiments.report --work_dir=runs --folder=report

Writes results.md, .tex and .csv (every config's mean over seeds with its interval), groups.md, .tex and .csv (the same
of every test group, and how far the test examples alone decide it), runs.csv (every run), figures as PNG and PDF
(learning curves, learning rates, seeds, boundaries in two dimensions), and index.html with all of it. What
experiments.figure1 to figure5 have written to the same folder is on the page too. Runs that diverged, were interrupted
or are incomplete are counted beside each mean, and left out of it.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments import plots
from experiments.collect import Row, collect, write_csv
from experiments.figures import FOLDER
from experiments.intervals import Interval, Mean, caveat, mean, over_examples, wilson
from experiments.page import page
from experiments.page.facts import BOUNDS
from experiments.runs import WORK_DIR, exit_status
from experiments.settings import own_rule, varying
from imbalance.errors import BadInput

METRICS = flags.DEFINE_list("metrics", ["balanced_accuracy", "worst_group_accuracy"], "Test metrics of the tables.")
PICTURED = flags.DEFINE_integer("pictured", 20, "Runs whose surest errors the page shows as pictures, text or rows.", 0)

EXAMPLES = "test/examples/"  # and the group, in a row: how many there are
Key = tuple[str, str]  # config and overrides
Numbers = Mean | Interval


def by_config(rows: list[Row]) -> dict[Key, list[Row]]:
    groups = {}
    for row in rows:
        groups.setdefault((row["name"], row["overrides"]), []).append(row)
    return groups


def summarise(groups: dict[Key, list[Row]], metrics: list[str]) -> list[dict[str, Any]]:
    """A row for every setting: what tells it from the others, its means over seeds, and how many runs they leave out."""
    columns = varying([runs[0] for runs in groups.values()])
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
                "selection: labels it reads": f"{rule['name']}: {rule['labels']}",
                **values,
                "n": counts["done"],
                "left out": ", ".join(f"{n} {status}" for status, n in counts.items() if status != "done") or "–",
                "seconds": seconds,
            }
        )
    return table


def bounds(metric: str) -> tuple[float, float]:
    """What a metric can be."""
    low, high = BOUNDS.get(metric, (0, 1))
    return low, float("inf") if high is None else high


def summarise_groups(groups: dict[Key, list[Row]]) -> list[dict[str, Any]]:
    """A row for every test group of every setting, and one each for the worst and the mean of its groups."""
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
        for label, totals, accuracies, interval in _of_groups([run for run in runs if run["status"] == "done"])
    ]


def _of_groups(runs: list[Row]) -> Iterator[tuple[str, list[int], np.ndarray, Interval]]:
    """What it is, how many examples each of its groups has, every run's accuracy, and their mean interval over test
    examples: Wilson's of a group, by bootstrap of their worst and their mean."""
    if not runs:
        return
    labels = [key.removeprefix(EXAMPLES) for key, n in runs[0].items() if key.startswith(EXAMPLES) and n]
    totals = np.array([[run[EXAMPLES + label] for label in labels] for run in runs])
    accuracies = np.array([[run[f"test/group_accuracy/{label}"] for label in labels] for run in runs])
    right = np.rint(accuracies * totals).astype(int)

    def averaged(intervals: Iterable[Interval]) -> Interval:
        return Interval(*np.mean(list(intervals), axis=0).tolist())

    for i, label in enumerate(labels):
        of_runs = (wilson(r, n) for r, n in zip(right[:, i], totals[:, i]))
        yield label, [int(totals[0, i])], accuracies[:, i], averaged(of_runs)
    for label, statistic in (("the worst", np.nanmin), ("their mean", np.nanmean)):
        of_runs = (over_examples(r, n, statistic) for r, n in zip(right, totals))
        yield label, totals[0].tolist(), statistic(accuracies, axis=1), averaged(of_runs)


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
    lines = ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row.values()) + " |" for row in table)]) + "\n"


def latex(table: list[dict[str, str]]) -> str:
    """A tabular of booktabs."""

    def line(cells) -> str:
        return " & ".join(map(_escaped, cells)) + r" \\"

    body = "\n".join(line(row.values()) for row in table)
    columns = "l" * 3 + "r" * (len(table[0]) - 3)
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(table[0])}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


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
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, flat[0])
        writer.writeheader()
        writer.writerows(flat)


def report() -> None:
    work_dir, folder = Path(WORK_DIR.value), Path(FOLDER.value)
    rows = collect(work_dir)
    if not rows:
        raise BadInput(f"--work_dir={work_dir}: no runs there")
    folder.mkdir(parents=True, exist_ok=True)
    groups = by_config(rows)
    table, of_groups = summarise(groups, METRICS.value), summarise_groups(groups)
    write_csv(folder / "runs.csv", rows)
    write_table(folder, "results", table)
    if of_groups:
        write_table(folder, "groups", of_groups)
    figures = plots.draw(work_dir, groups, METRICS.value, folder)
    drawn = [(title, path) for title, path in figures if path.stem == "boundaries"]  # the page draws the others itself
    drawn += [(f"The paper's figure {path.stem[-1]}", path) for path in sorted(folder.glob("figure[1-5].png"))]
    text = page(work_dir, rows, METRICS.value, drawn, PICTURED.value)
    (folder / "index.html").write_text(text, encoding="utf-8")
    print(markdown(as_text(table)))
    print(f"{folder / 'index.html'}: {len(rows)} runs, {len(groups)} configs, {len(figures)} figures")


def _differing(row: Row, columns: list[str]) -> dict[str, Any]:
    return {key: row.get(f"config.{key}", "–") for key in columns}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _escaped(text: str) -> str:
    for plain, tex in (("\\", r"\textbackslash{}"), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"), ("±", r"$\pm$"), ("–", "--")):  # fmt: skip
        text = text.replace(plain, tex)
    return text


def main(argv: list[str]) -> int:
    return exit_status(report, argv)


if __name__ == "__main__":
    app.run(main)
