"""Measure the ratio of the time of sixteen runs one after another to the time of the same runs as one stacked model.

The runs have four seeds and four learning rates. The first rows time only training epochs, which take most of the time of
long runs. The last rows time whole runs, as `imbalance protocol` trains them. Loading data, evaluations and files cost the
same either way, so the ratios of whole runs are smaller. ConvNets are not measured: one ConvNet keeps a CPU busy, so a sweep
on a CPU does not stack ConvNets.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

from ml_collections import ConfigDict

from imbalance.bench.cases import make, our_epoch, start_run
from imbalance.bench.steps import digits_mlp, gaussian_linear
from imbalance.bench.timing import Row, halved, timed_in_turns
from imbalance.config.experiment import Experiment, validate
from imbalance.config.files import CONFIGS
from imbalance.config.resolve import load, override
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.loop import train
from imbalance.training.stacked import train as stacked_training
from imbalance.training.stacked.models import Stack
from imbalance.utils.malloc import keep_freed_memory

RATES, SEEDS = 4, 4  # numbers of learning rates and of seeds
PART = "sweep: one by one / stacked"


def small_mlp() -> ConfigDict:
    """Return the config of an MLP with 64 hidden units, on all digits."""
    return override(digits_mlp(), {"model.hidden": (64,)})


def small_linear() -> ConfigDict:
    """Return the config of a linear model on few examples of the Gaussian mixture, which take little time to draw."""
    sizes = {"train_per_class": (1600, 1600), "val_per_class": (50, 50), "test_per_class": (50, 50)}
    return override(gaussian_linear(), {f"data.{key}": value for key, value in sizes.items()})


def protocol(name: str) -> ConfigDict:
    """Return the shipped config `name`, with batches of 64 and 100 epochs."""
    return override(load(CONFIGS / f"{name}.py"), {"trainer.batch_size": 64, "trainer.epochs": 100})


# For each case: the function that makes the config, the number of epochs in one measurement, and the bar.
EPOCHS: dict[str, tuple[Callable[[], ConfigDict], int, str]] = {
    "epochs of a linear model, 500 dimensions": (small_linear, 4, "≥ 5"),
    "epochs of an MLP of 64, digits": (small_mlp, 10, "≥ 5"),
    "epochs of an MLP of 256 and 256, digits": (digits_mlp, 5, "≥ 5"),
}
RUNS: dict[str, Callable[[], ConfigDict]] = {
    "whole runs of digits_ce, 100 epochs": lambda: protocol("digits_ce"),
    "whole runs of gaussian_ce, 100 epochs": lambda: protocol("gaussian_ce"),
}


def sweep(case: Callable[[], ConfigDict], rates: int, seeds: int) -> list[Experiment]:
    """Return configs for a sweep: the one that `case` makes, for each of `rates` learning rates and `seeds` seeds."""
    base = validate(case())
    return [
        validate(override(base, {"seed": seed, "optim.lr": base.optim.lr * 1.3**rate}))
        for seed in range(seeds)
        for rate in range(rates)
    ]


def epoch_ratios(case: Callable[[], ConfigDict], epochs: int, repeats: int, rates: int, seeds: int) -> list[float]:
    """Return one ratio for each repeat: the time of runs trained one by one, divided by their time as one stacked model.

    Only the training epochs are timed; no run writes files.

    Args:
        case: function that makes the config of a run.
        epochs: number of epochs in one measurement.
        repeats: number of measurements.
        rates: number of learning rates.
        seeds: number of seeds.
    """
    configs = sweep(case, rates, seeds)
    single_epochs = [our_epoch(config, make(config)) for config in configs]
    runs = [start_run(config, make(config)) for config in configs]
    stack = Stack(runs)

    def one_by_one() -> None:
        for epoch in single_epochs:
            for _ in range(epochs):
                epoch()

    def stacked() -> None:
        for _ in range(epochs):
            stacked_training.train_epoch(stack, runs, Interrupt())
            for run in runs:
                run.progress.next_epoch()

    return timed_in_turns(one_by_one, stacked, repeats)


def run_ratios(case: Callable[[], ConfigDict], repeats: int) -> list[float]:
    """Return ratios of the time of whole runs one after another to their time as one stacked model."""
    configs = sweep(case, RATES, SEEDS)

    def one_by_one(folder: Path) -> None:
        for i, config in enumerate(configs):
            train(config, folder / str(i))

    def stacked(folder: Path) -> None:
        stacked_training.train_stacked([(config, folder / str(i)) for i, config in enumerate(configs)])

    def quietly(runs: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            devnull = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(devnull))
            stack.enter_context(redirect_stderr(devnull))
            runs(Path(folder))

    return timed_in_turns(lambda: quietly(one_by_one), lambda: quietly(stacked), repeats)


def rows(repeats: int) -> Iterator[Row]:
    """Measure stacked training, and yield the rows of the benchmark's table."""
    keep_freed_memory()
    for name, (case, epochs, bar) in EPOCHS.items():
        yield Row(PART, name, epoch_ratios(case, epochs, repeats, RATES, SEEDS), bar)
    for name, case in RUNS.items():
        yield Row(PART, name, run_ratios(case, halved(repeats)), "")
