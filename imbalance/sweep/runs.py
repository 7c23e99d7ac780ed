"""Train many runs, several at a time, on one machine.

Each run has the same run directory as under `imbalance train`. Only the run directory tells whether a run is done: a
finished run is read, and a stopped run is resumed, whichever command started it.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import pairwise
from math import ceil, isnan, nan
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.config.experiment import Experiment
from imbalance.config.resolve import config_file, config_name_and_overrides, resolve
from imbalance.errors import BadInput, Busy, Damaged, Diverged
from imbalance.metrics.intervals import bounds
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.report.saved_runs import Summary, summary_of
from imbalance.sweep.ranks import train_on_ranks
from imbalance.sweep.status_line import QUIET, StatusLine, status_text
from imbalance.utils import workers
from imbalance.utils.files import removes_new_folders
from imbalance.utils.output import counted

SAVE_EVERY = 30.0  # seconds between two writes of a table of results
END_AFTER = 5.0  # seconds that workers have to end by themselves after a refusal, so that refused runs remove folders


class Run(NamedTuple):
    """A validated config and its run directory."""

    config: Experiment
    directory: Path


def make_run(path: str | Path, overrides: Mapping[str, Any], seed: int, work_dir: str) -> Run:
    """Return the validated config and the run directory of a config file with overrides.

    Args:
        path: a config file, or the name of one in configs/.
        overrides: config values by key, such as {"optim.lr": 0.1}. An `OverrideText` is parsed as on the command line.

    Raises:
        BadInput: the file or a key does not exist, or a value has the wrong type or is out of range; or only a program
            can train the run, because its data are "in_memory", and the run is not done.
    """
    run = Run(*resolve(path, {**overrides, "work_dir": work_dir, "seed": seed}))
    if run.config.data.name == "in_memory" and not is_done(run.directory):
        from imbalance.data.sets.in_memory import in_memory

        in_memory()  # raise `BadInput` here, before a study or a folder is made
    return run


def is_done(directory: Path) -> bool:
    """Return whether the run in a run directory is done; a run whose summary.json is damaged is not, and trains again."""
    with contextlib.suppress(FileNotFoundError, Damaged):
        return summary_of(directory)["status"] == "done"
    return False


def check_common_overrides(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the overrides unchanged, after a check that they set neither the seed nor the work_dir.

    Raises:
        BadInput: `overrides` has the key "seed" or "work_dir".
    """
    for key, flag in (("seed", "--seeds"), ("work_dir", "--work_dir")):
        if key in overrides:
            raise BadInput(f"--config.{key} cannot be set for many runs at once; type {flag}=<value> instead")
    return overrides


