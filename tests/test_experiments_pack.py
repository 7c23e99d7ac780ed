"""The pack for a GPU: what is done is not done again, what is stopped goes on, and every piece is a command that exists."""

import importlib.util
import json

import pytest
from absl import flags
from absl.testing import flagsaver
from conftest import ROOT

from experiments import pack, results


@pytest.fixture
def packed(tmp_path):
    flags.FLAGS.mark_as_parsed()
    given = {"work_dir": str(tmp_path / "runs"), "results": str(tmp_path / "results"), "minutes": 0.5}
    with flagsaver.flagsaver(**given):
        yield tmp_path


def test_every_piece_names_what_there_is(packed):
    for piece in pack.pieces():
        assert importlib.util.find_spec(piece.arguments[0]) is not None
        if piece.kind == "tests":
            assert (ROOT / piece.arguments[-1]).is_file()
        if piece.kind == "bench":
            bench = importlib.import_module("experiments.bench.__main__")
            assert piece.name in bench.PARTS


def test_pieces_are_done_once_and_in_order(packed, monkeypatch, capsys):
    good = pack.Piece("tests", "good", ("json.tool", "--help"))
    bad = pack.Piece("tests", "bad", ("json.tool", "nothing.json"))
    monkeypatch.setattr(pack, "pieces", lambda: [good, bad])
    with flagsaver.flagsaver(only=["tests"]):
        assert pack.pack() == 1
        assert "good: done" in capsys.readouterr().out
        assert pack.pack() == 1
    assert "good" not in (out := capsys.readouterr().out) and "bad: exit status" in out and "1 of 2 pieces left" in out


def test_training_that_is_stopped_saves_and_goes_on(packed, monkeypatch, capsys):
    """A real run: stopped after some seconds, it has a checkpoint; then it finishes, and its row is kept."""
    run = ("--config=configs/digits_poly.py", f"--config.work_dir={packed / 'runs'}")
    long = pack.Piece(
        "rows", "long", ("main", *run, "--config.trainer.epochs=100000", "--config.trainer.eval_every=1000")
    )
    short = pack.Piece("rows", "short", ("main", *run, "--config.trainer.epochs=3", "--config.trainer.eval_every=1"))
    monkeypatch.setattr(pack, "pieces", lambda: [short, long])
    with flagsaver.flagsaver(only=["rows"], minutes=0.6):
        assert pack.pack() == 0
    out = capsys.readouterr().out
    assert "short: done" in out and "long: stopped for now" in out and "results/rows: 1 runs added" in out
    (summary,) = (packed / "runs").rglob("*epochs=100000*/seed=0/summary.json")
    assert json.loads(summary.read_text())["status"] == "interrupted"
    assert list(summary.parent.glob("checkpoints/last*"))
    (row,) = results.read("rows")
    assert row["epochs"] == "3" and (packed / "runs" / "pack" / "short.done").exists()
