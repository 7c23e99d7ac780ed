"""Leases: show other workers, through the study, whether a worker lives or has died.

A worker is an attribute of the study, `worker <id>`, with a number that the worker raises every few seconds. A trial names
the worker that trains it. So a worker on any machine can tell which trials belong to dead workers, even if the machines
share no files. Clocks of different machines are never compared: a worker counts as dead once its number has not changed
for `GRACE` seconds of the observer's own clock. On the observer's own machine the operating system tells at once
whether the process of a worker exists.

Optuna has a heartbeat of its own, but only for databases, and only within `study.optimize`, which trains one trial at a time.
"""

import functools
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

BEAT = 10.0  # seconds between two heartbeats
GRACE = 60.0  # seconds without a heartbeat after which a worker on another machine counts as dead
PREFIX = "worker "


class Lease:
    """Context manager for the lease of this process: a number in the study that is raised every few seconds meanwhile.

    name: the unique name of this worker.
    """

    def __init__(self, study: "Study", storage: "BaseStorage"):
        self.study, self.storage, self.name = study, storage, uuid.uuid4().hex
        self._ended, self._said = threading.Event(), False
        self._record: dict[str, Any] = {
            "host": socket.gethostname(),
            "machine": machine(),
            "pid": os.getpid(),
            "started": start_of_process(os.getpid()),
            "beat": 0,
        }
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Lease":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Record in the study that this worker has ended, so that other workers can take its trials at once."""
        self._ended.set()
        self._thread.join()
        self._record = {"ended": True}
        self._write()

    def _write(self) -> None:
        self.study.set_user_attr(PREFIX + self.name, self._record)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._record["beat"] += 1
            try:
                self._write()
            except Exception as error:  # a database that is away for a while must not end the training
                if not self._said:
                    self._said = True
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    print(f"the study's storage does not answer ({reason}); trying again", file=sys.stderr, flush=True)
            else:
                self._said = False
        self.storage.remove_session()  # a database keeps a connection for each thread


class Observer:
    """Find which workers of a study live, from the heartbeats that this process reads.

    proven: names of the workers that certainly lived when their leases were last read.
    """

    def __init__(self) -> None:
        self.proven: set[str | None] = set()
        self._seen: dict[str, tuple[Any, float]] = {}  # the latest value by name, and when it was first read

    def living(self, attributes: Mapping[str, Any]) -> list[str]:
        """Return the sorted names of the workers that live, or may live because their `GRACE` seconds have not passed.

        Args:
            attributes: attributes of the study.
        """
        records = {key.removeprefix(PREFIX): value for key, value in attributes.items() if key.startswith(PREFIX)}
        living = []
        for name, record in records.items():
            if record.get("ended"):
                continue
            if record["machine"] and record["machine"] == machine():
                is_alive = is_proven = record["started"] == start_of_process(record["pid"])
            else:
                before, _ = self._seen.get(PREFIX + name, (record["beat"], 0.0))
                is_proven = before != record["beat"] or name in self.proven
                is_alive = self.changed_lately(PREFIX + name, record["beat"])
            if is_alive:
                living.append(name)
                self.proven |= {name} if is_proven else set()
            else:
                self.proven.discard(name)
        return sorted(living)

    def changed_lately(self, name: str, value: Any) -> bool:
        """Return whether the value of `name` first became `value` within the last `GRACE` seconds, as observed here.

        Args:
            name: name of the worker or trial that has the value.
            value: present value.
        """
        now = time.monotonic()
        before, since = self._seen.get(name, (None, now))
        if name not in self._seen or before != value:
            self._seen[name] = value, now
            return True
        return now - since < GRACE


@functools.cache
def machine() -> str:
    """Return a name for the part of this machine (boot and container) in which process numbers are unique.

    Return "" if the operating system does not give this information.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_of_process(pid: int) -> str | None:
    """Return the start time of a process, in clock ticks since boot.

    Return None if the process has ended, or if the system does not give its start time.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]
