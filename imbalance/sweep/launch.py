"""Start the workers of an Optuna study, on this machine or as a Slurm array."""

import math
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path

from imbalance.config.resolve import resolve
from imbalance.errors import BadInput
from imbalance.metrics.intervals import bounds
from imbalance.sweep import study as studies
from imbalance.sweep.runs import worker_pool
from imbalance.sweep.status_line import INTERVAL, StatusLine, status_text
from imbalance.sweep.storage import StudyLocation, open_study
from imbalance.sweep.study import Search
from imbalance.sweep.worker import work

SHARE_OF_READING = 0.05  # share of its time for which the status line may read the study


def launch(
    location: StudyLocation,
    search: Search | None,
    jobs: int,
    stacked: int,
    launcher: str,
    slurm: Sequence[str],
    processes: int = 1,
    wanted: Callable[[studies.Point], bool] = lambda point: True,
) -> None:
    """Start workers that train the study's trials, and wait until no trial is left.

    If no trial is left, start no worker.

    Args:
        search: search space from which Optuna adds trials; None if all trials of the study are already in it.
        jobs: number of workers; fewer are started if fewer trials are left.
        stacked: largest number of trials that one worker trains together as one stacked model.
        launcher: "local", or "slurm" for an array of jobs.
        slurm: parameters for submitit, such as "timeout_min=60".
        processes: number of processes that train each trial together; with more than one, no trials are stacked.
        wanted: whether this command asked for a point of the study; the status leaves out finished trials of other points.
    """
    stacked = stacked if processes == 1 else 1
    if slurm and launcher != "slurm":
        raise BadInput(
            f"--slurm={slurm[0]} has an effect on a cluster only; add --launcher=slurm, or leave --slurm out"
        )
    ended, left = studies.count_ended_and_left(location, search)
    jobs = min(jobs, left)
    if not jobs:
        return
    if launcher == "slurm":
        from imbalance.sweep import slurm as cluster

        cluster.run(location, search, jobs, stacked, slurm, processes)
        return
    trials = studies.points_of(open_study(location))
    others = {trial.number for point, trial in trials if studies.has_ended(trial) and not wanted(point)}
    with worker_pool(jobs, processes) as pool:
        workers = [pool.submit(work, location, search, True, jobs, stacked, processes) for _ in range(jobs)]
        show_status(location, workers, jobs, ended - len(others), left, others)
        for worker in workers:
            worker.result()  # raises what the worker raised


def train_in_study(
    location: StudyLocation,
    points: list[studies.Point],
    jobs: int,
    stacked: int,
    launcher: str,
    slurm: Sequence[str],
) -> list[Path]:
    """Add points to a study, train those that are not done yet, and return the run directory of each point.

    Args:
        points: config, overrides and seed of each run.
        jobs, stacked, launcher, slurm: as for `launch`.

    Raises:
        BadInput: trials are unfinished or crashed.
    """
    studies.add(location, points)
    keys = {studies.key_of(point) for point in points}
    launch(location, None, jobs, stacked, launcher, slurm, wanted=lambda point: studies.key_of(point) in keys)
    trials = {studies.canonical(point): trial for point, trial in studies.points_of(studies.open_study(location))}
    of_points = [trials[studies.canonical(point)] for point in points]
    unfinished = sum(studies.status(trial) not in ("done", "diverged") for trial in of_points)
    if unfinished:
        raise BadInput(
            f"{unfinished} of {len(points)} trials are unfinished; type the same command again to resume them"
        )
    return [Path(studies.result(trial)["run_directory"]) for trial in of_points]


def show_status(
    location: StudyLocation,
    workers: Sequence[Future],
    jobs: int,
    done_before: int,
    left: int,
    others: Set[int] = frozenset(),
) -> None:
    """Show how many trials are done, every few seconds, until the workers have ended.

    Args:
        workers: futures of the worker processes.
        jobs: number of workers, by which the remaining time is estimated.
        done_before: number of trials that had ended before the workers began, without those in `others`.
        left: number of trials to train, also of those that a search has yet to add.
        others: numbers of ended trials that this command did not ask for, which the status leaves out.
    """
    study, lowest, pending = open_study(location), None, set(workers)
    with StatusLine() as line:
        while True:
            if any(worker.done() and worker.exception() for worker in workers):
                return  # `launch` raises the exception
            began = time.monotonic()
            trials = studies.points_of(study)
            trials = [(point, trial) for point, trial in trials if not others or trial.number not in others]
            scores: dict[str, list[float]] = {}
            for point, trial in trials:
                if lowest is None:
                    lowest, _ = bounds(point.get("score") or resolve(point["config"], {})[0].score)
                if studies.status(trial) in ("done", "diverged"):
                    setting = ", ".join(f"{key}={value}" for key, value in point.items() if key != "seed")
                    scores.setdefault(setting, []).append(math.nan if trial.value is None else trial.value)
            done = sum(studies.has_ended(trial) for _, trial in trials)
            total = max(len(trials), done_before + left)
            running = min(jobs, total - done) if pending else 0
            text = status_text(total, done, done_before, running, scores, line.seconds, lowest or 0.0)
            line.show(text, done, last=not pending)
            if not pending:
                return
            interval = max(INTERVAL, (time.monotonic() - began) / SHARE_OF_READING)
            pending = wait(workers, timeout=interval, return_when=FIRST_EXCEPTION).not_done
