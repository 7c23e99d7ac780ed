"""Processes that this program starts import its package, and what PYTHONPATH names."""

import os

from conftest import ROOT

from imbalance.bench import gpu_queue, timing
from imbalance.utils.package import process_environment


def test_a_new_process_imports_this_package_first_and_then_from_the_paths_of_pythonpath(tmp_path, monkeypatch):
    """On some machines PYTHONPATH names the folder of all installed packages."""
    (tmp_path / "only_there.py").write_text("NAME = 'found'")
    (tmp_path / "imbalance.py").write_text("raise AssertionError('another module of this name')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import only_there, imbalance; print(only_there.NAME, imbalance.__file__)"
    expected = f"found {ROOT / 'imbalance' / '__init__.py'}\n"
    assert timing.python("-c", code) == expected
    (tmp_path / "job_of_a_queue.py").write_text(code)
    job = gpu_queue.Job("tests", "job", ("job_of_a_queue",))
    assert gpu_queue.run_job(job, tmp_path, 60) == 0
    assert (tmp_path / "job.txt").read_text() == expected


def test_without_pythonpath_the_current_folder_is_not_searched(monkeypatch):
    """An empty entry of PYTHONPATH is the current folder."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert process_environment()["PYTHONPATH"] == str(ROOT)
    monkeypatch.setenv("PYTHONPATH", "")
    assert process_environment(NAME="value") | {} == os.environ | {"PYTHONPATH": str(ROOT), "NAME": "value"}
