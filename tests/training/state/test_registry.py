"""Every stateful part of a run is remembered by a deep copy, and restored by going back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.jobs import at_call
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import Tensor

from imbalance.config.experiment import validate
from imbalance.errors import Interrupted
from imbalance.methods.objectives.base import Objective
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.training import loop
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import make_learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state import checkpoint, registry
from imbalance.training.state.progress import Clock, Progress
from imbalance.training.state.registry import snapshot
from imbalance.training.state.run_state import Run, go_back, remember


class Remembering(Objective):
    """Cross-entropy that counts its steps in place, in a tensor and in a plain value beside it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, losses, weights, groups):
        self.steps += 1
        return (losses * weights).mean()


@pytest.fixture
def run(config: ConfigDict, monkeypatch) -> Run:
    """A run without files, with every kind of stateful part, stopped in the middle of its first epoch."""
    monkeypatch.setitem(OBJECTIVES, "remembering", Remembering)
    config.objective = create(name="remembering")
    config.trainer.ema_decay = 0.9
    experiment = validate(config)
    learner = make_learner(experiment, start_accelerator(experiment), Path())
    learner.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    progress = Progress()
    log = RunLog(Path(), experiment, writes=False)
    run = Run(experiment, learner, progress, log, Interrupt(), Clock(progress, 1e9))
    remember(run)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):

        def stop() -> None:
            run.interrupt.signum = 15

        at_call(patch, loop, "take_step", 3, stop)
        loop.train_epoch(run)
    progress.reduce_logits(learner.dataset.train.targets)
    progress.best_weights = snapshot({"model": learner.network})["model"]
    yield run
    learner.accelerator.scaler = None


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def live_tensors(run: Run) -> list[Tensor]:
    """Return the tensors that the parts hold themselves, not copies of them."""
    learner, progress = run.learner, run.progress
    records = [*progress.values, *progress.drawn, *progress.predictions, *progress.margins]
    parts = [part.state_dict() for part in learner.parts.values()]
    return [*records, *progress.best_weights.values(), *(tensor for _, tensor in registry.tensors_in(parts))]


def test_what_is_changed_in_place_does_not_survive_going_back(run):
    """The lists of an epoch's records used to be copied shallowly, and shared their tensors with the live ones."""
    assert run.parts.keys() == {"model", "optimizer", "scaler", "objective", "ema", "progress", "random"}
    remember(run)
    before = snapshot(run.parts)
    assert before["progress"]["step"] == 3 and before["objective"]["steps"] == 3
    tensors = live_tensors(run)
    assert len(tensors) > 20
    with torch.no_grad():
        for tensor in tensors:
            tensor.add_(1)
    torch.rand(1)
    run.progress.stale += 1
    run.learner.accelerator.scaler.update(new_scale=8.0)
    changed = snapshot(run.parts)
    assert [name for name in before if equal(before[name], changed[name])] == []
    go_back(run)
    assert equal(snapshot(run.parts), before)


def test_steps_after_going_back_leave_the_remembered_state_as_it_is(run):
    """An optimiser keeps the tensors that it loads, and the next step changes them in place."""
    remember(run)
    remembered, before = run.remembered, snapshot(run.parts)
    go_back(run)
    run.interrupt.signum = 0
    loop.train_epoch(run)
    assert run.progress.epoch == 1
    assert equal(remembered, before)


def test_every_part_is_in_a_checkpoint(config, tmp_path):
    loop.train(config, tmp_path)
    state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    experiment = validate(config)
    (tmp_path / "summary.json").unlink()  # a finished run is only read
    learner = make_learner(experiment, start_accelerator(experiment), tmp_path)
    assert learner.parts.keys() | {"progress", "random"} <= state.keys()
    with RunLog(tmp_path, experiment, writes=True) as log:
        log.claim()
        progress = checkpoint.resume(experiment, learner, log)
    assert (progress.epoch, progress.step) == (3, 15)
    assert all(equal(state[name], snapshot({name: part})[name]) for name, part in learner.parts.items())
