"""A model sharded over two ranks trains as in one process, and resumes in one process; gloo gathers it on the CPU."""

import json
import os
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.jobs import Job, at_call, in_double, stop_at, worst_difference
from helpers.texts import write_texts
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import imbalance
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.errors import BadInput, Interrupted
from imbalance.models import transformer
from imbalance.models.depth import blocks
from imbalance.training import loop
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.distributed.sharding import check_sharding, checkpoint_activations, skeleton_of
from imbalance.training.learner import make_learner
from imbalance.training.loop import train

TEXTS = dict(data__classes=("no", "yes"), data__attributes=("place",), data__vocabulary=60, trainer__eval_batch_size=9)
TRANSFORMER = dict(name="transformer", width=8, depth=2, heads=2, dropout=0.0)
BFLOAT16 = dict(trainer__dtype="float32", trainer__mixed_precision="bf16")
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
    "texts": dict(base="text_small_poly", model=TRANSFORMER, **TEXTS),
    "texts, group DRO, AdamW": dict(
        base="text_small_dro",
        model=TRANSFORMER,
        **TEXTS,
        optim=dict(name="adamw", lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, decayed="weights"),
        trainer__activation_checkpointing=True,
    ),
    "best epoch, refitted head": dict(
        callbacks__select="best",
        head=dict(name="crt", by="class", epochs=2, batch_size=30, lr=0.1, momentum=0.5, weight_decay=0.01),
    ),
}  # fmt: skip


def config_of(name: str, sharded: bool, folder: Path) -> ConfigDict:
    """Return the config of a method; `folder` has the file of the texts."""
    values = {"base": "digits_poly"} | METHODS.get(name, BFLOAT16)
    config = in_double(load(ROOT / "configs" / f"{values.pop('base')}.py"))
    config.data_dir = str(folder)
    config.trainer.update(batch_size=44, shard=sharded)
    for key, value in values.items():
        section, _, last = key.partition("__")
        if last:
            config[section].update({last: value})
        else:
            kept = {"schedule": config.optim.schedule} if section == "optim" else {}
            config[section] = create(**value, **kept)
    return config


def train_all(work_dir: Path) -> None:
    for name in METHODS:
        train(config_of(name, sharded=True, folder=work_dir), work_dir / name)
    for sharded in (False, True):
        train(config_of("bfloat16", sharded, work_dir), work_dir / f"bfloat16, {sharded}")
    sys.exit()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp("sharded")
    write_texts(work_dir / "texts.csv", 150)
    config = load(ROOT / "configs" / "digits_poly.py")
    config.work_dir = str(work_dir)
    job = Job(config, world=2, target=partial(train_all, work_dir))
    assert job.wait(timeout=200) == [0, 0], job.stderr() + job.stderr(1)
    return work_dir


def state_in(directory: Path) -> dict:
    """Return the state of the model and of the optimiser, by the names of parameters, in the checkpoint of a run.

    torch's own converter reads a sharded checkpoint.
    """
    state = torch.load(directory / "checkpoints" / "last.pt", weights_only=True)
    if about := state.get("sharded"):
        dcp_to_torch_save(directory / "checkpoints" / about["folder"], directory / "whole.pt")
        return torch.load(directory / "whole.pt", weights_only=True)
    names = list(state["model"])
    numbers = [number for group in state["optimizer"]["param_groups"] for number in group["params"]]
    assert sorted(numbers) == list(range(len(names)))  # the models here have no buffers
    order = [name for decayed in (True, False) for name in names if (state["model"][name].dim() > 1) == decayed]
    order = names if len(state["optimizer"]["param_groups"]) == 1 else order
    return {"model": state["model"], "optimizer": {order[i]: s for i, s in state["optimizer"]["state"].items()}}


