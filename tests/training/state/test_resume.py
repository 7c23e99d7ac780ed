"""A run that was stopped, however and wherever, ends as the run that never was."""

import json
import os
import random
import signal
import time
from contextlib import suppress

import pytest
from helpers.checkpoints import outcome
from helpers.jobs import Job, add_dropout, at_call, dropout
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance.errors import BadInput, Interrupted
from imbalance.models import MODELS
from imbalance.training import finish as ending
from imbalance.training import loop
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state import checkpoint


@pytest.fixture
def config(config: ConfigDict, monkeypatch) -> ConfigDict:
    """Three epochs of three steps with dropout and momentum, and selection by val."""
    monkeypatch.setitem(MODELS, "dropout", dropout)
    config.model = create(name="dropout")
    config.callbacks.update(select="best", monitor="val/recall/0")
    config.trainer.update(epochs=3, batch_size=128)
    return config


def test_killed_at_20_random_moments(config, tmp_path):
    """Most of them in the writing of a checkpoint: every step has one, which takes longer than the step."""
    config.callbacks.checkpoint_minutes = 1e-9

    def start(folder: str) -> Job:
        config.work_dir = str(tmp_path / folder)
        return Job(config, target=add_dropout)

    whole = start("whole")
    assert whole.wait() == [0], whole.stderr()
    choose, killed, ended, resumed_at = random.Random(0), 0, 0, []
    while killed < 20 or ended < 5:
        job = start(str(ended))
        if killed < 20:
            let_it_save(job, choose.randrange(6))
            time.sleep(choose.uniform(0, 0.02))
            job.processes[0].kill()
        status = job.wait()
        resumed_at += [int(line.split()[-1]) for line in job.stdout().splitlines() if line.startswith("resumed")]
        if status == [0]:
            assert outcome(job.directory) == outcome(whole.directory)
            ended += 1
        else:
            assert status == [-signal.SIGKILL], job.stderr()
            killed += 1
    print(f"{killed} kills of {ended} runs; resumed at steps", *resumed_at)
    assert len(set(resumed_at)) > 2


def let_it_save(job: Job, times: int) -> None:
    """Wait until the job has written `times` checkpoints, or has ended."""
    path, seen = job.directory / "checkpoints" / "last.pt", set()
    while len(seen) < times and job.processes[0].is_alive():
        with suppress(FileNotFoundError):  # there is none yet, or just now
            seen.add(path.stat().st_mtime_ns)
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("place", "name", "number"),
    [
        (loop, "take_step", 2),  # within an epoch
        (loop, "take_step", 3),  # in the last step of an epoch
        (loop, "training_metrics", 1),  # between that and the evaluation
        (loop, "evaluate", 2),
        (RunLog, "metrics", 2),  # after the evaluation
        (RunLog, "metrics", 3),  # the last
        (checkpoint, "save", 1),
        (checkpoint, "save", 2),
        (loop, "finish", 1),  # where the best weights have taken the place of the last
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_interrupted_at_this_point(config, tmp_path, monkeypatch, place, name, number):
    loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_call(patch, place, name, number, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            loop.train(config, tmp_path / "twice")
    assert json.loads((tmp_path / "twice" / "summary.json").read_text())["status"] == "interrupted"
    loop.train(config, tmp_path / "twice")
    assert outcome(tmp_path / "twice") == outcome(tmp_path / "whole")


def test_interrupted_before_its_new_head_was_fitted(config, tmp_path, monkeypatch):
    """The features of the model that was trained just now and of the one just loaded are the same: without dropout."""
    config.head = create(name="crt", by="class", epochs=2, batch_size=32, lr=0.5, momentum=0.9, weight_decay=0.0)
    loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_call(patch, loop, "finish", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            loop.train(config, tmp_path / "twice")
    fitted = at_call(monkeypatch, ending, "features", 0, lambda: None)
    loop.train(config, tmp_path / "twice")
    assert fitted and outcome(tmp_path / "twice") == outcome(tmp_path / "whole")


def test_lines_written_after_the_last_checkpoint_are_not_there_twice(config, tmp_path, monkeypatch):
    """A crash, that is: nothing is saved at it."""
    loop.train(config, tmp_path / "whole")
    config.callbacks.checkpoint_minutes = 1e-9
    with monkeypatch.context() as patch:
        at_call(patch, RunLog, "progress", 2, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loop.train(config, tmp_path / "twice")
    assert len((tmp_path / "twice" / "metrics.jsonl").read_text().splitlines()) == 2
    loop.train(config, tmp_path / "twice")
    assert outcome(tmp_path / "twice") == outcome(tmp_path / "whole")


def test_a_directory_is_one_run_s_alone(config, tmp_path, monkeypatch):
    def refused() -> None:
        with pytest.raises(BadInput, match="another process is training"):
            loop.train(config, tmp_path)

    at_call(monkeypatch, loop, "take_step", 2, refused)
    loop.train(config, tmp_path)


def test_a_directory_is_one_config_s_alone(config, tmp_path):
    loop.train(config, tmp_path)
    before = outcome(tmp_path)
    config.optim.momentum = 0.5
    with pytest.raises(BadInput, match=r"^config.optim.momentum: 0.5 given, .* with 0.9; use another config.work_dir"):
        loop.train(config, tmp_path)
    assert outcome(tmp_path) == before
