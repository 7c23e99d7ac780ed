"""Watching of the calls that a run makes to the file system.

Tests let one of the calls fail, or replay the calls up to a simulated power loss.
"""

import fcntl
import io
import os
import pathlib
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock


class Call(NamedTuple):
    """A call to the file system.

    argument: the data for "write", the new path for "rename" and "replace", the new size for "truncate"; else None.
    position: for "write", the place in the file; None for a file to which everything is appended.
    """

    name: str
    path: Path
    argument: Any = None
    position: int | None = None


Before = Callable[[Call], int | None]


@contextmanager
def watched(root: Path, before: Before) -> Iterator[None]:
    """Call `before` ahead of every file system call that changes, syncs or opens a file or folder under `root`.

    If `before` raises an error, the call fails with it. If `before` returns a number for a write, only so many bytes
    are written. Files that are open when the watching begins are not watched.
    """
    root = root.resolve()

    def note(name: str, path: Any, argument: Any = None, position: int | None = None) -> int | None:
        path = path_of(path)
        return before(Call(name, path, argument, position)) if path.is_relative_to(root) else None

    def noted(name: str, function: Callable, argument: int | None = None) -> Callable:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            note(name, first, None if argument is None else args[argument - 1])
            return function(first, *args, **kwargs)

        return call

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            short = note("write", self.name, data, None if self.mode.startswith("a") else self.tell())
            return super().write(data if short is None else memoryview(data).cast("B")[:short])

        def truncate(self, size: int | None = None) -> int:
            note("truncate", self.name, self.tell() if size is None else size)
            return super().truncate(size)

    def opened(path: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("opener", None)
        if isinstance(path, int) or not path_of(path).is_relative_to(root):
            return real_open(path, mode, buffering, *args, **kwargs)
        creates = set(mode) & set("wax")
        note("create" if creates and not Path(path).exists() else "empty" if "w" in mode else "open", path)
        raw = Raw(os.fspath(path), mode.replace("b", "").replace("t", ""))
        if "b" in mode:
            if not buffering:
                return raw
            if "+" in mode:
                return io.BufferedRandom(raw)
            return io.BufferedWriter(raw) if creates else io.BufferedReader(raw)
        buffer = io.BufferedWriter(raw) if creates else io.BufferedReader(raw)
        return io.TextIOWrapper(buffer, *args, line_buffering=buffering == 1, **kwargs)

    real_open = io.open
    calls = {name: noted(name, getattr(os, name)) for name in ("fsync", "open", "mkdir", "unlink", "rmdir")}
    calls |= {name: noted(name, getattr(os, name), argument=1) for name in ("replace", "rename")}
    patches = [
        mock.patch("builtins.open", opened),
        mock.patch("io.open", opened),
        mock.patch.object(fcntl, "flock", noted("flock", fcntl.flock)),
        *(mock.patch.object(os, name, call) for name, call in calls.items()),
    ]
    if accessor := getattr(pathlib, "_NormalAccessor", None):  # pathlib of Python 3.10 keeps its own references to them
        del calls["fsync"]
        calls["open"] = opened
        patches += [mock.patch.object(accessor, name, staticmethod(call)) for name, call in calls.items()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()


def path_of(file: Any) -> Path:
    """Return the absolute path of a path, a file descriptor or an open file."""
    if hasattr(file, "fileno"):
        file = file.fileno()
    return Path(f"/proc/self/fd/{file}" if isinstance(file, int) else file).resolve()


def full_at(size: int) -> None:
    """Limit every file of this process to `size` bytes.

    As on a full disk, the write that would exceed the limit is cut short, and the next write fails.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
