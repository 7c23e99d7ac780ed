"""Progress of a run, and its speed."""

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
    """Position of a run in its training, and what the steps of the current epoch recorded.

    The fields `together` and `device` are about this process alone, so they are not restored.
    """

    epoch: int = 0  # the current epoch, counted from 0
    batch: int = 0  # batches of the current epoch that are done
    step: int = 0  # steps since the start of training
    seconds: float = 0.0
    interpolation_epoch: int = (
        0  # the first epoch, counted from 1, whose training predictions were all right; 0: none yet
    )
    best: float = -inf  # the best value of config.callbacks.monitor
    best_epoch: int = 0
    stale: int = 0  # evaluations since the best one
    ended: bool = False  # whether config.callbacks ended training before the last epoch
    together: int = 1  # runs that this process trains at once; see `imbalance.training.stacked.train`
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # empty unless config.callbacks.select is "best"
    # Records of the current epoch: the scalar that each step minimised, and the rows that this process drew, with its
    # predictions and their margins.
    values: list[Tensor] = field(default_factory=list)
    drawn: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    margins: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)  # of the latest steps; `reduce_logits` empties the list
    device: torch.device | str = "cpu"  # where the records are

    def state_dict(self) -> dict[str, Any]:
        """Return the progress, with the records of all steps joined. Logits must have been reduced before."""
        assert not self.logits, "reduce_logits must come before state_dict"
        state = {key: value for key, value in vars(self).items() if key not in ("logits", "device")}
        state["values"] = torch.stack(self.values) if self.values else torch.empty(0)
        for key, dtype in LOCAL_RECORDS.items():
            state[key] = torch.cat(state[key]) if state[key] else torch.empty(0, dtype=dtype)
        return state

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Restore a state that `state_dict` returned, or that an older version wrote."""
        state = {key: state_dict[key] for key in state_dict.keys() & vars(self).keys() - {"together", "device"}}
        state["values"] = list(state["values"].to(self.device))
        for key in LOCAL_RECORDS:
            state[key] = [state[key].to(self.device)] if len(state[key]) else []
        vars(self).update(state | {"logits": []})

    def reduce_logits(self, targets: Tensor) -> None:
        """Turn the logits of the latest steps into predictions and margins; once for many steps costs less.

        Args:
            targets: of the whole training split.
        """
        if self.logits:
            logits, rows = torch.cat(self.logits), torch.cat(self.drawn[-len(self.logits) :])
            self.predictions.append(logits.argmax(1))
            self.margins.append(hard_margins(logits, targets[rows]))
            self.logits = []

    def next_epoch(self) -> None:
        """Go on to the next epoch, and forget the records of the current one."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.values, self.drawn, self.predictions, self.margins = [], [], [], []


class Clock:
    """Time that a run has taken and will take, its steps a second, and when the next checkpoint is due."""

    def __init__(self, progress: Progress, checkpoint_minutes: float):
        self.progress, self.interval = progress, 60 * checkpoint_minutes
        self.steps_before, self.epochs_before, self.seconds_before = progress.step, progress.epoch, progress.seconds
        self.started = self.saved_at = time.monotonic()
        self.cost = 0.0  # seconds that the last save took

    def seconds(self) -> float:
        """Return the seconds that the run has taken, in all processes that trained it so far."""
        return self.seconds_before + (time.monotonic() - self.started) / self.progress.together

    def steps_per_second(self) -> float:
        """Return the steps a second since this process began."""
        return (self.progress.step - self.steps_before) / (time.monotonic() - self.started)

    def seconds_left(self, epochs_done: float, epochs: int) -> float:
        """Return the seconds until the last epoch ends, at the speed since this process began, evaluations included."""
        done = epochs_done - self.epochs_before
        return (epochs - epochs_done) * (time.monotonic() - self.started) / done

    def save_is_due(self, epoch_ends: bool) -> bool:
        """Return whether to save: after every interval, and at the end of an epoch if saving takes at most 2 % of the time."""
        since = time.monotonic() - self.saved_at
        return since > (min(self.interval, 50 * self.cost) if epoch_ends else self.interval)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure how long the code inside takes to save, and note when it saved."""
        begun = time.monotonic()
        yield
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - begun


def joined(tensors: list[Tensor], like: Tensor) -> Tensor:
    """Return the tensors of an epoch's steps as one; without any, an empty tensor of the dtype and device of `like`."""
    return torch.cat([like[:0], *tensors])
