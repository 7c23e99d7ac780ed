"""Trials that several processes train together."""

import json
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.jobs import worst_difference
from helpers.server import SERVER

from imbalance.cli.main import call
from imbalance.errors import BadInput, Diverged, Interrupted, LostPeer
from imbalance.report.saved_runs import summary_of
from imbalance.sweep import launch, ranks, slurm
from imbalance.sweep import study as studies
from imbalance.sweep import worker as workers
from imbalance.sweep.ranks import train_on_ranks
from imbalance.sweep.runs import make_run
from imbalance.sweep.storage import StudyLocation
from imbalance.training.loop import train

pytest.importorskip("optuna")
CONFIG = str(ROOT / "configs" / "digits_ce.py")


class InThisProcess:
    """Stand in for the pool of workers: work in this process."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *arguments) -> Future:
        work(*arguments)
        (future := Future()).set_result(None)
        return future


@pytest.fixture
def pools(monkeypatch):
    """Let workers work in this process, and return the arguments of the pools that are asked for."""
    asked = []
    monkeypatch.setattr(launch, "worker_pool", lambda *arguments: asked.append(arguments) or InThisProcess())
    return asked


def test_a_signal_is_passed_on_to_the_ranks():
    handler = signal.getsignal(signal.SIGTERM)
    with ranks.signals_forwarded():
        child = SERVER.Process(target=time.sleep, args=(60,))
        child.start()
        signal.raise_signal(signal.SIGTERM)
        child.join(30)
    assert child.exitcode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler


def answer(*answers):
    """Stand in for torch's launcher: every rank returns its answer."""
    return lambda settings, function: lambda *arguments: dict(enumerate(answers))


@pytest.mark.parametrize("error", [BadInput("config.x: no"), Diverged("nan"), Interrupted(signal.SIGTERM)])
def test_the_error_of_a_rank_is_raised_and_not_that_of_a_rank_that_lost_it(monkeypatch, error):
    import torch.distributed.launcher.api as api

    monkeypatch.setattr(api, "elastic_launch", answer(({}, LostPeer("process 1 has ended")), ({}, error)))
    with pytest.raises(type(error)) as raised:
        train_on_ranks({}, Path(), 2, None)
    assert raised.value is error


def test_a_crash_of_a_rank_comes_back_with_its_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr("imbalance.training.loop.train", lambda *arguments, **options: 1 / 0)
    _, error = ranks.train_rank({}, str(tmp_path), None)
    assert isinstance(error, RuntimeError) and "ZeroDivisionError" in str(error)


def test_a_trial_of_several_processes_is_trained_alone(tmp_path, monkeypatch, pools):
    trained = []

    def train_quietly(runs, pause, processes):
        trained.append((len(runs), processes))
        return [{"status": "done", "score": 0.5, "seconds": 1.0}] * len(runs)

    monkeypatch.setattr(workers, "train_quietly", train_quietly)
    place = StudyLocation("test", str(tmp_path), "")
    studies.add(place, studies.grid({"config": [CONFIG], "seed": [0, 1, 2]}))
    launch.launch(place, None, 1, 16, "local", [], 2)
    assert trained == [(1, 2)] * 3 and pools == [(1, 2)]


def test_a_sweep_with_two_processes_a_run_gives_the_runs_of_one(tmp_path, monkeypatch, pools, capfd):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # or each process would need a GPU of its own
    values = {"trainer.epochs": 2, "trainer.eval_every": 1, "trainer.dtype": "float64", "optim.lr": 0.1}
    overrides = [f"--config.{key}={value}" for key, value in values.items() if key != "optim.lr"]
    command = ["sweep", f"--config={CONFIG}", "--grid=optim.lr=0.1", "--seeds=1", "--processes_per_run=2", "--jobs=1"]
    assert call([*command, *overrides, f"--work_dir={tmp_path / 'two'}"]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert line["trials"] == {"done": 1} and pools == [(1, 2)]
    assert summary_of(Path(line["best"]))["processes"] == 2
    one = make_run(CONFIG, values, 0, str(tmp_path / "one"))
    train(*one)
    assert worst_difference(one.directory, Path(line["best"])) < 1e-9


def test_a_slurm_job_with_too_few_gpus_for_its_processes_is_refused(tmp_path):
    pytest.importorskip("submitit")
    place = StudyLocation("test", str(tmp_path), "")
    with pytest.raises(BadInput, match="--processes_per_run=4: a job with --slurm=gpus_per_node=2 has too few GPUs"):
        slurm.submit(place, "test", None, 1, 1, ["gpus_per_node=2"], 4)
