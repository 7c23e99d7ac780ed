"""What only a GPU can show of whole runs, measured: `python -m imbalance.bench.on_device waits --folder=measured`.

waits: three epochs of eight configs while torch warns of whatever waits for the device, and how often it did.
bits: each config twice and once stopped in the middle, with `trainer.deterministic`: are weights and metrics the same?
precision: the curves of the training loss in TF32, bf16 and fp16 beside that of float32.
trace: twenty steps in torch's profiler: kernels a step, how long the device was at work, and a trace for chrome://tracing.

Each adds to <folder>/<piece>.json what it has found of a config as soon as it has, and what is there is not done again. All
of it runs without a GPU, too; what a CPU cannot show is then "not measured". Needs no network and no data but the packages'.
"""

import argparse
import itertools
import json
import os
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ml_collections import ConfigDict

from imbalance.bench.cases import make, on_images
from imbalance.config.resolve import CONFIGS, load
from imbalance.errors import Interrupted
from imbalance.training import loop
from imbalance.training.step import StepOutput, draw_epoch, take_step

NOT_MEASURED = "not measured"
CONVNET = "convnet"  # on random images of CIFAR's size, which need no file
WAITS = (
    "gaussian_poly", "digits_ce", "digits_poly", "colored_digits_dro", "colored_digits_cvar", "colored_digits_irm",
    "colored_digits_mixup", CONVNET,
)  # fmt: skip
BITS = ("digits_poly", "colored_digits_dro", "colored_digits_cvar", CONVNET)
CURVES = ("digits_poly", CONVNET)
PRECISIONS = {
    "float32": dict(tf32="none", mixed_precision="no"),
    "tf32": dict(tf32="all", mixed_precision="no"),
    "bf16": dict(tf32="none", mixed_precision="bf16"),
    "fp16": dict(tf32="none", mixed_precision="fp16"),
}
TRACED = ("digits_poly", CONVNET)


def of(name: str, epochs: int) -> ConfigDict:
    """A config, in batches of 64, evaluated after every epoch."""
    config = on_images(CONVNET, size=512, batch_size=64) if name == CONVNET else load(CONFIGS / f"{name}.py")
    config.trainer.update(epochs=epochs, batch_size=64, eval_every=1)
    config.logger.mode = "disabled"
    return config


def waits(name: str, epochs: int, folder: Path) -> dict[str, Any]:
    """How often the host waited for the device, and where it did most often."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said, tempfile.TemporaryDirectory() as directory:
            warnings.simplefilter("always")
            steps = loop.train(of(name, epochs), directory)["step"]
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")
    if not on_gpu:
        return {"epochs": epochs, "steps": steps, "warnings": NOT_MEASURED}
    lines = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in said if "synchronizing" in str(w.message))
    return {"epochs": epochs, "steps": steps, "warnings": lines.total(), "lines": dict(lines.most_common(10))}


def bits(name: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Whether a run has the bits of another, and of one that was stopped in the middle; also on a CPU."""
    config = of(name, epochs)
    config.trainer.deterministic = True
    with tempfile.TemporaryDirectory() as directory:
        whole, again, killed = (Path(directory) / name for name in ("whole", "again", "killed"))
        steps = loop.train(config, whole)["step"]
        loop.train(config, again)
        train_to(steps // 2, config, killed)
        stopped = json.loads((killed / "summary.json").read_text())
        loop.train(config, killed)
        return {
            "twice the same": same(whole, again),
            "stopped": f"{stopped['status']} at step {stopped['step']} of {steps}",
            "stopped and resumed the same": same(whole, killed),
        }


def train_to(step: int, config: ConfigDict, directory: Path) -> None:
    """A run that is sent SIGTERM in so many steps' time."""
    done = itertools.count(1)

    def stopping(*given: Any) -> StepOutput:
        if next(done) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(*given)

    with mock.patch.object(loop, "take_step", stopping), suppress(Interrupted):
        loop.train(config, directory)


def same(one: Path, two: Path) -> bool:
    a, b = (torch.load(run / "checkpoints" / "selected.pt", weights_only=True) for run in (one, two))
    metrics = (one / "metrics.jsonl").read_text() == (two / "metrics.jsonl").read_text()
    return metrics and a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def precision(name: str, epochs: int, folder: Path) -> dict[str, Any]:
    """The training loss by epoch in each arithmetic, and its greatest distance from float32's over the first loss."""
    curves = {}
    for arithmetic, section in PRECISIONS.items():
        if arithmetic in ("tf32", "fp16") and not torch.cuda.is_available():  # which are float32 on a CPU
            curves[arithmetic] = NOT_MEASURED
            continue
        config = of(name, epochs)
        config.trainer.update(section)
        with tempfile.TemporaryDirectory() as directory:
            loop.train(config, directory)
            lines = (Path(directory) / "metrics.jsonl").read_text().splitlines()
        curves[arithmetic] = [json.loads(line)["train/loss"] for line in lines]
    full = curves["float32"]
    far = {
        arithmetic: max(abs(a - b) for a, b in zip(curve, full)) / full[0]
        for arithmetic, curve in curves.items()
        if curve != NOT_MEASURED
    }
    return {"curves": curves, "distance": far}


def trace(name: str, steps: int, folder: Path) -> dict[str, Any]:
    """Of `steps` steps, after some to warm up."""
    config, on_gpu = of(name, 1), torch.cuda.is_available()
    learner = make(config)
    epoch, step = draw_epoch(learner, 0), 0

    def go(count: int) -> None:
        nonlocal step
        for _ in range(count):
            take_step(config, learner, epoch, step % 5, 5, lambda: 0)
            learner.optimizer.zero_grad()
            step += 1

    learner.model.train()
    go(5)
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=kinds) as profile:
        started = time.perf_counter()
        go(steps)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    path = folder / f"trace-{name}.json.gz"
    profile.export_chrome_trace(str(path))
    found = {"steps": steps, "ms a step": 1e3 * seconds / steps, "trace": path.name}
    if not on_gpu:
        return found | {"kernels a step": NOT_MEASURED, "device at work": NOT_MEASURED}
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.device_time for event in kernels) / 1e6  # of microseconds
    return found | {"kernels a step": len(kernels) / steps, "device at work": busy / seconds}


# Piece: what it does of one config, with which of them, and how many epochs (or steps) of each.
PIECES: dict[str, tuple[Callable[[str, int, Path], dict[str, Any]], Sequence[str], int]] = {
    "waits": (waits, WAITS, 3),
    "bits": (bits, BITS, 10),
    "precision": (precision, CURVES, 20),
    "trace": (trace, TRACED, 20),
}


def measure(piece: str, folder: Path, size: int | None = None, names: Sequence[str] = ()) -> dict[str, Any]:
    """What is in <folder>/<piece>.json, once what is not is there.

    Args:
        size: epochs, or steps of a trace; as many as the piece says without.
        names: of configs; all of the piece's without.
    """
    of_config, all_names, usual = PIECES[piece]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    path = folder / f"{piece}.json"
    folder.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("device") != device:  # what a CPU has left says nothing of a GPU
        found = {"device": device, "torch": torch.__version__, "configs": {}}
    for name in names or all_names:
        if name not in found["configs"]:
            found["configs"][name] = of_config(name, size or usual, folder)
            path.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{piece}, {name}, {device}: {json.dumps(found['configs'][name])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("piece", choices=PIECES)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    measure(arguments.piece, arguments.folder)


if __name__ == "__main__":
    main()
