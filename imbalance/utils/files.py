"""Write files atomically: whatever happens to the process, the disk or the power, a file is whole or absent."""

import errno
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from imbalance.errors import BadInput
from imbalance.utils.read import open_regular, regular_opener


def write_atomic(path: Path, data: bytes | memoryview, previous: Path | None = None) -> None:
    """Write `data` to `path` so that a crash at any moment leaves either the old file or the whole new one.

    Once this function has returned, the new file also survives a power loss.

    Args:
        previous: path to which the old file is moved first, to keep it; None to replace it. A crash between the move
            and the write leaves the old file at `previous` and no file at `path`.

    Raises:
        OSError: the file cannot be written; the old file is kept.
    """
    with atomic_file(path, previous) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Return a context manager that opens a new file for bytes, and moves it to `path` when the body ends.

    If the body raises an error, the old file at `path` is kept.

    Args:
        previous: as for `write_atomic`.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with names_file(path), open(temporary, "w+b", opener=regular_opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # half a file takes space on a full disk
        raise
    sync_folder(path.parent)


def output_path(path: str | Path, flag: str, is_own: Callable[[Path], bool]) -> Path:
    """Return the path of a file that a command may write; for a symbolic link that is the file it links to.

    Args:
        flag: beginning of the messages, such as "--output".
        is_own: function that returns whether the same command wrote an existing file, which may then be replaced.

    Raises:
        BadInput: the path is a folder, pipe or device, is inside a run directory, or its folder is missing; or the file
            exists, is not empty, and `is_own` is false for it.
    """
    shown, path = path, Path(path)
    if path.is_dir():
        raise BadInput(f"{flag}: {shown} is a folder; name a file")
    if (
        path.exists() and not path.is_file()
    ):  # asked before the link is followed: /dev/stdout links to a name that is no path
        raise BadInput(f"{flag}: {shown} is a pipe, a socket or a device, not a file; name another file")
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    refuse_run_directory(path.parent, shown, flag)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise BadInput(f"{flag}: {shown} is in a folder that does not exist; make the folder first")
    try:
        is_foreign = path.exists() and path.stat().st_size > 0 and not is_own(path)
    except OSError as error:
        raise BadInput(f"{flag}: cannot read {shown}, which exists: {error.strerror}; name another file") from None
    if is_foreign:
        raise BadInput(
            f"{flag}: {shown} exists, and this command did not write it; name another file, or remove it first"
        )
    return path


def refuse_run_directory(folder: Path, shown: str | Path, flag: str) -> None:
    """Raise `BadInput` if `folder`, into which a command writes, is a run directory, or is inside one.

    Args:
        shown: path that the message shows.
        flag: beginning of the message, such as "--output".
    """
    resolved = Path(os.path.realpath(folder))
    for place in (resolved, *resolved.parents):
        if (place / "config.json").exists() and any((place / n).exists() for n in ("summary.json", "checkpoints")):
            raise BadInput(f"{flag}: {shown} is inside the run directory {place}; name a path outside it")


def begins_with(path: Path, *beginnings: bytes) -> bool:
    """Return whether the content of a file begins with one of `beginnings`."""
    with open_regular(path) as file:
        return file.read(max(map(len, beginnings))).startswith(beginnings)


def contains(path: Path, text: bytes) -> bool:
    """Return whether a file contains `text` anywhere; the file must not be empty."""
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Return a context manager that adds `path` to an OSError without a file name, such as the error of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def missing_folders(path: Path) -> list[Path]:
    """Return the folders above `path` that do not exist, the deepest first."""
    return [folder for folder in path.parents if not folder.exists()]


@contextmanager
def removes_new_folders(path: Path) -> Iterator[None]:
    """Return a context manager that, after an error, removes the folders above `path` that are new and empty."""
    missing = missing_folders(path)
    try:
        yield
    except BaseException:
        remove_empty(missing)
        raise


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders that are empty, one after another."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


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
