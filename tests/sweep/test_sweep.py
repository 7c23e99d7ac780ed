import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import imbalance.sweep.runs
from imbalance.cli.main import call
from imbalance.config.override_flags import OverrideText
from imbalance.config.schema import flatten
from imbalance.errors import BadInput, Interrupted
from imbalance.report.saved_runs import summary_of
from imbalance.sweep import lease, sweep
from imbalance.sweep import study as studies
from imbalance.sweep import worker as workers
from imbalance.sweep.launch import launch
from imbalance.sweep.runs import make_run, run_all
from imbalance.sweep.storage import StudyLocation
from imbalance.sweep.study import Search
from imbalance.utils.locks import FolderLock

optuna = pytest.importorskip("optuna")
CONFIG = str(ROOT / "configs" / "digits_ce.py")
AXES = {"config": [CONFIG], "trainer.epochs": [2]}


@pytest.fixture
def place(tmp_path):
    return StudyLocation("test", str(tmp_path / "runs"), "")


def work(place, search=None, stacked=16):
    workers.work(place, search, False, 1, stacked)


@contextmanager
def watcher(place, search=None, number=1, stacked=16):
    """A worker, of `number` workers, whose trials this test takes."""
    with workers.Worker(place, search, number, stacked) as worker:
        yield worker


def trials(place):
    return studies.open_study(place).get_trials()


def test_status_of_a_command_leaves_out_the_trials_of_an_earlier_command(place, capsys):
    """The study of a second grid also has the trials of the first; "1 of 2 runs done" would count a run nobody asked for."""
    first, second = (studies.grid(AXES | {"optim.lr": [rate], "seed": [0]}) for rate in (0.05, 0.1))
    studies.add(place, first)
    work(place)
    studies.add(place, second)
    keys = {studies.key_of(point) for point in second}
    launch(place, None, 1, 16, "local", [], 1, lambda point: studies.key_of(point) in keys)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("1 of 1 runs done") and "before this command" not in "".join(lines)


def test_a_grid_is_run_once_a_diverged_trial_is_recorded_and_a_larger_grid_adds_trials(place):
    points = studies.grid(AXES | {"optim.lr": [0.05, 1e30], "seed": [0]})
    for _ in range(2):
        studies.add(place, points)
        work(place)
        assert [studies.status(t) for t in trials(place)] == ["done", "diverged"]
        assert [t.state.name for t in trials(place)] == ["COMPLETE", "PRUNED"]
    first = summary_of(Path(studies.result(trials(place)[0])["run_directory"]))
    assert trials(place)[0].value == first["score"] and studies.result(trials(place)[0])["seconds"] == first["seconds"]
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


def test_a_search_is_by_the_sampler_that_was_asked_for():
    assert type(workers.make_sampler("tpe", 0)) is optuna.samplers.TPESampler
    assert type(workers.make_sampler("random", 2**63 - 1)) is optuna.samplers.RandomSampler


def test_a_search_draws_the_same_values_again_also_in_parts_and_by_two_workers(place):
    """The sampler had no seed, so no search could be repeated."""
    space = {"config": [CONFIG], "optim.lr": {"low": 1e-3, "high": 1.0, "log": True}, "seed": [0]}

    def rates(name: str, steps: list[int], seed: int, both: bool = False) -> list[float]:
        location = place._replace(name=name)
        for trials_of_step in steps:
            search = Search("random", trials_of_step, space, seed)
            with watcher(location, search, 2) as one, watcher(location, search, 2) as two:
                for i in range(100):  # workers take turns
                    worker = (one, two)[i % 2 if both else 0]
                    if not worker.take():
                        break
                    for taken in worker.held:
                        worker._end(taken, optuna.trial.TrialState.COMPLETE, 0.5, status="done")
                    worker.held = []
        return [trial.params["optim.lr"] for trial in trials(location)]

    whole = rates("whole", [6], 0)
    assert len(set(whole)) == 6
    assert rates("in_parts", [2, 3, 6], 0) == rates("by_two", [6], 0, both=True) == whole
    assert not set(rates("other", [6], 1)) & set(whole)


