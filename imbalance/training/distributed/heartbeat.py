"""Heartbeat between processes: report a process that has stopped, which torch does not notice.

An exchange is a call in which all processes take part, in the same order: a step, a sum of counts, or work that the
main process does for all. A process waits in an exchange until all other processes have reached it.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

from imbalance.utils.output import print_safely

# Time for which a process waits for another. While the main process alone fits heads, reads first runs and makes data
# sets, the others wait, for which torch's ten minutes on a GPU can be too short. A stopped process is named on stderr
# long before, after SILENCE.
WAIT = timedelta(hours=6)
# Time before the end of WAIT at which a message is printed, because at its end NCCL kills the process without one.
MARGIN = timedelta(minutes=1)
INTERVAL = 5.0  # seconds between two beats
SILENCE = 60.0  # seconds without a beat after which a process is named
_watch: "Heartbeat | None" = None


class Heartbeat:
    """Thread that tells the other processes that this one is alive, and reports silent processes on stderr.

    A beat is an increment of a counter in torch's store. A process beats every INTERVAL seconds while it computes. A
    process does not beat if it was stopped or its machine is gone; it is then reported once. If a stopped process
    continues (SIGCONT), the run goes on. Otherwise torch stops waiting for it after the time WAIT.

    number: number of exchanges that this process has reached.
    what: description of the last exchange that this process has reached.
    since: time at which this process reached its current exchange; None between exchanges.

    Args:
        store: key-value store of torch.distributed, which all processes share.
        rank, world: number of this process, and number of processes.
        aborts: True if torch kills a process that has waited for WAIT, False if torch raises an error in the process.
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
        """Beat every INTERVAL seconds until torch closes its key-value store."""
        while True:
            # One process serves the store, and a call to the store waits for that process. So use a timer to report it.
            unanswered = threading.Timer(SILENCE, self._name, [None])
            unanswered.daemon = True
            unanswered.start()
            try:
                self._beat()
            except Exception:  # the store has closed because a process has ended, which torch reports
                return
            finally:
                unanswered.cancel()
            self._named.discard(None)
            time.sleep(INTERVAL)

    def _beat(self) -> None:
        """Write a beat and this process's last exchange to torch's store, and read those of the other processes."""
        self.store.add(f"imbalance/beat/{self.rank}", 1)
        self.store.set(f"imbalance/at/{self.rank}", f"{self.number} {self.what}")
        since = self.since
        if self.aborts and since and time.monotonic() - since > (WAIT - MARGIN).total_seconds():
            print_safely(f"process {self.rank} of {self.world}: {self.timeout_message()}", sys.stderr)
            self.aborts = False  # print the message once
        for other, (before, last_beat) in self._beats.items():
            count, now = self.store.add(f"imbalance/beat/{other}", 0), time.monotonic()
            if count != before:
                self._beats[other] = count, now
                self._named.discard(other)
            elif now - last_beat > SILENCE:
                self._name(other)
            if count:  # reading the exchange of a process that has not beaten yet would wait for that process
                number, what = self.store.get(f"imbalance/at/{other}").decode().split(" ", 1)
                self._others[other] = int(number), what

    def timeout_message(self) -> str:
        """Return the message for a process that has waited too long: its exchange, the late processes, what to do."""
        late = {other: what for other, (number, what) in self._others.items() if number < self.number}
        whom = " and ".join(f"process {other}, last in {what!r}" for other, what in late.items()) or "another process"
        return (
            f"waited {WAIT} in {self.what!r} for {whom}; read the stderr of that process, and start all processes again"
        )

    def _name(self, other: int | None) -> None:
        """Report a silent process on stderr, once for each silence.

        Args:
            other: rank of the process; None for the process that serves torch's store, whose rank is unknown.
        """
        if other in self._named:
            return
        self._named.add(other)
        who = (
            "the process that serves torch's store (process 0, or the launcher)"
            if other is None
            else f"process {other}"
        )
        print_safely(
            f"process {self.rank} of {self.world}: {who} has not answered for {SILENCE:.0f} s; check whether it is "
            "stopped (kill -CONT continues it), or its machine is gone",
            sys.stderr,
        )


def watch_processes(rank: int, world: int) -> None:
    """Start the heartbeat of this process, if there are several processes and it has not started yet.

    Args:
        rank, world: number of this process, and number of processes.
    """
    global _watch
    if world == 1 or _watch:
        return
    from torch.distributed import PrefixStore, distributed_c10d, get_backend  # pyright: ignore[reportPrivateImportUsage]

    store = PrefixStore("imbalance", distributed_c10d._get_default_store())
    _watch = Heartbeat(store, rank, world, get_backend() == "nccl")


def exchange(what: str) -> AbstractContextManager[None]:
    """Return a context manager for an exchange; `what` describes the exchange in the messages of the heartbeat.

    Raises:
        TimeoutError: another process did not reach the exchange, so torch has stopped waiting for it.
    """
    return watched_exchange(_watch, what) if _watch else nullcontext()


@contextmanager
def watched_exchange(watch: Heartbeat, what: str) -> Iterator[None]:
    """Return a context manager that tells the heartbeat that this process is in an exchange.

    It turns torch's timeout into a TimeoutError.

    Args:
        what: description of the exchange, for messages.
    """
    watch.number, watch.what, watch.since = watch.number + 1, what, time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in ("timed out", "timeout")):
            raise
        raise TimeoutError(watch.timeout_message()) from error
    finally:
        watch.since = None
