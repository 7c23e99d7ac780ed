"""A run under way."""

from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from imbalance.training.interrupt import Interrupt
from imbalance.training.learner import Learner
from imbalance.training.log import RunLog
from imbalance.training.progress import Clock, Progress


@dataclass
class Run:
    """What goes through every function of the loop.

    good: the latest state known to be finite; see `imbalance.training.finite`.
    """

    config: ConfigDict
    learner: Learner
    progress: Progress
    log: RunLog
    interrupt: Interrupt
    clock: Clock
    good: dict[str, Any] | None = None

    @property
    def epochs(self) -> int:
        return 1 if self.config.debug else self.config.trainer.epochs
