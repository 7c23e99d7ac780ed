"""Work through a queue of jobs that need a GPU, for some minutes at a time and without network.

    imbalance pack --config.data_dir=data --minutes=9 --jobs=8     # repeat until no job is left

The jobs are, in this order:

1. gpu: the tests that need a GPU (synchronisation, determinism, precision, compilation, stacked runs), and the checks of
   `imbalance.bench.gpu_checks`.
2. quiet: measurements that need the GPU for themselves: the GPU part of the benchmark, and a trace of twenty steps.
3. tests: the test files that use a GPU if the machine has one.
4. bench: the other parts of the benchmark.
5. rows: the runs of figures 3 to 5 of Wang et al. (ICLR 2022) on CIFAR-10, over --seeds, with several processes on the GPU.
   They are trained seed by seed, each run in a process of its own, so that early seeds can be compared early.

After --minutes the job that is running is stopped. A stopped training run saves a checkpoint, from which the next command
resumes it. A stopped test file or part of the benchmark starts again with the next command. <work_dir>/pack/ has the output of
every job, whose last line is printed, and an empty file <job>.done for every finished job. Finished training runs are added
to results/rows.csv.

tools/first_gpu.sh uses this queue on a machine that is lent for minutes.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.report import kept_results
from imbalance.utils.package import ROOT, process_environment
from imbalance.utils.read import read_bytes

KINDS = ("gpu", "quiet", "tests", "bench", "rows")
NEED_GPU = ("gpu", "quiet")
TESTS = (
    "training/test_step", "training/test_loop", "training/stacked/test_stacked", "training/state/test_finite",
    "training/state/test_resume", "data/images/test_store",
)  # fmt: skip
# For each job, an expression for pytest -k that selects its tests in tests/test_gpu.py. The cheapest come first, and each job
# takes a few minutes.
GPU_TESTS = {"waits": "waits or store", "bits": "bits", "precision": "half_precision", "compile": "compiled or graphs",
             "stacked": "convnets_at_once or gpus"}  # fmt: skip
CHECKS = ("waits", "bits", "precision", "trace")  # of `gpu_checks`
BENCH = ("step", "evaluation", "sweep", "paper")
FIGURES = ("figure3", "figure5")  # figure 4 shows runs of figure 3
GRACE = 60  # seconds that a stopped run has to save a checkpoint


class Job(NamedTuple):
    kind: str  # one of KINDS
    name: str
    arguments: tuple[str, ...]  # arguments of python -m


def make_jobs(*, overrides: Mapping[str, Any], seeds: int, work_dir: str, jobs: int) -> list[Job]:
    """Return all jobs, in the order in which they run.

    Args:
        overrides: config values by key, for the runs of figures 3 to 5.
        seeds: number of seeds of the runs of figures 3 to 5.
        jobs: number of processes that train runs at the same time.
    """
    gpu_tests = [
        Job("gpu", f"gpu-{name}", ("pytest", "-q", "-m", "gpu", "-k", chosen, "tests/test_gpu.py"))
        for name, chosen in GPU_TESTS.items()
    ]
    folder = Path(work_dir).absolute() / "pack"
    checks = [Job("gpu", name, ("imbalance.bench.gpu_checks", name, f"--folder={folder}")) for name in CHECKS]
    gpu_bench = Job("quiet", "bench-gpu", ("imbalance", "bench", "--only=gpu", f"--output={folder}/bench-gpu.json"))
    tests = [Job("tests", name.rpartition("/")[2], ("pytest", "-x", "-q", f"tests/{name}.py")) for name in TESTS]
    bench = [Job("bench", name, ("imbalance", "bench", f"--only={name}")) for name in BENCH]
    shared = (
        "--data=cifar", f"--seeds={seeds}", f"--work_dir={Path(work_dir).absolute()}", f"--jobs={jobs}", "--stacked=1",
        f"--folder={folder}", *(f"--config.{key}={value}" for key, value in overrides.items()),
    )  # fmt: skip
    rows = [Job("rows", f"{name}-{seeds}-seeds", ("imbalance", "reproduce", name, *shared)) for name in FIGURES]
    *other_checks, trace = checks
    return [*gpu_tests, *other_checks, gpu_bench, trace._replace(kind="quiet"), *tests, *bench, *rows]


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def run_job(job: Job, folder: Path, seconds: float) -> int | None:
    """Run a job for at most `seconds`; return the exit status of the job, or None if the job was stopped."""
    log = open(folder / f"{job.name}.txt", "w")
    process = subprocess.Popen(
        [sys.executable, "-m", *job.arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        env=process_environment(),
    )  # fmt: skip
    with log, process:
        try:
            return process.wait(timeout=seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGTERM)
            wait_for_group(process)
            return None


def last_line(log: Path) -> str:
    """Return the last line of a job's output, cut off at 160 characters, and the path of the output."""
    path = log.with_name(f"{log.name}.txt")
    lines = [line for line in read_bytes(path).decode(errors="replace").splitlines() if line.strip()]
    shown = lines[-1].strip()[:160] if lines else "no output"
    return f"{shown} ({path})"


