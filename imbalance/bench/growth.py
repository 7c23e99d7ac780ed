"""What ten times the examples, classes or groups cost: time and memory of an epoch of a linear model with its metrics.

Each in a process of its own, whose memory is its peak less what it had before there was any data. Time and memory are
to be linear in N examples; logits and confusion matrix make them N·K and K² in K classes; G groups should be nearly
free, which they are not wherever something is G·K·N or even G·K².
"""

from dataclasses import dataclass
from pathlib import Path

from imbalance.bench.cases import begun, make, on_images, our_epoch
from imbalance.bench.timing import Row, few, measured_by, seconds
from imbalance.training.evaluate import evaluate, split_metrics
from imbalance.utils.malloc import keep_freed_memory


@dataclass(frozen=True)
class Grown:
    """The arguments of `measure` that are ten times as large, and the bars on time and memory."""

    case: str
    small: dict[str, int]
    large: dict[str, int]
    time: str
    memory: str


CASES = [
    Grown("examples: 5,000 to 50,000", dict(size=5000), dict(size=50_000), "≤ 10", "≤ 10"),
    Grown("classes: 100 to 1,000", dict(classes=100), dict(classes=1000), "≤ 10", "≤ 10"),
    Grown("groups: 100 to 1,000", dict(groups=100), dict(groups=1000), "≤ 1.5", "≤ 1.5"),
]
BASE = dict(size=5000, classes=100, groups=100)


def measure(size: int, classes: int, groups: int) -> tuple[float, int, int]:
    """Seconds of an epoch and an evaluation, bytes that this process took for them at the peak, and bytes of images."""
    make(on_images("linear", size=2, batch_size=2))  # for what is imported and set up once
    before = resident("VmRSS")
    config = on_images("linear", size=size, batch_size=64, classes=classes, groups=groups)
    learner = make(config)
    keep_freed_memory()
    epoch, run = our_epoch(config, learner), begun(config, learner)

    def once() -> None:
        epoch()
        split_metrics(run, "val", *evaluate([run], "val"))

    once()
    return seconds(once), resident("VmHWM") - before, learner.dataset.train.inputs.nbytes


def resident(what: str) -> int:
    """Bytes of memory that this process has ("VmRSS"), or has had at the most ("VmHWM").

    As Linux tells it: in `resource.getrusage`, a process has had what the one that started it has had.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[what].split()[0]) * 1024


def rows(repeats: int, cases: list[Grown] = CASES, base: dict[str, int] = BASE) -> list[Row]:
    found, per_byte = [], []
    for grown in cases:
        times, memories = [], []
        for _ in range(few(repeats)):
            small, large = (measured_by(__name__, **base | some) for some in (grown.small, grown.large))
            times.append(large[0] / small[0])
            memories.append(large[1] / small[1])
            if large[2] > small[2]:
                per_byte.append((large[1] - small[1]) / (large[2] - small[2]))
        found.append(Row("growth: time", grown.case, sorted(times), grown.time))
        found.append(Row("growth: memory", grown.case, sorted(memories), grown.memory))
    if per_byte:
        found.append(Row("growth: peak memory / data", "a further image, uint8", sorted(per_byte), "≤ 1.2"))
    return found
