"""Heartbeat between processes: name a process that has been stopped or has ended, which torch does not do.

An exchange is a call in which all processes take part, in the same order: a step, a sum of counts, or work that the
main process does for all. A process waits in an exchange until all other processes have reached it.

torch has two tools for this, which are not enough. `monitored_barrier` names the ranks that are late at one barrier: it
needs gloo, and a barrier of its own in every step. The flight recorder writes files that another program must read
later. Neither tells a stopped process from one that computes, and neither ends the other processes with a message.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from math import inf
from typing import Any

from imbalance.errors import BadInput, LostPeer
from imbalance.utils.output import print_safely

# Environment variable with the minutes for which a process waits in an exchange. The default is long because
# the main process alone fits heads, reads first runs and makes data sets, while the other processes wait.
LIMIT, DEFAULT_MINUTES = "IMBALANCE_WAIT_MINUTES", 360.0
MARGIN = timedelta(minutes=1)  # NCCL's own limit is later by this time, because NCCL kills a process without a message
INTERVAL = 2.0  # seconds between two beats
MOST_AT_EXIT = 10.0  # seconds for which a process that ends waits for its last beat
SILENCE = 60.0  # seconds without a beat after which a process is named
_watch: "Heartbeat | None" = None


def end_process(error: LostPeer) -> None:
    """Print `error`, and end this process; a thread can call this function while another thread waits in torch."""
    print_safely(str(error), sys.stderr)
    os._exit(2)


on_loss: Callable[[LostPeer], None] = end_process  # the command line replaces it, to print its result line too


def wait_limit() -> timedelta:
    """Return how long a process waits in an exchange, from the environment variable IMBALANCE_WAIT_MINUTES.

    Raises:
        BadInput: the variable does not hold a positive number.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_MINUTES))
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < inf:
        raise BadInput(
            f"{LIMIT}: {text!r} given in the environment; it must be a number of minutes above 0, such as 30"
        )
    return timedelta(minutes=minutes)


