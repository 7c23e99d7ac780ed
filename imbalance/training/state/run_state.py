"""A run in progress, and the state to which it can go back."""

from dataclasses import dataclass, field
from typing import Any

from imbalance.config.experiment import Experiment
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.learner import Learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state.progress import Clock, Progress
from imbalance.training.state.registry import RandomState, Stateful, restore, snapshot


@dataclass(
    eq=False
)  # comparing two runs would compare their tensors; so two runs are equal only if they are one object
class Run:
    """A run in progress, which every function of the loop takes.

    first_scale: the scale of fp16 gradients before the first step; 1 without gradient scaling.
    remembered: the latest state that is known to be finite, by the names of `parts`; see `remember`.
    """

    config: Experiment
    learner: Learner
    progress: Progress
    log: RunLog
    interrupt: Interrupt
    clock: Clock
    first_scale: float = 1.0
    remembered: dict[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Return the number of epochs; a debug run has one."""
        return 1 if self.config.debug else self.config.trainer.epochs

    @property
    def parts(self) -> dict[str, Stateful]:
        """Return every stateful part of the run, by its name in a checkpoint."""
        return {**self.learner.parts, "progress": self.progress, "random": RandomState()}


def remember(run: Run) -> None:
    """Copy the state of the run, so that `go_back` can restore it. The caller has checked that the state is finite.

    The learner's parts change only in a step, so they are not copied again if no step was taken since the last copy.
    """
    run.progress.seconds = run.clock.seconds()
    unchanged = {name: run.remembered[name] for name in run.learner.parts} if is_remembered(run) else {}
    changed = {name: part for name, part in run.parts.items() if name not in unchanged}
    run.remembered = unchanged | snapshot(changed)


def is_remembered(run: Run) -> bool:
    """Return whether no step was taken since the state was last remembered."""
    return bool(run.remembered) and run.remembered["progress"]["step"] == run.progress.step


def go_back(run: Run) -> None:
    """Restore the remembered state."""
    restore(run.parts, run.remembered)
    run.learner.optimizer.zero_grad()
