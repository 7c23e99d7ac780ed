"""The folder of all stores (copies of data sets on disk as decoded images or tokens), and the lock to build a store."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ELSEWHERE = "set IMBALANCE_STORE=<folder> in the environment to put the store into another folder"


def store_root(data_dir: str) -> Path:
    """Return the folder of all stores: the value of the environment variable IMBALANCE_STORE, or `<data_dir>/decoded`."""
    return Path(os.environ.get("IMBALANCE_STORE") or Path(data_dir) / "decoded")


@contextmanager
def build_lock(path: Path) -> Iterator[None]:
    """Return a context manager that locks the folder or file `path`; a second process waits until it is free.

    If a process is killed, the operating system frees its lock at once.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process that builds {path}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
