"""A run directory that was damaged, removed, or used by two at once."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest
from helpers.jobs import Job, at_call

import imbalance
from imbalance.errors import BadInput, Busy
from imbalance.training import loop
from imbalance.training.logging.run_log import RunLog
from imbalance.utils.locks import FolderLock


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": "done"}', "\xff"])
def test_a_damaged_summary_is_made_again(config, tmp_path, text, capsys):
    loop.train(config, tmp_path)
    path = tmp_path / "summary.json"
    before = json.loads(path.read_text())
    path.write_text(text, encoding="latin-1")
    loop.train(config, tmp_path)
    assert json.loads(path.read_text()) == before | {"seconds": json.loads(path.read_text())["seconds"]}
    assert "summary.json is damaged; it is written again from the last checkpoint" in capsys.readouterr().out


def test_without_a_checkpoint_a_damaged_summary_is_not_trained_over(config, tmp_path):
    loop.train(config, tmp_path)
    (tmp_path / "summary.json").write_text("")
    shutil.rmtree(tmp_path / "checkpoints")
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(BadInput, match=r"summary.json: damaged, with no checkpoint .* to start anew"):
        loop.train(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize("text", ["", '{"seed": 0,', "[]", None])
def test_a_run_whose_config_is_damaged_or_lost_is_not_gone_on_with(config, tmp_path, text):
    loop.train(config, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(text) if text is not None else path.unlink()
    with pytest.raises(BadInput, match=r"config.json: (damaged|missing).* put it back, or remove .* to start anew"):
        loop.train(config, tmp_path)


def test_a_damaged_first_run_says_how_to_make_it_again(config, tmp_path):
    config.weights = {"name": "just_train_twice", "first_epochs": 1, "upweight": 2.0}
    before = loop.train(config, tmp_path)
    (tmp_path / "first" / "predictions" / "train.npz").write_bytes(b"PK")
    (tmp_path / "summary.json").unlink()
    with pytest.raises(BadInput, match=r"train.npz: damaged .*; to write it again, remove .*first/summary.json"):
        loop.train(config, tmp_path)
    (tmp_path / "first" / "summary.json").unlink()
    assert repr(loop.train(config, tmp_path)["metrics"]) == repr(before["metrics"])


def test_a_finished_run_without_a_score_says_so(config, tmp_path):
    """A metric that is 0/0 is null in summary.json."""
    loop.train(config, tmp_path)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"score": None}))
    assert loop.train(config, tmp_path)["score"] is None


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
    ("name", "value"), [("WANDB_MODE", "garbage"), ("WANDB_SILENT", "maybe"), ("WANDB_INIT_TIMEOUT", "soon")]
)
def test_what_wandb_does_not_take_is_said_before_anything_is_loaded(config, tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(loop, "make_learner", lambda *_: pytest.fail("loaded"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv(name, value)
    config.logger.mode = "offline"
    with pytest.raises(BadInput, match=f"{name}: '{value}' given"):
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