def test_a_crash_costs_one_trial_which_is_tried_again_when_asked_for_again(place, monkeypatch):
    points = studies.grid(AXES | {"optim.lr": [0.05, 0.1], "seed": [0]})
    train, seen = workers.train_quietly, []

    def crash_once(runs, *_):
        seen.append(runs)
        if len(seen) == 1:
            raise RuntimeError("out of memory")
        return train(runs)

    monkeypatch.setattr(workers, "train_quietly", crash_once)
    studies.add(place, points)
    work(place, stacked=1)
    assert [t.state.name for t in trials(place)] == ["FAIL", "COMPLETE"]
    assert "out of memory" in studies.result(trials(place)[0])["error"]
    assert [studies.status(t) for _, t in studies.points_of(studies.open_study(place))] == ["crashed", "done"]
    studies.add(place, points)
    work(place)
    assert [t.state.name for t in trials(place)] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [studies.status(t) for _, t in studies.points_of(studies.open_study(place))] == ["done", "done"]


def test_workers_divide_the_trials_that_are_trained_at_once(place):
    """Of one experiment: another batch size, and weights that cannot be batched, are for themselves."""
    alike = studies.grid(AXES | {"optim.lr": [0.05, 0.1], "seed": [0, 1, 2]})
    other = studies.grid(AXES | {"trainer.batch_size": [64], "seed": [0, 1]})
    alone = studies.grid(AXES | {"objective.name": ["worst_group"], "seed": [0, 1]})
    studies.add(place, [alike[0], *other, *alone, *alike[1:]])
    held = []
    with watcher(place, number=2, stacked=4) as worker:
        for _ in range(6):
            held.append([taken.number for taken in worker.take()])
            worker.held = []
    assert held == [[0, 5, 6, 7], [8, 9], [1, 2], [3], [4], []]


def test_trials_trained_at_once_are_recorded_one_by_one(place):
    points = studies.grid(AXES | {"optim.lr": [0.05, 1e30, 0.1], "seed": [0]})
    studies.add(place, points)
    work(place)
    found = trials(place)
    assert [studies.status(t) for t in found] == ["done", "diverged", "done"]
    summaries = [summary_of(Path(studies.result(t)["run_directory"])) for t in found]
    assert [s["together"] for s in summaries] == [3, 3, 3]
    assert [t.value for t in found] == [summaries[0]["score"], None, summaries[2]["score"]]


@pytest.mark.parametrize("stacked", [1, 16])
def test_a_trial_that_another_process_trains_is_passed_over_and_taken_later(place, monkeypatch, capsys, stacked):
    """The others come first, batched or not; how long it is held decides nothing else."""
    monkeypatch.setattr(workers, "BUSY_SECONDS", 0.5)
    points = studies.grid(AXES | {"optim.lr": [0.05, 0.1, 0.2], "seed": [0]})
    studies.add(place, points)
    directory = studies.make_run(CONFIG, {"trainer.epochs": 2, "optim.lr": 0.05}, 0, place.work_dir).directory
    lock, order, train = FolderLock(directory), [], workers.Worker.train

    def perform(worker, taken):
        order.append([trial.number for trial in taken])
        if order[-1] == [0] and len(order) > 3:
            lock.close()  # by now, the other process has ended
        return train(worker, taken)

    monkeypatch.setattr(workers.Worker, "train", perform)
    workers.work(place, None, True, 1, stacked)
    assert [studies.status(t) for t in trials(place)] == ["done"] * 3
    assert order[-1] == [0] and sorted(n for numbers in order[1:-1] for n in numbers if n) == [1, 2]
    assert capsys.readouterr().err.count("another process is training in") == 1


def test_a_stopped_worker_gives_its_trials_back(place, monkeypatch):
    studies.add(place, studies.grid(AXES | {"optim.lr": [0.05], "seed": [0, 1]}))

    def stop(runs, *_):
        assert [t.state.name for t in trials(place)] == ["RUNNING"] * 2
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "train_quietly", stop)
        with pytest.raises(Interrupted):
            work(place)
    assert [t.state.name for t in trials(place)] == ["WAITING"] * 2
    work(place)
    assert [t.state.name for t in trials(place)] == ["COMPLETE"] * 2


def test_points_that_are_the_same_run_or_the_same_point_are_run_once(place):
    one = {"config": CONFIG, "trainer.epochs": 2, "optim.lr": 0.05, "seed": 0}
    studies.add(place, [one, one, one | {"config": "digits_ce"}])
    work(place)
    assert [studies.status(t) for t in trials(place)] == ["done", "done"]
    assert len({studies.result(trial)["run_directory"] for trial in trials(place)}) == 1


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


def end(place, number, value, status="done", data="d"):
    """End a trial as a worker does, without training."""
    storage = workers.open_storage(place)
    state = optuna.trial.TrialState.PRUNED if value is None else optuna.trial.TrialState.COMPLETE
    storage.set_trial_user_attr(number, "result", {"status": status, "run_directory": f"run{number}", "data": data})
    storage.set_trial_state_values(number, state, None if value is None else [value])


