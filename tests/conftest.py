"""Fixtures of all tests: a config that trains in less than a second, and a function that calls main.py."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.server import SERVER
from ml_collections import ConfigDict

from imbalance.config.resolve import load
from imbalance.utils import workers

pytest.register_assert_rewrite("crossings")  # so that a crossing that fails shows its values
ROOT = Path(__file__).parent.parent
TABLE = runpy.run_path(str(ROOT / "tools" / "config_table.py"))
# The paths of the configs of the project by name. Tests must not fail for a file that a user adds to configs/.
CONFIG_FILES = {name: ROOT / "configs" / f"{name}.py" for name in TABLE["ROWS"]}
# The parent of pytest (nohup, a service) may ignore SIGHUP. Every process that a test starts would then ignore it, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)
# A sync waits for the disk, so that a run of many checkpoints takes twice as long. No test needs the wait: those of power
# losses watch the calls. Like fsync, fstat fails if the file is closed.
os.fsync = os.fstat
workers.SPAWN = SERVER  # worker processes start in no time; tests/sweep/test_runs.py has some that are spawned


def imported_by(statement: str) -> set[str]:
    """Return the names of all modules that a new Python process has imported after `statement`."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )


# Files that take longest. They begin first, so that at the end no worker is left alone with one of them.
LONGEST = (
    "test_crossings", "test_contract", "test_site", "test_docs_run", "test_least", "test_package", "test_fuzz",
    "test_processes", "test_device", "test_sharding", "test_stacked", "test_predict", "test_sweep", "test_bench",
    "test_config_table", "test_gpu_queue",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # xdist would begin with the files of most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-fault",
        action="store_true",
        help="let each call to the file system fail with each error, not a sample (ten minutes; add --timeout=0)",
    )
    parser.addoption(
        "--every-crossing",
        action="store_true",
        help="cross every kind of data with every command and state, not a sample (minutes)",
    )
    parser.addoption(
        "--fuzz-minutes", type=float, default=0, help="minutes of fuzzing with new random inputs; add --timeout=0"
    )


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    """Return a config of the digits with the polynomially tailed loss, for three epochs of five batches."""
    config = load(ROOT / "configs" / "digits_poly.py")
    config.work_dir = str(tmp_path / "runs")
    config.trainer.update(epochs=3, batch_size=64, eval_every=1)
    return config


@pytest.fixture
def standin() -> Callable[..., Any]:
    """Return the class of the stand-in for a GPU; see `helpers.standin`.

    A test that runs a backward pass on it needs a process of its own: torch's autograd engine knows only devices that were
    registered before its first use.
    """
    if not hasattr(torch._C, "_acc"):
        pytest.skip(f"torch {torch.__version__} knows no device that is written in Python")
    from helpers.standin import Device

    return Device


@pytest.fixture
def main(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs `python main.py …`, and returns the finished process with its stdout and stderr.

    The function adds the work_dir `tmp_path / "runs"` to arguments with --config.
    """

    def call(*args: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess:
        if any(arg.startswith("--config=") for arg in args):
            args = (*args, f"--config.work_dir={tmp_path / 'runs'}")
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
        command = [sys.executable, str(ROOT / "main.py"), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=environment)

    return call
