"""Make `tests/golden/<format>/`, which every later version must read or refuse in words: `python tests/make_golden.py`.

Run it when `imbalance.training.state.provenance.FORMAT` has been raised, or when tests/test_golden.py says that a config
must say something new, which is reason to raise FORMAT. Commit the new folder, and leave those before it as they are:
they are what versions in use have written. Only before a format has been released may its own folder be made anew.
"""

import itertools
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
from ml_collections import ConfigDict

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from imbalance.config.resolve import load  # noqa: E402
from imbalance.errors import Interrupted  # noqa: E402
from imbalance.training import loop  # noqa: E402
from imbalance.training.state import provenance as origin  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
KEPT = ("config.json", "metrics.jsonl", "summary.json", "checkpoints/last.pt", "checkpoints/selected.pt")


def golden_config() -> ConfigDict:
    """Digits, three epochs of three steps with momentum, an objective with a memory, and selection by val."""
    config = load(ROOT / "configs" / "digits_poly.py")
    config.work_dir = "runs"
    config.data.update(classes=(0, 1), imbalance_ratio=4.0)
    config.model = dict(name="linear", init="zeros")
    config.objective = dict(name="group_dro", step_size=0.1, size_adjustment=0.0, adjust_absent=False)
    config.weights = dict(name="uniform")
    config.callbacks.update(select="best", checkpoint_minutes=1e-9)
    config.trainer.update(epochs=3, batch_size=64, eval_every=1)
    return config


def interrupt_at(number: int):
    """In place of the optimiser's `step`, which sends SIGTERM in that one."""
    step, calls = torch.optim.SGD.step, []

    def patched(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args, **kwargs)

    return patched


def make(folder: Path) -> None:
    """`finished`, and `interrupted`: the same run, stopped within its second epoch."""
    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)
    config = golden_config()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # a summary has the run directory, which is to be no one's own
        loop.train(config, "finished")
        with mock.patch.object(torch.optim.SGD, "step", interrupt_at(4)):
            try:
                loop.train(config, "interrupted")
            except Interrupted as error:
                print(error)
        for name, kept in itertools.product(("finished", "interrupted"), KEPT):
            if Path(name, kept).exists():
                (folder / name / kept).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(name, kept), folder / name / kept)
        os.chdir(before)


if __name__ == "__main__":
    make(GOLDEN / str(origin.FORMAT))
    files = [path for path in (GOLDEN / str(origin.FORMAT)).rglob("*") if path.is_file()]
    print(*(f"{path.stat().st_size:8,} {path.relative_to(ROOT)}" for path in files), sep="\n")
