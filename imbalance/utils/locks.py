"""Lock a folder for one process, as long as the process lives."""

import fcntl
import os
from pathlib import Path

from imbalance.utils.files import make_folder


class FolderLock:
    """Lock of a folder, held until `close` is called or the process ends.

    The folder itself is locked, since removing a lock file would let a second process in. The file `.lock` in the
    folder is locked too, for file systems (NFS) that can lock files only, and for programs that look for a lock file.
    The package filelock is not used: it locks files only, and cannot tell whether a locked file was replaced.

    Args:
        file: whether to lock the file `.lock` too, which is impossible in a folder on a read-only disk.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, file: bool = True):
        self.folder = folder
        self._files: list[tuple[Path, int]] = []
        make_folder(folder)
        try:
            self._lock(folder, os.O_RDONLY)
            if file:
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
        """Return whether the locked folder is still in place, and was neither removed nor replaced by another folder."""
        path, descriptor = self._files[0]
        return is_same_file(path, descriptor)

    def close(self) -> None:
        """Release the lock."""
        while self._files:
            os.close(self._files.pop()[1])


def is_same_file(path: Path, descriptor: int) -> bool:
    """Return whether `path` still names the file or folder that is open as the file descriptor `descriptor`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
