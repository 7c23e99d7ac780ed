"""How fast the project is: `python -m experiments.bench [--only=step] [--repeats=5] [--output=bench.json]`.

Every figure is a ratio of two runs that take turns, in one process or in a pair of processes, and the table has the
median of the ratios with their range. All parts take six minutes or so on two cores; with anything else running there,
look at the range before the median.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from absl import app, flags

from experiments.bench import evaluation, growth, images, paper, start, step
from experiments.bench.timing import Row

PARTS: dict[str, Callable[[int], list[Row]]] = {
    "step": step.rows,
    "paper": paper.rows,
    "images": images.rows,
    "evaluation": evaluation.rows,
    "start": start.rows,
    "growth": growth.rows,
}

REPEATS = flags.DEFINE_integer("repeats", 5, "Ratios a figure; half as many where each takes new processes.", 1)
ONLY = flags.DEFINE_list("only", list(PARTS), "The parts to run.")
OUTPUT = flags.DEFINE_string("output", None, "A JSON file for all ratios.")
HEADING = "| part | what over what | ratio | range | bar |\n|---|---|---|---|---|"


def line(row: Row) -> str:
    """A row of the Markdown table."""
    return f"| {row.part} | {row.case} | {row.median:.2f} | {row.ratios[0]:.2f} to {row.ratios[-1]:.2f} | {row.bar} |"


def main(argv: list[str]) -> None:
    unknown = [name for name in ONLY.value if name not in PARTS]
    if unknown or argv[1:]:
        raise app.UsageError(f"{(unknown + argv[1:])[0]!r} given; --only takes some of {', '.join(PARTS)}")
    machine = {"machine": platform.platform(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()) + f"\n\n{HEADING}", flush=True)
    found = []
    for name in ONLY.value:
        for row in PARTS[name](REPEATS.value):
            found.append(asdict(row) | {"median": row.median})
            print(line(row), flush=True)
    if OUTPUT.value:
        Path(OUTPUT.value).write_text(json.dumps(machine | {"rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
