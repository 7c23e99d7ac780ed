"""What fails around a run does not end it where it can go on, and damages nothing where it cannot."""

import errno
import os
import resource
from functools import partial

import pytest
import wandb
from helpers.disk import full_at
from helpers.jobs import Job, at_call

from imbalance.errors import BadInput
from imbalance.training import loop
from imbalance.training.logging.run_log import RunLog


def test_a_full_disk_ends_a_run_only_where_its_results_cannot_be_written(config, tmp_path):
    """No checkpoint fits, and training goes on; at the end the weights do not fit either."""
    config.callbacks.checkpoint_minutes = 1e-9
    whole = loop.train(config, tmp_path / "whole")
    job = Job(config, target=partial(full_at, 100_000))
    assert job.wait() == [2]
    assert job.stderr().count("\n") == 1
    assert "File too large; fix that, and the same command resumes" in job.stderr()
    assert job.stdout().count("WARNING: cannot write") == 15 + 1  # one a step, and at the end
    metrics = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert job.metrics() == metrics and not list(job.directory.rglob("*.tmp"))
    again = Job(config)
    assert again.wait() == [0], again.stderr()
    assert again.metrics() == metrics and again.summary()["score"] == whole["score"]


def test_metrics_that_a_full_disk_did_not_take_follow_when_it_does(config, tmp_path, monkeypatch, capfd):
    config.trainer.epochs = 6
    loop.train(config, tmp_path / "whole")
    metrics = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    full = len(metrics) // 3  # within a line
    assert not metrics[:full].endswith(b"\n")
    seen = []

    def free() -> None:
        seen.append((tmp_path / "again" / "metrics.jsonl").read_bytes())
        full_at(resource.RLIM_INFINITY)

    at_call(monkeypatch, loop, "training_metrics", 1, partial(full_at, full))
    at_call(monkeypatch, loop, "training_metrics", 5, free)
    try:
        loop.train(config, tmp_path / "again")
    finally:
        full_at(resource.RLIM_INFINITY)
    assert seen == [metrics[:full]]
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == metrics


def test_no_checkpoint_forgets_metrics_that_are_not_written(config, tmp_path):
    with RunLog(tmp_path, config, writes=True) as log:
        log.claim()
        log._unwritten = b"{}\n"
        log._files.metrics.close()
        log._claimed = log._files._replace(metrics=open("/dev/full", "ab", buffering=0))
        with pytest.raises(OSError, match="No space left"):
            log.position()


@pytest.mark.parametrize("work_dir", ["{file}/runs", "/proc/runs"])
def test_a_work_dir_that_cannot_be_written_is_said_before_anything_is_loaded(config, tmp_path, monkeypatch, work_dir):
    monkeypatch.setattr(loop, "make_learner", lambda *_: pytest.fail("loaded"))
    file = tmp_path / "file"
    file.touch()
    config.work_dir = work_dir.format(file=file)
    with pytest.raises(BadInput, match=r"config.work_dir: cannot write .*: (Not a directory|No such file)"):
        loop.run(config)


def test_data_that_have_gone_are_one_line(config):
    job = Job(config, target=lose_the_data)
    assert job.wait() == [2]
    assert job.stderr().startswith("/gone/images: No such file or directory") and job.stderr().count("\n") == 1


def lose_the_data() -> None:
    at_call(pytest.MonkeyPatch(), loop, "take_step", 3, partial(open, "/gone/images"))


def test_metrics_jsonl_cut_short_by_hand_is_not_filled_with_zeros(config, tmp_path):
    with RunLog(tmp_path, config, writes=True) as log:
        log.claim()
        with pytest.raises(BadInput, match="shorter than the checkpoint says"):
            log.rewind({"metrics_position": 10})


class Run:
    """Stands in for wandb's, which fails from its second line on."""

    id, summary = "abc", {}

    def log(self, values, step) -> None:
        if step > 5:
            raise ConnectionError("gone")

    def finish(self, exit_code) -> None:
        raise ConnectionError("still gone")


def test_wandb_that_fails_ends_nothing(config, tmp_path, monkeypatch, capsys):
    modes = []

    def init(mode, **_):
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no network")
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config.logger.mode = "online"
    summary = loop.train(config, tmp_path)
    assert modes == ["online", "offline"]
    assert summary["status"] == "done" and len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    printed = capsys.readouterr().out
    assert "no network; logging offline instead" in printed and "ConnectionError: gone; going on without" in printed


def test_wandb_without_a_key_does_not_ask_for_one(config, tmp_path, monkeypatch):
    modes = []
    monkeypatch.setattr(wandb, "init", lambda mode, **_: modes.append(mode) or Run())
    monkeypatch.setattr(wandb.api.__class__, "api_key", None)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config.logger.mode = "online"
    assert loop.train(config, tmp_path)["status"] == "done"
    assert modes == ["offline"]


def test_a_disk_that_fails_one_process_ends_all_with_a_line(config):
    job = Job(config, world=2, target=lose_the_disk)
    assert job.wait() == [2, 2]
    assert job.stderr().count("\n") == 1 and "Input/output error" in job.stderr()


def lose_the_disk() -> None:
    def fail(*_) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/runs")

    pytest.MonkeyPatch().setattr(RunLog, "rewind", fail)
