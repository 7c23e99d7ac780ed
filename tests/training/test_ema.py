"""`trainer.ema_decay`: the moving average follows its rule, and is evaluated, selected, saved and resumed."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.jobs import Job, add_dropout, at_call, dropout
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import nn

from imbalance import models
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data.sets.digits import digits
from imbalance.errors import Interrupted
from imbalance.models import MODELS
from imbalance.training import loop
from imbalance.training.ema import average_weights
from imbalance.training.optim import sgd
from imbalance.training.stacked.train import in_common
from imbalance.utils.seeds import generator

DECAY = 0.9


@pytest.fixture
def config(config: ConfigDict) -> ConfigDict:
    config.trainer.ema_decay = DECAY
    return config


def saved(directory: Path, name: str) -> dict:
    return torch.load(directory / "checkpoints" / f"{name}.pt", weights_only=True)


def lines(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_the_average_is_that_of_a_loop_written_here(config, tmp_path):
    """With the rule of timm's ModelEmaV3, from the initial weights on."""
    config.loss = create(name="cross_entropy")
    config.trainer.dtype = "float64"
    summary = loop.train(config, tmp_path)

    data = digits(0, **{key: value for key, value in config.data.items() if key != "name"})
    targets = data.train.targets
    weights = 1 / torch.bincount(targets).double() ** 1.5
    weights = weights[targets] / weights[targets].mean()
    torch.manual_seed(0)
    model = models.mlp((1, 8, 8), 10, hidden=(256, 256)).double()
    average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=config.optim.lr, momentum=0.9)
    schedule = config.optim.schedule
    assert (schedule.name, config.trainer.epochs) == ("constant", 3) and not schedule.warmup_epochs
    for epoch in range(3):
        order = torch.randperm(len(targets), generator=generator(0, "sampler", epoch))
        for rows in order.split(64):
            logits = model(data.train.inputs[rows].double())
            loss = (F.cross_entropy(logits, targets[rows], reduction="none") * weights[rows]).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name, parameter in model.named_parameters():
                average[name] = DECAY * average[name] + (1 - DECAY) * parameter.detach()
    selected, last = saved(tmp_path, "selected"), saved(tmp_path, "last")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(selected[name], average[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(last["model"][name], parameter.detach(), rtol=1e-9, atol=1e-12)
        assert torch.equal(last["ema"][name], selected[name]) and not torch.equal(selected[name], last["model"][name])
    model.load_state_dict(average)
    with torch.no_grad():
        right = (model(data.test.inputs.double()).argmax(1) == data.test.targets).double().mean().item()
    assert summary["metrics"]["test/accuracy"] == pytest.approx(right)


def test_the_average_is_selected_by_its_own_metric(config, tmp_path):
    config.callbacks.update(select="best", monitor="val/balanced_accuracy")
    config.trainer.epochs = 6
    summary = loop.train(config, tmp_path)
    values = [line["val/balanced_accuracy"] for line in lines(tmp_path)]
    assert summary["metrics"]["val/balanced_accuracy"] == max(values)
    assert summary["selected_epoch"] == 1 + int(np.argmax(values))
    plain = config.copy_and_resolve_references()
    plain.trainer.ema_decay = 0.0
    loop.train(plain, tmp_path / "plain")
    others = lines(tmp_path / "plain")
    assert [line["train/loss"] for line in lines(tmp_path)] == [line["train/loss"] for line in others]
    assert [line["val/loss"] for line in lines(tmp_path)] != [line["val/loss"] for line in others]
    assert "ema" not in saved(tmp_path / "plain", "last")


def test_a_resumed_run_has_the_same_average_to_the_bit(config, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "dropout", dropout)
    config.model = create(name="dropout")
    config.callbacks.update(select="best", monitor="val/recall/0")
    loop.train(config, tmp_path / "whole")
    for number in (3, 5):  # within an epoch, and in its last step
        directory = tmp_path / str(number)
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            at_call(patch, loop, "take_step", number, lambda: os.kill(os.getpid(), signal.SIGTERM))
            loop.train(config, directory)
        loop.train(config, directory)
        assert (directory / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
        for of_file in (lambda run: saved(run, "selected"), lambda run: saved(run, "last")["ema"]):
            ours, theirs = of_file(directory), of_file(tmp_path / "whole")
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_two_processes_average_as_one(config, tmp_path):
    config.trainer.update(dtype="float64", epochs=2)
    loop.train(config, tmp_path / "alone")
    config.work_dir = str(tmp_path / "together")
    job = Job(config, world=2, target=add_dropout)
    assert job.wait() == [0, 0], job.stderr()
    for name in ("selected", "last"):
        one, two = saved(tmp_path / "alone", name), saved(job.directory, name)
        one, two = (state.get("ema", state) for state in (one, two))
        assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-9


def test_buffers_are_copied_and_parameters_averaged(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = sgd(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0, decayed="all")
    averaged, expected = average_weights(network, optimizer, 0.5), [p.detach().clone() for p in network.parameters()]
    for _ in range(3):
        network(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        expected = [0.5 * mean + 0.5 * p.detach() for mean, p in zip(expected, network.parameters(), strict=True)]
    for mean, parameter in zip(expected, averaged.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), mean)
    assert averaged[1].num_batches_tracked == 3
    assert all(torch.equal(*pair) for pair in zip(averaged.buffers(), network.buffers(), strict=True))


def test_in_bfloat16_the_average_is_what_is_evaluated(config, tmp_path):
    """accelerate wraps the network's forward method, which the copy must not share."""
    config.trainer.update(epochs=1, mixed_precision="bf16")
    loop.train(config, tmp_path)
    model = models.mlp((1, 8, 8), 10, hidden=(256, 256))
    model.load_state_dict(saved(tmp_path, "selected"))
    data = digits(0, **{key: value for key, value in config.data.items() if key != "name"})
    with torch.no_grad():
        logits = model(data.test.inputs).numpy()
        model.load_state_dict(saved(tmp_path, "last")["model"])
        others = model(data.test.inputs).numpy()
    predicted = np.load(tmp_path / "predictions" / "test.npz")["logits"]
    assert 3 * np.abs(logits - predicted).max() < np.abs(others - predicted).max()


def test_the_average_of_a_compiled_network_does_not_call_that_network():
    network = nn.Linear(3, 2)
    network.compile(backend="eager")
    optimizer = sgd(network.parameters(), lr=0.1, momentum=0.0, weight_decay=0.0, decayed="all")
    averaged = average_weights(network, optimizer, 0.5)
    with torch.no_grad():
        for parameter in averaged.parameters():
            parameter.zero_()
    assert not averaged(torch.ones(1, 3)).any()


def test_runs_with_an_average_are_trained_one_by_one(config):
    assert in_common(validate(config)) is None
    config.trainer.ema_decay = 0.0
    assert in_common(validate(config)) is not None


def test_a_config_of_an_older_version_has_no_average(config, tmp_path):
    loop.train(config, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    assert values["trainer"].pop("ema_decay") == DECAY
    path.write_text(json.dumps(values))
    assert load(path).trainer.ema_decay == 0.0
