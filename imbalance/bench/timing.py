"""Measure ratios of times in turns, and start processes for measurements."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from imbalance.utils.package import ROOT


@dataclass(frozen=True)
class Row:
    """A row of the benchmark's table: the ratios of one measurement.

    part: the part of the benchmark and its ratio, such as "step: ours / bare".
    case: the model, data and batch size.
    ratios: ratios of all turns, in ascending order; empty if not measured.
    bar: required value of the median, such as "≤ 1.03"; "" for none.
    """

    part: str
    case: str
    ratios: list[float]
    bar: str

    @property
    def median(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds that `call` takes, including its work on a GPU."""
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turns(first: Callable[[], float], second: Callable[[], float], repeats: int, each: int = 1) -> list[float]:
    """Return the ratios of two measurements, first over second, in ascending order.

    The measurements take turns, and every turn begins with the other one.

    Args:
        repeats: number of ratios.
        each: number of turns for each ratio, which is then one of medians. Use several for short measurements.
    """
    ratios = []
    for repeat in range(repeats):
        over, under = [], []
        for turn in range(repeat, repeat + each):
            for measure, values in ((first, over), (second, under))[:: -1 if turn % 2 else 1]:
                values.append(measure())
        ratios.append(statistics.median(over) / statistics.median(under))
    return sorted(ratios)


def timed_in_turns(first: Callable[[], Any], second: Callable[[], Any], repeats: int, each: int = 1) -> list[float]:
    """Return `in_turns` of the seconds that two calls take, after one warm-up call of each."""
    first()
    second()
    return in_turns(lambda: seconds(first), lambda: seconds(second), repeats, each)


def halved(repeats: int) -> int:
    """Return half the repeats, rounded up, for measurements that start processes, which takes seconds."""
    return (repeats + 1) // 2


def python(*arguments: str) -> str:
    """Run a new Python process that imports this project, and return its output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    call = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return call.stdout


def measure_in_process(module: str, **arguments: Any) -> Any:
    """Return the result of the module's `measure(**arguments)` in a new process, passed on as JSON."""
    code = f"import json; from {module} import measure; print(json.dumps(measure(**{arguments!r})))"
    return json.loads(python("-c", code).splitlines()[-1])
