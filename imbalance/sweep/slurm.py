"""Run the workers of an Optuna study as an array of Slurm jobs, by submitit.

A job writes a checkpoint when Slurm asks it to stop. A preempted or requeued job resumes its trial from that checkpoint. A
job whose time is up asks Slurm to requeue it. A cancelled job is not requeued, and another job resumes its trial.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from imbalance.errors import BadInput, Interrupted
from imbalance.sweep.study import Search, StudyLocation, work
from imbalance.utils.package import ROOT


class Worker:
    """Train trials of the study in one Slurm job, and requeue the job when its time is up."""

    def __init__(self, location: StudyLocation, search: Search | None, workers: int, stacked: int):
        self.location, self.search, self.workers, self.stacked = location, search, workers, stacked

    def __call__(self) -> int:
        out_of_time = []

        # submitit makes Slurm send SIGUSR2 before the time is up, and the training loop stops at SIGUSR1.
        def stop_training(*_: object) -> None:
            out_of_time.append(True)
            signal.raise_signal(signal.SIGUSR1)

        signal.signal(signal.SIGUSR2, stop_training)
        try:
            return work(self.location, self.search, False, self.workers, self.stacked)
        except Interrupted:
            if out_of_time:
                task = os.environ["SLURM_ARRAY_JOB_ID"] + "_" + os.environ["SLURM_ARRAY_TASK_ID"]
                subprocess.run(["scontrol", "requeue", task], check=True)
            raise


def run(location: StudyLocation, search: Search | None, jobs: int, stacked: int, parameters: Sequence[str]) -> int:
    """Submit `jobs` Slurm jobs with a worker each, wait until all have ended, and return the number of crashed trials.

    Ctrl-C ends the wait, and the jobs go on.

    Args:
        parameters: parameters for submitit, such as "timeout_min=60".
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise BadInput(
            "--launcher=slurm needs submitit, which is not installed; type pip install -c constraints.txt -e '.[sweep]'"
        ) from None
    folder = (location.folder / "slurm").absolute()
    settings: dict[str, Any] = {
        "timeout_min": 24 * 60, "cpus_per_task": 1, "slurm_array_parallelism": jobs, "slurm_job_name": location.name,
        "slurm_additional_parameters": {"requeue": True},
        # Jobs start in the folder of the submission, which may be another one, so name the package's folder.
        "slurm_setup": [f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}", "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"],
    }  # fmt: skip
    for text in parameters:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(
                f"--slurm={text} has no value; type --slurm=<parameter>=<value>, such as --slurm=timeout_min=60"
            )
        settings[key] = int(value) if value.isdigit() else value
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(**settings)
        with executor.batch():
            sent = [executor.submit(Worker(location, search, jobs, stacked)) for _ in range(jobs)]
    except (RuntimeError, NameError, TypeError, FailedJobError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"--launcher=slurm cannot submit the jobs: {reason}; jobs are submitted by sbatch with the parameters in --slurm. "
            "Type the command on a machine with sbatch, correct --slurm, or type --launcher=local"
        ) from None
    array = sent[0].job_id.split("_")[0]
    print(
        f"submitted Slurm array {array} of {jobs} jobs; their output is in {folder}; to stop them, type: scancel {array}",
        file=sys.stderr,
    )
    while _queued(array):
        time.sleep(2)
    # A cancelled job has no result. Its trial stays unfinished in the study, so another job can resume it.
    return sum(job.result() for job in sent if job.paths.result_pickle.exists() and job.exception() is None)


def _queued(array: str) -> bool:
    """Return True while any job of the array is waiting or running."""
    listed = subprocess.run(["squeue", "--noheader", "--jobs", array], capture_output=True, text=True)
    return bool(listed.stdout.strip())
