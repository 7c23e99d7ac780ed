"""Trials that several processes train together."""

import json
import signal
import time
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.jobs import in_double, worst_difference
from helpers.server import SERVER

from imbalance.cli.main import call
from imbalance.config.experiment import validate
from imbalance.errors import BadInput, Diverged, Interrupted, LostPeer
from imbalance.report.saved_runs import summary_of
from imbalance.sweep import launch, ranks, slurm
from imbalance.sweep import study as studies
from imbalance.sweep.ranks import train_on_ranks
from imbalance.sweep.storage import StudyLocation, open_study
from imbalance.training.loop import train

pytest.importorskip("optuna")
CONFIG = str(ROOT / "configs" / "digits_ce.py")


@pytest.fixture
def spawned(monkeypatch):
    """Hide the GPUs from the processes, which would need one each, and the files of this test from their imports."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_ranks_pause_and_go_on_as_one_process(config, tmp_path, spawned):
    values = validate(in_double(config)).to_dict()
    one, two = tmp_path / "one", tmp_path / "two"
    train(values, one)
    assert train_on_ranks(values, two, 2, pause=1)["epoch"] == 1 and summary_of(two)["status"] == "interrupted"

    summary = train_on_ranks(values, two, 2, None)
    assert summary["status"] == "done" and summary["processes"] == 2
    assert worst_difference(one, two) < 1e-9


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


def test_a_trial_of_several_processes_is_trained_alone(tmp_path, monkeypatch):
    trained = []

    def train_quietly(runs, pause, processes):
        trained.append((len(runs), processes))
        return [{"status": "done", "score": 0.5, "seconds": 1.0}] * len(runs)

    class InThisProcess:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, work, *arguments):
            work(*arguments)
            from concurrent.futures import Future

            (future := Future()).set_result(None)
            return future

    monkeypatch.setattr(studies, "train_quietly", train_quietly)
    pools = []
    monkeypatch.setattr(launch, "worker_pool", lambda *arguments: pools.append(arguments) or InThisProcess())
    place = StudyLocation("test", str(tmp_path), "")
    studies.add(place, studies.grid({"config": [CONFIG], "seed": [0, 1, 2]}))
    launch.launch(place, None, 1, 16, "local", [], 2)
    assert trained == [(1, 2)] * 3 and pools == [(1, 2)]


def test_a_sweep_with_several_processes_a_run_starts_them(tmp_path, spawned, capfd):
    command = [
        "sweep", f"--config={CONFIG}", "--grid=optim.lr=0.1", "--seeds=1", "--processes_per_run=2", "--jobs=1",
        "--config.trainer.epochs=1", "--config.trainer.eval_every=1", f"--work_dir={tmp_path}",
    ]  # fmt: skip
    assert call(command) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert line["trials"] == {"done": 1} and summary_of(Path(line["best"]))["processes"] == 2
    ((_, trial),) = studies.points_of(open_study(StudyLocation("digits_ce,trainer.epochs=1,trainer.eval_every=1", str(tmp_path), "")))
    assert studies.status(trial) == "done"


def test_a_slurm_job_with_too_few_gpus_for_its_processes_is_refused(tmp_path):
    pytest.importorskip("submitit")
    place = StudyLocation("test", str(tmp_path), "")
    with pytest.raises(BadInput, match="--processes_per_run=4: a job with --slurm=gpus_per_node=2 has too few GPUs"):
        slurm.submit(place, "test", None, 1, 1, ["gpus_per_node=2"], 4)