def add_own_values(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that all runs have in common together with a run's own values, which replace none of them.

    Args:
        common: overrides that the user gave.
        own: values that the command sets for this run.

    Raises:
        BadInput: `own` has the key of an override, or its section.
    """
    for key in common:
        if owner := next((other for other in own if f"{key}.".startswith(f"{other}.")), ""):
            raise BadInput(f"set no config.{key}: this command sets config.{owner} itself, for each of its runs")
    return {**common, **own}


def check_config_names(config: Sequence[str]) -> None:
    """Raise `BadInput` if two different config files have the same name, and therefore the same run directories.

    Args:
        config: config files or names.
    """
    files: dict[tuple[str, tuple[str, ...]], Path] = {}
    for path in map(config_file, config):
        other = files.setdefault(config_name_and_overrides(path), path)
        if other.resolve() != path.resolve():
            raise BadInput(
                f"--config: {other} and {path} have the same name, so their runs would share run directories; give one of "
                "the files another name"
            )


def run_all(runs: Sequence[Run], jobs: int, stacked: int) -> list[Summary]:
    """Train the runs that are not done yet, and return the summaries of all runs in order.

    A run that diverged earlier is trained again. A summary with the status "diverged" has no metrics.

    Args:
        jobs: number of worker processes.
        stacked: largest number of runs that one process trains together as one stacked model.
    """
    unique = list({run.directory: run for run in runs}.values())
    summaries = run_batches(make_batches(unique, jobs, stacked), jobs)
    return [summaries[run.directory] for run in runs]


def run_batches(
    batches: Sequence[Sequence[Run]], jobs: int, on_finish: Callable[[Sequence[Run]], None] = lambda runs: None
) -> dict[Path, Summary]:
    """Train batches of runs in worker processes, and return the summary of each run by its run directory.

    Args:
        batches: lists of runs; the runs of a list are trained as one stacked model.
        jobs: number of worker processes.
        on_finish: function that this process calls with the runs of a batch when they are finished, while other batches
            go on.
    """
    runs, summaries = [run for batch in batches for run in batch], {}
    done_before = {run.directory for run in runs if is_done(run.directory)}
    lowest = bounds(runs[0].config.score)[0]
    # Workers make the folders of each other's runs, so remove these folders here if all runs are refused.
    made = removes_new_folders(runs[0].directory)
    with made, worker_pool(min(len(batches), jobs)) as pool, StatusLine() as line:
        pending = {pool.submit(train_quietly, batch): batch for batch in batches}
        reported = set()
        while True:
            scores: dict[str, list[float]] = {}
            for directory, summary in summaries.items():
                setting = "/".join(directory.parts[-3:-1])
                score = nan if summary["score"] is None else summary["score"]
                if summary["status"] != "done" or not isnan(score):  # a score without a value is no divergence
                    scores.setdefault(setting, []).append(score)
            running = sum(map(len, list(pending.values())[:jobs]))
            read = len(done_before & summaries.keys())
            text = status_text(len(runs), len(summaries), read, running, scores, line.seconds, lowest)
            line.show(text, len(summaries), last=not pending)
            if not pending:
                return summaries
            finished, _ = wait(pending, timeout=QUIET, return_when=FIRST_COMPLETED)
            for future in finished:
                batch = pending.pop(future)
                try:
                    new = future.result()  # raises on bad input, which ends the whole command
                except Busy as error:
                    if str(error) not in reported:
                        reported.add(str(error))
                        print(f"{error}; this run is tried again later", file=sys.stderr, flush=True)
                    # Only one run of the batch is busy, so submit the runs one by one: the other runs need not wait.
                    pending |= {
                        pool.submit(train_later, run, str(run.directory) == error.args[0]): [run] for run in batch
                    }
                    continue
                summaries |= {run.directory: summary for run, summary in zip(batch, new)}
                on_finish(batch)


def run_and_keep(
    batches: Iterable[list[Run]],
    jobs: int,
    table: str,
    folder: Path,
    identity: Sequence[str],
    to_row: Callable[[Path], Row | None] = kept_results.row_of,
    own_columns: Sequence[str] = (),
) -> None:
    """Train the runs that have no row in <folder>/<table>.csv.gz, and add a row for each trained run.

    Rows are added every SAVE_EVERY seconds, so that a stop loses little. Before training, raise `BadInput` if the code has
    uncommitted changes, or if the row of a run differs from the run in a config value that is no column of `identity`.
    Also raise it if a run that was finished earlier has code that cannot be checked out.

    Args:
        batches: lists of runs; the runs of a list are trained as one stacked model.
        jobs: number of worker processes.
        table: name of the table, such as "pairs".
        folder: folder that holds the tables of results, such as results/.
        identity: columns of the table that tell the runs of the experiment apart. All other config values must be equal,
            or the tables and figures of the experiment would mix settings.
        to_row: function from the directory of a finished run to its row.
        own_columns: columns of the table that have the name of a column of `kept_results.row_of`, but another meaning.
    """

    def identity_of(row: Row) -> tuple[str, ...]:
        return tuple(row[column] for column in identity)

    def is_kept(run: Run) -> bool:
        name, overrides = run.directory.parts[-3:-1]
        config = run.config.to_dict()
        cells = {"name": name, "overrides": overrides, "seed": run.config.seed, **kept_results.settings(config)}
        row = {column: kept_results.text(value) for column, value in cells.items() if column not in own_columns}
        rows = kept.get(identity_of(row), [])
        if any(other.get(kept_results.CONFIG_DIGESTS) for other in rows):
            row[kept_results.CONFIG_DIGESTS] = kept_results.config_digests(config)
        for other in rows:
            if changed := kept_results.differences(row, other):
                raise BadInput(
                    f"{kept_results.file_of(table, folder)} has the row of another run of {name}, seed {run.config.seed}: "
                    f"{', '.join(changed)}; type --results=<another folder> for runs with other values"
                )
        return bool(rows)

    from imbalance.training.state.provenance import clean_commit  # here, because it imports torch

    kept: dict[tuple[str, ...], list[Row]] = {}
    for row in kept_results.read(table, folder):
        kept.setdefault(identity_of(row), []).append(row)
    missing = [[run for run in batch if not is_kept(run)] for batch in batches]
    missing = [batch for batch in missing if batch]
    if not missing:
        return
    clean_commit()  # refuse before training, rather than after it
    finished: list[Run] = []
    saved = time.monotonic()

    def save() -> None:
        rows = list(filter(None, (to_row(run.directory) for run in finished)))
        for row in rows:  # a run that was finished earlier may have code that was never committed
            kept_results.check_row(row)
        kept_results.add(table, folder, rows, packed=True)
        finished.clear()

    def on_finish(runs: Sequence[Run]) -> None:
        nonlocal saved
        finished.extend(runs)
        if time.monotonic() - saved >= SAVE_EVERY:
            save()
            saved = time.monotonic()

    # One call for all batches, because a call starts new processes, which takes longer than a short run.
    try:
        run_batches(missing, jobs, on_finish)
    finally:  # a command that is stopped keeps the batches that are done
        save()


def train_later(run: Run, busy: bool) -> list[Summary]:
    """Train one run, and return its summary in a list.

    Args:
        busy: True to wait a second before training, because another process is training the run.
    """
    time.sleep(busy)
    return train_quietly([run])


def make_batches(runs: Sequence[Run], jobs: int, stacked: int) -> list[list[Run]]:
    """Divide the runs into batches, each to be trained as one stacked model.

    A run that cannot be stacked, or is not faster when stacked, gets a batch of its own. The other batches have at most
    `stacked` runs, and fewer if that keeps all `jobs` processes busy. The runs of a batch stand in the order of `runs`,
    and the batches are in the order of their first runs.
    """
    alike_runs: dict[Any, list[int]] = {}
    for i, run in enumerate(runs):
        alike_runs.setdefault(batch_key(run) or i, []).append(i)
    batches = []
    for alike in alike_runs.values():
        parts = min(len(alike), max(ceil(len(alike) / stacked), ceil(jobs * len(alike) / len(runs))))
        cuts = [ceil(len(alike) * part / parts) for part in range(parts + 1)]
        batches += [alike[start:stop] for start, stop in pairwise(cuts)]
    return [[runs[i] for i in batch] for batch in sorted(batches)]


def batch_key(run: Run) -> str | None:
    """Return a key that is equal for runs to train as one stacked model; None for a run to train by itself."""
    from imbalance.training.stacked.train import gains_from_batching, in_common

    return in_common(run.config) if gains_from_batching(run.config) else None


def train_quietly(runs: Sequence[Run], pause: int | None = None, processes: int = 1) -> list[Summary]:
    """Train one run, or several as one stacked model, and return the content of each summary.json.

    Nothing is printed on stdout; the output of a run is in its log.txt. A diverged run has a summary too. If the memory
    is too small for all runs at once, train half of them to the end, then the other half, each from its checkpoint.

    Args:
        pause: number of epochs after which a run pauses, with the status "interrupted"; None to train to the end.
        processes: number of processes that train a run together; with more than one, there is exactly one run.
    """
    from imbalance.training.loop import train
    from imbalance.training.oom_retry import suppress_out_of_memory
    from imbalance.training.stacked.train import train_stacked

    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        if len(runs) > 1:
            with suppress_out_of_memory():
                return train_stacked(runs, pause)
            print(
                f"out of memory for {len(runs)} stacked runs; going on with half as many", file=sys.stderr, flush=True
            )
            half = len(runs) // 2
            return [*train_quietly(runs[:half], pause), *train_quietly(runs[half:], pause)]
        (run,) = runs
        try:
            if processes > 1:
                return [train_on_ranks(run.config.to_dict(), run.directory, processes, pause)]
            return [train(*run, pause=pause)]
        except Diverged:
            return [summary_of(run.directory)]


@contextlib.contextmanager
def worker_pool(n: int, processes: int = 1) -> Iterator[workers.WorkerPool]:
    """Return a context manager for a pool of `n` new processes, the workers, which end when this process ends.

    The workers share the machine's cores and GPUs. Each worker gets an equal share of the cores as threads, but at
    most OMP_NUM_THREADS if that is set. Each worker sees one GPU, or none if the machine has none. With fewer GPUs
    than workers, several workers share a GPU. With more GPUs than workers, some GPUs stay idle.

    If an exception leaves the context, no further call begins. The workers have END_AFTER seconds to end their calls. Then
    SIGTERM ends the workers that still run, so that no file changes after the exception.

    Args:
        processes: number of processes that train a run of a worker together. If it is above 1 and the machine has GPUs,
            each worker sees this number of GPUs, and shares them with no other worker.

    Raises:
        BadInput: the machine has too few GPUs, or too few cores if it has no GPU, for the processes of all workers.
    """
    gpus = shares_of_gpus(_visible_gpus(), n, processes)
    before = os.environ.get("OMP_NUM_THREADS")
    share = max(1, (os.cpu_count() or 1) // (n * processes))
    os.environ["OMP_NUM_THREADS"] = str(min(share, int(before)) if before else share)
    try:
        until_closed, end_of_pool = workers.SPAWN.Pipe(duplex=False)
        arguments = workers.SPAWN.Value("i", 0), gpus, until_closed
        with until_closed, end_of_pool, workers.WorkerPool(n, _begin, arguments) as pool:
            try:
                yield pool
            except BaseException:
                timer = threading.Timer(END_AFTER, end_of_pool.close)
                timer.start()
                pool.shutdown(wait=True, cancel_futures=True)
                timer.cancel()
                timer.join()
                raise
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _begin(counter, gpus: list[str], until_closed: Connection) -> None:
    """Set up a worker process: choose its GPU, and end the worker when its parent ends or closes a pipe.

    Args:
        counter: number of workers that have begun, shared by all workers.
        gpus: values of CUDA_VISIBLE_DEVICES, of which each worker takes the next, and after the last the first again.
        until_closed: end of the pipe to read from.
    """
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    threading.Thread(target=_end_with_parent, args=(until_closed,), daemon=True).start()


def _end_with_parent(until_closed: Connection) -> None:
    """Wait for the parent process to end or to close a pipe, then send SIGTERM to this process until it ends.

    A killed parent cannot stop its workers. At the first signal a worker saves a checkpoint, at the second it ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker, which has a parent"
    wait_for_any([parent.sentinel, until_closed])
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def shares_of_gpus(gpus: Sequence[str], workers: int, processes: int) -> list[str]:
    """Return a list of values of CUDA_VISIBLE_DEVICES, of which each worker takes the next; [] without GPUs.

    A value names one GPU for each of the `processes`. If the list is shorter than `workers`, it starts over.

    Args:
        gpus: ids of the GPUs that this process sees.
        workers: number of workers.
        processes: number of processes that train a run of a worker together.

    Raises:
        BadInput: there are too few GPUs, or too few cores on a machine without GPUs.
    """
    if processes == 1:
        return list(gpus)
    units, what = (len(gpus), "GPU") if gpus else (os.cpu_count() or 1, "core")
    if workers * processes > units and (gpus or workers > 1):  # one run may have more processes than there are cores
        fits = (
            f"type --jobs={units // processes}" if units >= processes else f"type --processes_per_run={units} --jobs=1"
        )
        raise BadInput(
            f"--processes_per_run={processes} with {counted(workers, 'worker')} needs {workers * processes} {what}s, but this "
            f"machine has {units}; {fits}"
        )
    return [",".join(gpus[i : i + processes]) for i in range(0, len(gpus) - processes + 1, processes)]


def _visible_gpus() -> list[str]:
    """Return the GPUs in CUDA_VISIBLE_DEVICES, or all GPUs of the machine if that is not set."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
