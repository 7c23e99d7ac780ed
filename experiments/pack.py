"""What waits for a GPU, in pieces: the same command goes on with what is left, and needs no network.

    python -m experiments.pack --data_dir=data --minutes=9 --jobs=8     # again, until it says that nothing is left

In this order: the tests that use a GPU where there is one, the parts of the benchmark with bars for a GPU, and the rows of
the paper's figures 3 to 5 on CIFAR-10, --seeds of each, several processes sharing the GPU. After --minutes what runs is
stopped: training saves and goes on the next time, a test file or a part of the benchmark begins again. What has been done
is noted in <work_dir>/pack/, with its output; finished runs are added to results/rows.csv.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from experiments import results
from experiments.paper_rows import DATA_DIR
from experiments.runs import JOBS, ROOT, SEEDS, WORK_DIR, exit_status
from imbalance.errors import BadInput

MINUTES = flags.DEFINE_float("minutes", 9.0, "How long to work, in all.", lower_bound=0.1)
ONLY = flags.DEFINE_list("only", ["tests", "bench", "rows"], "Which kinds of pieces.")

TESTS = ("test_step", "test_loop", "test_batched", "test_finite", "test_resume", "test_store")
BENCH = ("step", "evaluation", "sweep", "paper")
FIGURES = ("figure3", "figure5")  # figure 4 is about the runs of figure 3
GRACE = 60  # seconds that a run has to save


class Piece(NamedTuple):
    kind: str
    name: str
    arguments: tuple[str, ...]  # of python -m


def pieces() -> list[Piece]:
    """All of them, in the order in which they are worked on."""
    tests = [Piece("tests", name, ("pytest", "-x", "-q", f"tests/{name}.py")) for name in TESTS]
    bench = [Piece("bench", name, ("experiments.bench", f"--only={name}")) for name in BENCH]
    shared = (
        f"--data_dir={DATA_DIR.value}",
        f"--work_dir={WORK_DIR.value}",
        f"--seeds={SEEDS.value}",
        f"--jobs={JOBS.value}",
    )
    rows = [
        Piece("rows", f"{name}-{SEEDS.value}-seeds",
              (f"experiments.{name}", "--data=cifar", *shared, f"--folder={WORK_DIR.value}/pack"))
        for name in FIGURES
    ]  # fmt: skip
    return [piece for piece in (*tests, *bench, *rows) if piece.kind in ONLY.value]


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


def pack() -> int:
    unknown = sorted(set(ONLY.value) - {"tests", "bench", "rows"})
    if unknown:
        raise BadInput(f"--only={unknown[0]}: not one or several of tests, bench, rows")
    folder, until, failed = Path(WORK_DIR.value).absolute() / "pack", time.monotonic() + 60 * MINUTES.value, []
    folder.mkdir(parents=True, exist_ok=True)
    left = [piece for piece in pieces() if not (folder / f"{piece.name}.done").exists()]
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
    if "rows" in ONLY.value:
        print(f"results/rows: {results.add('rows', results.finished(Path(WORK_DIR.value)))} runs added")
    waiting = len(left) + len(failed)
    print(f"{waiting} of {len(pieces())} pieces left" + ("; the same command goes on" if waiting else ""))
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    return exit_status(pack, argv)


if __name__ == "__main__":
    app.run(main)
