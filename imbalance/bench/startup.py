"""Measure the time that `imbalance train` takes to its first step, divided by the time of a process that only imports torch."""

import tempfile
from collections.abc import Iterator
from functools import partial

from imbalance.bench.timing import Row, halved, python, timed_in_turns

ONLY_TORCH = "import os, torch; os._exit(0)"
# End the process when the first step ends: a debug run calls `reduce_logits` then, before it evaluates or writes anything.
FIRST_STEP = """
import os
from imbalance.cli.main import main
from imbalance.training.state.progress import Progress
Progress.reduce_logits = lambda *_: os._exit(0)
main(["train", *{arguments}])
raise SystemExit("the run ended without a training step; Progress.reduce_logits must be called at the end of each step")
"""
CONFIGS = ("digits_ce", "gaussian_ce")


def import_torch() -> None:
    """Run a process that imports torch and ends."""
    python("-c", ONLY_TORCH)


def train_one_step(config: str) -> None:
    """Run a process that trains one step of a config and ends."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = [f"--config={config}", "--config.debug=True", f"--config.work_dir={directory}"]
        python("-c", FIRST_STEP.format(arguments=arguments))


def rows(repeats: int) -> Iterator[Row]:
    """Measure the start-up of `imbalance train`, and yield the rows of the benchmark's table."""
    for config in CONFIGS:
        # `timed_in_turns` calls both once as a warm-up, which brings the files into the operating system's cache.
        ratios = timed_in_turns(partial(train_one_step, config), import_torch, halved(repeats))
        yield Row("start: to the first step / import torch", f"configs/{config}.py", ratios, "≤ 1.6")
