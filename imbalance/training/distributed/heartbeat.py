"""Of many processes, which one does not answer, and who waits for whom: a stopped process ends no connection.

What one process needs of the others is an exchange, in which all take part, in the same order: that of a step, of counts,
of what the main process does for all. The process that waits is in one, and those that it waits for have not come to it.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

from imbalance.utils.output import print_safely

# How long a process waits for another: the main one fits heads, reads first runs and makes data sets by itself. torch's
# own ten minutes on a GPU can be too short for that; a process that is stopped or gone is named long before.
WAIT = timedelta(hours=6)
MARGIN = timedelta(minutes=1)  # before NCCL ends a process that has waited for so long, without a word of ours
INTERVAL = 5.0  # seconds between two beats
SILENCE = 60.0  # seconds without one after which a process is named
_watch: "Heartbeat | None" = None


class Heartbeat:
    """A thread that lets the other processes know of this one, and says on stderr which of them has been silent for long.

    Once of each silence: a process that computes goes on beating, one that is stopped, or whose machine is gone, does
    not. That is news, and not the end: if it goes on (SIGCONT), so does the run, and if not, torch gives up waiting.

    number, what: the exchange that this process has come to, the how manyth and what for.
    since: when it came there; None where it is in none.

    Args:
        store: torch.distributed's, that all processes share.
        aborts: torch ends a process that has waited for WAIT, rather than raise an error in it.
    """

    def __init__(self, store, rank: int, world: int, aborts: bool):
        self.store, self.rank, self.world, self.aborts = store, rank, world, aborts
        self.number, self.what, self.since = 0, "its start", None
        self._others = {other: (0, "its start") for other in range(world) if other != rank}
        self._beats = {other: (0, time.monotonic()) for other in range(world) if other != rank}
        self._named: set[int | None] = set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            # The store itself is kept by a process, and a call to it waits for that one.
            unanswered = threading.Timer(SILENCE, self._name, [None])
            unanswered.daemon = True
            unanswered.start()
            try:
                self._exchange()
            except Exception:  # the store has closed: this run, or another process, has ended, and torch says so
                return
            finally:
                unanswered.cancel()
            self._named.discard(None)
            time.sleep(INTERVAL)

    def _exchange(self) -> None:
        self.store.add(f"imbalance/beat/{self.rank}", 1)
        self.store.set(f"imbalance/at/{self.rank}", f"{self.number} {self.what}")
        came = self.since
        if self.aborts and came and time.monotonic() - came > (WAIT - MARGIN).total_seconds():
            print_safely(f"process {self.rank} of {self.world}: {self.gives_up()}", sys.stderr)
            self.aborts = False  # said once
        for other, (before, since) in self._beats.items():
            count, now = self.store.add(f"imbalance/beat/{other}", 0), time.monotonic()
            if count != before:
                self._beats[other] = count, now
                self._named.discard(other)
            elif now - since > SILENCE:
                self._name(other)
            if count:  # else it has set nothing, and to get that would be to wait for it
                number, what = self.store.get(f"imbalance/at/{other}").decode().split(" ", 1)
                self._others[other] = int(number), what

    def gives_up(self) -> str:
        """What to say where this process has waited for WAIT: for whom, in what, and what to do."""
        late = {other: what for other, (number, what) in self._others.items() if number < self.number}
        whom = " and ".join(f"process {other}, last in {what!r}" for other, what in late.items()) or "another process"
        return f"waited {WAIT} in {self.what!r}, in vain for {whom}; see what that one says on stderr, and start all of them again"

    def _name(self, other: int | None) -> None:
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
    """Start the heartbeat of this process, once."""
    global _watch
    if world == 1 or _watch:
        return
    from torch.distributed import PrefixStore, distributed_c10d, get_backend

    store = PrefixStore("imbalance", distributed_c10d._get_default_store())
    _watch = Heartbeat(store, rank, world, get_backend() == "nccl")


def exchange(what: str) -> AbstractContextManager[None]:
    """Around what all processes take part in, each of which may have to wait for the others.

    Raises:
        TimeoutError: torch has given up waiting.
    """
    return watched(what) if _watch else nullcontext()


@contextmanager
def watched(what: str) -> Iterator[None]:
    """`exchange` of several processes."""
    _watch.number, _watch.what, _watch.since = _watch.number + 1, what, time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in ("timed out", "timeout")):
            raise
        raise TimeoutError(_watch.gives_up()) from error
    finally:
        _watch.since = None
