"""Check whole runs on a GPU: synchronisation, determinism, precision, and kernels.

    python -m imbalance.bench.gpu_checks waits --folder=measured

The checks are:

- waits: train three epochs of eight configs, and count torch's warnings about operations that synchronise with the GPU.
- bits: train each config with `trainer.deterministic` twice without a stop, and once with a stop in the middle and a resume.
  Check that the three runs have the same weights and metrics.
- precision: compare the curves of the training loss in TF32, bf16 and fp16 with the curve in float32.
- trace: profile twenty steps, and report the number of kernels per step and the share of the time in which the GPU computes.
  Open the trace in chrome://tracing.

Each check writes the result of a config to <folder>/<check>.json as soon as it is computed. Results that the file already has
are not computed again. All checks run without a GPU too; values that need a GPU are then "not measured". The checks need no
network, and no data other than that of the installed packages.
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

from imbalance.bench.cases import make, on_images
from imbalance.config.experiment import Experiment, validate
from imbalance.config.files import CONFIGS
from imbalance.config.resolve import load, override
from imbalance.errors import Interrupted
from imbalance.training import loop
from imbalance.training.step import StepOutput, draw_epoch, take_step

NOT_MEASURED = "not measured"
CONVNET = "convnet"  # the ConvNet on random images of CIFAR's size
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


def make_config(name: str, epochs: int) -> Experiment:
    """Return the shipped config `name` with batches of 64 and an evaluation after every epoch."""
    config = on_images(CONVNET, size=512, batch_size=64) if name == CONVNET else load(CONFIGS / f"{name}.py")
    trainer = {"trainer.epochs": epochs, "trainer.batch_size": 64, "trainer.eval_every": 1}
    return validate(override(config, {**trainer, "logger.mode": "disabled"}))


def waits(name: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Train the config `name`; return how often the CPU waited for the GPU, and in which lines of code most often."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught, tempfile.TemporaryDirectory() as directory:
            warnings.simplefilter("always")
            steps = loop.train(make_config(name, epochs), directory)["step"]
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")
    if not on_gpu:
        return {"epochs": epochs, "steps": steps, "warnings": NOT_MEASURED}
    lines = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchronizing" in str(w.message))
    return {"epochs": epochs, "steps": steps, "warnings": lines.total(), "lines": dict(lines.most_common(10))}


def bits(name: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Train the config `name` three times, and return whether repeated and resumed runs are the same, bit for bit."""
    config = validate(override(make_config(name, epochs), {"trainer.deterministic": True}))
    with tempfile.TemporaryDirectory() as directory:
        first, again, resumed = (Path(directory) / name for name in ("first", "again", "resumed"))
        steps = loop.train(config, first)["step"]
        loop.train(config, again)
        train_to(steps // 2, config, resumed)
        stopped = json.loads((resumed / "summary.json").read_text())
        loop.train(config, resumed)
        return {
            "twice the same": same(first, again),
            "stopped": f"{stopped['status']} at step {stopped['step']} of {steps}",
            "stopped and resumed the same": same(first, resumed),
        }


def train_to(step: int, config: Experiment, directory: Path) -> None:
    """Train a run, and stop it by a SIGTERM that is sent just before step number `step`; steps count from 1."""
    numbers = itertools.count(1)

    def take_step_or_stop(*arguments: Any) -> StepOutput:
        if next(numbers) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(*arguments)

    with mock.patch.object(loop, "take_step", take_step_or_stop), suppress(Interrupted):
        loop.train(config, directory)


def same(one: Path, two: Path) -> bool:
    """Return True if two run directories, `one` and `two`, have the same metrics and the same selected checkpoint."""
    a, b = (torch.load(run / "checkpoints" / "selected.pt", weights_only=True) for run in (one, two))
    metrics = (one / "metrics.jsonl").read_text() == (two / "metrics.jsonl").read_text()
    return metrics and a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def precision(name: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Train the config `name` in each precision; return the loss curves, and their largest distances from float32.

    Distances are divided by the first loss in float32.
    """
    curves = {}
    for arithmetic, values in PRECISIONS.items():
        if arithmetic in ("tf32", "fp16") and not torch.cuda.is_available():  # a CPU computes them in float32
            curves[arithmetic] = NOT_MEASURED
            continue
        config = validate(
            override(make_config(name, epochs), {f"trainer.{key}": value for key, value in values.items()})
        )
        with tempfile.TemporaryDirectory() as directory:
            loop.train(config, directory)
            lines = (Path(directory) / "metrics.jsonl").read_text().splitlines()
        curves[arithmetic] = [json.loads(line)["train/loss"] for line in lines]
    reference = curves["float32"]
    distance = {
        arithmetic: max(abs(a - b) for a, b in zip(curve, reference)) / reference[0]
        for arithmetic, curve in curves.items()
        if curve != NOT_MEASURED
    }
    return {"curves": curves, "distance": distance}


def trace(name: str, steps: int, folder: Path) -> dict[str, Any]:
    """Profile `steps` steps of the config `name` after five warm-up steps; write a trace, and return a summary of it."""
    config, on_gpu = make_config(name, 1), torch.cuda.is_available()
    learner = make(config)
    epoch, step = draw_epoch(learner, 0), 0

    def take_steps(count: int) -> None:
        nonlocal step
        for _ in range(count):
            take_step(config, learner, epoch, step % 5, 5, lambda: 0)
            learner.optimizer.zero_grad()
            step += 1

    learner.model.train()
    take_steps(5)
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=kinds) as profile:
        started = time.perf_counter()
        take_steps(steps)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    path = folder / f"trace-{name}.json.gz"
    profile.export_chrome_trace(str(path))
    numbers = {"steps": steps, "ms a step": 1e3 * seconds / steps, "trace": path.name}
    if not on_gpu:
        return numbers | {"kernels a step": NOT_MEASURED, "device at work": NOT_MEASURED}
    events = profile.events()
    assert events is not None, "the profiler has run"
    kernels = [event for event in events if event.device_type.name == "CUDA"]
    busy = sum(event.device_time for event in kernels) / 1e6  # from microseconds
    return numbers | {"kernels a step": len(kernels) / steps, "device at work": busy / seconds}


# For each check: the function for one config, the names of the configs, and the number of epochs (for a trace, of steps).
CHECKS: dict[str, tuple[Callable[[str, int, Path], dict[str, Any]], Sequence[str], int]] = {
    "waits": (waits, WAITS, 3),
    "bits": (bits, BITS, 10),
    "precision": (precision, CURVES, 20),
    "trace": (trace, TRACED, 20),
}


def run_check(check: str, folder: Path, size: int | None = None, names: Sequence[str] = ()) -> dict[str, Any]:
    """Add the missing results to <folder>/<check>.json, print all of them, and return the file's content.

    Args:
        check: a name in CHECKS.
        size: number of epochs (for a trace, of steps); the number in CHECKS if None.
        names: names of configs; the names in CHECKS if empty.
    """
    function, all_names, usual_size = CHECKS[check]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    path = folder / f"{check}.json"
    folder.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    if results.get("device") != device:  # measured on another device, so measure again
        results = {"device": device, "torch": torch.__version__, "configs": {}}
    for name in names or all_names:
        if name not in results["configs"]:
            results["configs"][name] = function(name, size or usual_size, folder)
            path.write_text(json.dumps(results, indent=2) + "\n")
        print(f"{check}, {name}, {device}: {json.dumps(results['configs'][name])}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--folder", type=Path, required=True, help="the folder to write the results to")
    arguments = parser.parse_args()
    run_check(arguments.check, arguments.folder)


if __name__ == "__main__":
    main()