@pytest.mark.parametrize("name", METHODS)
def test_a_sharded_model_trains_as_in_one_process(sharded, tmp_path, name):
    train(config_of(name, sharded=False, folder=sharded), tmp_path)
    difference = worst_difference(tmp_path, sharded / name)
    print(f"{name}: {difference:.1e}")
    assert difference < 1e-9
    one, two = map(state_in, (tmp_path, sharded / name))
    for part in ("model", "optimizer"):
        assert one[part].keys() == two[part].keys() and one[part]
    for key, tensor in one["model"].items():
        torch.testing.assert_close(two["model"][key], tensor, atol=1e-9, rtol=0)
        for kind, value in one["optimizer"][key].items():
            torch.testing.assert_close(two["optimizer"][key][kind], value, atol=1e-9, rtol=1e-9)


def test_sharding_changes_nothing_in_bfloat16(sharded):
    """Two ranks round the gradients of their halves of a batch to 8 bits, so one process would differ from both runs."""
    assert worst_difference(sharded / "bfloat16, False", sharded / "bfloat16, True") < 1e-6


def test_the_model_of_a_sharded_run_predicts_and_is_exported_like_any_other(sharded, tmp_path):
    train(config_of("erm", sharded=False, folder=sharded), tmp_path / "erm")
    images = np.random.default_rng(0).uniform(0, 16, (5, 1, 8, 8))
    one, two = (imbalance.load(folder / "erm") for folder in (tmp_path, sharded))
    expected, found = (model.predict(images).probabilities for model in (one, two))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    two.export(tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_size > 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[ConfigDict, Path]:
    """A config with a checkpoint after each step, and the run directory of one process without a break."""
    folder = tmp_path_factory.mktemp("unbroken")
    config = in_double(load(ROOT / "configs" / "digits_poly.py"))
    config.trainer.update(epochs=3, batch_size=44, shard=True)
    config.callbacks.update(checkpoint_minutes=1e-9, select="best")
    config.optim = create(
        name="adamw", lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, decayed="weights", schedule=config.optim.schedule
    )
    config.work_dir = str(folder)
    return config, Path(train(config)["run_directory"])


def folders_in(directory: Path) -> list[str]:
    return sorted((path.name for path in directory.glob("checkpoints/sharded.*")), key=lambda name: int(name[8:]))


def change_writes(number: int, stop: int, killed: str) -> None:
    """Delay the write of checkpoint `number`; stop the run in step `stop`, or kill process `killed` in that write."""
    from torch.distributed.checkpoint import FileSystemWriter

    def change() -> None:
        time.sleep(0.5)
        if os.environ["RANK"] == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    at_call(pytest.MonkeyPatch(), FileSystemWriter, "write_data", number, change)
    stop_at(stop)


@pytest.fixture(scope="module")
def stopped(unbroken, tmp_path_factory) -> Path:
    """The run directory of two processes that were stopped in step 13, while they wrote the checkpoint of step 12."""
    config, _ = unbroken
    config.work_dir = str(tmp_path_factory.mktemp("stopped"))
    job = Job(config, world=2, target=partial(change_writes, 12, 13, ""))
    assert job.wait() == [143, 143], job.stderr()
    return job.directory


def test_a_stopped_run_waits_for_the_checkpoint_that_it_is_writing(stopped):
    last, previous = (
        torch.load(stopped / "checkpoints" / f"last{end}.pt", weights_only=True) for end in ("", ".previous")
    )
    assert (previous["progress"]["step"], last["progress"]["step"]) == (12, 13)
    assert folders_in(stopped) == ["sharded.12", "sharded.13"]


def test_a_sharded_run_goes_on_in_one_process(unbroken, stopped, tmp_path, capfd):
    """Its checkpoints hold whole tensors, and replace those of the sharded run."""
    config, reference = unbroken
    shutil.copytree(stopped, tmp_path / "run")
    train(config, tmp_path / "run")
    assert "resumed at epoch 1, step 13" in capfd.readouterr().out
    assert worst_difference(reference, tmp_path / "run") < 1e-9
    assert not folders_in(tmp_path / "run")


def test_a_sharded_run_goes_on_in_three_processes(unbroken, stopped, tmp_path):
    config, reference = unbroken
    config.work_dir = str(tmp_path)
    shutil.copytree(stopped.parents[1], tmp_path / "experiment")
    job = Job(config, world=3)
    assert job.wait() == [0] * 3, job.stderr()
    assert "resumed at epoch 1, step 13" in job.stdout()
    assert worst_difference(reference, job.directory) < 1e-9
    assert len(folders_in(job.directory)) == 2


def test_a_run_of_one_process_goes_on_sharded(unbroken, tmp_path, monkeypatch):
    config, reference = unbroken
    config.work_dir = str(tmp_path)
    directory = tmp_path / "experiment" / "default" / "seed=0"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 13, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(config, directory)
    job = Job(config, world=2)
    assert job.wait() == [0, 0], job.stderr()
    assert "resumed at epoch 1, step 13" in job.stdout()
    assert worst_difference(reference, directory) < 1e-9
    assert len(folders_in(directory)) == 2


def test_a_process_killed_while_it_writes_a_checkpoint_loses_only_that_one(unbroken, tmp_path, capfd):
    config, reference = unbroken
    config.work_dir = str(tmp_path)
    job = Job(config, world=2, target=partial(change_writes, 5, 99, "1"))
    assert job.wait() == [2, -9], job.stderr()
    assert "process 1" in job.stderr() and "Traceback" not in job.stderr()
    last = job.checkpoint()
    assert last["progress"]["step"] == 4 and last["sharded"]["folder"] == "sharded.4"
    assert folders_in(job.directory) == ["sharded.3", "sharded.4", "sharded.5"]
    assert not (job.directory / "checkpoints" / "sharded.5" / ".metadata").exists()
    train(config, job.directory)
    assert "resumed at epoch 0, step 4" in capfd.readouterr().out
    assert worst_difference(reference, job.directory) < 1e-9


@pytest.mark.parametrize("damage", ["gone", "short", "contents"])
def test_a_damaged_sharded_checkpoint_is_not_resumed_from(unbroken, stopped, tmp_path, capfd, damage):
    """The run resumes from the checkpoint before."""
    config, reference = unbroken
    directory = tmp_path / "run"
    shutil.copytree(stopped, directory)
    before, last = (directory / "checkpoints" / name for name in folders_in(directory))
    if damage == "gone":
        shutil.rmtree(last)
    elif damage == "short":
        file = last / "__1_0.distcp"
        file.write_bytes(file.read_bytes()[:-1])
    else:
        (last / ".metadata").write_bytes((before / ".metadata").read_bytes()[:-1] + b"?")
    train(config, directory)
    assert "is damaged" in (out := capfd.readouterr().out) and "resumed at epoch 1, step 12" in out
    assert worst_difference(reference, directory) < 1e-9


def test_a_damaged_tensor_of_a_sharded_checkpoint_is_refused_in_one_line(unbroken, stopped, tmp_path):
    config, _ = unbroken
    shutil.copytree(stopped, tmp_path / "run")
    file = max(tmp_path.glob("run/checkpoints/sharded.*")) / "__0_0.distcp"
    content = file.read_bytes()
    place = content.index(b"PK\x01\x02") - 500
    file.write_bytes(
        content[:place] + bytes(byte ^ 255 for byte in content[place : place + 400]) + content[place + 400 :]
    )
    with pytest.raises(BadInput, match=r"sharded\.\d+: damaged \(.*\); remove .*last\.pt to resume from"):
        train(config, tmp_path / "run")


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


def test_the_blocks_of_a_transformer_are_its_blocks():
    """The embedding, the last normalisation and the head are in no block."""
    model = transformer(vocabulary=9, num_classes=2, width=8, depth=3, heads=2, dropout=0.0)
    assert blocks(model) == list(model.features.blocks)


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
