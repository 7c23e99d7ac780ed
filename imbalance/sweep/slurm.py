"""Run the workers of an Optuna study as an array of Slurm jobs, which the package submitit submits.

A job writes a checkpoint when Slurm asks it to stop. A preempted or requeued job resumes its trial from that
checkpoint. A job whose time is up asks Slurm to requeue it. A cancelled job is not requeued, and another job resumes
its trial.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imbalance.errors import BadInput, Interrupted
from imbalance.sweep.storage import StudyLocation, open_study
from imbalance.sweep.study import Search
from imbalance.sweep.worker import work
from imbalance.utils.optional import optional
from imbalance.utils.output import one_line
from imbalance.utils.package import ROOT

SQUEUE_SECONDS = 5.0  # time until squeue is asked again after it failed
ARRAY = "slurm array"  # attribute of the study: number of the array that was submitted last


class Worker:
    """Train trials of the study in one Slurm job, and requeue the job when its time is up."""

    def __init__(self, location: StudyLocation, search: Search | None, workers: int, stacked: int, processes: int):
        self.arguments = location, search, False, workers, stacked, processes

    def __call__(self) -> None:
        out_of_time = []

        # submitit makes Slurm send SIGUSR2 before the time is up, and the training loop stops at SIGUSR1.
        def stop_training(*_: object) -> None:
            out_of_time.append(True)
            signal.raise_signal(signal.SIGUSR1)

        signal.signal(signal.SIGUSR2, stop_training)
        try:
            work(*self.arguments)
        except Interrupted:
            if out_of_time:
                task = os.environ["SLURM_ARRAY_JOB_ID"] + "_" + os.environ["SLURM_ARRAY_TASK_ID"]
                subprocess.run(["scontrol", "requeue", task], check=True)
            raise


def run(
    location: StudyLocation,
    search: Search | None,
    jobs: int,
    stacked: int,
    parameters: Sequence[str],
    processes: int = 1,
) -> None:
    """Submit an array of `jobs` Slurm jobs, each with one worker, and wait until all have ended.

    If an earlier array of this study is queued or running, wait for that array, and submit none. Ctrl-C ends the
    wait, but not the jobs.

    Args:
        search: search space from which Optuna adds trials; None if the study has all its trials already.
        stacked: largest number of trials that one worker trains together as one stacked model.
        parameters: parameters for submitit, such as "timeout_min=60".
        processes: number of processes that train each trial together, in one job.
    """
    study, name = open_study(location), location.name.replace(",", "+")  # squeue separates names by commas
    array, sent = study.user_attrs.get(ARRAY), []
    if array and _queued(array, name):
        print(
            f"Slurm array {array} of this study is not finished, so this command waits for it and submits no other; to submit "
            f"one with other parameters, type first: scancel {array}",
            file=sys.stderr,
            flush=True,
        )
    else:
        sent = submit(location, name, search, jobs, stacked, parameters, processes)
        array = sent[0].job_id.split("_")[0]
        study.set_user_attr(ARRAY, array)
        print(
            f"submitted Slurm array {array} of {jobs} jobs; their output is in {folder_of(location)}; to stop them, type: "
            f"scancel {array}",
            file=sys.stderr,
            flush=True,
        )
    while _queued(array, name):
        time.sleep(2)
    # A cancelled job has no result. Its trial stays unfinished in the study, so another job can resume it.
    errors = [job.exception() for job in sent if job.paths.result_pickle.exists()]
    if failed := [error for error in errors if error]:
        reason = str(failed[0]).strip().splitlines()[-1]
        print(one_line(f"{len(failed)} of {len(sent)} jobs failed; the first: {reason}"), file=sys.stderr)


def folder_of(location: StudyLocation) -> Path:
    """Return the folder in which the jobs write their output."""
    return (location.folder / "slurm").absolute()


def submit(
    location: StudyLocation,
    name: str,
    search: Search | None,
    jobs: int,
    stacked: int,
    parameters: Sequence[str],
    processes: int,
) -> list[Any]:
    """Submit an array of jobs, and return submitit's objects for the jobs.

    Args:
        name: name of the jobs in Slurm.
        search: search space from which Optuna adds trials; None if the study has all its trials already.
        jobs: number of jobs in the array.
        stacked: largest number of trials that one worker trains together as one stacked model.
        parameters: parameters for submitit, such as "timeout_min=60".
        processes: number of processes that train each trial together, in one job.
    """
    install = (
        "--launcher=slurm needs submitit, which is not installed; type pip install -c constraints.txt -e '.[sweep]'"
    )
    with optional("submitit", message=install):
        import submitit
        from submitit.core.utils import FailedJobError
    settings: dict[str, Any] = {
        "timeout_min": 24 * 60, "cpus_per_task": processes, "slurm_array_parallelism": jobs, "slurm_job_name": name,
        "slurm_additional_parameters": {"requeue": True},
        # Jobs start in the folder of the submission, which may be another one, so name the package's folder.
        "slurm_setup": [f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}", f"export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK > {processes} ? SLURM_CPUS_PER_TASK / {processes} : 1))"],
    }  # fmt: skip
    for text in parameters:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(
                f"--slurm={text} has no value; type --slurm=<parameter>=<value>, such as --slurm=timeout_min=60"
            )
        settings[key] = int(value) if value.isdigit() else value
    gpus = next((settings[key] for key in ("gpus_per_node", "slurm_gpus_per_node") if key in settings), processes)
    if isinstance(gpus, int) and gpus < processes:
        raise BadInput(
            f"--processes_per_run={processes}: a job with --slurm=gpus_per_node={gpus} has too few GPUs, because each process "
            f"needs one; type --slurm=gpus_per_node={processes}"
        )
    try:
        executor = submitit.AutoExecutor(folder=folder_of(location), cluster="slurm")
        executor.update_parameters(**settings)
        with executor.batch():
            return [executor.submit(Worker(location, search, jobs, stacked, processes)) for _ in range(jobs)]
    except (RuntimeError, NameError, TypeError, FailedJobError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"--launcher=slurm cannot submit the jobs: {reason}; jobs are submitted by sbatch with the parameters in --slurm. "
            "Type the command on a machine with sbatch, correct --slurm, or type --launcher=local"
        ) from None


def _queued(array: str, name: str) -> bool:
    """Return whether any job of a Slurm array is waiting or running; ask again until Slurm answers.

    Args:
        array: number of the array.
        name: name of the jobs in it. The name is checked, because Slurm reuses the numbers of old arrays.
    """
    said = False
    while True:
        try:
            command = ["squeue", "--noheader", "--jobs", array, "--name", name]
            answer = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            problem = str(error)
        else:
            if not answer.returncode:
                return bool(answer.stdout.strip())
            if "Invalid job id" in answer.stderr:  # Slurm forgets a job some minutes after its end
                return False
            problem = answer.stderr.strip() or f"status {answer.returncode}"
        if not said:
            said = True
            print(
                one_line(f"squeue does not answer ({problem}); the jobs go on, and this command asks again"),
                file=sys.stderr,
                flush=True,
            )
        time.sleep(SQUEUE_SECONDS)
