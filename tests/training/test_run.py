"""A run directory that was damaged, removed, or used by two at once."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.jobs import Job, at_call

import imbalance
from imbalance.config.run_directory import read_summary
from imbalance.errors import BadInput, Busy, Interrupted
from imbalance.training import loop
from imbalance.training.logging.run_log import RunLog
from imbalance.utils.files import write_atomic
from imbalance.utils.locks import FolderLock
from imbalance.utils.read import seal
from imbalance.utils.torch_state import arithmetic_state, set_arithmetic_state


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": "done"}', "\xff"])
def test_a_damaged_summary_is_made_again(config, tmp_path, text, capsys):
    loop.train(config, tmp_path)
    path = tmp_path / "summary.json"
    before = read_summary(tmp_path)
    path.write_text(text, encoding="latin-1")
    loop.train(config, tmp_path)
    assert read_summary(tmp_path) == before | {"seconds": read_summary(tmp_path)["seconds"]}
    assert re.search(
        r"summary.json is damaged \(.*\); it is written again from the last checkpoint", capsys.readouterr().out
    )


def test_without_a_checkpoint_a_damaged_summary_is_not_trained_over(config, tmp_path):
    loop.train(config, tmp_path)
    (tmp_path / "summary.json").write_text("")
    shutil.rmtree(tmp_path / "checkpoints")
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(BadInput, match=r"summary.json: damaged .*, with no checkpoint .* to start anew"):
        loop.train(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize("text", ["", '{"seed": 0,', "[]", None])
def test_a_run_whose_config_is_damaged_or_lost_is_not_gone_on_with(config, tmp_path, text):
    loop.train(config, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(text) if text is not None else path.unlink()
    with pytest.raises(
        BadInput, match=r"config.json: (damaged|missing).* restore it from a backup, or remove .* to start anew"
    ):
        loop.train(config, tmp_path)


def test_a_damaged_first_run_is_made_again(config, tmp_path, capsys):
    config.weights = {"name": "just_train_twice", "first_epochs": 1, "upweight": 2.0}
    before = loop.train(config, tmp_path)
    (tmp_path / "first" / "predictions" / "train.npz").write_bytes(b"PK")
    (tmp_path / "summary.json").unlink()
    assert repr(loop.train(config, tmp_path)["metrics"]) == repr(before["metrics"])
    assert re.search(r"first/predictions/train.npz is damaged .*; it is written again", capsys.readouterr().out)


def test_a_finished_run_without_a_score_says_so(config, tmp_path):
    """A metric that is 0/0 is null in summary.json."""
    loop.train(config, tmp_path)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(seal(read_summary(tmp_path) | {"score": None})))
    assert loop.train(config, tmp_path)["score"] is None


def test_a_finished_run_that_was_moved_says_where_it_is(config, tmp_path):
    before = loop.train(config, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "now")
    again = loop.train(config, tmp_path / "now")
    assert (again["run_directory"], again["score"]) == (str(tmp_path / "now"), before["score"])


def test_a_finished_run_on_a_read_only_disk_is_done(config, tmp_path, monkeypatch, capsys):
    before = loop.train(config, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    real_open = os.open

    def read_only(path, flags, *args, **kwargs) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    assert loop.train(config, tmp_path)["data"] == before["data"]
    assert "was done before" in capsys.readouterr().out
    monkeypatch.undo()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
    (tmp_path / "summary.json").unlink()
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(BadInput, match=r"config.work_dir: cannot write .*: Read-only file system"):
        loop.train(config, tmp_path)


def test_a_refused_run_leaves_no_directory(config, tmp_path):
    config.trainer.accumulation = config.trainer.batch_size = 1000  # more than there are training examples
    (tmp_path / "runs").mkdir()
    with pytest.raises(BadInput, match=r"config.trainer.accumulation: 1000 given"):
        loop.train(config, tmp_path / "runs" / "digits" / "default" / "seed=0")
    assert list((tmp_path / "runs").iterdir()) == []
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "notes.txt").write_text("mine")
    with pytest.raises(BadInput):
        loop.train(config, begun)
    assert (begun / "notes.txt").read_text() == "mine"


def test_a_full_disk_is_said_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"No space left on device: '.*summary.json'"):
        write_atomic(tmp_path / "summary.json", b"{}")


@pytest.mark.parametrize("name", ["model.json", "checkpoints/selected.pt", "predictions/val.npz"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_file_of_a_finished_run_is_written_again(config, tmp_path, name, lost, capsys):
    loop.train(config, tmp_path)
    path = tmp_path / name
    before = path.read_bytes()
    path.unlink() if lost else path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    loop.train(config, tmp_path)
    assert path.read_bytes() == before
    assert f"{path} is {'missing' if lost else 'damaged'}" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "checkpoints")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(BadInput, match=rf"{name}: damaged .* with no checkpoint to write it again from"):
        loop.train(config, tmp_path)


def test_a_number_changed_in_the_metrics_stops_a_resumed_run(config, tmp_path, monkeypatch):
    config.callbacks.checkpoint_minutes = 1e-9
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path)
    path = tmp_path / "metrics.jsonl"
    before = path.read_text()
    path.write_text(before.replace("1", "2", 1))
    with pytest.raises(BadInput, match=r"metrics.jsonl: damaged \(its content is not the one that was written"):
        loop.train(config, tmp_path)
    path.write_text(before)
    loop.train(config, tmp_path)


@pytest.mark.parametrize("lost", [".", "metrics.jsonl"])
@pytest.mark.parametrize("moment", ["train_epoch", "finish"])
def test_a_run_whose_directory_is_removed_is_not_called_done(config, tmp_path, monkeypatch, lost, moment):
    def remove() -> None:
        path = tmp_path / "run" / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    at_call(monkeypatch, loop, moment, 1, remove)
    with pytest.raises(BadInput, match="removed or replaced while this run was training in it"):
        loop.train(config, tmp_path / "run")
    assert not list(tmp_path.rglob("summary.json")) and not list(tmp_path.rglob("predictions"))


@pytest.mark.parametrize("as_on_nfs", [False, True])
def test_a_second_process_is_refused_without_a_lock_file_too(tmp_path, monkeypatch, as_on_nfs):
    if as_on_nfs:  # where a folder cannot be locked
        monkeypatch.setattr("fcntl.flock", no_folders)
    lock = FolderLock(tmp_path)
    with pytest.raises(BlockingIOError):
        FolderLock(tmp_path)
    assert lock.holds()
    (tmp_path / ".lock").unlink()
    if as_on_nfs:
        assert not lock.holds()  # which the next write sees
        return
    with pytest.raises(BlockingIOError):
        FolderLock(tmp_path)
    lock.close()
    FolderLock(tmp_path).close()


FLOCK = fcntl.flock


def no_folders(descriptor: int, operation: int) -> None:
    if Path(f"/proc/self/fd/{descriptor}").is_dir():
        raise OSError(9, "Bad file descriptor")
    FLOCK(descriptor, operation)


def test_a_run_that_is_refused_for_its_data_stands_in_nobodys_way(config, tmp_path, monkeypatch):
    def refuse() -> None:
        raise BadInput("the data are wrong")

    with monkeypatch.context() as patch:
        at_call(patch, loop, "make_learner", 1, refuse)
        with pytest.raises(BadInput, match="the data are wrong"):
            loop.train(config, tmp_path)
    config.data.imbalance_ratio = 10.0
    assert loop.train(config, tmp_path)["status"] == "done"
    assert json.loads((tmp_path / "config.json").read_text())["data"]["imbalance_ratio"] == 10


def test_who_has_the_directory_is_said(config, tmp_path):
    with RunLog(tmp_path, config, writes=True) as log:
        log.claim()
        with pytest.raises(Busy, match=f"another process is training in {tmp_path}"):
            loop.train(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_MODE", "garbage"),
        ("WANDB_SILENT", "maybe"),
        ("WANDB_INIT_TIMEOUT", "soon"),
        ("WANDB_TAGS", ","),
        ("WANDB_PROJECT", "a/b"),
    ],
)
def test_what_wandb_does_not_take_is_said_before_anything_is_loaded(config, tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(loop, "make_learner", lambda *_: pytest.fail("loaded"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv(name, value)
    config.logger.mode = "offline"
    with pytest.raises(BadInput, match=f"{name}: '{value}' given"):
        loop.train(config, tmp_path)


def test_a_project_that_wandb_does_not_take_is_refused(config, tmp_path, monkeypatch):
    """wandb raised `UsageError` after the data were loaded, and again when the run logged offline instead."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config.logger.mode, config.logger.project = "offline", "a/b:c"
    with pytest.raises(BadInput, match="config.logger.project: 'a/b:c' given, .*cannot contain"):
        loop.train(config, tmp_path)


