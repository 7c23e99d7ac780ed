"""Files that are whole or not there, whatever happens to the process, the disk or the power."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes | memoryview, previous: Path | None = None) -> None:
    """Write `data` to `path` so that a crash at any moment leaves either what was there before or all of it.

    Once this returns, a power loss leaves all of it too.

    Args:
        previous: where what was there before is kept; until this returns it may be there only.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # on a full disk half a file is in the way
        raise
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Make `path` and the folders above it, where they are missing, so that a power loss leaves them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync(folder: Path) -> None:
    """Bring the names in `folder` to the disk: a file that is synced, in a folder that is not, can still get lost.

    Nothing where the file system knows no such thing (EINVAL), or the folder can be written to and not read (EACCES).
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


def check_regular(path: str | Path) -> None:
    """Raise `OSError` unless `path` is a regular file, or a link to one: opening a pipe or a device may wait for ever."""
    try:
        mode = Path(path).stat().st_mode
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, f"{error} in the name", str(path)) from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise OSError(errno.EINVAL, f"{kind}, not a file", str(path))
