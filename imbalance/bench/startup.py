"""`imbalance train …` from its start to the end of its first step, over a Python that only imports torch."""

import tempfile
from functools import partial

from imbalance.bench.timing import Row, few, python, timed_in_turns

ONLY_TORCH = "import os, torch; os._exit(0)"
# In a debug run the step's logits are settled at its end, before anything is evaluated or written.
FIRST_STEP = """
import os
from imbalance.cli.main import main
from imbalance.training.state.progress import Progress
Progress.reduce_logits = lambda *_: os._exit(0)
main(["train", *{arguments}])
raise SystemExit("it made no step")
"""
CONFIGS = ("digits_ce", "gaussian_ce")


def import_torch() -> None:
    python("-c", ONLY_TORCH)


def start(config: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        arguments = [f"--config={config}", "--config.debug=True", f"--config.work_dir={directory}"]
        python("-c", FIRST_STEP.format(arguments=arguments))


def rows(repeats: int) -> list[Row]:
    found = []
    for config in CONFIGS:
        ratios = timed_in_turns(partial(start, config), import_torch, few(repeats))  # the first reads files into memory
        found.append(Row("start: to the first step / import torch", f"configs/{config}.py", ratios, "≤ 1.6"))
    return found
