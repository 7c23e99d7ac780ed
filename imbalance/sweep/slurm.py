"""Workers as an array of Slurm jobs, by submitit.

A job that Slurm preempts or requeues takes up its trial again, from the checkpoint that it wrote when it was asked to
stop; one whose time is up asks for a requeue itself. A job that is cancelled stays cancelled, and the others take up
its trial.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from imbalance.errors import BadInput, Interrupted
from imbalance.sweep.study import Place, Search, work
from imbalance.utils.package import ROOT


class Worker:
    """What runs in each job."""

    def __init__(self, place: Place, search: Search | None, workers: int, at_once: int):
        self.place, self.search, self.workers, self.at_once = place, search, workers, at_once

    def __call__(self) -> int:
        out_of_time = []

        def warn(*_) -> None:  # submitit asks Slurm for SIGUSR2 before the time is up; the loop stops at SIGUSR1
            out_of_time.append(True)
            signal.raise_signal(signal.SIGUSR1)

        signal.signal(signal.SIGUSR2, warn)
        try:
            return work(self.place, self.search, False, self.workers, self.at_once)
        except Interrupted:
            if out_of_time:
                task = os.environ["SLURM_ARRAY_JOB_ID"] + "_" + os.environ["SLURM_ARRAY_TASK_ID"]
                subprocess.run(["scontrol", "requeue", task], check=True)
            raise


def run(place: Place, search: Search | None, jobs: int, at_once: int, parameters: Sequence[str]) -> int:
    """Submit `jobs` workers and wait until all have ended. Ctrl-C leaves them running."""
    try:
        import submitit
    except ImportError:
        raise BadInput("submitit is not installed; pip install -c constraints.txt -e '.[sweep]'") from None
    folder = (place.folder / "slurm").absolute()
    settings: dict[str, Any] = {
        "timeout_min": 24 * 60, "cpus_per_task": 1, "slurm_array_parallelism": jobs, "slurm_job_name": place.name,
        "slurm_additional_parameters": {"requeue": True},
        # Jobs start where they were submitted, which need not be here.
        "slurm_setup": [f"export PYTHONPATH={ROOT}:$PYTHONPATH", "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"],
    }  # fmt: skip
    for text in parameters:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--slurm={text}: not <parameter>=<value>")
        settings[key] = int(value) if value.isdigit() else value
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(**settings)
        with executor.batch():
            sent = [executor.submit(Worker(place, search, jobs, at_once)) for _ in range(jobs)]
    except (RuntimeError, NameError, TypeError, submitit.core.utils.FailedJobError) as error:
        raise BadInput(f"--launcher=slurm: {' '.join(str(error).split())}") from None
    array = sent[0].job_id.split("_")[0]
    print(
        f"Slurm array {array} of {jobs} jobs; what they print is in {folder}; to stop them: scancel {array}",
        file=sys.stderr,
    )
    while _queued(array):
        time.sleep(2)
    # A job that was cancelled has no result; what it left shows in the study.
    return sum(job.result() for job in sent if job.paths.result_pickle.exists() and job.exception() is None)


def _queued(array: str) -> bool:
    """Whether any job of the array is waiting or running. (sacct knows more, where accounting is kept.)"""
    listed = subprocess.run(["squeue", "--noheader", "--jobs", array], capture_output=True, text=True)
    return bool(listed.stdout.strip())
