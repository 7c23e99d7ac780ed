"""Print so that a broken output stream neither ends the program nor changes its exit status, and write durations as text."""

import errno
import io
import os
import re
import sys
from typing import Any, TextIO


def guard_streams() -> None:
    """Make printing to stdout and stderr never raise an error, whether a pipe is closed or a disk is full.

    Text that cannot be written is lost; if a disk is full, a line on stderr says so. A character that the stream's
    encoding lacks is written as an escape: `ß` becomes `\\xdf` in ASCII. Call this function once, before any file is
    opened. A file opened while descriptor 1 or 2 is closed would get that number, and printed text would go to the file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this descriptor
    sys.stdout, sys.stderr = _GuardedStream.wrap(sys.stdout, 1), _GuardedStream.wrap(sys.stderr, 2)


def csv_cell(value: Any) -> Any:
    """Return `value`, with an apostrophe before a text that a spreadsheet would run as a formula; numbers stay unchanged."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return "'" + value if is_formula and not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", value) else value


class _GuardedStream(io.TextIOWrapper):
    """Text stream that redirects its file descriptor to /dev/null once writing to it fails."""

    @classmethod
    def wrap(cls, stream: TextIO | None, descriptor: int) -> "_GuardedStream":
        if isinstance(stream, cls):
            return stream
        if isinstance(stream, io.TextIOWrapper):
            encoding, line_buffering, write_through = stream.encoding, stream.line_buffering, stream.write_through
            binary = stream.detach()
        else:  # the stream is None, since its descriptor was closed when Python started
            encoding, line_buffering, write_through = "utf-8", True, False
            binary = open(descriptor, "wb", closefd=False)
        guarded = cls(binary, encoding=encoding, errors="backslashreplace", line_buffering=line_buffering)
        # PYTHONUNBUFFERED sets `write_through`; if that were lost, a log would stay empty until the buffer is full.
        guarded.reconfigure(write_through=write_through)
        return guarded

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        descriptor = self.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
        if descriptor == 1 and error.errno not in (errno.EPIPE, errno.EBADF):  # `head` closes its pipe on purpose
            print_safely(f"stdout: {error.strerror}; a part of the output is lost", sys.stderr)


def one_line(text: str) -> str:
    """Return `text` with control characters and line breaks as escapes, so that it fits on one line of a message."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: repr(match[0])[1:-1], text)


def print_safely(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """Print `text` to `stream`, and ignore an error in writing, because a progress line must not end a run.

    Args:
        stream: an open stream; None to print nothing.
    """
    if stream is None:
        return
    try:
        print(text, end=end, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        print_safely(text.encode(encoding, "backslashreplace").decode(encoding), stream, end)
    except (OSError, ValueError):  # a full disk, a closed pipe, a closed file
        pass


def counted(number: int, noun: str) -> str:
    """Return a number and its noun as text: `1 run`, `2,000 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a number of seconds as text: `3h07m`, `4m12s` or `9s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
