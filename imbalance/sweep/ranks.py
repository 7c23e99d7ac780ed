"""Train one run in several processes (ranks) of this machine; the launcher behind torchrun starts the processes."""

import contextlib
import logging
import multiprocessing
import os
import signal
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from imbalance.errors import BadInput, Diverged, Interrupted, LostPeer
from imbalance.training.distributed.interrupt import on_stop


def train_on_ranks(config: dict[str, Any], directory: Path, ranks: int, pause: int | None) -> dict[str, Any]:
    """Train one run in several processes, and return the content of its summary.json.

    Args:
        config: validated config, as a dictionary.
        directory: run directory.
        ranks: number of processes. Each process uses one of the devices in CUDA_VISIBLE_DEVICES of this process.
        pause: number of epochs after which the run pauses; None to train to the end.

    Raises:
        RuntimeError: a process was killed or crashed; after a crash the text has the traceback.
        Other errors: those of `imbalance.training.loop.train`.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=ranks, run_id=uuid.uuid4().hex, max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="forkserver", monitor_interval=0.1,
    )  # fmt: skip
    # So that only the first trial waits for imports
    multiprocessing.set_forkserver_preload(["imbalance.training.loop"])
    try:
        # In the main thread the launcher would handle signals, and kill the ranks after 30 seconds. It warns of the
        # missing handlers at every start, although `signals_forwarded` has its own.
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)
        with signals_forwarded(), ThreadPoolExecutor(1) as thread:
            answers = thread.submit(elastic_launch(settings, train_rank), config, str(directory), pause).result()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise RuntimeError(f"process {rank} of {ranks} ended with status {failure.exitcode}") from None
    errors = [error for _, error in (answers[rank] for rank in range(ranks)) if error is not None]
    if errors:  # a rank that has lost another one says less than that other one
        raise min(errors, key=lambda error: isinstance(error, LostPeer))
    return answers[0][0]


def train_rank(
    config: dict[str, Any], directory: str, pause: int | None
) -> tuple[dict[str, Any], BaseException | None]:
    """Train a run as one of several processes, and return a pair: the content of summary.json, and None.

    After an error the pair is {} and the error: if a process raised its error, the launcher would kill the others.
    """
    from imbalance.training.loop import train

    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        try:
            return train(config, directory, pause=pause), None
        except (BadInput, Diverged, Interrupted, OSError) as error:
            return {}, error
        except Exception:  # of a kind that may not survive the way to the process that asked
            return {}, RuntimeError(traceback.format_exc().strip())


@contextlib.contextmanager
def signals_forwarded() -> Iterator[None]:
    """Return a context manager in which this process passes signals that ask it to stop on to its child processes."""

    def forward(signum: int, _frame: object) -> None:
        for child in multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid or 0, signum)

    handlers = on_stop(forward)
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
