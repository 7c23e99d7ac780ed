"""Runs, a sweep and a report where only the fewest packages are installed, from an empty folder."""

import json
import subprocess
from pathlib import Path

import pytest
from helpers.commands import call_all
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


@pytest.mark.timeout(600)  # three processes that import torch
def test_a_run_a_sweep_and_a_report_need_only_the_fewest_packages(least, tmp_path):
    grid = ("--config=digits_poly", "--grid=optim.lr=0.01,0.1", "--seeds=2", "--jobs=1", SHORT)
    commands = [("train", "--config=digits_poly", SHORT), *[("sweep", *grid)] * 2, ("sweep", *grid, "--study=named"), ("report",)]  # fmt: skip
    trained, *swept, named, reported = call_all(least, tmp_path, process_environment(OMP_NUM_THREADS="1"), commands)

    status, out, err = trained
    assert status == 0, err
    summary = json.loads((tmp_path / json.loads(out.splitlines()[-1])["run_directory"] / "summary.json").read_text())
    assert summary["versions"]["wandb"] is None and summary["versions"]["torch"]

    for status, out, err in swept:  # the second time everything is done
        assert status == 0, err
        assert out.count("| digits_poly | 2 |") == 2
        told = json.loads(out.splitlines()[-1])
        assert told["study"] is None and told["trials"] == {"done": 4}
    assert "4 of 4 runs done (4 before this command)" in swept[1][2]
    status, _, err = named
    assert status == 2 and "a study needs optuna, which is not installed" in err

    status, out, err = reported
    assert status == 0, err
    assert "matplotlib is not installed; type pip install matplotlib" in out
    assert {"results.md", "index.html"} <= {path.name for path in (tmp_path / "report").iterdir()}
    assert not list((tmp_path / "report").glob("*.png"))


def test_wandb_that_is_asked_for_and_not_installed_is_refused_before_the_run(least, tmp_path):
    done = call(least, tmp_path, "train", "--config=digits_poly", "--config.logger.mode=offline")
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    assert done.stderr == (
        "config.logger.mode: 'offline' given, which needs wandb, which is not installed; type pip install wandb, or use 'disabled'\n"
    )
