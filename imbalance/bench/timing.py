"""What the parts of the benchmark share: rows, turns and processes."""

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
    """One figure.

    part, case: what was measured over what.
    ratios: of all turns, in ascending order; none where it was not measured.
    bar: what the median is held to, such as "≤ 1.03"; "" where nothing.
    """

    part: str
    case: str
    ratios: list[float]
    bar: str

    @property
    def median(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None


def seconds(call: Callable[[], Any]) -> float:
    """What `call` takes, to the end of what it has given a GPU."""
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turns(first: Callable[[], float], second: Callable[[], float], repeats: int, each: int = 1) -> list[float]:
    """The ratios of two measurements, first over second, in ascending order; who begins a turn changes.

    A ratio is one of medians over `each` turns, where a single one is so short that a hiccup of the machine shows.
    """
    ratios = []
    for repeat in range(repeats):
        over, under = [], []
        for turn in range(repeat, repeat + each):
            for measurement, found in ((first, over), (second, under))[:: -1 if turn % 2 else 1]:
                found.append(measurement())
        ratios.append(statistics.median(over) / statistics.median(under))
    return sorted(ratios)


def timed_in_turns(first: Callable[[], Any], second: Callable[[], Any], repeats: int, each: int = 1) -> list[float]:
    """`in_turns` of the seconds that two calls take, after one of each to warm up."""
    first()
    second()
    return in_turns(lambda: seconds(first), lambda: seconds(second), repeats, each)


def few(repeats: int) -> int:
    """How many turns there are of processes, whose start takes seconds."""
    return (repeats + 1) // 2


def python(*arguments: str) -> str:
    """What a new process of this Python prints. It imports the project that this one does, with as many threads."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    call = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return call.stdout


def measured_by(module: str, **arguments: Any) -> Any:
    """What the module's `measure(**arguments)` returns in a process of its own, by way of JSON."""
    code = f"import json; from {module} import measure; print(json.dumps(measure(**{arguments!r})))"
    return json.loads(python("-c", code).splitlines()[-1])
