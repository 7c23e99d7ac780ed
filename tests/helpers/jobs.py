"""Runs of main.py in new processes, forked from the server."""

import itertools
import json
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from helpers.server import SERVER
from ml_collections import ConfigDict
from torch import nn

from imbalance.models import MODELS, with_head
from imbalance.training import loop
from imbalance.training import step as step_module


class Job:
    """A run of `python main.py --config=<file>`, in `world` processes as a launcher would start them.

    Args:
        config: the config, which is written to a JSON file.
        args: further arguments of main.py.
        target: a function that each process calls before main.py, such as one that adds a model to a registry.
        env: environment variables of the processes.
    """

    def __init__(self, config: ConfigDict, *args: str, world: int = 1, target: Callable | None = None, **env: str):
        work_dir = Path(config.work_dir)
        work_dir.mkdir(parents=True, exist_ok=True)
        path = work_dir / "experiment.json"
        path.write_text(json.dumps(config.to_dict()))
        self.directory = work_dir / "experiment" / "default" / f"seed={config.seed}"
        env = {"OMP_NUM_THREADS": "1"} | env
        if 0 < torch.cuda.device_count() < world:
            env["CUDA_VISIBLE_DEVICES"] = ""  # train on the CPU, because each process needs a GPU of its own
        if world > 1:
            env |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.outputs = [(work_dir / f"stdout{rank}", work_dir / f"stderr{rank}") for rank in range(world)]
        self.processes = []
        for rank, outputs in enumerate(self.outputs):
            for path_of_output in outputs:
                path_of_output.write_text("")
            env_of_rank = env | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else env
            argv = ["main.py", f"--config={path}", *args]
            self.processes.append(SERVER.Process(target=run, args=(argv, outputs, env_of_rank, target)))
            self.processes[-1].start()

    def wait(self, timeout: float = 60) -> list[int]:
        """Wait for the end of all processes, and return their exit statuses; fail the test if one hangs."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(deadline - time.monotonic())
        hung = [process for process in self.processes if process.is_alive()]
        for process in hung:
            process.kill()
        assert not hung, f"{len(hung)} of {len(self.processes)} processes hang\n{self.stderr()}"
        return [process.exitcode for process in self.processes]

    def stdout(self, rank: int = 0) -> str:
        return self.outputs[rank][0].read_text()

    def stderr(self, rank: int = 0) -> str:
        return self.outputs[rank][1].read_text()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60) -> None:
        """Wait until `condition` returns true.

        Fail the test if the first process ends before, or if `timeout` seconds pass.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline and self.processes[0].is_alive(), self.stderr()
            time.sleep(0.002)

    # The files of the run directory

    def summary(self) -> dict:
        return json.loads((self.directory / "summary.json").read_text())

    def metrics(self) -> bytes:
        return (self.directory / "metrics.jsonl").read_bytes()

    def checkpoint(self, name: str = "last") -> dict:
        return torch.load(self.directory / "checkpoints" / f"{name}.pt", weights_only=True)


def run(argv: list[str], outputs: tuple[Path, Path], env: dict[str, str], target: Callable | None) -> None:
    """Run main.py in this process, after a call of `target`.

    Args:
        argv: `sys.argv` of main.py.
        outputs: files for stdout and stderr.
        env: environment variables to set.
    """
    for descriptor, path in zip((1, 2), outputs):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)
    os.environ.update(env)
    sys.argv = argv
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    if target:
        target()
    runpy.run_path("main.py", run_name="__main__")


def at_call(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, number: int, action: Callable[[], Any]) -> list:
    """Patch the function `place.name` so that its `number`-th call, counted from 1, calls `action` first.

    Return a list that gets one element for each call.
    """
    function, calls = getattr(place, name), []

    def patched(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            action()
        return function(*args, **kwargs)

    monkeypatch.setattr(place, name, patched)
    return calls


def free_port() -> int:
    """Return the number of a free TCP port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def dropout(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Build a model with dropout, which draws random numbers in training."""
    return with_head(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2)), 32, num_classes)


def add_dropout() -> None:
    """Add the model "dropout" to `MODELS`."""
    MODELS["dropout"] = dropout


def in_double(config: ConfigDict) -> ConfigDict:
    config.trainer.update(epochs=2, eval_every=1, dtype="float64")
    config.model.hidden = (16,)
    return config


def worst_difference(one: Path, two: Path) -> float:
    """Between the weights and every number of metrics.jsonl in two run directories."""
    a, b = (torch.load(directory / "checkpoints" / "selected.pt", weights_only=True) for directory in (one, two))
    differences = [(a[key] - b[key]).abs().max().item() for key in a]
    lines = ((directory / "metrics.jsonl").read_text().splitlines() for directory in (one, two))
    for left, right in zip(*lines, strict=True):
        left, right = json.loads(left), json.loads(right)
        assert left.keys() == right.keys()
        assert [v is None for v in left.values()] == [v is None for v in right.values()]
        differences += [abs(left[key] - right[key]) for key in left if left[key] is not None]
    return max(differences)


def stop_at(step: int) -> None:
    """Send SIGTERM to the last process only, during a step."""
    steps = itertools.count(1)

    def take_step(*args):
        if next(steps) == step and int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_module.take_step(*args)

    loop.take_step = take_step
