import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.jobs import at_call
from ml_collections.config_dict import create

from imbalance import models
from imbalance.data.sets.digits import digits
from imbalance.errors import Diverged, Interrupted
from imbalance.training import loop
from imbalance.training.logging.run_log import without_nan
from imbalance.training.loop import run, train
from imbalance.utils.seeds import generator


def selected_weights(summary) -> dict[str, torch.Tensor]:
    return torch.load(Path(summary["run_directory"], "checkpoints", "selected.pt"), weights_only=True)


def lines(summary) -> list[dict]:
    return [json.loads(line) for line in Path(summary["run_directory"], "metrics.jsonl").read_text().splitlines()]


def test_the_loop_is_the_textbook_one(config):
    """Importance-weighted cross-entropy by a bare PyTorch loop written here ends with the same parameters."""
    config.loss = create(name="cross_entropy")
    config.optim.schedule = create(name="step", warmup_epochs=0, milestones=(2,), factor=0.1)
    summary = train(config)

    data = digits(0, **{key: value for key, value in config.data.items() if key != "name"})
    targets = data.train.targets
    weights = 1 / torch.bincount(targets).float() ** 1.5
    weights = weights[targets] / weights[targets].mean()
    torch.manual_seed(0)
    model = models.mlp((1, 8, 8), 10, hidden=(256, 256))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    right = 0
    for epoch in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 if epoch < 2 else 0.005
        right, total = 0, 0.0
        order = torch.randperm(len(targets), generator=generator(0, "sampler", epoch))
        for rows in order.split(64):
            logits = model(data.train.inputs[rows])
            loss = (F.cross_entropy(logits, targets[rows], reduction="none") * weights[rows]).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += (logits.argmax(1) == targets[rows]).sum().item()
            total += loss.item()

    for key, tensor in selected_weights(summary).items():
        torch.testing.assert_close(tensor, model.state_dict()[key], rtol=1e-5, atol=1e-6)
    last = lines(summary)[-1]
    assert last["train/accuracy"] == right / len(targets)
    assert last["train/loss"] == pytest.approx(total / math.ceil(len(targets) / 64), rel=1e-5)
    assert last["lr"] == pytest.approx(0.005)
    with torch.no_grad():
        found = (model(data.test.inputs).argmax(1) == data.test.targets).double().mean().item()
    assert summary["metrics"]["test/accuracy"] == pytest.approx(found)


def test_what_a_run_leaves_behind(config):
    config.trainer.eval_splits = ("val", "test")
    summary = train(config)
    directory = Path(summary["run_directory"])
    assert json.loads((directory / "config.json").read_text()) == json.loads(json.dumps(config.to_dict()))
    assert json.loads((directory / "summary.json").read_text())["metrics"] == without_nan(summary["metrics"])
    assert summary["status"] == "done" and summary["score"] == summary["metrics"]["val/balanced_accuracy"]
    assert summary["classes"]["train"]["0"] == 104 and summary["classes"]["train"]["9"] == 2
    assert {"torch", "numpy"} <= summary["versions"].keys()

    written = lines(summary)
    assert [line["epoch"] for line in written] == [1, 2, 3]
    assert [line["step"] for line in written] == [5, 10, 15]
    for split in ("train", "val", "test"):
        for kind in ("recall", "precision", "accuracy"):
            assert all(f"{split}/{kind}/{k}" in written[0] for k in range(10))
    saved = np.load(directory / "predictions" / "test.npz")
    accuracy = (saved["logits"].argmax(1) == saved["targets"]).mean()
    assert accuracy == pytest.approx(summary["metrics"]["test/accuracy"])
    assert len(set(saved["indices"])) == len(saved["targets"]) == sum(summary["classes"]["test"].values())


def test_the_same_seed_gives_the_same_run_and_another_another(config, tmp_path):
    one, two = train(config, tmp_path / "one"), train(config, tmp_path / "two")
    assert lines(one) == lines(two)
    config.seed = 1
    assert lines(train(config, tmp_path / "three")) != lines(one)