def wait_for_group(process: subprocess.Popen) -> None:
    """Wait until the process and the processes it started have ended; kill them after GRACE seconds."""
    until = time.monotonic() + GRACE
    while time.monotonic() < until:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)


def pack(
    *,
    minutes: float,
    only: Sequence[str],
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    results: str,
    on_cpu: bool = False,
) -> int:
    """Run jobs that are not done yet, for `minutes` minutes.

    Args:
        only: kinds of jobs to run, as in KINDS.
        overrides: config values by key, such as `data_dir`, for the runs of figures 3 to 5.
        seeds: number of seeds of the runs of figures 3 to 5.
        jobs: number of processes that train runs at the same time.
        results: folder that holds the tables of results, such as results/.
        on_cpu: also run the jobs that need a GPU on a machine without one. Then their tests are skipped, and nothing is
            measured.

    Returns:
        1 if a job failed, else 0.

    Raises:
        BadInput: rows are wanted, and the checkout has uncommitted changes, so that nobody could repeat its runs.
    """
    if "rows" in only:
        from imbalance.training.state.provenance import clean_commit  # here, because it imports torch

        clean_commit()
    folder, until, failed = Path(work_dir).absolute() / "pack", time.monotonic() + 60 * minutes, []
    folder.mkdir(parents=True, exist_ok=True)
    every = make_jobs(overrides=overrides, seeds=seeds, work_dir=work_dir, jobs=jobs)
    wanted = [job for job in every if job.kind in only]
    left = [job for job in wanted if not (folder / f"{job.name}.done").exists()]
    waiting = [job for job in left if job.kind in NEED_GPU] if not (on_cpu or has_gpu()) else []
    if waiting:
        print(f"this machine has no GPU, which {len(waiting)} jobs need; type the same command on a machine with a GPU")
        left = [job for job in left if job not in waiting]
    while left and time.monotonic() < until:
        job = left[0]
        status = run_job(job, folder, until - time.monotonic())
        outcome = "stopped for now" if status is None else "done" if status == 0 else f"exit status {status}"
        print(f"{job.kind} {job.name}: {outcome}; {last_line(folder / job.name)}", flush=True)
        if status is None:
            break
        if status == 0:
            (folder / f"{job.name}.done").touch()
        else:
            failed.append(job)
        left.remove(job)
    if "rows" in only:
        print(
            f"{kept_results.add('rows', Path(results), kept_results.finished(Path(work_dir)))} runs added to {results}/rows.csv"
        )
    remaining = len(left) + len(failed) + len(waiting)
    print(
        f"{remaining} of {len(wanted)} jobs left" + ("; type the same command again to continue" if remaining else "")
    )
    return int(bool(failed))
