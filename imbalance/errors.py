"""Errors that end a run early, each with its exit status."""

import signal
from collections.abc import Sequence
from pathlib import Path

RESUME_HINT = "resumes from the last checkpoint, or from the start without one"  # said after "the same command"


class BadInput(ValueError):
    """Error in a config, a data set or a command line. The message is the one line that the user reads."""

    exit_status = 2


class Busy(BadInput):
    """Another process is training in the run directory. Once that process ends, the run can be resumed or read."""

    def __init__(self, directory: str):
        super().__init__(directory)

    def __str__(self) -> str:
        return f"config.work_dir: another process is training in {self.args[0]}; wait for its end, or choose another work_dir"


class Damaged(BadInput):
    """A file that exists cannot be trusted: it is too large, has the wrong format, or does not have the recorded digest."""

    def __init__(self, path: str | Path, reason: str, hint: str = ""):
        super().__init__(path, reason, hint)  # pickle calls the class with these arguments

    @property
    def reason(self) -> str:
        """The reason why the file cannot be trusted, without its path."""
        return self.args[1]

    def __str__(self) -> str:
        path, reason, hint = self.args
        return f"{path}: damaged ({reason}); {hint or 'restore the file from a copy'}"


class Diverged(ArithmeticError):
    """A loss, a weight or an output became non-finite. No non-finite state has been saved."""

    status, exit_status = "diverged", 3


class LostPeer(OSError):
    """Another process that trains the same run has ended, or did not answer in time.

    Args:
        message: the line that the user reads.
        ranks: ranks of the processes that have ended or did not answer, as far as they are known.
    """

    def __init__(self, message: str, ranks: Sequence[int] = ()):
        super().__init__(message)
        self.ranks = ranks


class Interrupted(BaseException):
    """A signal stopped the run, after a checkpoint was written or before there was a state to save.

    The base class is BaseException, as for KeyboardInterrupt, so that `except Exception` does not catch it.
    """

    status = "interrupted"

    def __init__(self, signum: int):
        super().__init__(signum)  # pickle calls the class with these arguments, so give the number and not the text
        self.exit_status = 130 if signum == signal.SIGINT else 143

    def __str__(self) -> str:
        return f"{signal.Signals(self.args[0]).name}: stopped; the same command {RESUME_HINT}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out: a MemoryError, or a RuntimeError of torch whose text says so.

    cuBLAS and cuDNN report that their own memory ran out by a status such as CUBLAS_STATUS_ALLOC_FAILED.
    """
    phrases = (
        "can't allocate memory", "out of memory", "Storage size calculation overflowed", "ALLOC_FAILED",
        "ALLOCATION_FAILED",
    )  # fmt: skip
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )
