"""A signal stops a run soon, with a checkpoint, whatever it is doing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.jobs import Job, at_call

from imbalance import data
from imbalance.errors import Interrupted
from imbalance.methods.heads import registry as heads
from imbalance.methods.losses import Poly
from imbalance.training import loop
from imbalance.training.distributed.interrupt import Interrupt


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 143), ("SIGHUP", 143)])
def test_a_signal_ends_a_run_with_a_checkpoint(config, name, status):
    config.trainer.epochs = 1_000_000
    job = Job(config)
    job.wait_for(lambda: job.directory.joinpath("metrics.jsonl").exists() and job.metrics())
    os.kill(job.processes[0].pid, getattr(signal, name))
    assert job.wait() == [status]
    assert job.stderr().startswith(f"{name}: stopped") and job.stderr().count("\n") == 1
    assert json.loads(job.stdout().splitlines()[-1])["status"] == "interrupted"
    summary, state = job.summary(), job.checkpoint()
    assert summary["status"] == "interrupted" and summary["score"] is None
    assert summary["step"] == state["progress"]["step"] > 0
    assert state["metrics_position"] == len(job.metrics())


def test_a_second_sigint_ends_it_at_once(config):
    job = Job(config, target=interrupt_twice)
    assert job.wait() == [-signal.SIGINT]
    assert not job.directory.joinpath("summary.json").exists()


def interrupt_twice() -> None:
    at_call(pytest.MonkeyPatch(), loop, "take_step", 3, lambda: (send(signal.SIGINT), send(signal.SIGINT)))


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_is_heard_unless_nohup_says_otherwise(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with Interrupt() as interrupt:
            interrupt.defer()
            if ignored or signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:  # or it would end the tests
                send(signal.SIGHUP)
            assert interrupt.signum == (0 if ignored else signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_there_is_a_run_has_the_status_of_an_interruption(signum, tmp_path):
    """Here while the config file is executed, before torch is imported."""
    config = tmp_path / "config.py"
    config.write_text(f"import os\nos.kill(os.getpid(), {int(signum)})\ndef get_config(): pass\n")
    command = [sys.executable, "main.py", f"--config={config}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (130 if signum == signal.SIGINT else 143)
    assert done.stderr.startswith(f"{signum.name}: stopped") and done.stderr.count("\n") == 1
    assert json.loads(done.stdout) == {"run_directory": None, "status": "interrupted", "score": None}


@pytest.mark.parametrize("late", [False, True], ids=["before", "during"])
def test_a_signal_does_not_wait_for_a_head(config, tmp_path, monkeypatch, late):
    """Which may take as long as all else; the same command makes it again, from the last checkpoint."""
    whole = loop.train(config, tmp_path / "whole")

    def endless(head) -> None:
        if late:
            send(signal.SIGTERM)
        while True:
            pass

    config.head = {"name": "tau_normalised", "tau": 0.0}
    with monkeypatch.context() as patch:
        patch.setitem(heads.HEADS, "tau_normalised", endless_like(endless))
        if not late:
            at_call(patch, loop, "finish", 1, lambda: send(signal.SIGTERM))
        with pytest.raises(Interrupted):
            loop.train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    again = loop.train(config, tmp_path / "run")
    assert again["status"] == "done" and again["step"] == whole["step"]


def endless_like(endless):
    def head(head, *, tau: float):
        return endless(head)

    return head


def test_the_step_under_way_is_finished_and_no_other_begun(config, monkeypatch, tmp_path):
    at_call(monkeypatch, loop, "take_step", 2, lambda: send(signal.SIGTERM))
    with pytest.raises(Interrupted):
        loop.train(config, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["step"] == 2


def test_a_signal_while_the_data_are_loaded_acts_at_once(config, monkeypatch):
    def endless(seed: int) -> None:
        send(signal.SIGTERM)
        while True:
            pass

    monkeypatch.setitem(data.DATASETS, "endless", endless)
    config.data = {"name": "endless"}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.run(config)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not list(Path(config.work_dir).rglob("*.pt"))


def test_a_signal_during_an_evaluation_does_not_wait_for_its_end(config, monkeypatch, tmp_path):
    config.trainer.eval_batch_size = 1  # val has 358 examples
    calls = at_call(monkeypatch, Poly, "forward", 5 + 4, lambda: send(signal.SIGTERM))
    with pytest.raises(Interrupted):
        loop.train(config, tmp_path)
    assert len(calls) == 5 + 4
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "interrupted"
