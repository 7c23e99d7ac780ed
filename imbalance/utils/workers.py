"""Start worker processes that print no traceback if the user presses Ctrl-C."""

import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

SPAWN = get_context("spawn")  # a fork of a process with threads, or with a GPU, may hang


class WorkerPool(ProcessPoolExecutor):
    """Pool of new processes that ignore Ctrl-C, because the terminal also sends it to the parent process, which stops them.

    A process that is spawned inherits the blocked signals of its parent. So SIGINT is blocked while a process starts,
    and a worker that is still importing modules cannot be interrupted with a traceback.

    Args:
        workers: number of processes.
        initializer: function that each process calls first, with the arguments `initargs`.
    """

    def __init__(self, workers: int, initializer: Callable[..., None], initargs: tuple = ()) -> None:
        super().__init__(workers, SPAWN, _begin, (initializer, initargs))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let a process call the function; start a process if all are busy and there are fewer than `workers`."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(function, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(initializer: Callable[..., None], initargs: tuple) -> None:
    """Ignore SIGINT in this new process, and call the initializer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # training handles SIGINT itself
    initializer(*initargs)
