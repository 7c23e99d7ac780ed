"""The ways in which a run ends early, each with its exit status."""

import signal


class BadInput(ValueError):
    """A config, a data set or a command line is wrong; the message is the one line that the user reads."""

    exit_status = 2


class Busy(BadInput):
    """Another process is training in the run directory; once it has ended, this run can be taken up or read."""

    def __init__(self, directory: str):
        super().__init__(directory)

    def __str__(self) -> str:
        return f"config.work_dir: another process is training in {self.args[0]}"


class Diverged(ArithmeticError):
    """A loss, a weight or an output became non-finite; nothing that is not finite has been saved."""

    status, exit_status = "diverged", 3


class Interrupted(BaseException):
    """A signal asked the run to stop, and it stopped with a checkpoint written, or before there was anything to save.

    Like KeyboardInterrupt no Exception, so that nothing that goes on after a failure goes on after this.
    """

    status = "interrupted"

    def __init__(self, signum: int):
        super().__init__(signum)  # and no text, so that it can be pickled
        self.exit_status = 130 if signum == signal.SIGINT else 143

    def __str__(self) -> str:
        return f"{signal.Signals(self.args[0]).name}: stopped; the same command goes on from the last checkpoint"


def out_of_memory(error: Exception) -> bool:
    """Of Python's kind, or torch's, which on a CPU is a RuntimeError like any other."""
    words = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
