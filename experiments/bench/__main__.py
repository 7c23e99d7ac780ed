"""How fast the project is: `python -m experiments.bench [--only=step] [--repeats=5] [--output=bench.json]`.

Every figure is a ratio of two runs that take turns, in one process or in a pair of processes, and the table has the
median of the ratios with their range. All parts take ten minutes or so on two cores; with anything else running there,
look at the range before the median.
"""

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from . import evaluations, growth, images, paper_loop, stacked, start, steps
from .timing import Row

PARTS: dict[str, Callable[[int], list[Row]]] = {
    "step": steps.rows,
    "paper": paper_loop.rows,
    "images": images.rows,
    "evaluation": evaluations.rows,
    "start": start.rows,
    "growth": growth.rows,
    "sweep": stacked.rows,
}

HEADING = "| part | what over what | ratio | range | bar |\n|---|---|---|---|---|"


def line(row: Row) -> str:
    """A row of the Markdown table."""
    return f"| {row.part} | {row.case} | {row.median:.2f} | {row.ratios[0]:.2f} to {row.ratios[-1]:.2f} | {row.bar} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="the parts to run, with commas; by default all")
    parser.add_argument("--repeats", type=int, default=5, help="ratios a figure; half where each takes new processes")
    parser.add_argument("--output", type=Path, help="a JSON file for all ratios")
    arguments = parser.parse_args(argv)
    parts = arguments.only.split(",")
    unknown = [name for name in parts if name not in PARTS]
    if unknown or arguments.repeats < 1:
        parser.error(f"--only takes some of {', '.join(PARTS)}, --repeats at least 1")
    machine = {"machine": platform.platform(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()) + f"\n\n{HEADING}", flush=True)
    found = []
    for name in parts:
        for row in PARTS[name](arguments.repeats):
            found.append(asdict(row) | {"median": row.median})
            print(line(row), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(machine | {"rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
