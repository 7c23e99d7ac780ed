"""What earlier versions have left behind: read as if it were this one's, or refused in words. See make_golden.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from make_golden import GOLDEN, golden_config

from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.training import loop
from imbalance.training.state import provenance as origin

FORMATS = sorted(int(path.name) for path in GOLDEN.iterdir())
MAKE = "raise origin.FORMAT, run python tests/make_golden.py, and commit what it makes"


@pytest.fixture(params=FORMATS)
def golden(request, tmp_path) -> Path:
    """A copy of what the version with one format has left; whether it is read is up to the tests if it is an old one."""
    return shutil.copytree(GOLDEN / str(request.param), tmp_path / str(request.param))


def go_on(directory: Path) -> dict | None:
    """What the same command makes of a run; None where it is refused, which this version's own must not be."""
    try:
        return loop.train(load(directory / "config.json"), directory)
    except BadInput as error:
        assert int(directory.parent.name) < origin.FORMAT, f"{error}: {MAKE}"
        assert "\n" not in str(error)
        return None


def test_this_version_s_own_is_there():
    assert FORMATS[-1] == origin.FORMAT, MAKE
    saved = load(GOLDEN / str(origin.FORMAT) / "finished" / "config.json")
    assert saved.to_dict() == golden_config().to_dict(), MAKE


def test_a_finished_run_is_done(golden, capsys, monkeypatch):
    files = {path: path.read_bytes() for path in golden.rglob("*.*")}
    monkeypatch.setattr(loop, "make_learner", lambda *_: pytest.fail("it is trained again"))
    if go_on(golden / "finished"):
        assert "done before" in capsys.readouterr().out
        assert all(path.read_bytes() == content for path, content in files.items())


def test_an_interrupted_run_ends_as_if_it_had_not_been(golden, capsys):
    """On another machine the floats may differ in their last bits."""
    finished, interrupted = golden / "finished", golden / "interrupted"
    before = json.loads((interrupted / "summary.json").read_text())
    begun = (interrupted / "metrics.jsonl").read_text()
    if not go_on(interrupted):
        return
    summary = json.loads((interrupted / "summary.json").read_text())
    assert f"resumed at epoch {before['epoch']}, step {before['step']}" in capsys.readouterr().out
    expected = json.loads((finished / "summary.json").read_text())
    alike(summary, {key: expected[key] for key in ("status", "score", "metrics", "step", "epoch")})
    lines, expected = ((run / "metrics.jsonl").read_text().splitlines() for run in (interrupted, finished))
    assert lines[: len(begun.splitlines())] == begun.splitlines() and len(lines) == len(expected) == 3
    for line, other in zip(lines, expected):
        alike(json.loads(line), json.loads(other))
    ours, theirs = (
        torch.load(run / "checkpoints" / "selected.pt", weights_only=True) for run in (interrupted, finished)
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def alike(ours: Any, theirs: Any) -> None:
    """All that theirs has is in ours; a later version may measure more."""
    if isinstance(theirs, dict):
        assert theirs.keys() <= ours.keys()
        for key, value in theirs.items():
            alike(ours[key], value)
    else:
        assert ours == (pytest.approx(theirs, rel=1e-6, abs=1e-9) if isinstance(theirs, float) else theirs)
