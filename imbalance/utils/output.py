"""What a program says: whatever becomes of its standard streams, it neither ends nor changes its exit status."""

import io
import os
import re
import sys
from typing import TextIO


def guard_streams() -> None:
    """Let writing to stdout and stderr never fail: not on a closed pipe, a full disk, a closed descriptor or ASCII.

    What cannot be written is lost; a character that the encoding lacks is written as `\\xdf`. To be called once, before
    any file is opened: a file opened while descriptor 1 or 2 is closed would take its place, and get what is printed.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout, sys.stderr = _Guarded.around(sys.stdout, 1), _Guarded.around(sys.stderr, 2)


class _Guarded(io.TextIOWrapper):
    """A text stream on a descriptor that goes to /dev/null once it cannot be written to."""

    @classmethod
    def around(cls, stream: TextIO | None, descriptor: int) -> "_Guarded":
        if isinstance(stream, cls):
            return stream
        encoding, lines = (stream.encoding, stream.line_buffering) if stream else ("utf-8", True)
        binary = stream.detach() if stream else open(descriptor, "wb", closefd=False)
        return cls(binary, encoding=encoding, errors="backslashreplace", line_buffering=lines)

    def write(self, text: str) -> int:
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
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def one_line(text: str) -> str:
    """`text` with what a terminal would act on, line breaks too, written as escapes: messages quote names and paths."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def say(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """Print and flush, on a stream that need not be guarded: what people read on the side must not end a run."""
    if stream is None:
        return
    try:
        print(text, end=end, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        say(text.encode(encoding, "backslashreplace").decode(encoding), stream, end)
    except (OSError, ValueError):  # a full disk, a closed pipe, a closed file
        pass
