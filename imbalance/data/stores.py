"""The folder of all stores (copies of data sets on disk as decoded images or tokens), their build lock, and their check.

A store can have many gigabytes, so comparing all of its checksums at each start would cost seconds or minutes. A file whose
stamp (size, mtime and ctime) equals the stamp of its last complete check counts as unchanged. Each write through the file
system changes the ctime, and no program can set it. Only an error of the disk can
change the content and keep the stamp. To find such errors, each opening of a store of images or features compares the
checksums of some rows, and `imbalance data verify` compares those of all rows.
"""

import errno
import glob
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from imbalance.errors import BadInput, Damaged
from imbalance.utils.files import write_atomic
from imbalance.utils.read import check_regular, read_json

ELSEWHERE = "set IMBALANCE_STORE=<folder> in the environment to put the store into another folder"


def store_root(data_dir: str) -> Path:
    """Return the folder of all stores: the value of the environment variable IMBALANCE_STORE, or `<data_dir>/decoded`."""
    return Path(os.environ.get("IMBALANCE_STORE") or Path(data_dir) / "decoded")


CHECKED = "checked.json"  # file of a store with the stamps of its other files when they were last checked
SAMPLED = 64  # rows whose checksums are compared each time a store is opened
ROWS_PER_CALL = 256  # rows that a thread checks at a time
THREADS = 8  # more threads read a disk no faster


class StoreCheck:
    """Stamps (size, mtime and ctime) of the files `names` in a store's folder, to tell later whether a file has changed.

    Make the object before the files are read.

    Raises:
        OSError: a file is missing, or is a directory, pipe or device.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.stamps = folder, {}
        for name in names:
            check_regular(folder / name)
            status = (folder / name).stat()
            self.stamps[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    @property
    def is_recent(self) -> bool:
        """True if no file has changed since `remember` was last called."""
        try:
            return read_json(self.folder / CHECKED) == self.stamps
        except (Damaged, OSError):
            return False

    def remember(self) -> None:
        """Save the stamps; call this after the content of all files has been checked or written."""
        with suppress(OSError):  # a store that is read-only is checked again when it is opened next
            write_atomic(self.folder / CHECKED, json.dumps(self.stamps).encode())


def damaged_rows(array: np.ndarray, checksums: np.ndarray, sample: bool) -> list[int]:
    """Return the rows of `array` whose CRC-32 is not that in `checksums`.

    Args:
        sample: True to compare only `SAMPLED` of the rows.
    """
    rows = np.arange(len(array))
    if sample:
        rows = np.unique(np.linspace(0, len(array) - 1, min(len(array), SAMPLED)).astype(np.int64))

    def damaged(rows: np.ndarray) -> list[int]:
        return [row for row in rows.tolist() if zlib.crc32(np.ascontiguousarray(array[row]).data) != checksums[row]]

    with ThreadPoolExecutor(1 if sample else THREADS) as threads:
        parts = threads.map(damaged, np.split(rows, range(ROWS_PER_CALL, len(rows), ROWS_PER_CALL)))
        return [row for part in parts for row in part]


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


def build_once(directory: Path, fill: Callable[[Path], None]) -> None:
    """Build the store in the folder `directory`, unless it exists; an interrupted call leaves no store.

    Args:
        fill: function that writes the files of the store, among them store.json, to a temporary folder.

    Raises:
        BadInput: the store cannot be written.
    """
    if (directory / "store.json").is_file():
        return
    try:
        with build_lock(directory):
            if not (directory / "store.json").is_file():  # another process may have built it during the wait
                with temporary_store(directory) as temporary:
                    fill(temporary)
                    shutil.rmtree(directory, ignore_errors=True)  # this folder has no store.json, so it is no store
                    temporary.rename(directory)
    except OSError as error:
        full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
        raise BadInput(
            f"config.data_dir: cannot write {directory}: {error.strerror or error}{full}; {ELSEWHERE}"
        ) from None


@contextmanager
def temporary_store(path: Path) -> Iterator[Path]:
    """Return a context manager for a temporary folder in which to build the store `path`; the caller must hold the build lock.

    At the end the folder is removed, if it was not renamed. Folders that killed processes have left are removed first.
    """
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.building"):
        shutil.rmtree(leftover)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.building")
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
