"""Start the workers of an Optuna study, on this machine or as a Slurm array."""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait

from imbalance.errors import BadInput
from imbalance.sweep import study
from imbalance.sweep.runs import worker_pool
from imbalance.sweep.status_line import INTERVAL, StatusLine, status_text
from imbalance.sweep.study import Search, StudyLocation


def launch(
    location: StudyLocation, search: Search | None, jobs: int, stacked: int, launcher: str, slurm: Sequence[str]
) -> int:
    """Start workers that train the trials of an Optuna study, wait for them, and return the number of crashed trials.

    Args:
        search: search space from which Optuna adds trials; None if the study has all its trials already.
        jobs: number of workers.
        stacked: largest number of trials that one worker trains as one stacked model.
        launcher: "local", or "slurm" for an array of jobs.
        slurm: parameters for submitit, such as "timeout_min=60".
    """
    if launcher == "slurm":
        from imbalance.sweep import slurm as cluster

        return cluster.run(location, search, jobs, stacked, slurm)
    if slurm:
        raise BadInput(
            f"--slurm={slurm[0]} has an effect on a cluster only; add --launcher=slurm, or leave --slurm out"
        )
    with worker_pool(jobs) as pool:
        workers = [pool.submit(study.work, location, search, True, jobs, stacked) for _ in range(jobs)]
        show_status(location, workers, jobs)
        return sum(worker.result() for worker in workers)


def show_status(location: StudyLocation, workers: Sequence[Future], jobs: int) -> None:
    """Show how many trials are done, every few seconds, until the workers have ended."""
    done_before = None
    with StatusLine() as line:
        while True:
            pending = wait(workers, timeout=INTERVAL, return_when=FIRST_EXCEPTION).not_done
            if any(worker.done() and worker.exception() for worker in workers):
                return  # `launch` raises the exception
            trials = study.points_of(study.open_study(location))
            scores: dict[str, list[float]] = {}
            for point, trial in trials:
                setting = ", ".join(f"{key}={value}" for key, value in point.items() if key != "seed")
                if trial.value is not None:
                    scores.setdefault(setting, []).append(trial.value)
            done = sum(study.status(trial) != "unfinished" for _, trial in trials)
            done_before = done if done_before is None else done_before
            running = min(jobs, len(trials) - done) if pending else 0
            text = status_text(len(trials), done, done_before, running, scores, line.seconds)
            line.show(text, last=not pending)
            if not pending:
                return
