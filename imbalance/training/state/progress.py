"""How far a run has come, and how fast it goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from imbalance.methods.margins import hard_margins


@dataclass
class Progress:
    """Where a run stands: with the learner's state, all that a checkpoint needs."""

    epoch: int = 0  # the one under way
    batch: int = 0  # batches of it that are done
    step: int = 0  # steps since the start
    seconds: float = 0.0
    interpolation_epoch: int = 0  # the first whose every training prediction was right; 0: none yet
    best: float = -inf  # of config.callbacks.monitor
    best_epoch: int = 0
    stale: int = 0  # evaluations since then
    ended: bool = False  # before the last epoch, by config.callbacks
    together: int = 1  # runs that this process trains at once; see `imbalance.training.stacked.train`
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # filled where config.callbacks.select is "best"
    # Of the epoch under way: the scalar that each step minimised, and what this process drew and predicted, with its margins.
    values: list[Tensor] = field(default_factory=list)
    drawn: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    margins: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)  # of the latest steps, still to become the two before

    def reduce_logits(self, targets: Tensor) -> None:
        """Reduce the logits of the latest steps to predictions and margins: cheaper at once than in every step."""
        if self.logits:
            logits, rows = torch.cat(self.logits), torch.cat(self.drawn[-len(self.logits) :])
            self.predictions.append(logits.argmax(1))
            self.margins.append(hard_margins(logits, targets[rows]))
            self.logits = []

    def next_epoch(self) -> None:
        """Begin the next epoch; the one under way is trained and, where that was due, evaluated."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.values, self.drawn, self.predictions, self.margins = [], [], [], []


class Clock:
    """How fast this process goes, how much of its time the run has taken with all before it, and when to save next."""

    def __init__(self, progress: Progress, checkpoint_minutes: float):
        self.progress, self.interval = progress, 60 * checkpoint_minutes
        self.steps_before, self.epochs_before, self.seconds_before = progress.step, progress.epoch, progress.seconds
        self.started = self.saved_at = time.monotonic()
        self.cost = 0.0  # seconds that the last save took

    def seconds(self) -> float:
        return self.seconds_before + (time.monotonic() - self.started) / self.progress.together

    def steps_per_second(self) -> float:
        return (self.progress.step - self.steps_before) / (time.monotonic() - self.started)

    def seconds_left(self, epochs_done: float, epochs: int) -> float:
        """At the pace since this process began, evaluations counted in."""
        done = epochs_done - self.epochs_before
        return (epochs - epochs_done) * (time.monotonic() - self.started) / done

    def save_is_due(self, epoch_ends: bool) -> bool:
        """After every interval, and at the end of an epoch unless saving would take up more than 2 % of the time."""
        since = time.monotonic() - self.saved_at
        return since > (min(self.interval, 50 * self.cost) if epoch_ends else self.interval)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save: what it takes, and when it was."""
        begun = time.monotonic()
        yield
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - begun


def joined(parts: list[Tensor], like: Tensor) -> Tensor:
    """The tensors of an epoch's steps as one; empty, of the kind of `like`, where a process has none."""
    return torch.cat([like[:0], *parts])