SEEDS = {  # by learning rate, the score of each seed; nan diverged
    "best": {0.1: [nan, nan, nan, nan, 0.92], 0.2: [0.90, 0.91, 0.89, 0.90, 0.90]},
    "worth its losses": {0.1: [0.95, 0.95, 0.95, 0.95, nan], 0.2: [0.5, 0.5, 0.5, 0.5, 0.5]},
    "all diverged": {0.1: [nan], 0.2: [nan]},
}


def test_finished_runs_whose_score_has_no_value_are_told(place, capsys):
    studies.add(place, studies.grid({"config": [CONFIG], "optim.lr": [0.1, 0.2], "seed": [0]}))
    end(place, 0, None)
    end(place, 1, nan)  # as older versions recorded such a run
    assert sweep.report_study(place, lambda point: True) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["setting"] is None
    assert "finished runs without a score: 2 of 2, because config.score has no value on their data" in err


@pytest.mark.parametrize(
    ("case", "best", "score", "diverged"),
    [("best", 0.2, 0.9, 0), ("worth its losses", 0.1, 0.95, 1), ("all diverged", None, None, 0)],
)
def test_a_diverged_seed_counts_as_the_lowest_score_when_settings_are_compared(
    place, capsys, case, best, score, diverged
):
    values = SEEDS[case]
    points = studies.grid({"config": [CONFIG], "optim.lr": list(values), "seed": list(range(len(values[0.1])))})
    studies.add(place, points)
    for number, value in enumerate(value for scores in values.values() for value in scores):
        end(place, number, None if isnan(value) else value, "diverged" if isnan(value) else "done")
    assert sweep.report_study(place, lambda point: True) == 0
    out, err = capsys.readouterr()
    table, line = out.splitlines()[:-1], json.loads(out.splitlines()[-1])
    assert (line["setting"] or {}).get("optim.lr") == best and line["score"] == pytest.approx(score)
    assert line["diverged"] == diverged and "mean, diverged as 0" in table[0]
    assert "without a score" not in err
    if case == "best":  # the survivor's score is shown, and why it is not the best
        assert table[2].endswith("| 0.920 | 1 | 4 | 0.184 |") and table[3].endswith("| 0 | 0.900 |")
        assert "optim.lr=0.1: mean 0.920 over 1 of 5 seeds, but 4 diverged and count as 0" in err
    elif case == "all diverged":
        assert table[2].endswith("| – | 0 | 1 | 0.000 |") and table[3].endswith("| – | 0 | 1 | 0.000 |")
    elif case == "worth its losses":
        assert (
            line["score_with_diverged"] == pytest.approx(0.76) and line["seeds"] == 4 and "another setting" not in err
        )
    missing = f"{line['trials'].get('done', 0)} of {line['trials'].get('done', 0)} finished runs have no run directory"
    assert (missing in err) == (case != "all diverged")  # no trial of this test was trained


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
    space, point = sweep.make_space([CONFIG], common, ["loss.alpha=1:2", "weights.exponent=1,2"], place.work_dir)
    assert space["loss.alpha"] == {"low": 1.0, "high": 2.0, "log": False} and point["loss.left"] == "logistic"
    assert repr(space["loss.alpha"]["low"]) == "1.0" and space["weights.exponent"] == [1.0, 2.0]
    work(place, Search("random", 2, space))
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
    workers.work(place, None, True, 1, 16)
    found = studies.points_of(studies.open_study(place))
    assert [t.state.name for _, t in found] == ["COMPLETE"] * 6
    assert sorted(point["seed"] for point, _ in found) == list(range(6))
    assert len(done(tmp_path)) == 6 and 2 <= len(written) < 6
    assert written.items() <= done(tmp_path).items()
    for _, trial in found:  # no evaluation is missing or written twice
        lines = Path(studies.result(trial)["run_directory"], "metrics.jsonl").read_text().splitlines()
        epochs = [json.loads(line)["epoch"] for line in lines]
        assert epochs == sorted(set(epochs)) and epochs[-1] == 40


def test_a_stop_survives_the_way_back_from_a_worker():
    assert str(pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))).startswith("SIGTERM: stopped")


