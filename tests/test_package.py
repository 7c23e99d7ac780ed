"""The wheel, installed where there is nothing else of this project: package, configs, experiments, command."""

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
    subprocess.run(pip, check=True, capture_output=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # A path in a .pth file adds that folder only, not what its own .pth files add: no editable install of this project.
    (packages / "libraries.pth").write_text(str(Path(np.__file__).parent.parent))
    return folder / "env"


def call(installed: Path, folder: Path, *arguments: str) -> str:
    """What the environment's Python prints, in an empty folder."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [str(installed / "bin" / "python"), *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_configs_experiments_types_and_licence(installed):
    (package,) = installed.glob("lib/python*/site-packages/imbalance")
    for folder in ("configs", "experiments", "experiments/bench"):
        ours = {path.name for path in (ROOT / folder).iterdir() if path.suffix in (".py", ".csv", ".yaml")}
        assert ours and ours == {path.name for path in (package / folder).iterdir() if path.is_file()}
    assert (package / "py.typed").is_file()
    (about,) = installed.glob("lib/python*/site-packages/imbalance-*.dist-info")
    metadata = Distribution.at(about)
    assert "MIT License" in next(about.rglob("LICENSE")).read_text()
    assert metadata.metadata["License"] == "MIT" and metadata.version == imbalance.__version__
    assert {"sweep", "report", "parquet", "onnx", "all", "dev"} <= set(metadata.metadata.get_all("Provides-Extra"))
    assert (installed / "bin" / "imbalance").is_file()
    # Nothing beside the package and its metadata.
    assert {path.name for path in package.parent.glob("*")} <= {
        "imbalance", about.name, "libraries.pth", "distutils-precedence.pth", "_distutils_hack",
    }  # fmt: skip


def test_an_experiment_runs_from_the_wheel_in_an_empty_folder(installed, tmp_path):
    settings = "work_dir='runs', debug=True"
    train = f"""
import imbalance
from imbalance.config import load
from imbalance.training.loop import run
assert 'site-packages' in imbalance.__file__
config = load(imbalance.__path__[0] + '/configs/digits_ce.py')
config.update({settings})
run(config)"""
    call(installed, tmp_path, "-c", train)
    collected = call(installed, tmp_path, "-m", "imbalance.experiments.collect", "--work_dir=runs", "--output=runs.csv")
    assert "1 run" in collected
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 2


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == imbalance.__version__
    assert f"## {imbalance.__version__}" in (ROOT / "CHANGELOG.md").read_text()
