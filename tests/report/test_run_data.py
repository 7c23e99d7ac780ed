"""A report on runs of a stranger runs none of their code, and shows no data but those of the run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from imbalance.config.resolve import load
from imbalance.report.collect import collect
from imbalance.report.page import page
from imbalance.report.report import report
from imbalance.report.run_data import load_run_data
from imbalance.report.watch import WatchedRuns
from imbalance.training.loop import train
from imbalance.utils.read import seal

pytest.importorskip("jinja2")
SECTIONS = ("data", "loss", "model", "sampler", "objective", "head", "optim", "optim.schedule")


def write_table(path: Path, rows: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(2, size=rows)
    lines = [f"{a:.3f},{b:.3f},{'yn'[y]}" for a, b, y in zip(rng.normal(size=rows), rng.normal(size=rows), targets)]
    path.write_text("\n".join(["a,b,y", *lines]) + "\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A work directory with a run of a table of noise, which has errors to show, and one of a plane."""
    folder = tmp_path_factory.mktemp("runs")
    write_table(folder / "table.csv", 60)
    config = load(ROOT / "configs" / "arrays_erm.py")
    config.data_dir = str(folder)
    config.data.update(
        file="table.csv", target="y", classes=("y", "n"), attributes=(), numeric=(), categorical=(), split=""
    )
    config.data.update(val_fraction=0.2, test_fraction=0.4)
    plane = load(ROOT / "configs" / "gaussian_erm.py")
    plane.data.dim = 2
    for name, changed in (("table", config), ("plane", plane)):
        changed.model = dict(name="linear", init="default")
        changed.trainer.update(epochs=1, batch_size=16)
        train(changed, folder / "work" / name / "default" / "seed=0")
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of the trained runs, of which the table lies where the config says."""
    shutil.copytree(trained / "work", tmp_path / "work")
    write_table(trained / "table.csv", 60)
    return trained


def shown(work_dir: Path) -> str:
    return page(work_dir, collect(work_dir), ["balanced_accuracy"], pictured=5)


@pytest.mark.parametrize("section", [*SECTIONS, "model.json"])
def test_no_code_that_a_run_names_is_run(folder, tmp_path, section, capsys):
    code, mark = tmp_path / "theirs.py", tmp_path / "was run"
    for run in tmp_path.glob("work/*/default/seed=0"):
        (run / "modules").mkdir()
        (run / "modules" / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\n")
    code.write_text(f"open({str(mark)!r}, 'w')\ndef f(*args, **kwargs):\n    raise ValueError\n")
    for run in tmp_path.glob("work/*/default/seed=0"):
        path = run / ("model.json" if section == "model.json" else "config.json")
        values = json.loads(path.read_text())
        values.pop("digest", None)
        named = values
        for key in ("model" if section == "model.json" else section).split("."):
            named = named[key]
        named["name"] = f"{code}:f"
        path.write_text(json.dumps(seal(values) if section == "model.json" else values))
        summary = json.loads((run / "summary.json").read_text())
        del summary["files"], summary["digest"]  # a stranger can write any digest
        (run / "summary.json").write_text(json.dumps(summary))
    report(work_dir=str(tmp_path / "work"), folder=str(tmp_path), metrics=["balanced_accuracy"], pictured=5)
    text = WatchedRuns([tmp_path / "work"], ["balanced_accuracy"], 5).page()
    assert not mark.exists() and "2 runs" in text
    if section != "model.json":
        assert "which a report does not run" in text
    assert "left out of the figure of decision boundaries: the run uses Python code" in capsys.readouterr().err


def test_the_data_of_a_run_are_shown(folder, tmp_path):
    assert "The data set cannot be shown" not in shown(tmp_path / "work")
    assert len(load_run_data(tmp_path / "work" / "table" / "default" / "seed=0").test) == 24


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize(("rows", "seed"), [(60, 1), (20, 0), (200, 0)])
def test_data_that_have_changed_are_not_shown_as_errors_of_a_run(folder, tmp_path, rows, seed, digests):
    """Runs of the first versions have no digest of their data."""
    path = tmp_path / "work" / "table" / "default" / "seed=0" / "summary.json"
    if not digests:
        summary = json.loads(path.read_text())
        del summary["data"], summary["digest"]
        path.write_text(json.dumps(summary))
    write_table(folder / "table.csv", rows, seed)
    assert "The data set cannot be shown: the data have changed since the run" in shown(tmp_path / "work")


def test_weights_of_another_model_leave_the_run_out_of_the_figure(folder, tmp_path, capsys):
    for run in tmp_path.glob("work/plane/default/seed=0"):
        (run / "model.json").write_text((tmp_path / "work/table/default/seed=0/model.json").read_text())
    report(work_dir=str(tmp_path / "work"), folder=str(tmp_path), metrics=["balanced_accuracy"], pictured=0)
    assert "selected.pt: damaged (its content is not the one that was written)" in capsys.readouterr().err