def test_the_command_that_wandbs_agent_makes_is_one_that_main_understands(monkeypatch, capfd):
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
    monkeypatch.chdir(ROOT)
    assert call(["train", *command, "--dry_run"]) == 0  # main.py is `imbalance train`
    text, _, directory = capfd.readouterr().out.strip().rpartition("\n")
    found = flatten(json.loads(text))
    assert all(found[key.removeprefix("config.")] == value for key, value in values.items())
    assert found["logger.mode"] == "online" and directory.endswith("/optim.lr=0.001,weights.exponent=2.0/seed=0")
    assert said["metric"]["name"] == found["score"]  # which every evaluation logs


def write_table(path: Path, flipped: int = 0) -> None:
    """Write a table of two classes of points, with the classes of the first `flipped` examples exchanged."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    labels[:flipped] = 1 - labels[:flipped]
    rows = [f"{a:.4f},{b:.4f},{label}\n" for (a, b), label in zip(rng.normal(size=(200, 2)), labels)]
    path.write_text("a,b,target\n" + "".join(rows))


def test_scores_of_data_that_have_changed_since_are_not_returned(tmp_path, capfd):
    write_table(tmp_path / "table.csv")
    command = [
        "sweep", "--config=arrays_ce", f"--config.data_dir={tmp_path}", "--config.trainer.epochs=1",
        "--search=optim.lr=0.01:0.1", "--trials=2", "--seeds=1", "--jobs=1", f"--work_dir={tmp_path / 'runs'}", f"--storage=journal:{tmp_path / 'journal'}", "--study=s",
    ]  # fmt: skip
    before = [run_sweep(command, capfd) for _ in range(2)]
    assert before[0] == before[1] and before[0]["trials"] == {"done": 2}
    assert call([*command, "--sampler_seed=7"]) == 0
    assert "has all 2 trials of this search already, so --sampler and --sampler_seed choose" in capfd.readouterr().err

    write_table(tmp_path / "table.csv", flipped=40)
    assert call(command) == 2  # as `imbalance train` refuses the run directory
    out, err = capfd.readouterr()
    assert not out and "these are not the data that" in err and "targets" in err
    write_table(tmp_path / "table.csv")
    assert run_sweep(command, capfd) == before[0]

    write_table(tmp_path / "table.csv", flipped=40)
    shutil.rmtree(tmp_path / "runs")
    after = run_sweep(command, capfd)
    assert after["trials"] == {"done": 2} and after["score"] != before[0]["score"]


def run_sweep(command: list[str], capfd) -> dict:
    """Run a sweep, and return the JSON object that it prints."""
    assert call(command) == 0
    return json.loads(capfd.readouterr().out.splitlines()[-1])


def test_trials_of_machines_with_different_data_are_not_compared(place):
    studies.add(place, studies.grid({"config": [CONFIG], "optim.lr": [0.1, 0.2], "seed": [0, 1]}))
    for number, digest in enumerate("aaab"):  # seeds may have different data, trials of one seed may not
        end(place, number, 0.5, data=digest)
    with pytest.raises(BadInput, match=r"trials 1 and 3 of the study were trained on different data"):
        sweep.report_study(place, lambda point: True)


def test_fixed_overrides_and_configs_are_part_of_a_studys_key_and_a_sweep_reports_its_own_trials(tmp_path, capfd):
    def run(*arguments: str) -> dict:
        return run_sweep(["sweep", "--jobs=1", "--seeds=1", f"--work_dir={tmp_path}", *arguments], capfd)

    grid = ("--config=digits_ce", "--grid=optim.lr=0.05,0.1")
    long, short = run(*grid, "--config.trainer.epochs=3"), run(*grid, "--config.trainer.epochs=1")
    assert long["score"] > short["score"] and short["setting"]["trainer.epochs"] == 1
    assert "/sweeps/digits_ce,trainer.epochs=1/" in short["study"] != long["study"]
    both = run("--config=digits_ce,digits_erm", "--grid=optim.lr=0.1", "--config.trainer.epochs=1")
    assert "/sweeps/digits_ce+digits_erm,trainer.epochs=1/" in both["study"] and both["trials"] == {"done": 2}

    # Under one name, each command reports what it asked for, and a search does not learn from other trials.
    named = "--study=mine"
    run(*grid, "--config.trainer.epochs=3", named)
    assert run(*grid, "--config.trainer.epochs=1", named) | {"study": ""} == short | {"study": ""}
    search = ["sweep", "--config=digits_ce", "--search=optim.lr=0.01:1", "--trials=3", f"--work_dir={tmp_path}", named]
    assert call([*search, "--config.trainer.epochs=1"]) == 2
    assert "study mine: its trial 0 has trainer.epochs=3, which this search does not vary" in capfd.readouterr().err


@pytest.mark.parametrize("axes", ["--grid=loss.name=cross_entropy,focal", "--search=loss.name=cross_entropy,focal"])
def test_a_method_whose_values_an_axis_cannot_give_is_refused_before_any_run(tmp_path, capfd, axes):
    """A flag --config.loss.gamma would be refused for the other method of the axis."""
    command = ["sweep", f"--config={CONFIG}", axes, "--seeds=1", f"--work_dir={tmp_path}"]
    command = command[:3] + command[4:] if "search" in axes else command
    assert call(command) == 2 and not list(tmp_path.iterdir())
    advice = 'imbalance compare --variant="loss.name=focal loss.gamma=<number, at least 0>"'
    error = capfd.readouterr().err.splitlines()[-1]
    assert (
        error.startswith("axis loss.name: focal needs loss.gamma, which cross_entropy does not take; ")
        and advice in error
    )
    assert call([*command, "--config.loss.gamma=1"]) == 2
    command[2] = axes.replace("cross_entropy,", "")
    assert call(command) == 2
    assert "config.loss.gamma: missing; add --config.loss.gamma=<number, at least 0>" in capfd.readouterr().err


def test_an_override_of_an_axis_is_refused(tmp_path, capfd):
    command = ["sweep", "--config=digits_ce", "--grid=optim.lr=1,2", "--config.optim.lr=3", f"--work_dir={tmp_path}"]
    assert call(command) == 2 and "optim.lr is an axis too" in capfd.readouterr().err


@pytest.mark.parametrize("run_directory", ["kept", "lost"])
def test_a_study_of_an_older_version_goes_on_in_its_database(place, run_directory):
    """Its trials have no identity, and were RUNNING under a file lock; its worker was killed here."""
    points = studies.grid(AXES | {"optim.lr": [0.05, 0.1, 1e30, 0.2], "seed": [0]})
    folder = Path(place.work_dir) / "sweeps" / "test"
    folder.mkdir(parents=True)
    study = optuna.create_study(study_name="test", storage=f"sqlite:///{folder / 'study.db'}", direction="maximize")
    run_all([make_run(CONFIG, {"trainer.epochs": 2, "optim.lr": 0.05}, 0, place.work_dir)], 1, 1)
    directories = sorted(Path(place.work_dir).glob("*/optim*/*"))
    for point in points:
        study.enqueue_trial({"optim.lr": point["optim.lr"]}, user_attrs={"point": point})
    first, second, third = study.ask(), study.ask(), study.ask()
    for trial in (first, second, third):
        trial.suggest_float("optim.lr", 0.05, 1e30)
    first.set_user_attr("status", "done")
    first.set_user_attr("run_directory", str(directories[0]))
    study.tell(first, 0.25)
    third.set_user_attr("status", "crashed")
    study.tell(third, state=optuna.trial.TrialState.FAIL)
    if run_directory == "lost":
        shutil.rmtree(directories[0])

    assert place.url.startswith("sqlite:///")
    lease.GRACE, grace = 0.0, lease.GRACE
    try:
        studies.add(place, points)
        work(place)
    finally:
        lease.GRACE = grace
    found = {point["optim.lr"]: trial for point, trial in studies.points_of(studies.open_study(place))}
    assert [studies.status(found[rate]) for rate in (0.05, 0.1, 1e30, 0.2)] == ["done", "done", "diverged", "done"]
    # The data of the first trial are known from its run directory, and without that it is trained again.
    assert (found[0.05].number == 0) == (run_directory == "kept")


def test_a_study_is_read_when_trials_run_out_and_not_for_every_trial(place, monkeypatch):
    number = 60
    studies.add(place, studies.grid({"config": [CONFIG], "seed": list(range(number))}))
    reads, resolved, get, make = [], [], optuna.Study.get_trials, studies.make_run
    monkeypatch.setattr(optuna.Study, "get_trials", lambda *a, **kw: reads.append(1) or get(*a, **kw))
    monkeypatch.setattr(studies, "make_run", lambda *a: resolved.append(1) or make(*a))
    summary = {"status": "done", "score": 0.5, "seconds": 1.0}
    monkeypatch.setattr(workers, "train_quietly", lambda runs, *_: [summary] * len(runs))
    work(place, stacked=1)
    assert [studies.status(trial) for trial in trials(place)] == ["done"] * number
    assert len(reads) <= 4 and len(resolved) == number
