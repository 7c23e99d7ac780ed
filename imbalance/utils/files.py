"""Write files atomically: whatever happens to the process, the disk or the power, a file is whole or absent."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imbalance.utils.read import regular_opener


def write_atomic(path: Path, data: bytes | memoryview, previous: Path | None = None) -> None:
    """Write `data` to `path` so that a crash at any moment leaves either the old file or the whole new one.

    Once this function has returned, the new file also survives a power loss.

    Args:
        previous: path to which the old file is moved, to keep it; None to replace it. After a crash there may be a file
            at `previous` and none at `path`.

    Raises:
        OSError: the file cannot be written; the old file is kept.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with names_file(path), open(temporary, "wb", opener=regular_opener) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # half a file takes space on a full disk
        raise
    sync_folder(path.parent)


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Return a context manager. It adds `path` to an OSError that names no file, such as the error of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def make_folder(path: Path) -> None:
    """Make the folder `path` and its missing parents so that they survive a power loss."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Sync `folder` to the disk (fsync), since a power loss can remove a new file whose folder was not synced.

    Do nothing if the file system cannot sync a folder (EINVAL), or the folder is writable but not readable (EACCES).
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