class Heartbeat:
    """Thread that tells the other processes that this one is alive, and reports silent processes on stderr.

    A beat is an entry in torch's store: the number of the beat, and the last exchange that the process has reached. A
    process beats every INTERVAL seconds while it computes or waits. It falls silent once it has ended or been stopped
    (SIGSTOP), or its machine is gone; each silence is reported once. If a stopped process continues (SIGCONT), the run
    goes on.

    number: number of exchanges (see the module) that this process has reached.
    what: description of the last exchange that this process has reached.
    since: time at which this process reached the exchange in which it waits; None between exchanges.
    has_lost_peer: whether an exchange has failed because of another process.

    Args:
        store: key-value store of torch.distributed, which all processes share.
        rank, world: number of this process, and number of processes.
        aborts: whether torch kills a process that has waited too long; otherwise torch raises an error in that process.
    """

    def __init__(self, store: Any, rank: int, world: int, aborts: bool):
        self.store, self.rank, self.world, self.aborts = store, rank, world, aborts
        self.limit = wait_limit()
        self.number, self.what = 0, "its start"
        self.since: float | None = None
        self._count = 0
        self._others = {other: (0, "its start") for other in range(world) if other != rank}
        self._beats = {other: (0, time.monotonic()) for other in range(world) if other != rank}
        self._named: set[int | None] = set()
        self.has_lost_peer = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and wait for its end, at most MOST_AT_EXIT seconds."""
        self._closed.set()
        self._thread.join(MOST_AT_EXIT)

    def _run(self) -> None:
        """Beat every INTERVAL seconds until `close` is called, or torch closes its key-value store."""
        while not self._closed.is_set():
            # One process serves the store, and a call to the store waits for that process. So use a timer to report it.
            unanswered = threading.Timer(SILENCE, self._name, [None])
            unanswered.daemon = True
            unanswered.start()
            try:
                self._beat()
            except Exception:  # the store has closed because a process has ended, which the next exchange reports
                return
            finally:
                unanswered.cancel()
            self._named.discard(None)
            self._closed.wait(INTERVAL)

    def _beat(self) -> None:
        """Write the next beat of this process to torch's store, and read the beats of the other processes."""
        self._count += 1
        self.store.set(str(self.rank), f"{self._count} {self.number} {self.what}")
        since = self.since
        if self.aborts and since and time.monotonic() - since > self.limit.total_seconds():
            on_loss(self.waited_too_long())
        # Reading the entry of a process that has not beaten yet would wait for that process.
        begun = [other for other, (count, _) in self._beats.items() if count or self.store.check([str(other)])]
        entries = self.store.multi_get([str(other) for other in begun]) if begun else []
        for other, entry in zip(begun, entries):
            count, number, what = entry.decode().split(" ", 2)
            self._others[other] = int(number), what
            if int(count) != self._beats[other][0]:
                self._beats[other] = int(count), time.monotonic()
                self._named.discard(other)
        for other, (_, last_beat) in self._beats.items():
            if time.monotonic() - last_beat > SILENCE:
                self._name(other)

    def lost(self) -> LostPeer:
        """Return the error for a connection that another process has closed; it names the processes that have ended.

        The method first waits the time of two beats. A process that is alive beats meanwhile, so a silent process has ended.
        """
        try:
            self._beat()  # read the last beats of processes that have ended since
            counts = {other: count for other, (count, _) in self._beats.items()}
            time.sleep(2 * INTERVAL)
            self._beat()
            ended = [other for other, (count, _) in self._beats.items() if count == counts[other]]
            if self.rank == 0:  # without torchrun it serves the store, from which the other processes read as well
                time.sleep(2 * INTERVAL)
        except Exception:  # the store has closed: without torchrun, process 0 serves it
            ended = [0] if self.rank else []
        names = " and ".join(f"process {other}, last in {self._others[other][1]!r}," for other in ended)
        return LostPeer(
            f"{names or 'another process'} has ended; read the stderr of that process, and start all processes again",
            ended,
        )

    def waited_too_long(self) -> LostPeer:
        """Return the error for this process, which has waited too long; it names the exchange and the late processes."""
        late = {other: what for other, (number, what) in self._others.items() if number < self.number}
        whom = " and ".join(f"process {other}, last in {what!r}" for other, what in late.items()) or "another process"
        return LostPeer(
            f"waited {self.limit} ({LIMIT}) in {self.what!r} for {whom}; read the stderr of that process, and start all "
            "processes again",
            list(late),
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
    from torch.distributed import PrefixStore, distributed_c10d, get_backend  # pyright: ignore[reportPrivateImportUsage] (torch's stubs lack PrefixStore)

    # torchrun keeps its store when it restarts all processes, so the keys of each start must differ.
    prefix = f"imbalance/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = PrefixStore(prefix, distributed_c10d._get_default_store())
    _watch = Heartbeat(store, rank, world, get_backend() == "nccl")
    atexit.register(leave_processes, _watch)


def leave_processes(watch: Heartbeat) -> None:
    """End the heartbeat at the end of this process, and torch's process group unless another process has been lost.

    A process group that is not ended has a thread that can still run when Python ends. Then this process aborts,
    although its work is done.
    """
    from torch.distributed import destroy_process_group, is_initialized

    watch.close()
    if is_initialized() and not watch.has_lost_peer:
        destroy_process_group()


def torch_timeout() -> timedelta:
    """Return the time after which torch itself stops waiting for another process."""
    import torch

    return wait_limit() + (MARGIN if torch.cuda.is_available() else timedelta())


@contextmanager
def startup() -> Iterator[None]:
    """Return a context manager that turns errors in the start of torch.distributed into a LostPeer."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_connection(error):
            raise
        reason = str(error).splitlines()[0]
        raise LostPeer(
            f"the processes did not all reach each other within {wait_limit()} ({LIMIT}): {reason}; check that all of them run"
        ) from error


def exchange(what: str) -> AbstractContextManager[None]:
    """Return a context manager for an exchange; `what` describes the exchange in the messages of the heartbeat.

    Raises:
        LostPeer: another process has ended, or did not reach the exchange, so torch has stopped waiting for it.
    """
    return watched_exchange(_watch, what) if _watch else nullcontext()


@contextmanager
def watched_exchange(watch: Heartbeat, what: str) -> Iterator[None]:
    """Return a context manager that tells the heartbeat that this process is in an exchange.

    The context manager turns torch's errors about other processes into a LostPeer.

    Args:
        what: description of the exchange, for messages.
    """
    watch.number, watch.what, watch.since = watch.number + 1, what, time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if not is_of_connection(error):
            raise
        watch.has_lost_peer = True
        raise (watch.waited_too_long() if is_timeout(error) else watch.lost()) from error
    finally:
        watch.since = None


def is_timeout(error: RuntimeError) -> bool:
    """Return whether torch raised `error` because another process was late."""
    return any(words in str(error).lower() for words in ("timed out", "timeout"))


def is_of_connection(error: RuntimeError) -> bool:
    """Return whether torch raised `error` about the connection to another process.

    Such an error comes from torch.distributed or from gloo.
    """
    of_torch = type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError")
    return of_torch or is_timeout(error) or "gloo" in str(error).lower()
