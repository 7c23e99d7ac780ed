"""A report on all runs under a work_dir: tables, figures, and one page that needs no network.

    python -m experiments.report --work_dir=runs --folder=report

Writes results.md, .tex and .csv (every config's mean over seeds with its interval), runs.csv (every run), figures as
PNG and PDF (learning curves, learning rates, seeds, boundaries in two dimensions), and index.html with all of it. What
experiments.figure1 to figure5 have written to the same folder is on the page too. Runs that diverged, were interrupted
or are incomplete are counted beside each mean, and left out of it.
"""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments import plots
from experiments.collect import Row, collect, write_csv
from experiments.figures import FOLDER
from experiments.page import page
from experiments.runs import WORK_DIR, exit_status
from experiments.statistics import Mean, mean
from imbalance.errors import BadInput

METRICS = flags.DEFINE_list("metrics", ["balanced_accuracy", "worst_group_accuracy"], "Test metrics of the tables.")

Key = tuple[str, str]  # config and overrides


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


def summarise(groups: dict[Key, list[Row]], metrics: list[str]) -> list[dict[str, Any]]:
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


def as_text(table: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Metrics in %, with their 95 % t-intervals over seeds."""
    return [
        {
            key: value.text(1, 1) if key == "seconds" else value.percent() if isinstance(value, Mean) else str(value)
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


def write_table(folder: Path, table: list[dict[str, Any]]) -> None:
    """results.md and .tex for reading, results.csv with the mean, half-width and n of each metric apart."""
    (folder / "results.md").write_text(markdown(as_text(table)), encoding="utf-8")
    (folder / "results.tex").write_text(latex(as_text(table)), encoding="utf-8")
    flat = []
    for row in table:
        flat.append({})
        for key, value in row.items():
            parts = value._asdict() if isinstance(value, Mean) else {"": value}
            flat[-1] |= {f"{key} {part}".strip(): number for part, number in parts.items()}
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
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
    table = summarise(groups, METRICS.value)
    write_csv(folder / "runs.csv", rows)
    write_table(folder, table)
    figures = plots.draw(work_dir, groups, METRICS.value, folder)
    figures += [(f"The paper's figure {path.stem[-1]}", path) for path in sorted(folder.glob("figure[1-5].png"))]
    (folder / "index.html").write_text(page(rows, as_text(table), figures, METRICS.value), encoding="utf-8")
    print(markdown(as_text(table)))
    print(f"{folder / 'index.html'}: {len(rows)} runs, {len(groups)} configs, {len(figures)} figures")
    return 0


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