def test_best_takes_the_epoch_with_the_best_monitored_metric(config):
    config.callbacks.update(select="best", monitor="val/recall/0")
    config.trainer.epochs = 6
    summary = train(config)
    values = [line["val/recall/0"] for line in lines(summary)]
    assert summary["selected_epoch"] == 1 + int(np.argmax(values)) < 6  # the first of equal ones
    assert summary["metrics"]["val/recall/0"] == max(values)


def test_a_monitor_without_a_value_tests_the_last_epoch_and_names_it(config):
    config.trainer.epochs = 2
    config.data.update(imbalance="none", imbalance_ratio=1.0)  # no class has fewer than 20 training examples
    last = train(config, config.work_dir + "/last")
    config.callbacks.update(select="best", monitor="val/few_shot_accuracy")
    summary = train(config, config.work_dir + "/best")
    assert summary["selected_epoch"] == 2
    np.testing.assert_equal(summary["metrics"], last["metrics"])  # nan equals nan


def test_training_goes_on_past_nothing_that_is_not_finite(config):
    """The parameters are those before the bad step, what was written stays, and the examples are named."""
    config.optim.lr = 1e10
    config.trainer.update(batch_size=512, eval_splits=())  # val's logits would be infinite a step before
    config.callbacks.update(select="last", patience=0)
    with pytest.raises(Diverged, match=r"step 2 .*learning rate 1e\+10.*row numbers"):
        run(config)
    (path,) = Path(config.work_dir).rglob("summary.json")
    summary = json.loads(path.read_text())
    assert summary["status"] == "diverged" and summary["score"] is None and summary["step"] == 2
    assert len(path.with_name("metrics.jsonl").read_text().splitlines()) == 2


def test_bfloat16_and_channels_last_and_double_train_too(config, tmp_path):
    reference = train(config, tmp_path / "reference")["metrics"]["val/loss"]
    for name, values in [
        ("bf16", {"mixed_precision": "bf16"}),
        ("double", {"dtype": "float64"}),
        ("nhwc", {"channels_last": True}),
    ]:
        changed = config.copy_and_resolve_references()
        changed.trainer.update(values)
        assert train(changed, tmp_path / name)["metrics"]["val/loss"] == pytest.approx(reference, rel=0.02)


def test_wandb_gets_the_whole_config_and_no_weights(config, tmp_path, monkeypatch):
    import wandb

    class Recorder:
        id, summary, logged = "abc", {}, []

        def log(self, values, step):
            self.logged.append(values)

        def finish(self, exit_code):
            self.finished = True

    given, recorder = {}, Recorder()
    monkeypatch.setattr(wandb, "init", lambda **kwargs: given.update(kwargs) or recorder)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config.logger.mode = "offline"
    summary = train(config)
    assert given["mode"] == "offline" and given["id"] is None
    assert given["config"] == config.to_dict() | {"run_directory": summary["run_directory"]}
    assert {"seed", "work_dir", "data_dir", "debug"} <= given["config"].keys()
    assert given["settings"].save_code is False
    assert [line["step"] for line in recorder.logged] == [5, 10, 15] and recorder.finished
    assert not any(isinstance(value, torch.Tensor) for line in recorder.logged for value in line.values())


def test_a_resumed_run_goes_on_in_the_same_wandb_run(config, tmp_path, monkeypatch):
    import wandb

    class Recorder:
        def __init__(self, run_id):
            self.id, self.summary = run_id or "abc", {}

        def log(self, values, step):
            pass

        def finish(self, exit_code):
            pass

    given = []
    monkeypatch.setattr(wandb, "init", lambda **kwargs: given.append(kwargs) or Recorder(kwargs["id"]))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config.logger.mode = "offline"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(config, tmp_path)
    train(config, tmp_path)
    assert [(call["id"], call["resume"]) for call in given] == [(None, "allow"), ("abc", "allow")]
