"""How fast the project is, each figure beside what it has to be measured against.

    imbalance bench --only=step --repeats=5 --output=bench.json

Every figure is a ratio of two runs that take turns, in one process or in a pair of processes, and the table has the
median of the ratios with their range. All parts take ten minutes or so on two cores; with anything else running there,
look at the range before the median.
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from imbalance.bench import evaluations, features, growth, images, on_gpu, paper_loop, stacked, start, steps
from imbalance.bench.timing import Row
from imbalance.errors import BadInput

PARTS: dict[str, Callable[[int], list[Row]]] = {
    "step": steps.rows,
    "paper": paper_loop.rows,
    "images": images.rows,
    "evaluation": evaluations.rows,
    "start": start.rows,
    "growth": growth.rows,
    "sweep": stacked.rows,
    "features": features.rows,
    "gpu": on_gpu.rows,
}

HEADING = "| part | what over what | ratio | range | bar |\n|---|---|---|---|---|"


def line(row: Row) -> str:
    """A row of the Markdown table."""
    if not row.ratios:
        return f"| {row.part} | {row.case} | not measured |  | {row.bar} |"
    return f"| {row.part} | {row.case} | {row.median:.2f} | {row.ratios[0]:.2f} to {row.ratios[-1]:.2f} | {row.bar} |"


def bench(*, only: Sequence[str], repeats: int, output: str | None) -> None:
    """Measure, and print a line of the table as soon as it is there.

    Args:
        only: the parts to run.
        repeats: ratios a figure; half where each takes new processes.
        output: a JSON file for all ratios.
    """
    if output and (Path(output).is_dir() or not Path(output).absolute().parent.is_dir()):  # before ten minutes of work
        raise BadInput(f"--output: {output} is a folder, or in one that is not there; name a .json file")
    machine = {"machine": platform.platform(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()) + f"\n\n{HEADING}", flush=True)
    found = []
    for name in only:
        for row in PARTS[name](repeats):
            found.append(asdict(row) | {"median": row.median})
            print(line(row), flush=True)
    if output:
        Path(output).write_text(json.dumps(machine | {"rows": found}, indent=2) + "\n")
