"""Print so that a broken output stream neither ends the program nor changes its exit status."""

import io
import os
import re
import sys
from typing import TextIO


def guard_streams() -> None:
    """Make writing to stdout and stderr never fail: not on a closed pipe, a full disk, a closed descriptor or ASCII.

    Text that cannot be written is lost; a character that the encoding lacks is written as `\\xdf`. Call this function
    once, before any file is opened: a file opened while descriptor 1 or 2 is closed would get that number, and be sent
    what is printed.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this descriptor
    sys.stdout, sys.stderr = _GuardedStream.wrap(sys.stdout, 1), _GuardedStream.wrap(sys.stderr, 2)


class _GuardedStream(io.TextIOWrapper):
    """Text stream whose descriptor is redirected to /dev/null once writing to it fails."""

    @classmethod
    def wrap(cls, stream: TextIO | None, descriptor: int) -> "_GuardedStream":
        if isinstance(stream, cls):
            return stream
        if isinstance(stream, io.TextIOWrapper):
            encoding, line_buffering, binary = stream.encoding, stream.line_buffering, stream.detach()
        else:  # Python leaves a stream None whose descriptor was closed
            encoding, line_buffering, binary = "utf-8", True, open(descriptor, "wb", closefd=False)
        return cls(binary, encoding=encoding, errors="backslashreplace", line_buffering=line_buffering)

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def one_line(text: str) -> str:
    """Return `text` with control characters and line breaks written as escapes: messages quote names and paths."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: repr(match[0])[1:-1], text)


def print_safely(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """Print and flush, on a stream that need not be guarded, and ignore failures: progress must not end a run."""
    if stream is None:
        return
    try:
        print(text, end=end, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        print_safely(text.encode(encoding, "backslashreplace").decode(encoding), stream, end)
    except (OSError, ValueError):  # a full disk, a closed pipe, a closed file
        pass