def test_a_summary_that_is_a_folder_is_one_line(config):
    job = Job(config)
    (job.directory / "summary.json").mkdir(parents=True)
    assert job.wait() == [2] and job.stderr().count("\n") == 1, job.stderr()


def test_a_refused_run_leaves_nothing_behind_and_removes_nothing_of_others(config, tmp_path):
    """The model is built after the run directory is claimed, so a directory was left, and blocked the same name."""
    config.model = dict(name="pretrained", pretrained=str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="nowhere"):
        imbalance.run(config, directory=tmp_path / "a" / "b" / "run")
    assert not (tmp_path / "a").exists()
    for kept in ("run/notes.txt", "other/notes.txt"):
        (tmp_path / "a" / kept).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / kept).write_text("mine")
    for directory in ("run", "new/run"):
        with pytest.raises(BadInput, match="nowhere"):
            imbalance.run(config, directory=tmp_path / "a" / directory)
    assert (tmp_path / "a" / "run" / "notes.txt").is_file() and not (tmp_path / "a" / "new").exists()


@contextmanager
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def torch_settings():
    """Settings of the process that a run sets for itself."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    tf32 = [backend.allow_tf32 for backend in backends]
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(), *tf32


@pytest.mark.parametrize("set_by_caller", [False, True])
def test_determinism_and_tf32_come_back_as_the_caller_had_them(set_by_caller, config, tmp_path, monkeypatch):
    outside = arithmetic_state()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = set_by_caller, not set_by_caller
    torch.use_deterministic_algorithms(set_by_caller, warn_only=set_by_caller)
    try:
        before = torch_settings()
        config.trainer.update(epochs=1, deterministic=not set_by_caller, tf32="convolutions")
        inside = []
        at_call(monkeypatch, loop, "take_step", 1, lambda: inside.append(torch_settings()))
        loop.train(config, tmp_path)
        assert inside == [(not set_by_caller, False, False, True)]
        assert torch_settings() == before
    finally:
        set_arithmetic_state(outside)


def test_runs_in_threads_are_those_one_after_another(tmp_path):
    """They share torch's random generator, from which the initial weights and dropout are drawn."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 3)), np.arange(60) % 2
    data = {"train": (x[:40], y[:40]), "val": (x[40:50], y[40:50]), "test": (x[50:], y[50:])}

    def logits(seed, name):
        directory = tmp_path / f"{name}{seed}"
        imbalance.run("arrays_erm", {"trainer.epochs": 3, "seed": seed}, data=data, directory=directory)
        return np.load(directory / "predictions" / "test.npz")["logits"]

    seeds = range(4)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda seed: logits(seed, "thread"), seeds))
    assert all(np.array_equal(logits(seed, "alone"), together[seed]) for seed in seeds)


def test_what_the_caller_has_set_in_torch_changes_no_result_and_comes_back(tmp_path):
    """Initial weights drawn in float64 would be others; without gradients nothing could be trained."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 3)), np.arange(60) % 2
    data = {"train": (x[:40], y[:40]), "val": (x[40:50], y[40:50]), "test": (x[50:], y[50:])}

    def logits(name):
        result = imbalance.run("arrays_erm", {"trainer.epochs": 2}, data=data, directory=tmp_path / name)
        with np.load(result.directory / "predictions" / "test.npz") as saved:
            return saved["logits"]

    plain, draws = logits("plain"), []
    for context in (float64_by_default, torch.no_grad, torch.inference_mode):
        with context():
            before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            torch.manual_seed(len(draws))
            assert np.array_equal(logits(context.__name__), plain)
            draws.append(float(torch.rand(()).float()))  # a run must not restart the caller's random numbers
            assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    for seed, dtype in enumerate((torch.float64, torch.float32, torch.float32)):
        expected = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=dtype)
        assert draws[seed] == float(expected.float())
