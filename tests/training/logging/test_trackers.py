"""TensorBoard and wandb are copies of metrics.jsonl: whatever becomes of them, the run stays as it is."""

import json
import os
import signal
from functools import partial

import pytest
from helpers.disk import full_at
from helpers.jobs import Job, at_call
from ml_collections import ConfigDict

from imbalance.config.experiment import validate
from imbalance.errors import BadInput, Interrupted
from imbalance.training import loop
from imbalance.training.logging import trackers
from imbalance.training.stacked.train import in_common, train_stacked


@pytest.fixture
def tensorboard(config, monkeypatch) -> ConfigDict:
    pytest.importorskip("tensorboard")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config.logger.mode = "tensorboard"
    return config


def shown(directory) -> dict[str, list[tuple[int, float]]]:
    """By metric, the steps and values that TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"), {"scalars": 0, "tensors": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def lines(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def agree(directory) -> None:
    """What TensorBoard shows is what metrics.jsonl says, in its steps and no others."""
    found, expected = shown(directory), lines(directory)
    assert found.keys() == expected[0].keys() - {"step"}
    for key, values in found.items():
        assert [step for step, _ in values] == [line["step"] for line in expected]
        numbers = [line[key] if line[key] is not None else float("nan") for line in expected]
        assert [value for _, value in values] == pytest.approx(numbers, rel=1e-6, nan_ok=True)


def test_tensorboard_has_every_metric_also_of_runs_that_were_trained_at_once(tensorboard, tmp_path):
    loop.train(tensorboard, tmp_path / "alone")
    agree(tmp_path / "alone")
    assert sorted(path.name for path in (tmp_path / "alone").iterdir() if path.is_dir()) == [
        "checkpoints", "predictions", "tensorboard"]  # fmt: skip
    assert in_common(validate(tensorboard)) is not None
    configs = [ConfigDict(tensorboard.to_dict() | {"seed": seed}) for seed in range(2)]
    train_stacked([(config, tmp_path / str(config.seed)) for config in configs])
    for seed in range(2):
        agree(tmp_path / str(seed))


def test_a_resumed_run_goes_on_in_the_same_record(tensorboard, tmp_path, monkeypatch):
    """Stopped with a checkpoint, and then killed past an evaluation that no checkpoint has: it is written again."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(tensorboard, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        at_call(patch, loop, "take_step", 7, lambda: (_ for _ in ()).throw(RuntimeError))
        loop.train(tensorboard, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [5, 10]
    loop.train(tensorboard, tmp_path)
    agree(tmp_path)


def test_a_disk_that_is_full_ends_tensorboard_and_not_the_run(tensorboard):
    job = Job(tensorboard, target=partial(full_at, 20_000))
    job.wait()
    assert job.stdout().count("going on without it; metrics.jsonl has all metrics") == 1
    assert "tensorboard: OSError" in job.stdout()


def test_what_fails_in_tensorboard_fails_there_alone(tensorboard, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers.TensorBoard, "log", lambda self, values: 1 / 0)
    monkeypatch.setattr(trackers.TensorBoard, "finish", lambda self, failed: pytest.fail("gone already"))
    assert loop.train(tensorboard, tmp_path)["status"] == "done" and len(lines(tmp_path)) == 3
    assert capsys.readouterr().out.count("tensorboard: ZeroDivisionError: division by zero; going on without it") == 1
    monkeypatch.setattr(trackers.TensorBoard, "__init__", lambda *_: 1 / 0)
    assert loop.train(tensorboard, tmp_path / "second")["status"] == "done"


def test_tensorboard_that_is_not_installed_is_said_before_anything_is_loaded(config, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.setattr(loop, "make_learner", lambda *_: pytest.fail("loaded"))
    config.logger.mode = "tensorboard"
    with pytest.raises(BadInput, match=r"not installed; type pip install -c constraints.txt -e '.\[tensorboard\]'"):
        loop.train(config, tmp_path)


def test_wandb_groups_the_seeds_of_a_setting(config, tmp_path, monkeypatch):
    import wandb

    given = []
    monkeypatch.setattr(wandb, "init", lambda **kwargs: given.append(kwargs) or 1 / 0)
    config.logger.mode = "offline"
    monkeypatch.delenv("WANDB_MODE", raising=False)
    settings = trackers.wandb_settings(config)
    directory = tmp_path / "digits_poly" / f"optim.lr=0.1,{'x' * 200}" / "seed=3"
    for run in (directory, directory / "first"):
        with pytest.raises(ZeroDivisionError):
            trackers.Wandb(settings, config, run, None, print)
    assert given[0]["group"] == given[1]["group"] and given[0]["group"].startswith("digits_poly/optim.lr=0.1,xx")
    assert given[0]["name"] == f"digits_poly/{directory.parent.name}/seed=3"
    assert len(given[0]["group"]) == 128  # what wandb's server takes
    assert [call["job_type"] for call in given] == ["train", "first stage"]


def test_wandb_mode_overrides_what_the_config_says_of_wandb_also_beside_tensorboard(config, monkeypatch):
    config.logger.mode = "tensorboard"
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert trackers.wandb_settings(config) is None and not trackers.uses_wandb(config)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert trackers.wandb_settings(config).mode == "offline" and trackers.uses_wandb(config)
    monkeypatch.setenv("WANDB_MODE", "tensorboard")
    with pytest.raises(BadInput, match="WANDB_MODE: 'tensorboard' given"):
        trackers.check(config)
