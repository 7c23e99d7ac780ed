"""Measure ratios of times, and start processes for measurements."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from imbalance.utils.package import process_environment


@dataclass(frozen=True)
class Row:
    """A row of the benchmark's table: several ratios of A's time (or memory) to B's.

    part: the part of the benchmark, A and B, such as "step: ours / bare".
    case: the model, data and batch size that are measured.
    ratios: the ratios in ascending order; empty if not measured.
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
    """Return the seconds that `call` takes, including the work that it starts on a GPU, but not the work started before."""
    _finish_gpu_work()
    started = time.perf_counter()
    call()
    _finish_gpu_work()
    return time.perf_counter() - started


def _finish_gpu_work() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(first: Callable[[], float], second: Callable[[], float], repeats: int, each: int = 1) -> list[float]:
    """Return ratios of the results of `first` to the results of `second`, in ascending order.

    Both functions measure something, such as a time. They are called in turns, `first` first in every other turn.

    Args:
        repeats: number of ratios.
        each: number of turns for each ratio, which is the ratio of the medians over these turns. Use several turns for short
            measurements.
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
    """Return ratios of the seconds of `first` to the seconds of `second`, by `in_turns`, after one warm-up call of each."""
    first()
    second()
    return in_turns(lambda: seconds(first), lambda: seconds(second), repeats, each)


def halved(repeats: int) -> int:
    """Return half of `repeats`, rounded up: the number of repeats for measurements that start processes, which takes long."""
    return (repeats + 1) // 2


def python(*arguments: str) -> str:
    """Run Python with these arguments in a new process that can import this project, and return its output."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=process_environment()).stdout


def measure_in_process(module: str, **arguments: Any) -> Any:
    """Call `measure(**arguments)` of a module in a new process, and return the result, in which tuples become lists."""
    code = f"import json; from {module} import measure; print(json.dumps(measure(**{arguments!r})))"
    return json.loads(python("-c", code).splitlines()[-1])
