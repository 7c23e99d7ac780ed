"""Compare the speed of the project with bare PyTorch loops and other baselines.

    imbalance bench --only=step --repeats=5 --output=bench.json

Every number is the ratio of A's time (or memory) to B's, for the A and B in the first column, "part: A / B". A and B are
measured in turns, in one process or in a process each. A row of the table has the median of several ratios, their range, and
the bar: the required median. All parts take about fifteen minutes on two cores. If other programs run on the machine, the range
is wide and the median is unreliable.
"""

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from imbalance.bench import (
    bookkeeping,
    evaluation,
    features,
    gpu_speed,
    image_loading,
    limits,
    paper_loop,
    scaling,
    stacked,
    startup,
    steps,
    tables,
)
from imbalance.bench.timing import Row
from imbalance.utils.files import begins_with, output_path, write_atomic

PARTS: dict[str, Callable[[int], Iterable[Row]]] = {
    "step": steps.rows,
    "paper": paper_loop.rows,
    "images": image_loading.rows,
    "tables": tables.rows,
    "evaluation": evaluation.rows,
    "start": startup.rows,
    "growth": scaling.rows,
    "sweep": stacked.rows,
    "features": features.rows,
    "config": bookkeeping.config_rows,
    "bookkeeping": bookkeeping.bookkeeping_rows,
    "scores": bookkeeping.score_rows,
    "predictions": bookkeeping.prediction_rows,
    "report": bookkeeping.report_rows,
    "compile": bookkeeping.compile_rows,
    "limits": limits.rows,
    "gpu": gpu_speed.rows,
}

HEADING = "| part: A / B | case | ratio | range | bar |\n|---|---|---|---|---|"


def table_row(row: Row) -> str:
    """Return a measured row as a line of the Markdown table."""
    if not row.ratios:
        return f"| {row.part} | {row.case} | not measured |  | {row.bar} |"
    return f"| {row.part} | {row.case} | {row.median:.2f} | {row.ratios[0]:.2f} to {row.ratios[-1]:.2f} | {row.bar} |"


def bench(*, only: Sequence[str], repeats: int, output: str | None) -> None:
    """Measure parts of the benchmark, and print and write each row of the table as soon as it is measured.

    Args:
        only: names of parts to measure, from the keys of PARTS.
        repeats: number of ratios for each row, which is halved for rows of which each ratio starts new processes.
        output: a JSON file to write all ratios to.
    """

    def is_own(path: Path) -> bool:
        return begins_with(path, b'{\n  "machine"')

    into = output_path(output, "--output", is_own) if output else None  # check before the long work
    machine = {"machine": platform.platform(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()) + f"\n\n{HEADING}", flush=True)
    table = []
    for name in only:
        for row in PARTS[name](repeats):
            table.append(asdict(row) | {"median": row.median})
            print(table_row(row), flush=True)
            if into:
                write_atomic(into, (json.dumps(machine | {"rows": table}, indent=2) + "\n").encode())
