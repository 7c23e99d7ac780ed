"""Signals that ask a run to stop: note them at once, and let the loop act on them between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from imbalance.errors import Interrupted

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # SIGUSR1: Slurm's warning


def on_stop(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let `handler` handle every signal of STOPS, and return the handlers before it.

    An ignored SIGHUP stays ignored, because that is the purpose of nohup. Outside the main thread, where Python allows no
    handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handled = (s for s in STOPS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN)
    return {signum: signal.signal(signum, handler) for signum in handled}


class Interrupt:
    """Context in which a signal that asks to stop sets `signum`, and does not end the process.

    Before `defer` is called there is nothing to save, so a signal raises `Interrupted` on the spot. A second SIGINT ends
    the process at once, by the system's default.
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
        """From now on only set `signum`. The loop looks at it, saves and stops."""
        self._deferred = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise `Interrupted` inside this context at a signal, and for one that came before.

        Use it for work that takes long, and that a resumed run can repeat.
        """
        before, self._deferred = self._deferred, False
        try:
            if self.signum:
                raise Interrupted(self.signum)
            yield
        finally:
            self._deferred = before

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal of STOPS."""
        self.signum = signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._deferred:
            raise Interrupted(signum)
