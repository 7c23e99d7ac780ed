import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import ROOT

import imbalance.sweep.runs
from imbalance.cli.main import call
from imbalance.config.overrides import OverrideText
from imbalance.config.schema import flatten
from imbalance.errors import BadInput, Interrupted
from imbalance.report.saved_runs import summary_of
from imbalance.sweep import study as studies
from imbalance.sweep import sweep
from imbalance.sweep.runs import make_run, run_all
from imbalance.sweep.study import Search, StudyLocation
from imbalance.utils.locks import FolderLock

optuna = pytest.importorskip("optuna")
CONFIG = str(ROOT / "configs" / "digits_ce.py")
AXES = {"config": [CONFIG], "trainer.epochs": [2]}


@pytest.fixture
def place(tmp_path):
    return StudyLocation("test", str(tmp_path / "runs"), "")


def work(place, search=None, stacked=16):
    return studies.work(place, search, False, 1, stacked)


def trials(place):
    return studies.open_study(place).get_trials()


def test_a_grid_is_run_once_a_diverged_trial_is_recorded_and_a_larger_grid_adds_trials(place):
    points = studies.grid(AXES | {"optim.lr": [0.05, 1e30], "seed": [0]})
    for _ in range(2):
        studies.add(place, points)
        work(place)
        assert [studies.status(t) for t in trials(place)] == ["done", "diverged"]
        assert [t.state.name for t in trials(place)] == ["COMPLETE", "PRUNED"]
    first = summary_of(Path(trials(place)[0].user_attrs["run_directory"]))
    assert trials(place)[0].value == first["score"]
    assert trials(place)[0].params == {"trainer.epochs": 2, "optim.lr": 0.05, "seed": 0}  # for Optuna's dashboard

    studies.add(place, studies.grid(AXES | {"optim.lr": [0.05, 0.1], "seed": [0]}))
    work(place)
    assert [t.user_attrs["point"]["optim.lr"] for t in trials(place)] == [0.05, 1e30, 0.1]


def test_names_and_tuples_are_values_of_a_grid_too(place):
    key, hidden = sweep.parse_axis(CONFIG, "model.hidden=(4,),(4,4)")
    studies.add(place, studies.grid(AXES | {key: hidden, "optim.schedule.name": ["constant"], "seed": [0]}))
    work(place)
    found = studies.points_of(studies.open_study(place))
    assert [point["model.hidden"] for point, _ in found] == [(4,), (4, 4)]
    assert all(studies.status(trial) == "done" for _, trial in found)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_stops_at_its_number_of_trials(place, sampler):
    space = {
        "config": [CONFIG],
        "trainer.epochs": [1],
        "optim.lr": {"low": 1e-3, "high": 1.0, "log": True},
        "seed": [0],
    }
    for _ in range(2):
        work(place, Search(sampler, 3, space))
    rates = [t.params["optim.lr"] for t in trials(place)]
    assert len(set(rates)) == 3 and all(1e-3 <= rate <= 1 for rate in rates)


def test_a_search_is_by_the_sampler_that_was_asked_for_and_waits_for_a_busy_database(place, monkeypatch):
    optuna, given = studies.import_optuna(), []
    storage = optuna.storages.RDBStorage
    make = storage.__init__
    monkeypatch.setattr(storage, "__init__", lambda self, *a, **kw: given.append(kw) or make(self, *a, **kw))
    assert type(studies.open_study(place, "tpe").sampler) is optuna.samplers.TPESampler
    assert type(studies.open_study(place, "random").sampler) is optuna.samplers.RandomSampler
    assert [kwargs["engine_kwargs"]["connect_args"]["timeout"] for kwargs in given] == [60, 60]  # sqlite3's own is 5


