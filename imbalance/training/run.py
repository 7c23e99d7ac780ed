"""A run under way."""

from dataclasses import dataclass
from typing import Any

from imbalance.config.experiment import Experiment
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.learner import Learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state.progress import Clock, Progress


@dataclass(eq=False)  # two runs are never the same, and are not to be compared by their tensors
class Run:
    """What goes through every function of the loop.

    first_scale: that of fp16's gradients before the first step; 1 where they are not scaled.
    good: the latest state known to be finite; see `imbalance.training.state.finite`.
    """

    config: Experiment
    learner: Learner
    progress: Progress
    log: RunLog
    interrupt: Interrupt
    clock: Clock
    first_scale: float = 1.0
    good: dict[str, Any] | None = None

    @property
    def epochs(self) -> int:
        return 1 if self.config.debug else self.config.trainer.epochs
