"""Signals that ask a run to stop: noted at once, acted on by the loop between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from imbalance.errors import Interrupted

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # SIGUSR1: Slurm's warning


def on_stop(handler: Callable[[int, FrameType | None], None]) -> dict[int, object]:
    """Let `handler` act on every signal of STOPS; returns the handlers before it.

    A SIGHUP that is ignored stays so: that is what nohup is for. Outside the main thread, where Python allows no
    handlers, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = (s for s in STOPS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN)
    return {signum: signal.signal(signum, handler) for signum in heard}


class Interrupt:
    """While entered, a signal that asks to stop sets `signum` instead of ending the process.

    Until `defer` is called there is nothing to save, and it raises `Interrupted` on the spot. A second SIGINT ends
    the process at once, by the system's hand.
    """

    def __init__(self):
        self.signum = 0
        self._deferred = False

    def __enter__(self) -> "Interrupt":
        self._before = on_stop(self._note)
        return self

    def __exit__(self, *_) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def defer(self) -> None:
        """From now on leave it to the loop to look at `signum`, to save and to stop."""
        self._deferred = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Around what takes long and can be done again: a signal, also one that came before, raises `Interrupted`."""
        before, self._deferred = self._deferred, False
        try:
            if self.signum:
                raise Interrupted(self.signum)
            yield
        finally:
            self._deferred = before

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._deferred:
            raise Interrupted(signum)
