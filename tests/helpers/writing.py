"""Function that a spawned worker calls. A module of its own, because a worker imports the module of what it calls."""

import time
from pathlib import Path


def write_for(file: Path, seconds: float) -> None:
    """Append to a file for some seconds, then make the empty file <file>.ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with file.open("a") as opened:
            opened.write("x")
        time.sleep(0.01)
    file.with_suffix(".ended").touch()
