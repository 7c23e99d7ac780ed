"""Measure `imbalance train` from its start to the end of its first step, over a Python process that only imports torch."""

import tempfile
from functools import partial

from imbalance.bench.timing import Row, halved, python, timed_in_turns

ONLY_TORCH = "import os, torch; os._exit(0)"
# A debug run calls `reduce_logits` at the end of its only step, before it evaluates or writes anything.
FIRST_STEP = """
import os
from imbalance.cli.main import main
from imbalance.training.state.progress import Progress
Progress.reduce_logits = lambda *_: os._exit(0)
main(["train", *{arguments}])
raise SystemExit("the run made no step")
"""
CONFIGS = ("digits_ce", "gaussian_ce")


def import_torch() -> None:
    """Start a process that imports torch and ends."""
    python("-c", ONLY_TORCH)


def train_one_step(config: str) -> None:
    """Start a process that trains one step of a config and ends."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = [f"--config={config}", "--config.debug=True", f"--config.work_dir={directory}"]
        python("-c", FIRST_STEP.format(arguments=arguments))


def rows(repeats: int) -> list[Row]:
    """Measure this part of the benchmark, and return its rows."""
    table = []
    for config in CONFIGS:
        # The warm-up calls bring the files into the system's cache.
        ratios = timed_in_turns(partial(train_one_step, config), import_torch, halved(repeats))
        table.append(Row("start: to the first step / import torch", f"configs/{config}.py", ratios, "≤ 1.6"))
    return table
