"""Measure which share of the speed of this processor three jobs reach: an epoch, an extraction of features, many small runs.

A job cannot take less time than its floating-point operations at the speed of a large matrix product, nor less than the
bytes that it must move at the speed of a copy in memory. The larger of these two times is its limit; the ratio of the limit
to the time of the job is the share that it reaches. The operations are counted by torch, forward and backward. The bytes are
those of the inputs and outputs of every operation, as if no result stayed in the processor's cache, so a job whose results
stay there can exceed its limit.

Peaks and jobs are measured in turns. All times are of the processor, and the peaks are those per second of one core.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from imbalance.bench.cases import make, on_images, our_epoch, start_run
from imbalance.bench.stacked import small_mlp, sweep
from imbalance.bench.timing import Row
from imbalance.config.experiment import validate
from imbalance.deploy.extract_features import config_model
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.learner import load_dataset
from imbalance.training.stacked.models import Stack
from imbalance.training.stacked.train import train_epoch
from imbalance.utils.malloc import keep_freed_memory

SIDE = 1536  # side of the square matrices whose product is timed
COPIED = 64 * 2**20  # bytes of the copied array, more than a processor's cache
STACKED, RUNS = 100, 1000  # number of runs that one stacked model trains, and of all runs


class Peaks(NamedTuple):
    """The speed of this processor: floating-point operations and bytes a second of processor time."""

    operations: float
    bytes: float


class Work(NamedTuple):
    """The floating-point operations and the bytes of a job."""

    operations: int
    bytes: int

    def limit(self, peaks: Peaks) -> float:
        """Return the fewest seconds that the job can take."""
        return max(self.operations / peaks.operations, self.bytes / peaks.bytes)


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of all processors of this process in which `call` runs."""
    started = time.process_time()
    call()
    return time.process_time() - started


def measure_peaks() -> Peaks:
    """Measure the highest rate of arithmetic and of copies in memory of this processor, each as the best of three measurements."""
    left, right, product = (torch.ones(SIDE, SIDE) for _ in range(3))
    source = torch.ones(COPIED // 4)
    target = torch.empty_like(source)
    product_seconds = min(cpu_seconds(lambda: torch.mm(left, right, out=product)) for _ in range(3))
    copy_seconds = min(cpu_seconds(lambda: target.copy_(source)) for _ in range(3))
    return Peaks(2 * SIDE**3 / product_seconds, 2 * COPIED / copy_seconds)


class CountedBytes(TorchDispatchMode):
    """Context manager that counts the bytes of the inputs and outputs of every operation that reads or writes data."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        storages = {
            leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        is_view = isinstance(result, Tensor) and result.untyped_storage().data_ptr() in storages
        if not is_view or function._schema.is_mutable:
            self.bytes += sum(leaf.numel() * leaf.element_size() for leaf in leaves)
        return result


def count(job: Callable[[], Any]) -> Work:
    """Run a job, and count its floating-point operations and its bytes."""
    with FlopCounterMode(display=False) as operations, CountedBytes() as moved:
        job()
    return Work(operations.get_total_flops(), moved.bytes)


def convnet_epoch() -> Callable[[], None]:
    """Return a function that trains an epoch of the ConvNet on 256 images."""
    config = on_images("convnet", size=256, batch_size=64)
    return our_epoch(config, make(config))


def extraction() -> Callable[[], None]:
    """Return a function that computes the ConvNet's features of 256 images."""
    config = validate(on_images("convnet", size=256, batch_size=64))
    dataset = load_dataset(config)
    model = config_model(config, dataset, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    assert isinstance(dataset.train.inputs, Tensor), "random images are in memory"
    batches = dataset.train.inputs.split(64)

    @torch.inference_mode()
    def extract() -> None:
        for batch in batches:
            model.features(batch)

    return extract


def small_runs() -> Callable[[], None]:
    """Return a function that trains an epoch of STACKED small runs as one stacked model."""
    configs = sweep(small_mlp, STACKED // 10, 10)
    runs = [start_run(config, make(config)) for config in configs]
    stack = Stack(runs)

    def epoch() -> None:
        train_epoch(stack, runs, Interrupt())
        for run in runs:
            run.progress.next_epoch()

    return epoch


# For each case: the function that makes the job, and the number of times that it is done for one measurement.
JOBS: dict[str, tuple[Callable[[], Callable[[], None]], int]] = {
    "an epoch of the ConvNet, 256 images": (convnet_epoch, 1),
    "features of 256 images by the ConvNet": (extraction, 1),
    f"an epoch of {RUNS:,} MLPs of 64, {STACKED} at a time": (small_runs, RUNS // STACKED),
}


def rows(repeats: int) -> Iterator[Row]:
    """Measure the shares of the limits, and yield the rows of the benchmark's table."""
    keep_freed_memory()
    for case, (make_job, times) in JOBS.items():
        job = make_job()
        job()
        work, shares, peaks = count(job), [], measure_peaks()
        for _ in range(repeats):
            peaks = measure_peaks()
            taken = min(cpu_seconds(job) for _ in range(2))
            shares.append(work.limit(peaks) / taken)
        numbers = f"{times * work.operations / 1e9:.2f} GFLOP, {times * work.bytes / 1e9:.2f} GB"
        speed = f"peaks {peaks.operations / 1e9:.0f} GFLOP/s, {peaks.bytes / 1e9:.1f} GB/s"
        bound = "operations" if work.operations / peaks.operations > work.bytes / peaks.bytes else "bytes"
        yield Row("limits: limit / time", f"{case}: {numbers}; {speed}; limited by {bound}", sorted(shares), "")
