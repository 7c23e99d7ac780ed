"""Signals that ask a run to stop: record a signal when it comes; the training loop acts on it between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from imbalance.errors import Interrupted

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # SIGUSR1: what Slurm sends before it ends a job


def on_stop(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Make `handler` handle every signal of STOPS, and return a dictionary from each signal to its former handler.

    An ignored SIGHUP stays ignored, because nohup ignores it on purpose. Outside the main thread Python allows no
    handlers, so nothing is changed there, and the dictionary is empty.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handled = (s for s in STOPS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN)
    return {signum: signal.signal(signum, handler) for signum in handled}


class Interrupt:
    """Context manager that records a stop signal in its attribute `signum`, instead of ending the process.

    Before `defer` is called there is nothing to save, so a signal then also raises `Interrupted` immediately. The first
    SIGINT restores the system's default handler, so a second SIGINT ends the process.
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
        """Record later signals in `signum`, and raise no `Interrupted`.

        The training loop reads `signum`, saves and stops.
        """
        self._deferred = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Return a context manager in which a signal raises `Interrupted` at once.

        If a signal was recorded earlier, entering the context raises `Interrupted`. Use the context for long work that a
        resumed run can repeat.
        """
        before, self._deferred = self._deferred, False
        try:
            if self.signum:
                raise Interrupted(self.signum)
            yield
        finally:
            self._deferred = before

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Return a context manager, for use inside `at_once`, that records signals and raises `Interrupted` when it ends."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before
        if self.signum and not before:
            raise Interrupted(self.signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal of STOPS: record its number, and raise `Interrupted` unless `defer` was called."""
        self.signum = signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._deferred:
            raise Interrupted(signum)
