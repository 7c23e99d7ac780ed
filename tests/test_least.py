"""Runs, a sweep and a report where only the fewest packages are installed, from an empty folder."""

import json
import subprocess
from pathlib import Path

import pytest
from helpers.least import make_least

from imbalance.utils.package import process_environment

SHORT = "--config.trainer.epochs=2"


@pytest.fixture(scope="module")
def least(tmp_path_factory) -> Path:
    return make_least(tmp_path_factory.mktemp("least"))


def call(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`imbalance …` in an empty folder, from this checkout."""
    env = process_environment(OMP_NUM_THREADS="1")
    command = [str(python), "-m", "imbalance", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_the_environment_has_the_fewest_packages(least):
    names = "wandb", "optuna", "matplotlib", "rich", "torch"
    code = f"from importlib.util import find_spec; print([name for name in {names} if find_spec(name)])"
    assert subprocess.run([least, "-c", code], capture_output=True, text=True).stdout == "['torch']\n"


@pytest.mark.timeout(600)  # five processes that import torch
def test_a_run_a_sweep_and_a_report_need_only_the_fewest_packages(least, tmp_path):
    done = call(least, tmp_path, "train", "--config=digits_poly", SHORT)
    assert done.returncode == 0, done.stderr
    summary = json.loads(
        (tmp_path / json.loads(done.stdout.splitlines()[-1])["run_directory"] / "summary.json").read_text()
    )
    assert summary["versions"]["wandb"] is None and summary["versions"]["torch"]

    grid = ("--config=digits_poly", "--grid=optim.lr=0.01,0.1", "--seeds=2", "--jobs=1", SHORT)
    for _ in range(2):  # the second time everything is done
        swept = call(least, tmp_path, "sweep", *grid)
        assert swept.returncode == 0, swept.stderr
        assert swept.stdout.count("| digits_poly | 2 |") == 2
        told = json.loads(swept.stdout.splitlines()[-1])
        assert told["study"] is None and told["trials"] == {"done": 4}
    assert "4 of 4 runs done (4 before this command)" in swept.stderr
    named = call(least, tmp_path, "sweep", *grid, "--study=named")
    assert named.returncode == 2 and "a study needs optuna, which is not installed" in named.stderr

    reported = call(least, tmp_path, "report")
    assert reported.returncode == 0, reported.stderr
    assert "matplotlib is not installed; type pip install matplotlib" in reported.stdout
    assert {"results.md", "index.html"} <= {path.name for path in (tmp_path / "report").iterdir()}
    assert not list((tmp_path / "report").glob("*.png"))


def test_wandb_that_is_asked_for_and_not_installed_is_refused_before_the_run(least, tmp_path):
    done = call(least, tmp_path, "train", "--config=digits_poly", "--config.logger.mode=offline")
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    assert done.stderr == (
        "config.logger.mode: 'offline' given, which needs wandb, which is not installed; type pip install wandb, or use 'disabled'\n"
    )
