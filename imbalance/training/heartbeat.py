"""Of many processes, which one does not answer: a stopped process ends no connection, and the others wait for it."""

import sys
import threading
import time

from imbalance.output import say

INTERVAL = 5.0  # seconds between two beats
SILENCE = 60.0  # seconds without one after which a process is named
_watch: "Heartbeat | None" = None


class Heartbeat:
    """A thread that lets the other processes know of this one, and says on stderr which of them has been silent for long.

    Once of each silence: a process that computes goes on beating, one that is stopped, or whose machine is gone, does
    not. That is news, and not the end: if it goes on (SIGCONT), so does the run, and if not, torch gives up waiting.

    Args:
        store: torch.distributed's, that all processes share.
    """

    def __init__(self, store, rank: int, world: int):
        self.store, self.rank, self.world = store, rank, world
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
        for other, (before, since) in self._beats.items():
            count, now = self.store.add(f"imbalance/beat/{other}", 0), time.monotonic()
            if count != before:
                self._beats[other] = count, now
                self._named.discard(other)
            elif now - since > SILENCE:
                self._name(other)

    def _name(self, other: int | None) -> None:
        if other in self._named:
            return
        self._named.add(other)
        who = (
            "the process that keeps torch's store (process 0, or the launcher)" if other is None else f"process {other}"
        )
        say(
            f"process {self.rank} of {self.world}: {who} has not answered for {SILENCE:.0f} s; is it stopped, or its "
            "machine gone?",
            sys.stderr,
        )


def watch_processes(rank: int, world: int) -> None:
    """Start the heartbeat of this process, once."""
    global _watch
    if world == 1 or _watch:
        return
    from torch.distributed import PrefixStore, distributed_c10d

    store = PrefixStore("imbalance", distributed_c10d._get_default_store())
    _watch = Heartbeat(store, rank, world)
