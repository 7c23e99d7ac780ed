"""Progress of a run, and its clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor

from imbalance.methods.margins import hard_margins

# Records of an epoch's steps that differ between processes.
LOCAL_RECORDS = {"drawn": torch.int64, "predictions": torch.int64, "margins": torch.float32}


@dataclass
class Progress:
    """Position of a run in its training, and the records of the steps of the current epoch.

    The fields `together` and `device` describe only this process, so they are not restored from a checkpoint.
    """

    epoch: int = 0  # the current epoch, counted from 0
    batch: int = 0  # number of batches of the current epoch that are done
    step: int = 0  # number of steps since the start of training
    seconds: float = 0.0  # training time up to the last save; see `Clock.seconds`
    # First epoch, counted from 1, in which every training prediction was correct; 0 if there was none yet.
    interpolation_epoch: int = 0
    best: float = -inf  # the best value of config.callbacks.monitor
    best_epoch: int = 0  # the epoch of that value, counted from 1
    stale: int = 0  # number of evaluations since that value
    ended: bool = False  # whether config.callbacks ended training before the last epoch
    together: int = 1  # number of runs that this process trains as one; see `imbalance.training.stacked.train`
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # of the best epoch; empty for select="last"
    # Records of the current epoch: the scalar that each step minimised, and the rows that this process drew, with its
    # predictions and their margins.
    values: list[Tensor] = field(default_factory=list)
    drawn: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    margins: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)  # logits of the latest steps, which `reduce_logits` removes
    device: torch.device | str = "cpu"  # device of the records

    def state_dict(self) -> dict[str, Any]:
        """Return the progress, with the records of all steps joined; `reduce_logits` must be called first."""
        assert not self.logits, "reduce_logits must come before state_dict"
        state = {key: value for key, value in vars(self).items() if key not in ("logits", "device")}
        state["values"] = torch.stack(self.values) if self.values else torch.empty(0)
        for key, dtype in LOCAL_RECORDS.items():
            state[key] = torch.cat(state[key]) if state[key] else torch.empty(0, dtype=dtype)
        return state

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Restore a state that `state_dict` returned, in this version of the program or in an older one."""
        state = {key: state_dict[key] for key in state_dict.keys() & vars(self).keys() - {"together", "device"}}
        state["values"] = list(state["values"].to(self.device))
        for key in LOCAL_RECORDS:
            state[key] = [state[key].to(self.device)] if len(state[key]) else []
        vars(self).update(state | {"logits": []})

    def reduce_logits(self, targets: Tensor) -> None:
        """Turn the logits of the latest steps into predictions and margins; turning many steps at once costs less.

        Args:
            targets: targets of the whole training split.
        """
        if self.logits:
            logits, rows = torch.cat(self.logits), torch.cat(self.drawn[-len(self.logits) :])
            self.predictions.append(logits.argmax(1))
            self.margins.append(hard_margins(logits, targets[rows]))
            self.logits = []

    def next_epoch(self) -> None:
        """Go on to the next epoch, and remove the records of the current epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.values, self.drawn, self.predictions, self.margins = [], [], [], []


class Clock:
    """Clock of a run: its training time, its speed, its remaining time, and the time of the next checkpoint."""

    def __init__(self, progress: Progress, checkpoint_minutes: float):
        self.progress, self.interval = progress, 60 * checkpoint_minutes
        self.steps_before, self.epochs_before, self.seconds_before = progress.step, progress.epoch, progress.seconds
        self.cost = 0.0  # duration of the last save in seconds
        self.start()

    def start(self) -> None:
        """Start the clock anew, for a run whose training begins only now."""
        self.started = self.saved_at = time.monotonic()

    def seconds(self) -> float:
        """Return the training time of the run in seconds, including the time before every resume.

        Runs that train as one stacked model share the time equally.
        """
        return self.seconds_before + (time.monotonic() - self.started) / self.progress.together

    def steps_per_second(self) -> float:
        """Return the number of steps a second since this process started the run or resumed it."""
        return (self.progress.step - self.steps_before) / (time.monotonic() - self.started)

    def seconds_left(self, epochs_done: float, epochs: int) -> float:
        """Estimate the seconds until the last epoch ends, from the time that this process took for its epochs and evaluations.

        Args:
            epochs_done: number of epochs done, which may be a fraction.
            epochs: number of epochs of the run.
        """
        done = epochs_done - self.epochs_before
        return (epochs - epochs_done) * (time.monotonic() - self.started) / done

    def save_is_due(self, epoch_ends: bool) -> bool:
        """Return whether a checkpoint is due.

        A checkpoint is due once `checkpoint_minutes` have passed since the last save. At the end of an epoch it is due
        earlier: when the time since the last save is over 50 times the time which that save took.

        Args:
            epoch_ends: whether the current step is the last of its epoch.
        """
        since = time.monotonic() - self.saved_at
        return since > (min(self.interval, 50 * self.cost) if epoch_ends else self.interval)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Return a context manager around a save, which measures how long the save takes and notes when it ends."""
        begun = time.monotonic()
        yield
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - begun


def joined(tensors: list[Tensor], like: Tensor) -> Tensor:
    """Concatenate the tensors; if the list is empty, return an empty tensor with the dtype and the device of `like`."""
    return torch.cat([like[:0], *tensors])
