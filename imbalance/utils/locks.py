"""Folders that belong to one process at a time, as long as it lives."""

import fcntl
import os
from pathlib import Path

from imbalance.utils.files import make_folder


class FolderLock:
    """The lock of a folder, held until it is closed or the process ends.

    The folder itself is locked, so that there is no file whose removal would let a second process in, and with it
    `.lock` in it, for file systems (NFS) that can only lock a file, and for processes that look at no other. filelock
    locks files alone, and does not say whether the file is still the one that it locked, as `holds` does.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: list[tuple[Path, int]] = []
        make_folder(folder)
        try:
            self._lock(folder, os.O_RDONLY)
            self._lock(folder / ".lock", os.O_RDWR | os.O_CREAT)
        except BaseException:
            self.close()
            raise

    def _lock(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError) or path != self.folder:
                raise
        else:
            self._files.append((path, descriptor))

    def holds(self) -> bool:
        """Whether what was locked is still what is there: not once the folder was removed, or replaced by another."""
        path, descriptor = self._files[0]
        return is_same(path, descriptor)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop()[1])


def is_same(path: Path, descriptor: int) -> bool:
    """Whether `path` is the file that is open as `descriptor`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
