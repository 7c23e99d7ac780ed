"""What waits for a GPU, in pieces: the same command goes on with what is left, and needs no network.

    imbalance pack --config.data_dir=data --minutes=9 --jobs=8     # again, until it says that nothing is left

In this order: the tests of what only a GPU can show (waits, bits, precision, compilation, several at once); what whole runs
do there (`imbalance.bench.gpu_checks`: waits of eight configs, bits, curves in each precision); the benchmark of a GPU
and a trace of twenty steps; the tests that use one where there is one, the other parts of the benchmark, and the rows of the
paper's figures 3 to 5 on CIFAR-10, --seeds of each, several processes sharing the GPU. --only=gpu is what stands before the
last semicolon. After --minutes what runs is stopped: training saves and goes on the
next time, a test file or a part of the benchmark begins again. What has been done is noted in <work_dir>/pack/, with its
output; finished runs are added to results/rows.csv.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.report import kept_results as kept

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("gpu", "tests", "bench", "rows")
TESTS = (
    "training/test_step", "training/test_loop", "training/test_stacked", "training/test_finite", "training/test_resume",
    "data/test_store",
)  # fmt: skip
# What only a GPU can show, the cheapest first: each is some minutes.
GPU_TESTS = {"waits": "waits or store", "bits": "bits", "precision": "half_precision", "compile": "compiled or graphs",
             "together": "at_once or gpus"}  # fmt: skip
MEASURES = ("waits", "bits", "precision", "trace")  # of `on_device`
BENCH = ("step", "evaluation", "sweep", "paper")
FIGURES = ("figure3", "figure5")  # figure 4 is about the runs of figure 3
GRACE = 60  # seconds that a run has to save


class Piece(NamedTuple):
    kind: str
    name: str
    arguments: tuple[str, ...]  # of python -m


def pieces(*, overrides: Mapping[str, Any], seeds: int, work_dir: str, jobs: int) -> list[Piece]:
    """All of them, in the order in which they are worked on."""
    of_gpu = [
        Piece("gpu", f"gpu-{name}", ("pytest", "-q", "-m", "gpu", "-k", chosen, "tests/robustness/test_gpu.py"))
        for name, chosen in GPU_TESTS.items()
    ]
    folder = Path(work_dir).absolute() / "pack"
    measures = [Piece("gpu", name, ("imbalance.bench.gpu_checks", name, f"--folder={folder}")) for name in MEASURES]
    bars = Piece("gpu", "bench-gpu", ("imbalance", "bench", "--only=gpu", f"--output={folder}/bench-gpu.json"))
    tests = [Piece("tests", name.rpartition("/")[2], ("pytest", "-x", "-q", f"tests/{name}.py")) for name in TESTS]
    bench = [Piece("bench", name, ("imbalance", "bench", f"--only={name}")) for name in BENCH]
    shared = (
        "--data=cifar", f"--seeds={seeds}", f"--work_dir={Path(work_dir).absolute()}", f"--jobs={jobs}",
        f"--folder={folder}", *(f"--config.{key}={value}" for key, value in overrides.items()),
    )  # fmt: skip
    rows = [Piece("rows", f"{name}-{seeds}-seeds", ("imbalance", "reproduce", name, *shared)) for name in FIGURES]
    *before, trace = measures
    return [*of_gpu, *before, bars, trace, *tests, *bench, *rows]


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def perform(piece: Piece, folder: Path, seconds: float) -> int | None:
    """Work on a piece; its exit status, or None where it was stopped for want of time."""
    log = open(folder / f"{piece.name}.txt", "w")
    process = subprocess.Popen(
        [sys.executable, "-m", *piece.arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with log, process:
        try:
            return process.wait(timeout=seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGTERM)
            wait_for_group(process)
            return None


def wait_for_group(process: subprocess.Popen) -> None:
    """Until all that `process` started has ended: training processes save first."""
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
) -> int:
    """Work on what is left for so many minutes; 1 where a piece failed.

    Args:
        only: of KINDS.
        overrides: of the rows: where the data are.
    """
    folder, until, failed = Path(work_dir).absolute() / "pack", time.monotonic() + 60 * minutes, []
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [p for p in pieces(overrides=overrides, seeds=seeds, work_dir=work_dir, jobs=jobs) if p.kind in only]
    left = [piece for piece in wanted if not (folder / f"{piece.name}.done").exists()]
    waiting = [piece for piece in left if piece.kind == "gpu"] if not has_gpu() else []
    if waiting:
        print(f"no GPU here: {len(waiting)} pieces wait for one")
        left = [piece for piece in left if piece not in waiting]
    while left and time.monotonic() < until:
        piece = left[0]
        status = perform(piece, folder, until - time.monotonic())
        said = "stopped for now" if status is None else "done" if status == 0 else f"exit status {status}"
        print(f"{piece.kind} {piece.name}: {said}; {folder / piece.name}.txt", flush=True)
        if status is None:
            break
        if status == 0:
            (folder / f"{piece.name}.done").touch()
        else:
            failed.append(piece)
        left.remove(piece)
    if "rows" in only:
        print(f"{kept.add('rows', Path(results), kept.finished(Path(work_dir)))} runs added to {results}/rows.csv")
    remaining = len(left) + len(failed) + len(waiting)
    print(f"{remaining} of {len(wanted)} pieces left" + ("; the same command goes on" if remaining else ""))
    return int(bool(failed))