def test_a_trial_is_one_workers_until_it_dies_and_then_anothers(place):
    studies.add(place, studies.grid(AXES | {"optim.lr": [0.05], "seed": [0]}))
    storage = studies.open_storage(place)
    study = studies.open_study(place, storage=storage)
    (taken,), others = studies._take(study, storage, place, None, 1, 16)
    assert not others
    assert studies._take(study, storage, place, None, 1, 16) == ([], 1)
    studies._suggest(study, taken.trial, None)
    taken.lock.release()  # as the system does when its worker dies
    studies.add(place, studies.grid(AXES | {"optim.lr": [0.05, 0.1], "seed": [0]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna's, of values suggested within other bounds
        work(place)
    assert [t.params["optim.lr"] for t in trials(place) if t.state.name == "COMPLETE"] == [0.05, 0.1]


def test_a_crash_costs_one_trial_which_is_tried_again_when_asked_for_again(place, monkeypatch):
    points = studies.grid(AXES | {"optim.lr": [0.05, 0.1], "seed": [0]})
    train, seen = studies.train_quietly, []

    def crash_once(runs):
        seen.append(runs)
        if len(seen) == 1:
            raise RuntimeError("out of memory")
        return train(runs)

    monkeypatch.setattr(studies, "train_quietly", crash_once)
    studies.add(place, points)
    assert work(place, stacked=1) == 1
    assert [t.state.name for t in trials(place)] == ["FAIL", "COMPLETE"]
    assert "out of memory" in trials(place)[0].user_attrs["error"]
    studies.add(place, points)
    assert work(place) == 0
    assert [t.state.name for t in trials(place)] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [studies.status(t) for _, t in studies.points_of(studies.open_study(place))] == ["done", "done"]


def test_workers_divide_the_trials_that_are_trained_at_once(place):
    """Of one experiment: another batch size, and weights that cannot be batched, are for themselves."""
    alike = studies.grid(AXES | {"optim.lr": [0.05, 0.1], "seed": [0, 1, 2]})
    other = studies.grid(AXES | {"trainer.batch_size": [64], "seed": [0, 1]})
    alone = studies.grid(AXES | {"objective.name": ["worst_group"], "seed": [0, 1]})
    studies.add(place, [alike[0], *other, *alone, *alike[1:]])
    storage, held = studies.open_storage(place), []  # as long as it is held, nobody else takes a trial
    study = studies.open_study(place, storage=storage)
    for _ in range(6):
        held.append(studies._take(study, storage, place, None, 2, 4)[0])
    assert [[trial.trial.number for trial in taken] for taken in held] == [[0, 5, 6, 7], [1, 2], [3], [4], [8, 9], []]


def test_trials_trained_at_once_are_recorded_one_by_one(place):
    points = studies.grid(AXES | {"optim.lr": [0.05, 1e30, 0.1], "seed": [0]})
    studies.add(place, points)
    work(place)
    found = trials(place)
    assert [studies.status(t) for t in found] == ["done", "diverged", "done"]
    summaries = [summary_of(Path(t.user_attrs["run_directory"])) for t in found]
    assert [s["together"] for s in summaries] == [3, 3, 3]
    assert [t.value for t in found] == [summaries[0]["score"], None, summaries[2]["score"]]


@pytest.mark.parametrize("stacked", [1, 16])
def test_a_trial_that_another_process_trains_is_passed_over_and_taken_later(place, monkeypatch, capsys, stacked):
    """The others come first, batched or not; how long it is held decides nothing else."""
    monkeypatch.setattr(studies, "BUSY_SECONDS", 0.5)
    points = studies.grid(AXES | {"optim.lr": [0.05, 0.1, 0.2], "seed": [0]})
    studies.add(place, points)
    directory = studies.make_run(CONFIG, {"trainer.epochs": 2, "optim.lr": 0.05}, 0, place.work_dir).directory
    lock, order, train = FolderLock(directory), [], studies._train_trials

    def perform(study, taken, *rest):
        order.append([trial.number for trial in taken])
        if order[-1] == [0] and len(order) > 3:
            lock.close()  # by now, the other process has ended
        return train(study, taken, *rest)

    monkeypatch.setattr(studies, "_train_trials", perform)
    assert studies.work(place, None, True, 1, stacked) == 0
    assert [studies.status(t) for t in trials(place)] == ["done"] * 3
    assert order[-1] == [0] and sorted(n for numbers in order[1:-1] for n in numbers if n) == [1, 2]
    assert capsys.readouterr().err.count("another process is training in") == 1


@pytest.mark.parametrize("error", [None, Interrupted(signal.SIGTERM)], ids=["done", "interrupted"])
def test_a_trial_is_let_go_of_when_its_training_ends(place, monkeypatch, error):
    """At once, and not when nothing refers to the lock any more: this test does all along."""
    studies.add(place, studies.grid(AXES | {"optim.lr": [0.05], "seed": [0]}))
    take, taken = studies._take, []

    def kept(*args):
        found = take(*args)
        taken.extend(found[0])
        return found

    def perform(*args):
        assert taken[0].lock.is_locked
        if error:
            raise error
        taken[0].trial.study.tell(taken[0].trial.number, 0.5)
        return 0

    monkeypatch.setattr(studies, "_take", kept)
    monkeypatch.setattr(studies, "_train_trials", perform)
    with pytest.raises(Interrupted) if error else nullcontext():
        work(place)
    assert len(taken) == 1 and not taken[0].lock.is_locked


def test_points_that_are_the_same_run_or_the_same_point_are_run_once(place):
    one = {"config": CONFIG, "trainer.epochs": 2, "optim.lr": 0.05, "seed": 0}
    studies.add(place, [one, one, one | {"config": "digits_ce"}])
    work(place)
    assert [studies.status(t) for t in trials(place)] == ["done", "done"]
    assert trials(place)[0].user_attrs["run_directory"] == trials(place)[1].user_attrs["run_directory"]


def test_runs_that_another_process_trains_come_last(place, monkeypatch, capfd):
    runs = [make_run(CONFIG, {"trainer.epochs": 1, "optim.lr": rate}, 0, place.work_dir) for rate in (0.05, 0.1)]
    lock = FolderLock(runs[0].directory)

    def said(text: str, **options) -> None:
        print(text, **options)
        if "another process is training in" in text:
            lock.close()

    monkeypatch.setattr(imbalance.sweep.runs, "print", said, raising=False)
    summaries = run_all(runs, jobs=1, stacked=16)
    assert [summary["status"] for summary in summaries] == ["done"] * 2
    assert summaries[0]["run_directory"] == str(runs[0].directory)
    assert "another process is training in" in capfd.readouterr().err


def test_a_mistake_in_the_grid_shows_before_the_study_is_made(place):
    with pytest.raises(BadInput, match=r"config\.optim\.lr: -1.0 given"):
        studies.add(place, studies.grid(AXES | {"optim.lr": [0.1, -1.0], "seed": [0]}))
    assert not place.folder.exists()


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("optim.lr=1,0.1", [1.0, 0.1]),
        ("optim.lr=1e-3:1:log", {"low": 0.001, "high": 1.0, "log": True}),
        ("trainer.batch_size=64:512", {"low": 64, "high": 512, "log": False}),
        ("loss.name=cross_entropy,poly", ["cross_entropy", "poly"]),
        ("model.hidden=(256,256),(8,)", [(256, 256), (8,)]),
    ],
)
def test_axes_are_read_as_the_config_has_them(text, axis):
    found = sweep.parse_axis(CONFIG, text)[1]
    assert found == axis and repr(found) == repr(axis)


def test_a_grid_can_swap_a_method_and_every_trial_has_the_common_overrides(tmp_path, capfd):
    command = [
        "sweep", f"--config={CONFIG}", "--grid=loss.alpha=1,2", "--grid=trainer.epochs=1", "--seeds=1", "--jobs=1",
        "--config.loss.name=poly", "--config.loss.left=logistic", "--config.model.hidden=8", f"--work_dir={tmp_path}",
    ]  # fmt: skip
    assert call(command) == 0
    assert call(command) == 0  # and nothing is trained again
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("digits_ce/*/*/config.json"))]
    assert [config["loss"] for config in found] == [
        {"name": "poly", "alpha": a, "left": "logistic"} for a in (1.0, 2.0)
    ]
    assert [config["model"]["hidden"] for config in found] == [[8], [8]]
    assert capfd.readouterr().out.count("| 1 | 0 |") == 4


