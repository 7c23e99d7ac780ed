"""What a run says of its time: of all its processes together, and of the speed of this one alone."""

import os
import signal

import pytest
from helpers.jobs import at_call

from imbalance.errors import Interrupted
from imbalance.training import loop
from imbalance.training.logging import console
from imbalance.training.state import progress
from imbalance.training.state.progress import Clock, Progress


@pytest.fixture
def time(monkeypatch):
    """A clock that stands still unless a test moves it."""

    class Time:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    time = Time()
    monkeypatch.setattr(progress, "time", time)
    return time


def test_time_and_speed_after_a_resume(time):
    """Seconds are those of all processes before it too; speed, and what is left at that speed, of this one."""
    run = Progress(epoch=2, step=50, seconds=300.0)
    clock = Clock(run, checkpoint_minutes=10)
    time.now += 20
    run.epoch, run.step = 3, 75
    assert clock.seconds() == 320
    assert clock.steps_per_second() == 25 / 20
    assert clock.seconds_left(3, 5) == 40
    run.together = 4  # each of four runs trained at once has a quarter of the time
    assert clock.seconds() == 305


def test_a_resumed_run_says_the_seconds_of_both_processes(config, tmp_path, monkeypatch, time):
    take_step = loop.take_step

    def slow(*args):
        time.now += 1
        return take_step(*args)

    monkeypatch.setattr(loop, "take_step", slow)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path)
    assert loop.train(config, tmp_path)["seconds"] == 15
    speeds = [line for line in (tmp_path / "log.txt").read_text().splitlines() if "steps/s" in line]
    assert len(speeds) == 3 and all("| 1.0 steps/s" in line for line in speeds)


@pytest.mark.parametrize("cost", [0.01, 1.0, 30.0])
def test_saving_at_the_ends_of_epochs_takes_two_percent_of_the_time(time, cost):
    """Of epochs of a second each; and no less often than that allows, or than `checkpoint_minutes` says."""
    clock, spent, began = Clock(Progress(), checkpoint_minutes=10), 0.0, time.now
    for _ in range(10_000):
        time.now += 1
        if clock.save_is_due(epoch_ends=True):
            with clock.saving():
                time.now += cost
            spent += cost
    share = spent / (time.now - began)
    assert share == pytest.approx({0.01: 0.01 / 1.01, 1.0: 1 / 52, 30.0: 30 / 631}[cost], rel=0.1)
    assert share < 0.02 or cost == 30.0  # which checkpoint_minutes asks for


def test_within_an_epoch_only_the_interval_counts(time):
    clock = Clock(Progress(), checkpoint_minutes=10)
    time.now += 599
    assert not clock.save_is_due(epoch_ends=False) and clock.save_is_due(epoch_ends=True)
    time.now += 2
    assert clock.save_is_due(epoch_ends=False)


def test_the_line_on_an_evaluation(time):
    """Each split that was evaluated, with its loss, balanced and worst-group accuracy; the speed; what is left."""
    values = {"epoch": 2, "step": 1500}
    for split, (loss, balanced, worst) in {"train": (0.51234, 0.875, 0.5), "val": (0.7, 0.25, float("nan"))}.items():
        values |= {
            f"{split}/loss": loss,
            f"{split}/balanced_accuracy": balanced,
            f"{split}/worst_group_accuracy": worst,
        }
        values |= {f"{split}/group_accuracy/{group}": worst for group in "abc"}
        values |= {f"{split}/accuracy": 0.99, f"{split}/worst_class_recall": 0.98}
    run = Progress()
    clock = Clock(run, checkpoint_minutes=10)
    time.now += 60
    run.step = 1500
    assert console.evaluation(values, 4, clock) == (
        "epoch 2/4 | step 1,500 | train loss 0.5123 balanced 87.5 worst of 3 groups 50.0 | "
        "val loss 0.7 balanced 25.0 worst of 3 groups - | 25.0 steps/s, 1m00s left"
    )
