"""Measure the factors by which time and memory grow with ten times as many examples, classes or groups.

Each measurement trains a linear model for an epoch and evaluates it, in a new process. The memory is the peak of this process
minus its memory before the data were made. Ten times as many examples (N) or classes (K) may take ten times as much,
because the logits have N·K elements. Ten times as many groups (G) may take 1.5 times as much; a tensor with G·K·N or even
G·K² elements would take more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from imbalance.bench.cases import make, on_images, our_epoch, start_run
from imbalance.bench.timing import Row, halved, measure_in_process, seconds
from imbalance.training.evaluate import evaluate, split_metrics
from imbalance.utils.malloc import keep_freed_memory


@dataclass(frozen=True)
class Scaled:
    """A comparison of `measure` at small and at large arguments, with the allowed growth of time and of memory."""

    case: str
    small: dict[str, int]
    large: dict[str, int]
    time: str
    memory: str


CASES = [
    Scaled("examples: 5,000 to 50,000", dict(size=5000), dict(size=50_000), "≤ 10", "≤ 10"),
    Scaled("classes: 100 to 1,000", dict(classes=100), dict(classes=1000), "≤ 10", "≤ 10"),
    Scaled("groups: 100 to 1,000", dict(groups=100), dict(groups=1000), "≤ 1.5", "≤ 1.5"),
]
BASE = dict(size=5000, classes=100, groups=100)


def measure(size: int, classes: int, groups: int) -> tuple[float, int, int]:
    """Train and evaluate an epoch on random images.

    Args:
        size: number of images.
        classes, groups: number of classes and of groups.

    Returns:
        The seconds, the peak memory in bytes beyond the memory before the data was made, and the bytes of the training
        images.
    """
    make(on_images("linear", size=2, batch_size=2))  # import all modules now, so that their memory does not count
    before = resident("VmRSS")
    config = on_images("linear", size=size, batch_size=64, classes=classes, groups=groups)
    learner = make(config)
    images = learner.dataset.train.inputs
    assert isinstance(images, torch.Tensor), "random images are in memory"
    keep_freed_memory()
    epoch, run = our_epoch(config, learner), start_run(config, learner)

    def once() -> None:
        epoch()
        split_metrics(run, "val", *evaluate([run], "val"))

    once()
    return seconds(once), resident("VmHWM") - before, images.nbytes


def resident(field: str) -> int:
    """Return the resident memory of this process in bytes, from Linux's /proc.

    `resource.getrusage` is not used, because its peak would include that of the parent process.

    Args:
        field: "VmRSS" for the memory now, "VmHWM" for the peak.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def rows(repeats: int, cases: list[Scaled] = CASES, base: dict[str, int] = BASE) -> Iterator[Row]:
    """Measure the growth, and yield the rows of the benchmark's table.

    Args:
        base: arguments of `measure` that a case does not change.
    """
    per_byte = []
    for scaled in cases:
        times, memories = [], []
        for _ in range(halved(repeats)):
            small, large = (measure_in_process(__name__, **base | some) for some in (scaled.small, scaled.large))
            times.append(large[0] / small[0])
            memories.append(large[1] / small[1])
            if large[2] > small[2]:
                per_byte.append((large[1] - small[1]) / (large[2] - small[2]))
        yield Row("growth: time", scaled.case, sorted(times), scaled.time)
        yield Row("growth: memory", scaled.case, sorted(memories), scaled.memory)
    if per_byte:
        yield Row("growth: peak memory / data", "a further image, uint8", sorted(per_byte), "≤ 1.2")
