"""The pack for a GPU: what is done is not done again, what is stopped goes on, and every piece is a command that exists."""

import importlib.util
import json
from pathlib import Path

import pytest
from conftest import ROOT

from imbalance.bench import gpu_checks, gpu_queue
from imbalance.cli.main import arguments_of
from imbalance.errors import BadInput
from imbalance.report import kept_results as results


def packed(tmp_path, only: str, minutes: float = 0.5, on_cpu: bool = False) -> int:
    return gpu_queue.pack(minutes=minutes, only=[only], overrides={}, seeds=2, work_dir=str(tmp_path / "runs"), jobs=1,
                     results=str(tmp_path / "results"), on_cpu=on_cpu)  # fmt: skip


def test_every_piece_names_what_there_is():
    for piece in gpu_queue.make_jobs(overrides={"data_dir": "x"}, seeds=2, work_dir="runs", jobs=1):
        assert importlib.util.find_spec(piece.arguments[0]) is not None
        module, name, *words = piece.arguments
        if module == "pytest":
            assert (ROOT / piece.arguments[-1]).is_file()
        if name == "bench":
            assert arguments_of(name, words)["only"] == [piece.name.removeprefix("bench-")]
        if module == gpu_checks.__name__:
            assert gpu_checks.CHECKS[name] and words == [f"--folder={Path('runs').absolute()}/pack"]
        if piece.kind == "rows":
            _, *words = piece.arguments
            assert arguments_of(" ".join(words[:2]), words[2:])["overrides"] == {"data_dir": "x"}


def test_what_needs_a_gpu_comes_first_and_the_evidence_last():
    every = gpu_queue.make_jobs(overrides={}, seeds=2, work_dir="runs", jobs=1)
    of_gpu = [piece.name for piece in every if piece.kind == "gpu"]
    assert of_gpu[-3:] == ["waits", "bits", "precision"]
    assert all(name.startswith("gpu-") for name in of_gpu[:-3])
    assert [piece.name for piece in every if piece.kind == "quiet"] == ["bench-gpu", "trace"]
    assert [piece.kind for piece in every] == sorted((piece.kind for piece in every), key=gpu_queue.KINDS.index)


def test_pieces_are_done_once_and_in_order(tmp_path, monkeypatch, capsys):
    good = gpu_queue.Job("tests", "good", ("json.tool", "--help"))
    bad = gpu_queue.Job("tests", "bad", ("json.tool", "nothing.json"))
    monkeypatch.setattr(gpu_queue, "make_jobs", lambda **_: [good, bad])
    assert packed(tmp_path, "tests") == 1
    assert "good: done" in capsys.readouterr().out
    assert packed(tmp_path, "tests") == 1
    assert "good" not in (out := capsys.readouterr().out) and "bad: exit status" in out and "1 of 2 jobs left" in out


def test_what_only_a_gpu_can_show_waits_for_one(tmp_path, monkeypatch, capsys):
    for kind in ("gpu", "quiet"):
        piece = gpu_queue.Job(kind, kind, ("json.tool", "--help"))
        monkeypatch.setattr(gpu_queue, "make_jobs", lambda piece=piece, **_: [piece])
        for there, said in ((False, "1 of 1 jobs left"), (True, "0 of 1 jobs left")):
            monkeypatch.setattr(gpu_queue, "has_gpu", lambda there=there: there)
            assert packed(tmp_path, kind) == 0
            assert said in capsys.readouterr().out


def test_a_trial_without_a_gpu_runs_every_piece(tmp_path, monkeypatch, capsys):
    """Its line has the last line of the piece's output."""
    (tmp_path / "piece_of_a_queue.py").write_text("print('first'); print('3 skipped in 0.1s'); print()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu_queue, "has_gpu", lambda: False)
    monkeypatch.setattr(gpu_queue, "make_jobs", lambda **_: [gpu_queue.Job("gpu", "bits", ("piece_of_a_queue",))])
    assert packed(tmp_path, "gpu", on_cpu=True) == 0
    out = capsys.readouterr().out
    assert f"gpu bits: done; 3 skipped in 0.1s ({tmp_path / 'runs' / 'pack' / 'bits.txt'})" in out


def test_training_that_is_stopped_saves_and_goes_on(tmp_path, monkeypatch, capsys):
    """A real run: stopped after some seconds, it has a checkpoint; then it finishes, and its row is kept."""
    run = ("--config=configs/digits_poly.py", f"--config.work_dir={tmp_path / 'runs'}")
    long = gpu_queue.Job(
        "rows",
        "long",
        ("imbalance", "train", *run, "--config.trainer.epochs=100000", "--config.trainer.eval_every=1000"),
    )
    short = gpu_queue.Job(
        "rows", "short", ("imbalance", "train", *run, "--config.trainer.epochs=3", "--config.trainer.eval_every=1")
    )
    monkeypatch.setattr(gpu_queue, "make_jobs", lambda **_: [short, long])

    def refuse() -> None:
        raise BadInput("this checkout has uncommitted changes")

    with monkeypatch.context() as patch, pytest.raises(BadInput, match="uncommitted"):
        patch.setattr("imbalance.training.state.provenance.clean_commit", refuse)
        packed(tmp_path, "rows")
    monkeypatch.setattr("imbalance.training.state.provenance.clean_commit", lambda: "0123456789")
    out = ""
    for minutes in (0.12, 0.2, 0.4, 0.8, 1.6):  # on a busy machine a run may be stopped before it has begun
        assert packed(tmp_path, "rows", minutes=minutes) == 0
        out += capsys.readouterr().out
        if found := list((tmp_path / "runs").rglob("*epochs=100000*/seed=0/summary.json")):
            break
    assert "short: done" in out and "long: stopped for now" in out and "1 runs added to" in out
    (summary,) = found
    assert json.loads(summary.read_text())["status"] == "interrupted"
    assert list(summary.parent.glob("checkpoints/last*"))
    (row,) = results.read("rows", tmp_path / "results")
    assert row["epochs"] == "3" and (tmp_path / "runs" / "pack" / "short.done").exists()
