"""Signals that ask a run to stop: noted at once, acted on by the loop between two steps."""

import signal
import threading
from types import FrameType

from imbalance.errors import Interrupted


class Interrupt:
    """While entered, SIGINT, SIGTERM and SIGUSR1 (Slurm's warning) set `signum` instead of ending the process.

    Until `defer` is called there is nothing to save, and they raise `Interrupted` on the spot. A second SIGINT ends
    the process at once, by the system's hand. Outside the main thread, where Python allows no handlers, nothing is
    changed.
    """

    def __init__(self):
        self.signum = 0
        self._deferred = False

    def __enter__(self) -> "Interrupt":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def defer(self) -> None:
        """From now on leave it to the loop to look at `signum`, to save and to stop."""
        self._deferred = True

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._deferred:
            raise Interrupted(signum)
