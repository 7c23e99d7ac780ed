"""A run in progress, and the state to which it can go back."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from imbalance.config.experiment import Experiment
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.learner import Learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state.progress import Clock, Progress
from imbalance.training.state.registry import RandomState, Stateful, restore, snapshot


@dataclass(eq=False)  # comparing the fields of two runs would compare their tensors, so compare identity
class Run:
    """Run in progress, the argument of the functions of the loop.

    pretrained: digest of the weights with which the run began; see `imbalance.models.weights.pretrained_digest`.
    first_scale: scale of fp16 gradients before the first step; 1 without gradient scaling.
    head_warnings: warnings given while the head was fitted; each begins with "config.head".
    remembered: finite state that the last call of `remember` copied, by the names of `parts`.
    writing: future of the checkpoint that a sharded run is writing; None if no checkpoint is being written.
    """

    config: Experiment
    learner: Learner
    progress: Progress
    log: RunLog
    interrupt: Interrupt
    clock: Clock
    first_scale: float = 1.0
    pretrained: str | None = None
    head_warnings: list[str] = field(default_factory=list)
    remembered: dict[str, Any] = field(default_factory=dict)
    writing: Future[None] | None = None

    @property
    def epochs(self) -> int:
        """Return the number of epochs; a debug run has one."""
        return 1 if self.config.debug else self.config.trainer.epochs

    @property
    def parts(self) -> dict[str, Stateful]:
        """Return every stateful part of the run, by its name in a checkpoint."""
        return {**self.learner.parts, "progress": self.progress, "random": RandomState()}


def remember(run: Run) -> None:
    """Copy the run's state to memory, for `go_back` and `save_run`. The caller must have checked that it is finite.

    The parts of the learner change only in a step, so they are not copied again if there was no step since the last
    copy.
    """
    run.progress.seconds = run.clock.seconds()
    unchanged = {name: run.remembered[name] for name in run.learner.parts} if is_remembered(run) else {}
    changed = {name: part for name, part in run.parts.items() if name not in unchanged}
    run.remembered = unchanged | snapshot(changed)


def is_remembered(run: Run) -> bool:
    """Return whether `remember` last copied the state at the current step."""
    return bool(run.remembered) and run.remembered["progress"]["step"] == run.progress.step


def go_back(run: Run) -> None:
    """Restore the state that `remember` last copied, and remove the gradients."""
    restore(run.parts, run.remembered)
    run.learner.optimizer.zero_grad()
