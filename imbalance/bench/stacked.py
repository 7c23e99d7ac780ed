"""Sixteen models of four seeds and four learning rates, one after another over the same at once: models an hour.

Once the epochs alone, to which the ratio of a long run tends; and once whole runs of the tuning protocol, with their
data, evaluations and files, which cost the same either way. A convolutional network keeps a CPU busy by itself: there a
sweep trains one by one.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

from ml_collections import ConfigDict

from imbalance.bench.cases import begun, make, our_epoch
from imbalance.bench.steps import digits_mlp, gaussian_linear
from imbalance.bench.timing import Row, few, timed_in_turns
from imbalance.config.experiment import validate
from imbalance.config.resolve import CONFIGS, load
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.loop import train
from imbalance.training.stacked import train as batched
from imbalance.training.stacked.models import Stack
from imbalance.utils.malloc import keep_freed_memory

RATES, SEEDS = 4, 4
PART = "sweep: one by one / at once"


def small_mlp() -> ConfigDict:
    config = digits_mlp()
    config.model.hidden = (64,)
    return config


def small_linear() -> ConfigDict:
    """Of data that are drawn in a moment."""
    config = gaussian_linear()
    config.data.update(train_per_class=(1600, 1600), val_per_class=(50, 50), test_per_class=(50, 50))
    return config


def protocol(name: str) -> ConfigDict:
    """A cell of the tuning protocol, at batch 64."""
    config = load(CONFIGS / f"{name}.py")
    config.trainer.update(batch_size=64, epochs=100)
    return config


# The config, how many epochs a turn takes, and the bar.
EPOCHS = {
    "epochs of a linear model, 500 dimensions": (small_linear, 4, "≥ 5"),
    "epochs of an MLP of 64, digits": (small_mlp, 10, "≥ 5"),
    "epochs of an MLP of 256 and 256, digits": (digits_mlp, 5, "≥ 5"),
}
RUNS = {
    "whole runs of digits_ce, 100 epochs": lambda: protocol("digits_ce"),
    "whole runs of gaussian_ce, 100 epochs": lambda: protocol("gaussian_ce"),
}


def sweep(case: Callable[[], ConfigDict], rates: int, seeds: int) -> list[ConfigDict]:
    configs = []
    for i in range(rates * seeds):
        configs.append(case())
        configs[-1].seed = i // rates
        configs[-1].optim.lr *= 1.3 ** (i % rates)
    return configs


def of_epochs(case: Callable[[], ConfigDict], epochs: int, repeats: int, rates: int, seeds: int) -> list[float]:
    """The ratios of the seconds that the epochs take, with nothing read or written."""
    configs = list(map(validate, sweep(case, rates, seeds)))
    singles = [our_epoch(config, make(config)) for config in configs]
    members = [begun(config, make(config)) for config in configs]
    stack = Stack(members)

    def one_by_one() -> None:
        for epoch in singles:
            for _ in range(epochs):
                epoch()

    def at_once() -> None:
        for _ in range(epochs):
            batched.train_epoch(stack, members, Interrupt())
            for member in members:
                member.progress.next_epoch()

    return timed_in_turns(one_by_one, at_once, repeats)


def of_runs(case: Callable[[], ConfigDict], repeats: int) -> list[float]:
    """The ratios of the seconds that whole runs take."""
    configs = sweep(case, RATES, SEEDS)

    def one_by_one(folder: Path) -> None:
        for i, config in enumerate(configs):
            train(config, folder / str(i))

    def at_once(folder: Path) -> None:
        batched.train_stacked([(config, folder / str(i)) for i, config in enumerate(configs)])

    def quietly(runs: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as quiet:
            nowhere = quiet.enter_context(open(os.devnull, "w"))
            quiet.enter_context(redirect_stdout(nowhere))
            quiet.enter_context(redirect_stderr(nowhere))
            runs(Path(folder))

    return timed_in_turns(lambda: quietly(one_by_one), lambda: quietly(at_once), repeats)


def rows(repeats: int) -> list[Row]:
    keep_freed_memory()
    found = [
        Row(PART, name, of_epochs(case, epochs, repeats, RATES, SEEDS), bar)
        for name, (case, epochs, bar) in EPOCHS.items()
    ]
    return found + [Row(PART, name, of_runs(case, few(repeats)), "") for name, case in RUNS.items()]
