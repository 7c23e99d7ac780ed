"""The wheel, installed where there is nothing else of this project: package, configs, experiments, command."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from helpers.commands import call_all

import imbalance


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An environment with the wheel, and the libraries of this one (but not what it has of this project)."""
    folder = tmp_path_factory.mktemp("package")
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True)
    names = [name for name in tracked.stdout.decode().split("\0") if name] or pytest.fail("no git checkout")
    for name in names:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name, follow_symlinks=False)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "source", check=True, capture_output=True)
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("imbalance-*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, env=elsewhere())
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # A path in a .pth file adds that folder only, not what its own .pth files add: no editable install of this project.
    (packages / "libraries.pth").write_text(str(Path(np.__file__).parent.parent))
    return folder / "env"


def elsewhere() -> dict[str, str]:
    """Variables that do not lead to this checkout, whose egg-info would pass for an installed package."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def call(installed: Path, folder: Path, *arguments: str) -> str:
    """What the environment's Python prints, in an empty folder."""
    command = [str(installed / "bin" / "python"), *arguments]
    done = subprocess.run(command, cwd=folder, env=elsewhere(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_the_same_wherever_it_is_written():
    command = [sys.executable, ROOT / "tools" / "release.py", "--only=version"]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    assert printed.startswith("version: ") and "CITATION" not in printed and "begins with" not in printed


def test_the_wheel_brings_configs_experiments_types_and_licence(installed):
    (package,) = installed.glob("lib/python*/site-packages/imbalance")
    for folder in ("configs", "experiments"):
        ours = {path.name for path in (ROOT / folder).iterdir() if path.suffix in (".py", ".csv", ".yaml")}
        assert ours and ours == {path.name for path in (package / folder).iterdir() if path.is_file()}
    assert (package / "py.typed").is_file()
    (about,) = installed.glob("lib/python*/site-packages/imbalance-*.dist-info")
    metadata = Distribution.at(about)
    assert "MIT License" in next(about.rglob("LICENSE")).read_text()
    assert metadata.metadata["License-Expression"] == "MIT" and metadata.version == imbalance.__version__
    assert {"sweep", "report", "parquet", "onnx", "all", "dev"} <= set(metadata.metadata.get_all("Provides-Extra"))
    assert (installed / "bin" / "imbalance").is_file()
    # Nothing beside the package and its metadata.
    assert {path.name for path in package.parent.glob("*")} <= {
        "imbalance", about.name, "libraries.pth", "distutils-precedence.pth", "_distutils_hack",
    }  # fmt: skip


def command(installed: Path, folder: Path, *arguments: str) -> str:
    """What the installed command prints."""
    return call(installed, folder, str(installed / "bin" / "imbalance"), *arguments)


@pytest.mark.timeout(900)  # six processes that import torch: half a minute, on a busy machine minutes
def test_an_empty_folder_and_the_wheel_are_enough_to_train_compare_sweep_report_predict_and_export(installed, tmp_path):
    """From a CSV file to predictions, by the installed command, and by the installed package in one process for the commands between."""
    rows = [f"{i % 7 + 3 * (i % 2)},{'ab'[i % 2 ^ (i % 5 == 0)]},{i % 2}" for i in range(200)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("\n".join(["size,kind,target", *rows]) + "\n")
    short = ("--config.trainer.epochs=2", "--config.model.hidden=8")

    trained = command(installed, tmp_path, "train", "--config=arrays_erm", *short)
    run = json.loads(trained.splitlines()[-1])["run_directory"]
    commands = [
        ("compare", "--config=arrays_erm,arrays_dro", "--seeds=2", "--jobs=1", *short),
        ("sweep", "--config=arrays_ce", "--grid=optim.lr=0.01,0.1", "--seeds=1", "--jobs=1", *short),
        ("report",),
        ("export", run, "model.safetensors"),
    ]
    pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    ended = call_all(installed / "bin" / "python", tmp_path, elsewhere(), commands)
    assert [status for status, _, _ in ended] == [0] * 4, ended
    (_, table, _), (_, grid, _), *_ = ended
    assert "| arrays_dro |" in table and "optim.lr" in grid
    assert (tmp_path / "report").is_dir()
    assert (tmp_path / "model.safetensors").stat().st_size > 0

    (tmp_path / "new.csv").write_text("kind,size\na,3\nb,9\nc,1\n")
    assert "3 predictions" in command(installed, tmp_path, "predict", run, "new.csv")
    assert (tmp_path / "predictions.csv").read_text().startswith("file,row,class,0,1\nnew.csv,0,")


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == imbalance.__version__
    assert f"## {imbalance.__version__}" in (ROOT / "CHANGELOG.md").read_text()
