"""What only a GPU can show; without one every test here is skipped. `pytest -m gpu` runs them alone."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.images import assert_images_live_where_they_fit
from helpers.jobs import Job, at_call
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance.config.resolve import load
from imbalance.data.images.stored_images import StoredImages
from imbalance.errors import Diverged, Interrupted
from imbalance.training import loop
from imbalance.training.stacked.train import train_stacked
from imbalance.training.step import draw_epoch, take_step

GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),  # the first compilation of a model takes minutes on some machines
    pytest.mark.skipif(GPUS == 0, reason="no GPU: what only one can show is not shown"),
]
two_gpus = pytest.mark.skipif(GPUS < 2, reason="fewer than two GPUs: what several processes do on them is not shown")
SECTIONS = {
    "CVaR": {"objective": create(name="cvar", level=0.3)},
    "group DRO": {"objective": create(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False)},
    "ConvNet": {"model": create(name="convnet")},
}


def on_images(**sections: ConfigDict) -> ConfigDict:
    """The ConvNet, or what `sections` say, on random images of CIFAR's size."""
    from imbalance.bench import cases

    config = cases.on_images("convnet", size=256, batch_size=64, groups=4)
    config.trainer.update(epochs=3, eval_every=1)
    for key, section in sections.items():
        config[key] = section
    return config


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoints" / "selected.pt", weights_only=True)


def assert_same_bits(one: Path, two: Path) -> None:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert (one / "metrics.jsonl").read_text() == (two / "metrics.jsonl").read_text()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_the_curve_of_float32(config, tmp_path, precision):
    config.trainer.update(epochs=30)
    config.optim.lr = 0.02
    curves = []
    for name in ("no", precision):
        config.trainer.mixed_precision = name
        loop.train(config, tmp_path / name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        curves.append([json.loads(line)["train/loss"] for line in lines])
    full, half = map(np.array, curves)
    assert full[-1] < 0.8 * full[0]
    assert np.abs(half - full).max() < 0.05 * full[0]


@pytest.mark.parametrize("case", SECTIONS)
def test_a_deterministic_run_has_the_same_bits_twice(tmp_path, case):
    config = on_images(**SECTIONS[case])
    config.trainer.deterministic = True
    for name in ("one", "two"):
        loop.train(config, tmp_path / name)
    assert_same_bits(tmp_path / "one", tmp_path / "two")


def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(tmp_path, monkeypatch):
    config = on_images()
    config.trainer.deterministic = True
    loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path / "twice")
    loop.train(config, tmp_path / "twice")
    assert_same_bits(tmp_path / "whole", tmp_path / "twice")


@pytest.mark.parametrize("case", SECTIONS)
def test_a_step_never_waits_but_for_what_it_reads_late(case):
    """torch raises at a synchronisation; waiting for an event, as `async_item` does, is none."""
    from imbalance.bench.cases import make

    config = on_images(**SECTIONS[case])
    learner = make(config)
    epoch = draw_epoch(learner, 0)
    take_step(config, learner, epoch, 0, 4, lambda: 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in (1, 2, 3):
            take_step(config, learner, epoch, batch, 4, lambda: 0)
            learner.optimizer.zero_grad()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_run_learns_the_same(tmp_path, mode, parts):
    """Of 256 images in batches of 60, the last of which is smaller, with an objective that keeps something."""
    config = on_images(
        loss=create(name="poly", alpha=1.0, left="logistic"), objective=SECTIONS["group DRO"]["objective"]
    )
    config.trainer.update(tf32="none", batch_size=60, accumulation=parts)
    plain = loop.train(config, tmp_path / "plain")["metrics"]
    config.trainer.compile = mode
    assert loop.train(config, tmp_path / "compiled")["metrics"] == pytest.approx(plain, rel=1e-3, nan_ok=True)


def test_a_step_of_cuda_graphs_is_launched_at_once():
    """Model, loss and objective, forward and backward, are replayed: some launches are left, of which the optimiser's."""
    from torch.profiler import ProfilerActivity, profile

    from imbalance.bench.cases import make

    config, launches = on_images(), {}
    for mode in ("no", "reduce-overhead"):
        config.trainer.compile = mode
        learner = make(config)
        epoch = draw_epoch(learner, 0)
        for batch in (0, 1, 2, 3):
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
                take_step(config, learner, epoch, batch, 4, lambda: 0)
                learner.optimizer.zero_grad()
        started = {event.key: event.count for event in trace.key_averages()}
        launches[mode] = sum(count for name, count in started.items() if "LaunchKernel" in name)
        assert (started.get("cudaGraphLaunch", 0) > 0) == (mode == "reduce-overhead")
    assert launches["reduce-overhead"] < launches["no"] / 3


def test_a_run_of_cuda_graphs_is_resumed_and_ends_where_its_loss_is_not_finite(tmp_path, monkeypatch):
    config = on_images()
    config.trainer.compile = "reduce-overhead"
    whole = loop.train(config, tmp_path / "whole")["metrics"]
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path / "twice")
    assert loop.train(config, tmp_path / "twice")["metrics"] == pytest.approx(whole, rel=1e-3, nan_ok=True)
    config.optim.lr = 1e30
    with pytest.raises(Diverged):
        loop.train(config, tmp_path / "diverged")


def test_convnets_at_once_are_convnets_one_by_one(tmp_path):
    config = on_images()
    config.trainer.update(dtype="float64", epochs=2)
    runs = []
    for seed in (0, 1):
        config.seed = seed
        runs.append((ConfigDict(config.to_dict()), tmp_path / f"at once {seed}"))
        loop.train(config, tmp_path / f"alone {seed}")
    train_stacked(runs)
    for seed in (0, 1):
        alone, together = weights(tmp_path / f"alone {seed}"), weights(tmp_path / f"at once {seed}")
        assert all(torch.allclose(alone[key], together[key], atol=1e-8) for key in alone)


def test_batches_of_a_store_arrive_whole_though_nobody_waits_for_them():
    """Each is gathered into pinned memory while the ones before are still on their way."""
    images = np.random.default_rng(0).integers(0, 256, (512, 3, 64, 64), dtype=np.uint8)
    every = torch.arange(512)
    stored = StoredImages(images, np.zeros(512, np.uint32), every, torch.device("cuda"))
    batches = [stored[rows] for rows in every.split(8)]
    assert torch.equal(torch.cat(batches).cpu(), torch.from_numpy(images))


def test_images_of_a_store_live_on_the_gpu_where_it_has_room():
    assert_images_live_where_they_fit("cuda")


@two_gpus
def test_two_gpus_are_one(config, tmp_path):
    """Over NCCL, in float64."""
    config.trainer.update(dtype="float64", eval_every=1)
    one = loop.train(config, tmp_path / "one")["metrics"]
    job = Job(config, world=2)
    assert job.wait(timeout=300) == [0, 0], job.stderr()
    assert job.summary()["metrics"] == pytest.approx(one, rel=1e-8, nan_ok=True)


@two_gpus
def test_batch_normalisation_is_over_the_batch_of_both_gpus(tmp_path):
    config = load(ROOT / "configs" / "digits_ce.py")
    config.work_dir = str(tmp_path)
    config.model = create(name="resnet20", frozen=False)
    config.trainer.update(dtype="float64", epochs=1, batch_size=64)
    one = loop.train(config, tmp_path / "one")["metrics"]
    job = Job(config, world=2, target=partial(torch.manual_seed, 0))
    assert job.wait(timeout=300) == [0, 0], job.stderr()
    assert job.summary()["metrics"] == pytest.approx(one, rel=1e-6, nan_ok=True)
