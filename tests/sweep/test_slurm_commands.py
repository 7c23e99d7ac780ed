"""The commands of Slurm as a sweep uses them, by stand-ins for `sbatch` and `squeue`."""

import subprocess
from types import SimpleNamespace

import pytest

from imbalance.sweep import launch, slurm
from imbalance.sweep import study as studies
from imbalance.sweep import worker as workers
from imbalance.sweep.storage import StudyLocation, open_study

pytest.importorskip("optuna")


@pytest.fixture
def place(tmp_path):
    place = StudyLocation("test", str(tmp_path), "")
    studies.add(place, studies.grid({"config": ["digits_ce"], "seed": [0, 1]}))
    return place


class Slurm:
    """A stand-in: `answers` has what squeue answers, call by call, as (status, stdout, stderr)."""

    def __init__(self, monkeypatch, *answers):
        self.answers, self.submitted = list(answers), []
        monkeypatch.setattr(slurm, "submit", self.submit)
        monkeypatch.setattr(slurm.subprocess, "run", self.squeue)
        monkeypatch.setattr(slurm, "SQUEUE_SECONDS", 0.0)
        monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)

    def submit(self, location, name, search, jobs, stacked, parameters, processes):
        self.submitted.append(jobs)
        paths = SimpleNamespace(result_pickle=SimpleNamespace(exists=lambda: False))
        return [SimpleNamespace(job_id=f"{100 * len(self.submitted)}_{i}", paths=paths) for i in range(jobs)]

    def squeue(self, command, **options):
        assert command[0] == "squeue" and command[-1] == "test"
        return subprocess.CompletedProcess(command, *self.answers.pop(0))


RUNNING, GONE = (0, "100_0 main\n", ""), (1, "", "slurm_load_jobs error: Invalid job id specified\n")
DOWN = (1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")


def test_the_same_command_again_waits_for_the_array_and_submits_no_other(place, monkeypatch, capsys):
    cluster = Slurm(monkeypatch, RUNNING, (0, "", ""), RUNNING, RUNNING, GONE, GONE, GONE)
    launch.launch(place, None, 8, 16, "slurm", [])
    assert cluster.submitted == [2]  # no more jobs than trials
    assert open_study(place).user_attrs[slurm.ARRAY] == "100"
    launch.launch(place, None, 8, 16, "slurm", [])
    assert cluster.submitted == [2] and "Slurm array 100 of this study is not finished" in capsys.readouterr().err
    launch.launch(place, None, 8, 16, "slurm", [])  # the array is gone, and two trials are left
    assert cluster.submitted == [2, 2] and not cluster.answers


def test_squeue_that_fails_is_not_the_end_of_the_jobs(place, monkeypatch, capsys):
    cluster = Slurm(monkeypatch, RUNNING, DOWN, DOWN, DOWN, RUNNING, (0, "", ""))
    launch.launch(place, None, 1, 16, "slurm", [])
    assert not cluster.answers
    assert capsys.readouterr().err.count("squeue does not answer (slurm_load_jobs error: Unable to contact") == 1


def test_nothing_is_submitted_where_nothing_is_left(place, monkeypatch):
    cluster = Slurm(monkeypatch)
    summary = {"status": "done", "score": 0.5, "seconds": 1.0}
    monkeypatch.setattr(workers, "train_quietly", lambda runs, *_: [summary] * len(runs))
    workers.work(place, None, False, 1, 16)
    launch.launch(place, None, 8, 16, "slurm", [])
    launch.launch(place, None, 8, 16, "local", [])  # nor is a worker started
    assert not cluster.submitted
