"""Many runs: each an ordinary run directory that main.py could have made, several at a time on one machine.

The directory is the only truth about a run: what is done is read, what is half done goes on, whoever asks.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from math import ceil, nan
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.config.experiment import Experiment
from imbalance.config.resolve import resolve
from imbalance.errors import BadInput, Busy, Diverged
from imbalance.report.saved_runs import Summary, summary_of
from imbalance.sweep.progress import Line, standing

JOBS = os.cpu_count() or 1  # runs at a time, by default; they divide cores and GPUs
AT_ONCE = 16  # most runs that differ in seed, rate and weights only to train as one batched model, where that is faster


class Run(NamedTuple):
    config: Experiment
    directory: Path


def configured(path: str | Path, overrides: Mapping[str, Any], seed: int, work_dir: str) -> Run:
    """A config file, or the name of one in configs/, with `overrides` such as {"optim.lr": 0.1}, and what is `Written`.

    Raises:
        BadInput: there is no such file or key, or a value is of the wrong type or out of range.
    """
    return Run(*resolve(path, {**overrides, "work_dir": work_dir, "seed": seed}))


def not_of_seeds(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """`overrides` that are common to many runs, which have other flags for two keys."""
    for key, flag in (("seed", "--seeds"), ("work_dir", "--work_dir")):
        if key in overrides:
            raise BadInput(f"--config.{key}: say {flag} instead")
    return overrides


def run_all(runs: Sequence[Run], jobs: int, at_once: int) -> list[Summary]:
    """Train what is not done yet, by `jobs` processes of up to `at_once` runs, and return the summaries in order.

    A diverged run is tried again and returns its summary too, without metrics: look at `status`.
    """
    found = run_batches(divided(list({run.directory: run for run in runs}.values()), jobs, at_once), jobs)
    return [found[run.directory] for run in runs]


def run_batches(batches: Sequence[Sequence[Run]], jobs: int) -> dict[Path, Summary]:
    """Train what is not done yet, the runs of a batch at once, by `jobs` processes; the summary of each run directory."""
    runs, found = [run for batch in batches for run in batch], {}
    before = {run.directory for run in runs if (run.directory / "summary.json").exists()}
    with workers(min(len(batches), jobs)) as pool, Line() as line:
        waiting = {pool.submit(train_quietly, batch): batch for batch in batches}
        reported = set()
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                batch = waiting.pop(future)
                try:
                    summaries = future.result()  # a user's mistake ends it all at once
                except Busy as error:
                    if str(error) not in reported:
                        reported.add(str(error))
                        print(f"{error}; its turn comes again", file=sys.stderr, flush=True)
                    # By themselves, so that the others of a batch need not wait for it.
                    waiting |= {
                        pool.submit(train_later, run, str(run.directory) == error.args[0]): [run] for run in batch
                    }
                    continue
                found |= {run.directory: summary for run, summary in zip(batch, summaries)}
                scores: dict[str, list[float]] = {}
                for directory, summary in found.items():
                    setting = "/".join(directory.parts[-3:-1])
                    scores.setdefault(setting, []).append(nan if summary["score"] is None else summary["score"])
                running = min(jobs, len(waiting))
                early = len(before & found.keys())
                line.show(standing(len(runs), len(found), early, running, scores, line.seconds), last=not waiting)
    return found


def train_later(run: Run, held: bool) -> list[Summary]:
    """`train_quietly` of one run, after a second where another process held it."""
    time.sleep(held)
    return train_quietly([run])


def divided(runs: Sequence[Run], jobs: int, at_once: int) -> list[list[Run]]:
    """The runs in batches to be trained at once: of one where that cannot be or gains nothing, else as large as `at_once`
    and `jobs` workers that are all to be busy allow."""
    together: dict[Any, list[Run]] = {}
    for i, run in enumerate(runs):
        together.setdefault(batch_key(run) or i, []).append(run)
    batches = []
    for alike in together.values():
        parts = max(ceil(len(alike) / at_once), ceil(jobs * len(alike) / len(runs)))
        batches += [alike[i::parts] for i in range(parts)]
    return batches


def batch_key(run: Run) -> str | None:
    """The same for runs that are faster at once; None for one that is not."""
    from imbalance.training.stacked.train import gains_from_batching, in_common

    return in_common(run.config) if gains_from_batching(run.config) else None


def train_quietly(runs: Sequence[Run]) -> list[Summary]:
    """Train one run, or several at once, without a word (log.txt has them); summaries of diverged runs are returned too."""
    from imbalance.training.loop import train
    from imbalance.training.stacked.train import train_stacked

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        if len(runs) > 1:
            return train_stacked(runs)
        try:
            return [train(*runs[0])]
        except Diverged:
            return [summary_of(runs[0].directory)]


@contextlib.contextmanager
def workers(n: int) -> Iterator[ProcessPoolExecutor]:
    """`n` fresh processes that divide the machine's cores and GPUs, and end with this one however it ends.

    Where OMP_NUM_THREADS is set, none has more threads than it says. Each sees one GPU, or none where there is none.
    Where GPUs are fewer than processes, several share one; where they are more, some stay idle: a run that is to have
    several is for `torchrun main.py`.
    """
    gpus = _gpus()
    spawn = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads
    before = os.environ.get("OMP_NUM_THREADS")
    share = max(1, (os.cpu_count() or 1) // n)
    os.environ["OMP_NUM_THREADS"] = str(min(share, int(before)) if before else share)
    try:
        with ProcessPoolExecutor(n, spawn, initializer=_begin, initargs=(spawn.Value("i", 0), gpus)) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _begin(counter, gpus: list[str]) -> None:
    """In each worker: take a GPU, and watch the parent."""
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot stop its workers: they save a checkpoint at the first signal and then end."""
    multiprocessing.parent_process().join()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lists, or all GPUs there are."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
