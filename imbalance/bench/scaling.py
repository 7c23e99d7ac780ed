"""Measure the time and memory of an epoch with its metrics, for ten times as many examples, classes or groups.

Each measurement has a process of its own. Its memory is the peak of the process minus the memory before there was any data.
The model is linear. Time and memory should grow linearly in N examples. With K classes, the logits and the confusion matrix
have N·K and K² elements. G groups should cost almost nothing, which fails if some tensor has G·K·N or even G·K² elements.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from imbalance.bench.cases import make, on_images, our_epoch, start_run
from imbalance.bench.timing import Row, halved, measure_in_process, seconds
from imbalance.training.evaluate import evaluate, split_metrics
from imbalance.utils.malloc import keep_freed_memory


@dataclass(frozen=True)
class Scaled:
    """The argument of `measure` that is scaled, its small and its large value, and the bars on time and memory."""

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
    """Return the seconds of an epoch with an evaluation, the peak bytes of memory for it, and the bytes of the images."""
    make(on_images("linear", size=2, batch_size=2))  # imports all modules, so that their memory does not count
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
    """Return the bytes of memory that this process uses ("VmRSS"), or its peak ("VmHWM"), as Linux counts them.

    The peak of `resource.getrusage` would include that of the parent process.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def rows(repeats: int, cases: list[Scaled] = CASES, base: dict[str, int] = BASE) -> list[Row]:
    """Measure this part of the benchmark, and return its rows."""
    table, per_byte = [], []
    for scaled in cases:
        times, memories = [], []
        for _ in range(halved(repeats)):
            small, large = (measure_in_process(__name__, **base | some) for some in (scaled.small, scaled.large))
            times.append(large[0] / small[0])
            memories.append(large[1] / small[1])
            if large[2] > small[2]:
                per_byte.append((large[1] - small[1]) / (large[2] - small[2]))
        table.append(Row("growth: time", scaled.case, sorted(times), scaled.time))
        table.append(Row("growth: memory", scaled.case, sorted(memories), scaled.memory))
    if per_byte:
        table.append(Row("growth: peak memory / data", "a further image, uint8", sorted(per_byte), "≤ 1.2"))
    return table
