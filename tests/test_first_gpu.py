"""The script for the first minutes on a GPU: it stops at once if a short run fails, and its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from imbalance.bench.gpu_queue import GPU_TESTS
from imbalance.cli.main import arguments_of

SCRIPT = ROOT / "tools" / "first_gpu.sh"


def call(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHON": sys.executable, "WORK": str(tmp_path / "runs"), "TO": str(tmp_path / "carried")}
    env |= {"DATA": str(tmp_path / "cut"), "WHEELS": str(tmp_path), "ON_CPU": "1", "MINUTES": "1"} | variables
    return subprocess.run(["bash", str(SCRIPT)], env=env, capture_output=True, text=True)


@pytest.mark.timeout(300)
def test_it_ends_where_the_first_run_fails_and_says_why(tmp_path):
    done = call(tmp_path, OVERRIDES="--config.trainer.epochs=400 --config.optim.lr=0.1")
    assert done.returncode == 1 and not done.stderr
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"\[\d+ s\] install: Python .*, torch .*; added: nothing", first)
    assert "first run of cifar_ce: failed; config.data_dir: CIFAR-10 is missing in" in second
    assert not (tmp_path / "carried").exists()


def test_it_ends_where_a_package_has_no_wheel(tmp_path):
    """`python` is one that finds no package but those of the standard library."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    python.chmod(0o755)
    done = call(tmp_path, PYTHON=str(python))
    assert done.returncode == 1
    assert "install: failed; missing are torch torchvision accelerate ml-collections absl-py" in done.stdout


def test_every_command_of_it_is_one(tmp_path):
    commands = re.findall(r"\bimbalance (train|pack|keep|data cut) ((?:[^|\n;>)]|\\\n)+)", SCRIPT.read_text())
    assert {name for name, _ in commands} == {"train", "pack", "keep", "data cut"}
    for name, words in commands:
        flags = re.findall(r"--(\w+)(?==|\s|$)", words)
        values = {"minutes": "1", "only": "rows", "seeds": "1", "jobs": "1", "config": "cifar_ce"}
        arguments_of(name, [f"--{flag}={values.get(flag, 'x')}" for flag in flags])


def test_every_test_that_needs_a_gpu_is_in_one_job():
    """The words of GPU_TESTS are parts of names, which change, and nobody runs these tests often."""
    for name in re.findall(r"^def (test_\w+)", (ROOT / "tests" / "test_gpu.py").read_text(), re.MULTILINE):
        jobs = [job for job, words in GPU_TESTS.items() if any(word in name for word in words.split(" or "))]
        assert len(jobs) == 1, (name, jobs)
