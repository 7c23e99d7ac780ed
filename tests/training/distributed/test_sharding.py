"""A model sharded over two ranks trains as in one process, and resumes in one process; gloo gathers it on the CPU."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.jobs import Job, in_double, stop_at, worst_difference
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import nn

import imbalance
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.distributed.sharding import blocks, check_sharding, checkpoint_activations, skeleton_of
from imbalance.training.learner import make_learner
from imbalance.training.loop import train

# Batches of 44 of 287 examples; the last of 143 has one example, which leaves a rank without any.
METHODS = {
    "erm": dict(loss=dict(name="cross_entropy")),
    "poly, clipped": dict(trainer__clip_norm=0.05),
    "poly, in parts, checkpointed": dict(trainer__accumulation=3, trainer__activation_checkpointing=True),
    "poly, a rank without examples": dict(trainer__batch_size=143),
    "group DRO": dict(objective=dict(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False)),
    "IRM": dict(
        loss=dict(name="cross_entropy"),
        objective=dict(name="irm", environments="group", penalty=2.0, warmup_steps=4),
        optim__lr=0.001,  # at a larger rate the penalty makes training so unstable that rounding grows
    ),
    "LfF": dict(loss=dict(name="cross_entropy"), objective=dict(name="lff", amplification=0.7, decay=0.5)),
    "SAM": dict(optim__name="sam", optim__radius=0.05),
    "best epoch, refitted head": dict(
        callbacks__select="best",
        head=dict(name="crt", by="class", epochs=2, batch_size=30, lr=0.1, momentum=0.5, weight_decay=0.01),
    ),
}  # fmt: skip


def config_of(name: str, sharded: bool) -> ConfigDict:
    config = in_double(load(ROOT / "configs" / "digits_poly.py"))
    config.trainer.update(batch_size=44, shard=sharded)
    for key, value in METHODS[name].items():
        section, _, last = key.partition("__")
        if last:
            config[section].update({last: value})
        else:
            config[section] = create(**value)
    return config


def train_all(work_dir: Path) -> None:
    for name in METHODS:
        train(config_of(name, sharded=True), work_dir / name)
    sys.exit()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp("sharded")
    config = load(ROOT / "configs" / "digits_poly.py")
    config.work_dir = str(work_dir)
    job = Job(config, world=2, target=partial(train_all, work_dir))
    assert job.wait(timeout=200) == [0, 0], job.stderr() + job.stderr(1)
    return work_dir


@pytest.mark.parametrize("name", METHODS)
def test_a_sharded_model_trains_as_in_one_process(sharded, tmp_path, name):
    train(config_of(name, sharded=False), tmp_path)
    difference = worst_difference(tmp_path, sharded / name)
    print(f"{name}: {difference:.1e}")
    assert difference < 1e-9
    one, two = (
        torch.load(directory / "checkpoints" / "last.pt", weights_only=True) for directory in (tmp_path, sharded / name)
    )
    assert str(one["optimizer"]["param_groups"][0].keys()) == str(two["optimizer"]["param_groups"][0].keys())
    for key, tensor in one["model"].items():
        assert torch.allclose(tensor, two["model"][key], atol=1e-9)


def test_the_model_of_a_sharded_run_predicts_and_is_exported_like_any_other(sharded, tmp_path):
    train(config_of("erm", sharded=False), tmp_path / "erm")
    images = np.random.default_rng(0).uniform(0, 16, (5, 1, 8, 8))
    one, two = (imbalance.load(folder / "erm") for folder in (tmp_path, sharded))
    expected, found = (model.predict(images).probabilities for model in (one, two))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    two.export(tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_size > 0


def test_a_sharded_run_goes_on_in_one_process_and_back(config, tmp_path):
    in_double(config).trainer.update(epochs=3, batch_size=44)
    config.callbacks.checkpoint_minutes = 1e-9
    reference = train(config, tmp_path / "reference")["run_directory"]
    config.trainer.shard = True
    for before, after in ((1, 2), (2, 1)):
        config.work_dir = str(tmp_path / f"{before}{after}")
        job = Job(config, world=before, target=partial(stop_at, 13))
        assert job.wait() == [143] * before, job.stderr()
        job = Job(config, world=after)
        assert job.wait() == [0] * after, job.stderr()
        assert "resumed at epoch 1, step 13" in job.stdout()
        assert worst_difference(Path(reference), job.directory) < 1e-9


def test_a_divergence_of_a_sharded_run_is_reported(config):
    in_double(config).optim.lr = 1e200
    config.trainer.shard = True
    job = Job(config, world=2)
    assert job.wait() == [3, 3], job.stderr() + job.stderr(1)
    assert job.stderr().startswith("non-finite loss") and job.stderr().count("\n") == 1
    assert json.loads(job.stdout().splitlines()[-1])["status"] == "diverged"


def test_blocks_are_the_members_of_sequences_but_not_the_sequences():
    stage = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ReLU(), nn.ModuleList([nn.Linear(2, 2)]))
    model = nn.ModuleDict({"features": stage, "head": nn.Linear(2, 2)})
    assert blocks(model) == [stage[0][0], stage[2][0]]


def test_a_skeleton_has_buffers_and_no_memory_for_parameters():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    skeleton = skeleton_of(model)
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert torch.equal(skeleton[1].running_var, model[1].running_var)
    skeleton.load_state_dict(model.state_dict(), assign=True)
    inputs = torch.randn(5, 3)
    assert torch.equal(skeleton(inputs), model(inputs))


def test_checkpointed_activations_change_no_gradient(monkeypatch):
    """The block runs twice: in the forward and in the backward pass."""
    torch.manual_seed(0)
    model, inputs, calls = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3), []
    model[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model(inputs).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    forward = nn.Linear.forward
    monkeypatch.setattr(model[0], "forward", lambda x: (calls.append(1), forward(model[0], x))[1])
    calls.clear()
    checkpoint_activations(model)
    model(inputs).square().sum().backward()
    assert all(torch.equal(a, parameter.grad) for a, parameter in zip(expected, model.parameters()))
    assert len(calls) == 3  # one of the hook, two of the forward method


@pytest.mark.parametrize(("key", "value"), [("compile", "default"), ("ema_decay", 0.9), ("mixed_precision", "fp16")])
def test_what_sharding_excludes_is_refused(config, key, value):
    config.trainer.update({"shard": True, key: value})
    with pytest.raises(BadInput, match=rf"^config\.trainer\.{key}: .*config\.trainer\.shard=True"):
        check_sharding(validate(config), nn.Linear(1, 1))


def test_batch_normalisation_is_refused_with_checkpointed_activations(config):
    config.trainer.activation_checkpointing = True
    with pytest.raises(BadInput, match=r"^config\.trainer\.activation_checkpointing: True given"):
        check_sharding(validate(config), nn.BatchNorm1d(2))


def test_one_process_shards_nothing(config, tmp_path):
    config.trainer.shard = True
    assert make_learner(validate(config), start_accelerator(validate(config)), tmp_path).skeleton is None
