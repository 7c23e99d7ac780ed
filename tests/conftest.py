"""What tests share: a config that trains in a moment, and the command line as a user calls it."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ml_collections import ConfigDict

from imbalance.config.resolve import load

ROOT = Path(__file__).parent.parent
TABLE = runpy.run_path(str(ROOT / "tools" / "config_table.py"))
# The configs that tests are about: a file that a user adds to configs/ is none of them.
CONFIG_FILES = {name: ROOT / "configs" / f"{name}.py" for name in TABLE["ROWS"]}
# What starts the tests (nohup, a service) may ignore it, and so would every process that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-fault",
        action="store_true",
        help="with --timeout=0: let every call to the file system fail with every error, not a sample (ten minutes)",
    )
    parser.addoption(
        "--fuzz-minutes", type=float, default=0, help="with --timeout=0: fuzz for so long, with new random inputs"
    )


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    """The digits under the polynomial loss, for three epochs of five batches."""
    config = load(ROOT / "configs" / "digits_poly.py")
    config.work_dir = str(tmp_path / "runs")
    config.trainer.update(epochs=3, batch_size=64, eval_every=1)
    return config


@pytest.fixture
def main(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Calls `python main.py …` with a work_dir of its own, and returns status, stdout and stderr."""

    def call(*args: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess:
        if any(arg.startswith("--config=") for arg in args):
            args = (*args, f"--config.work_dir={tmp_path / 'runs'}")
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
        command = [sys.executable, str(ROOT / "main.py"), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=environment)

    return call
