"""Heartbeat of many processes: name the one that does not answer, since a stopped process closes no connection.

An exchange is a call in which all processes take part, in the same order: a step, a sum of counts, work that the main
process does for all. A process that waits is in an exchange that the others have not reached.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

from imbalance.utils.output import print_safely

# How long a process waits for another. The main process alone fits heads, reads first runs and makes data sets, for which
# torch's ten minutes on a GPU can be too short. A process that is stopped or gone is named long before.
WAIT = timedelta(hours=6)
MARGIN = timedelta(minutes=1)  # before NCCL ends a process that has waited for WAIT, without a word of ours
INTERVAL = 5.0  # seconds between two beats
SILENCE = 60.0  # seconds without a beat after which a process is named
_watch: "Heartbeat | None" = None


class Heartbeat:
    """Thread that tells the other processes that this one lives, and names on stderr each that is silent for long.

    A process that computes goes on beating. One that is stopped, or whose machine is gone, does not, and is named once in
    each silence. The run goes on if that process does (SIGCONT). If not, torch gives up waiting.

    number, what: the number of exchanges that this process has reached, and a description of the last one.
    since: the time at which this process reached it; None between exchanges.

    Args:
        store: torch.distributed's store, which all processes share.
        aborts: whether torch ends a process that has waited for WAIT, rather than raise an error in it.
    """

    def __init__(self, store: Any, rank: int, world: int, aborts: bool):
        self.store, self.rank, self.world, self.aborts = store, rank, world, aborts
        self.number, self.what = 0, "its start"
        self.since: float | None = None
        self._others = {other: (0, "its start") for other in range(world) if other != rank}
        self._beats = {other: (0, time.monotonic()) for other in range(world) if other != rank}
        self._named: set[int | None] = set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        """Beat until the store closes."""
        while True:
            # A process keeps the store, and a call to the store waits for that process.
            unanswered = threading.Timer(SILENCE, self._name, [None])
            unanswered.daemon = True
            unanswered.start()
            try:
                self._exchange()
            except Exception:  # the store has closed, because a process has ended; torch says so
                return
            finally:
                unanswered.cancel()
            self._named.discard(None)
            time.sleep(INTERVAL)

    def _exchange(self) -> None:
        """Write this process's beat and exchange to the store, and read those of the others."""
        self.store.add(f"imbalance/beat/{self.rank}", 1)
        self.store.set(f"imbalance/at/{self.rank}", f"{self.number} {self.what}")
        since = self.since
        if self.aborts and since and time.monotonic() - since > (WAIT - MARGIN).total_seconds():
            print_safely(f"process {self.rank} of {self.world}: {self.timeout_message()}", sys.stderr)
            self.aborts = False  # so that the message comes once
        for other, (before, last_beat) in self._beats.items():
            count, now = self.store.add(f"imbalance/beat/{other}", 0), time.monotonic()
            if count != before:
                self._beats[other] = count, now
                self._named.discard(other)
            elif now - last_beat > SILENCE:
                self._name(other)
            if count:  # before its first beat a process has set no exchange, and reading one would wait for it
                number, what = self.store.get(f"imbalance/at/{other}").decode().split(" ", 1)
                self._others[other] = int(number), what

    def timeout_message(self) -> str:
        """Return the message of a process that has waited for WAIT: in which exchange, for whom, and what to do."""
        late = {other: what for other, (number, what) in self._others.items() if number < self.number}
        whom = " and ".join(f"process {other}, last in {what!r}" for other, what in late.items()) or "another process"
        return f"waited {WAIT} in {self.what!r}, in vain for {whom}; see what that one says on stderr, and start all of them again"

    def _name(self, other: int | None) -> None:
        """Name a silent process on stderr, once in a silence; None is the process that keeps the store."""
        if other in self._named:
            return
        self._named.add(other)
        who = (
            "the process that keeps torch's store (process 0, or the launcher)" if other is None else f"process {other}"
        )
        print_safely(
            f"process {self.rank} of {self.world}: {who} has not answered for {SILENCE:.0f} s; is it stopped, or its "
            "machine gone?",
            sys.stderr,
        )


def watch_processes(rank: int, world: int) -> None:
    """Start the heartbeat of this process, if there are several processes and it has not started yet."""
    global _watch
    if world == 1 or _watch:
        return
    from torch.distributed import PrefixStore, distributed_c10d, get_backend  # pyright: ignore[reportPrivateImportUsage]

    store = PrefixStore("imbalance", distributed_c10d._get_default_store())
    _watch = Heartbeat(store, rank, world, get_backend() == "nccl")


def exchange(what: str) -> AbstractContextManager[None]:
    """Return the context of an exchange, for the messages of the heartbeat; `what` describes the exchange.

    Raises:
        TimeoutError: torch has given up waiting, inside the context.
    """
    return watched_exchange(_watch, what) if _watch else nullcontext()


@contextmanager
def watched_exchange(watch: Heartbeat, what: str) -> Iterator[None]:
    """Note in the heartbeat that this process is in an exchange."""
    watch.number, watch.what, watch.since = watch.number + 1, what, time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in ("timed out", "timeout")):
            raise
        raise TimeoutError(watch.timeout_message()) from error
    finally:
        watch.since = None
