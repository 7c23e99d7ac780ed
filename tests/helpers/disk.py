"""What a run asks of the file system, call by call: to let one of them fail, or to replay them up to a power loss."""

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
    """One call to the system. `argument`: what is written, where a file is moved to, how long it becomes."""

    name: str
    path: Path
    argument: Any = None


Before = Callable[[Call], int | None]


@contextmanager
def watched(root: Path, before: Before) -> Iterator[None]:
    """Call `before` ahead of every call that changes, syncs or opens something under `root`.

    What it raises is what the call fails with. Where it returns a number, a write is cut short after as many bytes.
    Files that are open already are not watched.
    """
    root = root.resolve()

    def note(name: str, path: Any, argument: Any = None) -> int | None:
        path = path_of(path)
        return before(Call(name, path, argument)) if path.is_relative_to(root) else None

    def seen(name: str, function: Callable, argument: int | None = None) -> Callable:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            note(name, first, None if argument is None else args[argument - 1])
            return function(first, *args, **kwargs)

        return call

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            short = note("write", self.name, data)
            return super().write(data if short is None else memoryview(data).cast("B")[:short])

        def truncate(self, size: int | None = None) -> int:
            note("truncate", self.name, self.tell() if size is None else size)
            return super().truncate(size)

    def opened(path: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        if isinstance(path, int) or not path_of(path).is_relative_to(root):
            return real_open(path, mode, buffering, *args, **kwargs)
        creates = set(mode) & set("wax")
        note("create" if creates and not Path(path).exists() else "empty" if "w" in mode else "open", path)
        raw = Raw(os.fspath(path), mode.replace("b", "").replace("t", ""))
        if "b" in mode:
            if not buffering:
                return raw
            return io.BufferedWriter(raw) if creates else io.BufferedReader(raw)
        buffer = io.BufferedWriter(raw) if creates else io.BufferedReader(raw)
        return io.TextIOWrapper(buffer, *args, line_buffering=buffering == 1, **kwargs)

    real_open = io.open
    calls = {name: seen(name, getattr(os, name)) for name in ("fsync", "open", "mkdir", "unlink", "rmdir")}
    calls |= {name: seen(name, getattr(os, name), argument=1) for name in ("replace", "rename")}
    patches = [
        mock.patch("builtins.open", opened),
        mock.patch("io.open", opened),
        mock.patch.object(fcntl, "flock", seen("flock", fcntl.flock)),
        *(mock.patch.object(os, name, call) for name, call in calls.items()),
    ]
    if accessor := getattr(pathlib, "_NormalAccessor", None):  # Python 3.10's pathlib has its own names for them
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
    """The absolute path of a path, a descriptor or an open file."""
    if hasattr(file, "fileno"):
        file = file.fileno()
    return Path(f"/proc/self/fd/{file}" if isinstance(file, int) else file).resolve()


def full_at(size: int) -> None:
    """From now on no file can grow beyond `size` bytes: as on a full disk, a write is cut short, and the next fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
