"""Measure the memory of two processes on made-up data of the sizes of ImageNet-LT and iNaturalist, and on large files.

    python tools/measure_large.py imagenet_lt         # a run: 115,846 training examples, 1,000 classes
    python tools/measure_large.py inaturalist_eighth  # a run: 54,689 training examples, 8,142 classes
    python tools/measure_large.py table arrow 5000000    # loading of 5,000,000 × 50 values; or parquet instead of arrow
    python tools/measure_large.py text arrow 1000000     # loading of 1,000,000 texts of 40 words

The memory is that of each process alone (RssAnon of Linux); mapped files, which processes share, do not count.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from imbalance.config.experiment import validate  # noqa: E402
from imbalance.config.resolve import load  # noqa: E402
from imbalance.data.sets.features import close_features  # noqa: E402
from imbalance.data.splits import Dataset, Split  # noqa: E402
from imbalance.training.learner import load_dataset  # noqa: E402

# Training, val and test examples, classes, and features of an example.
RUNS = {"imagenet_lt": (115_846, 20_000, 50_000, 1000, 256), "inaturalist_eighth": (54_689, 3053, 3053, 8142, 64)}
PART = 100_000  # rows that are made at a time


def private(pid: int | str) -> float:
    """Return the resident memory in GB that belongs to a process alone."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1e6 for line in status if line.startswith("RssAnon"))


def measure_run(name: str, folder: Path) -> None:
    """Train a linear layer for an epoch in two processes, and print peaks of memory and seconds."""
    *sizes, classes, width = RUNS[name]
    (folder / "features").mkdir()
    rows = torch.arange(sum(sizes))
    values = np.random.default_rng(0).standard_normal((len(rows), width), dtype=np.float32)
    np.save(folder / "features" / "features.npy", values)
    splits = [Split(torch.empty(size, 0), rows[:size] % classes, rows[:size] % classes, rows[:size]) for size in sizes]
    names = tuple(map(str, range(classes)))
    checksums = np.fromiter(map(zlib.crc32, values), np.uint32, len(values))
    about = {"model": {"name": "made_up"}, "weights": "none", "inputs": "", "data": {}}
    close_features(folder / "features", Dataset(*splits, names, names), about, checksums)
    config = dict(work_dir=folder / "runs", data_dir=folder) | {
        "data.folder": "features", "data.standardise": False, "trainer.epochs": 1, "trainer.eval_splits": "('val',)",
    }  # fmt: skip
    flags = [f"--config.{key}={value}" for key, value in config.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(ROOT / "main.py"), f"--config={ROOT / 'configs' / 'features_erm.py'}", *flags]
    begun, peaks, times = time.monotonic(), {}, {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}) as job:

        def read() -> None:
            for line in job.stdout or ():
                for start in ("importance weights", "epoch 1/1", "score"):
                    if line.startswith(start):
                        times[start] = time.monotonic() - begun

        threading.Thread(target=read, daemon=True).start()
        while job.poll() is None:
            children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
            for pid in children:
                try:
                    peaks[pid] = max(peaks.get(pid, 0.0), private(pid))
                except (OSError, StopIteration):  # it has ended
                    continue
            time.sleep(0.05)
    memory = ", ".join(f"{peak:.2f}" for peak in peaks.values())
    print(f"{name}: peak GB of each process {memory}; seconds until each line {times}; status {job.returncode}")


def make_file(what: str, path: Path, size: int) -> None:
    """Write `size` rows of numbers and categories, or of texts, to an Arrow or Parquet file."""
    import pyarrow
    import pyarrow.parquet

    rng, writer = np.random.default_rng(0), None
    words = np.array([f"w{i}" for i in range(20_000)])
    for start in range(0, size, PART):
        rows = min(PART, size - start)
        columns: dict[str, Any] = {"target": np.array(["no", "yes"])[rng.integers(0, 2, rows)]}
        if what == "table":
            columns |= {f"x{i}": rng.standard_normal(rows) for i in range(45)}
            columns |= {f"c{i}": np.array(["a", "b", "c", "d"])[rng.integers(0, 4, rows)] for i in range(5)}
        else:
            drawn = words[(rng.pareto(1.0, (rows, 40)) * 10).astype(int) % len(words)]
            columns["text"] = [" ".join(row) for row in drawn]
        table = pyarrow.table(columns)
        if writer is None:
            is_arrow = path.suffix == ".arrow"
            writer = (pyarrow.ipc.new_file if is_arrow else pyarrow.parquet.ParquetWriter)(str(path), table.schema)
        writer.write_table(table)
    assert writer
    writer.close()


def load_file(what: str, path: Path, rank: int, barrier: Any) -> None:
    """Load the data set of a file, first without a store and then with it, and print memory and seconds."""
    config = load(ROOT / "configs" / ("arrays_erm.py" if what == "table" else "text_small_erm.py"))
    config.data_dir = str(path.parent)
    common = dict(
        file=path.name, target="target", classes=("no", "yes"), attributes=(), val_fraction=0.1, test_fraction=0.1
    )
    config.data.update(**common, **({"missing": ("",)} if what == "table" else {"vocabulary": 20_000}))
    before = peak = private("self")
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, private("self"))

    threading.Thread(target=sample, daemon=True).start()
    for turn in ("first", "again"):
        barrier.wait()
        peak, begun = 0.0, time.monotonic()
        dataset = load_dataset(validate(config))
        for rows in torch.randint(len(dataset.train), (50, 256), generator=torch.Generator().manual_seed(0)):
            dataset.train.inputs.index_select(0, rows)
        seconds, now = time.monotonic() - begun, private("self")
        print(f"{path.name}, process {rank}, {turn}: {now - before:.2f} GB, peak {peak - before:.2f}, {seconds:.0f} s")
        barrier.wait()
        del dataset
    done.set()


def main() -> None:
    """Measure what the command line names, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1] in RUNS:
            measure_run(sys.argv[1], Path(folder))
            return
        what, kind, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
        path = Path(folder) / f"rows.{kind}"
        make_file(what, path, size)
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(2)
        processes = [context.Process(target=load_file, args=(what, path, rank, barrier)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()


if __name__ == "__main__":
    main()