def test_a_search_reads_a_new_section_as_its_signature_says(place):
    common = {"loss.name": OverrideText("poly"), "loss.left": OverrideText("logistic"), "trainer.epochs": 1}
    found = sweep.make_search(place, [CONFIG], common, ["loss.alpha=1:2", "weights.exponent=1,2"], "random", 2)
    assert found.space["loss.alpha"] == {"low": 1.0, "high": 2.0, "log": False}
    assert repr(found.space["loss.alpha"]["low"]) == "1.0" and found.space["weights.exponent"] == [1.0, 2.0]
    work(place, found)
    assert all(1 <= trial.user_attrs["point"]["loss.alpha"] <= 2 for trial in trials(place))


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr=", "optim.lr=1:0.1", "optim.lr=1:2:3", "optim.lr=fast"])
def test_an_axis_that_makes_no_sense_is_one_line(text):
    with pytest.raises(BadInput):
        sweep.parse_axis(CONFIG, text)


def done(folder: Path) -> dict[Path, int]:
    """When each summary of a finished run was written."""
    found = folder.rglob("summary.json")
    return {path: path.stat().st_mtime_ns for path in found if summary_of(path.parent)["status"] == "done"}


def test_killed_half_way_and_started_again_nothing_is_run_twice_and_nothing_lost(place, tmp_path):
    """SIGKILL hits the sweep alone: its worker, which gets no signal, must save, end and let go of its trial."""
    points = studies.grid({"config": [CONFIG], "trainer.epochs": [40], "optim.lr": [0.05], "seed": list(range(6))})
    command = [
        sys.executable, "-m", "imbalance", "sweep", f"--config={CONFIG}", "--grid=trainer.epochs=40", "--seeds=6",
        "--grid=optim.lr=0.05", "--study=test", f"--work_dir={place.work_dir}", "--jobs=1", "--stacked=1",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    # One by one: trained at once, all six would be done in the same moment, with nothing left to go on with.
    while len(done(tmp_path)) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = done(tmp_path)

    studies.add(place, points)
    studies.work(place, None, True, 1, 16)
    found = trials(place)
    assert [t.state.name for t in found] == ["COMPLETE"] * 6
    assert sorted(t.user_attrs["point"]["seed"] for t in found) == list(range(6))
    assert len(done(tmp_path)) == 6 and 2 <= len(written) < 6
    assert written.items() <= done(tmp_path).items()
    for trial in found:  # no evaluation is missing or written twice
        lines = Path(trial.user_attrs["run_directory"], "metrics.jsonl").read_text().splitlines()
        epochs = [json.loads(line)["epoch"] for line in lines]
        assert epochs == sorted(set(epochs)) and epochs[-1] == 40


def test_a_stop_survives_the_way_back_from_a_worker():
    assert str(pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))).startswith("SIGTERM: stopped")


def test_the_command_that_wandbs_agent_makes_is_one_that_main_understands(main):
    """The YAML expanded as `wandb agent` does it, by wandb's own functions, with values of the space's ends."""
    yaml, utils = pytest.importorskip("yaml"), pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    said = yaml.safe_load((ROOT / "experiments" / "wandb_sweep.yaml").read_text())
    values = {key: axis["values"][-1] if "values" in axis else axis["min"] for key, axis in said["parameters"].items()}
    filled = utils.create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    filled |= {"env": [], "interpreter": [], "program": []}
    command = [
        arg for part in utils.create_sweep_command(said["command"])
        for arg in (filled[part[2:-1]] if part.startswith("${") else [part])
    ]  # fmt: skip
    assert said["program"] == "main.py" and said["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    result = main(*command, "--dry_run")
    assert result.returncode == 0, result.stderr
    text, _, directory = result.stdout.strip().rpartition("\n")
    found = flatten(json.loads(text))
    assert all(found[key.removeprefix("config.")] == value for key, value in values.items())
    assert found["logger.mode"] == "online" and directory.endswith("/optim.lr=0.001,weights.exponent=2.0/seed=0")
    assert said["metric"]["name"] == found["score"]  # which every evaluation logs
