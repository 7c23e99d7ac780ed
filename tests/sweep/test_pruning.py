"""Settings are pruned by the means of their runs, and never chosen by an early score."""

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT

from imbalance.cli.main import call
from imbalance.errors import BadInput
from imbalance.report.collect import collect
from imbalance.report.page.overview import chosen_by_val
from imbalance.report.saved_runs import evaluations_of, summary_of
from imbalance.sweep import lease, pruning, sweep
from imbalance.sweep import study as studies
from imbalance.sweep import worker as workers
from imbalance.sweep.pruning import Plan, RungLog, in_fair_order, make_plan
from imbalance.sweep.runs import make_run
from imbalance.sweep.storage import StudyLocation, open_study

optuna = pytest.importorskip("optuna")
CONFIG = str(ROOT / "configs" / "digits_ce.py")
FIXED = {"config": [CONFIG], "trainer.epochs": [9], "trainer.eval_every": [1]}
RATES = [1e-4, 1e-3, 0.03, 0.1, 0.3, 1e30]  # better and better, and the last one diverges
PLAN = Plan("asha", (1, 3), "val/balanced_accuracy")


@pytest.fixture
def place(tmp_path):
    return StudyLocation("test", str(tmp_path / "runs"), "")


def points(rates=RATES, seeds=2):
    return studies.grid(FIXED | {"optim.lr": rates, "seed": list(range(seeds))})


def by_setting(place):
    """Return, for each learning rate, the statuses and the pruned entries of its trials."""
    found: dict[float, list] = {}
    for point, outcome in studies.outcomes(open_study(place), lambda point: True):
        found.setdefault(point["optim.lr"], []).append((outcome.status, outcome.pruned))
    return found


def values_at(place, rate, epoch, seeds=2):
    directories = [
        make_run(CONFIG, {**first(points([rate], 1)), "optim.lr": rate}, s, place.work_dir).directory
        for s in range(seeds)
    ]
    lines = [{line["epoch"]: line for line in evaluations_of(directory)} for directory in directories]
    return [line[epoch]["val/balanced_accuracy"] for line in lines]


def first(points):
    return {key: value for key, value in points[0].items() if key not in ("config", "seed")}


def curve(rate, seed, epoch):
    """The made-up score of a run after an epoch."""
    return 0.1 + rate * epoch / 9 + 0.01 * seed


@pytest.fixture
def stub(monkeypatch):
    """Let a run of a study take no time, and return the runs that were trained, with the epoch of their pause."""
    reached, trained = {}, []

    def train(runs, pause, processes):
        summaries = []
        for run in runs:
            rate, seed = run.config.optim.lr, run.config.seed
            trained.append((rate, seed, pause))
            reached[run.directory] = (rate, seed, pause or 9)
            status = "diverged" if rate > 1 else "interrupted" if pause else "done"
            summaries.append(
                {"status": status, "score": None if status != "done" else curve(rate, seed, 9), "seconds": 1.0}
            )
        return summaries

    def values(plan, directory):
        rate, seed, epoch = reached[directory]
        return {str(rung): curve(rate, seed, rung) for rung in plan.rungs if rung <= epoch}

    monkeypatch.setattr(workers, "train_quietly", train)
    monkeypatch.setattr(Plan, "values", values)
    monkeypatch.setattr(studies.PresentData, "digest", lambda data, point, work_dir: None)
    return trained


@pytest.mark.parametrize("stacked", [1, 16])
def test_asha_keeps_the_best_third_of_the_settings_by_their_means_over_seeds(place, stacked, capsys):
    studies.add(place, points(), PLAN)
    workers.work(place, None, False, 1, stacked)
    found = by_setting(place)
    assert found[1e30] == [("diverged", None)] * 2
    means = {rate: sum(values_at(place, rate, 1)) / 2 for rate in RATES[:-1]}
    at_one, (second, best) = RATES[:3], sorted(RATES[3:-1], key=lambda rate: sum(values_at(place, rate, 3)))
    assert max(means[rate] for rate in at_one) <= min(means[second], means[best])  # two of six go on, then one of two
    for rate in at_one:
        assert found[rate] == [("pruned", (1, pytest.approx(means[rate])))] * 2
    assert found[second] == [("pruned", (3, pytest.approx(sum(values_at(place, second, 3)) / 2)))] * 2
    assert found[best] == [("done", None)] * 2

    assert sweep.report_study(place, lambda point: True) == 0
    out, err = capsys.readouterr()
    line = json.loads(out.splitlines()[-1])
    assert line["trials"] == {"pruned": 8, "done": 2, "diverged": 2} and line["pruned"] == 4
    assert line["setting"]["optim.lr"] == best and line["pruner"]["rungs"] == [1, 3]
    row = next(row for row in out.splitlines() if row.startswith(f"| {CONFIG} | 9 | 1 | {second} |"))
    assert f"| – | 0 | 0 | – | after epoch 3, at {found[second][0][1][1]:.3f} |" in row
    assert "asha, which compares the means of val/balanced_accuracy over seeds after 1, 3 epochs" in err


def test_what_was_pruned_is_shown_so_and_can_be_trained_on_to_what_it_would_have_been(place, tmp_path, capsys):
    studies.add(place, points(RATES[2:5], 1), PLAN)
    workers.work(place, None, False, 1, 1)
    rows = {row["config.optim.lr"]: row for row in collect(Path(place.work_dir))}
    assert [rows[rate]["status"] for rate in RATES[2:5]] == ["pruned", "pruned", "done"]
    assert rows[0.03]["epoch"] == 1 and rows[0.03]["score"] is None
    assert call(["select", f"--work_dir={place.work_dir}"]) == 2  # reads finished runs only, and none kept its logits

    run = make_run(CONFIG, first(points()) | {"optim.lr": 0.03}, 0, place.work_dir)
    assert "the sweep pruned this setting after epoch 1" in summary_of(run.directory)["reason"]
    assert call(["train", f"--config={run.directory / 'config.json'}", f"--config.work_dir={place.work_dir}"]) == 0
    unbroken = make_run(CONFIG, first(points()) | {"optim.lr": 0.03}, 0, str(tmp_path / "unbroken"))
    workers.train_quietly([unbroken])
    assert evaluations_of(run.directory) == evaluations_of(unbroken.directory)
    assert summary_of(run.directory)["score"] == summary_of(unbroken.directory)["score"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_a_sweep_that_is_killed_again_and_again_prunes_as_an_unbroken_one(tmp_path, monkeypatch, stub, rule):
    monkeypatch.setattr(pruning, "UNPRUNED", 2)
    monkeypatch.setattr(lease, "GRACE", 0.0)
    plan, number = PLAN._replace(rule=rule), random.Random(0)
    one, other = (StudyLocation("test", str(tmp_path / name), "") for name in ("one", "other"))
    rates = RATES[:3] + RATES[:2:-1] if rule == "asha" else [0.3, 0.1, 1e-4, 0.03, 1e-3, 1e30]
    for place in (one, other):
        studies.add(place, points(rates), plan)
    workers.work(one, None, False, 1, 1)
    unbroken = stub[:]

    calls = ("set_trial_user_attr", "set_trial_state_values", "create_new_trial", "set_trial_intermediate_value")
    kills = 0
    while any(studies.status(trial) in ("unfinished", "lost") for _, trial in studies.points_of(open_study(other))):
        with monkeypatch.context() as patch:
            left = iter(range(number.randrange(4, 30)))
            for name in calls:
                patch_call(patch, name, left)
            patch.setattr(workers.Worker, "__exit__", lambda *_: None)  # a killed worker releases nothing
            patch.setattr(workers.time, "sleep", lambda seconds: None)
            patch.setattr(workers.Lease, "__enter__", lambda lease: lease._write())
            patch.setattr(
                workers.Observer, "living", lambda observer, attributes: [max(attributes, key=age(attributes))[7:]]
            )
            try:
                workers.work(other, None, False, 1, 1)
            except Killed:
                kills += 1
    assert kills > 5
    assert by_setting(other) == by_setting(one)
    assert set(stub[len(unbroken) :]) == set(unbroken)  # nothing is trained that an unbroken sweep would not
    assert "pruned" in str(by_setting(one))


def age(attributes):
    names = [name for name in attributes if name.startswith("worker ")]
    return lambda name: names.index(name) if name in names else -1


def patch_call(patch, name, left):
    """Let every call of a storage end the worker, once `left` is used up."""
    storage = optuna.storages.JournalStorage
    function = getattr(storage, name)

    def call_or_die(self, *args, **kwargs):
        # A worker that dies before it has written its name on a trial may live: others wait, and train something else.
        if "worker" not in args and next(left, None) is None:
            raise Killed
        return function(self, *args, **kwargs)

    patch.setattr(storage, name, call_or_die)


def test_two_workers_that_log_the_same_setting_count_once_and_decide_alike(place):
    open_study(place)
    logs = [RungLog(place, PLAN) for _ in range(2)]
    entries = [log.entry(f"{s}", [{"1": value}], None) for s, value in enumerate([0.1, 0.5, 0.4]) for log in logs]
    logs[0].add(filter(None, entries[::2]))
    logs[1].add(filter(None, entries[1::2]))
    for log in logs:
        log.read()
    assert logs[0].standings == logs[1].standings
    assert [logs[0].pruned_at(str(s)) for s in range(3)] == [(1, 0.1), None, (1, 0.4)]
    late = RungLog(place, PLAN)
    late.read()
    assert late.standings == logs[0].standings


@pytest.mark.parametrize("count", range(1, 20))
def test_of_settings_that_arrive_together_the_best_third_passes(place, count):
    """By brute force: Optuna's pruner on the order, against the ranks."""
    means = [number / 100 for number in range(count)]
    random.Random(count).shuffle(means)
    log = RungLog(place._replace(storage=f"journal:{place.work_dir}/{count}"), PLAN)
    log.add(pruning.Entry(str(mean), 1, mean) for mean in means)
    log.read()
    kept = [mean for mean in means if not log.pruned_at(str(mean))]
    assert sorted(kept) == sorted(means)[-max(1, count // 3) :]


def test_entries_that_come_later_are_compared_with_those_before():
    entries = [pruning.Entry(str(mean), 1, mean) for mean in (0.2, 0.9, 0.5)]
    assert [entry.mean for entry in in_fair_order(entries, [0.1, 0.3, 0.4])] == [0.9, 0.2, 0.5]


def test_the_median_rule_prunes_below_the_median_of_settings_that_have_ended(place, monkeypatch):
    monkeypatch.setattr(pruning, "UNPRUNED", 2)
    log = RungLog(place, PLAN._replace(rule="median"))
    for setting, mean in (("a", 0.2), ("b", 0.4)):
        log.add(
            [
                pruning.Entry(setting, 1, mean),
                pruning.Entry(setting, 3, mean),
                pruning.Entry(setting, pruning.END, mean),
            ]
        )
    log.add([pruning.Entry("c", 1, 0.29), pruning.Entry("d", 1, 0.31)])
    log.read()
    assert log.pruned_at("c") == (1, 0.29) and log.pruned_at("d") is None
    assert log.next_rung("d") == 3 and log.next_rung("a") is None


def test_a_new_seed_of_a_pruned_setting_is_not_trained_and_one_of_another_trains_to_the_end(place, stub):
    for seeds in (1, 2):
        studies.add(place, points(RATES[3:5], seeds), PLAN)
        workers.work(place, None, False, 1, 1)
    found = by_setting(place)
    assert [status for status, _ in found[0.1]] == ["pruned", "pruned"] and found[0.3] == [("done", None)] * 2
    assert [run for run in stub if run[1] == 1] == [(0.3, 1, None)]


def test_scores_on_data_that_have_changed_prune_nothing(place, stub, monkeypatch):
    studies.add(place, points([0.3], 1), PLAN)
    workers.work(place, None, False, 1, 1)
    monkeypatch.setattr(studies.PresentData, "digest", lambda data, point, work_dir: "other data")
    with pytest.raises(BadInput, match="study test has pruned settings by scores on data that have changed since"):
        studies.add(place, points([0.3, 0.1], 1), PLAN)


def test_a_report_chooses_no_setting_that_was_pruned():
    """One of its runs may have ended by itself before the rung, with a high score."""
    keys = ("status", "score", "seed", "config.score")
    rows = [dict(zip(keys, row)) for row in (
        ("done", 0.9, 0, "val/accuracy"), ("pruned", None, 1, "val/accuracy"), ("done", 0.5, 0, "val/accuracy"),
    )]  # fmt: skip
    assert chosen_by_val(rows, [0, 0, 1], [("a", "b")] * 2) == {1}
    assert chosen_by_val(rows[:2], [0, 0], [("a", "b")]) == {0}


def test_a_crashed_seed_stops_its_setting_and_nothing_hangs(place, monkeypatch, stub, capsys):
    train = workers.train_quietly

    def crash(runs, *args):
        if runs[0].config.seed == 1:
            raise RuntimeError("no reason")
        return train(runs, *args)

    monkeypatch.setattr(workers, "train_quietly", crash)
    studies.add(place, points([0.3]), PLAN)
    workers.work(place, None, True, 1, 1)
    assert by_setting(place)[0.3] == [("unfinished", None), ("crashed", None)]
    assert sweep.report_study(place, lambda point: True) == 1
    monkeypatch.setattr(workers, "train_quietly", train)
    studies.add(place, points([0.3]), PLAN)
    workers.work(place, None, True, 1, 1)
    assert by_setting(place)[0.3] == [("done", None)] * 2


def test_a_run_that_ends_before_a_rung_counts_there_with_its_last_evaluation(place):
    fixed = FIXED | {"callbacks.patience": [1], "optim.lr": [1e-9], "seed": [0]}
    studies.add(place, studies.grid(fixed), PLAN)
    workers.work(place, None, False, 1, 1)
    ((_, trial),) = studies.points_of(open_study(place))
    run = studies.run_of(studies.point_of(trial), place.work_dir)
    *_, last = evaluations_of(run.directory)
    assert studies.status(trial) == "done" and last["epoch"] == 2
    assert trial.user_attrs["rungs"]["3"] == last["val/balanced_accuracy"]


def test_tpe_learns_from_what_was_pruned(place, stub):
    space = {key: list(values) for key, values in FIXED.items()}
    space |= {"optim.lr": {"low": 1e-3, "high": 1.0, "log": True}, "seed": [0]}
    study = open_study(place)
    pruning.keep_plan(study, PLAN)
    workers.work(place, studies.Search("tpe", 6, space), False, 1, 1)
    trials = open_study(place).get_trials()
    pruned = [trial for trial in trials if studies.status(trial) == "pruned"]
    assert len(trials) == 6 and pruned and all(trial.state.name == "PRUNED" for trial in pruned)
    assert all(trial.last_step == studies.result(trial)["epoch"] for trial in pruned)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--grid=trainer.epochs=9,18", "but trainer.epochs is 9 in one setting and 18 in another"),
        ("--search=trainer.epochs=9:18", "but trainer.epochs is"),
        ("--grid=optim.lr=1,2 --config.score=val/auroc", r"add --config.callbacks.monitor=val/auroc"),
        ("--grid=optim.lr=1,2 --config.trainer.epochs=1", "no setting could be pruned"),
        ("--grid=optim.lr=1,2 --first_rung=7", "type a multiple of 10"),
        ("--grid=optim.lr=1,2 --first_rung=2000", "would not come before the end"),
        ("--grid=optim.lr=1,2 --config.debug=True", "a debug run has one epoch"),
    ],
)
def test_settings_that_no_pruner_can_compare_are_refused(tmp_path, capsys, flags, message):
    assert (
        call(["sweep", "--config=digits_ce", f"--work_dir={tmp_path / 'runs'}", "--pruner=asha", *flags.split()]) == 2
    )
    err = capsys.readouterr().err
    assert message in err and err.count("\n") <= 2 and not (tmp_path / "runs").exists()


def test_a_study_is_pruned_by_one_plan(place):
    studies.add(place, points([0.1], 1), PLAN)
    with pytest.raises(
        BadInput, match="study test prunes settings by asha.*type --pruner=asha --first_rung=1, or another"
    ):
        studies.add(place, points([0.1], 1), PLAN._replace(rule="median"))
    with pytest.raises(BadInput, match="study test prunes settings by asha"):
        studies.add(place, points([0.1], 1))
    other = place._replace(name="other")
    studies.add(other, points([0.1], 1))
    with pytest.raises(BadInput, match="study other prunes no settings; type --pruner=none, or another name"):
        studies.add(other, points([0.1], 1), PLAN)


@pytest.mark.parametrize(
    ("epochs", "every", "rungs"), [(81, 1, (9, 27)), (100, 10, (20, 60)), (5, 1, (1, 3)), (200, 5, (25, 75))]
)
def test_the_rungs_are_evaluations_that_grow_by_three(epochs, every, rungs, tmp_path):
    values = {"trainer.epochs": epochs, "trainer.eval_every": every}
    config = make_run(CONFIG, values, 0, str(tmp_path)).config
    plan = make_plan("asha", None, [config])
    assert plan and plan.rungs == rungs and plan.metric == "val/balanced_accuracy"
    assert all(rung % every == 0 for rung in rungs) and all(b == 3 * a for a, b in pairwise(rungs))


def test_without_a_pruner_nothing_changes(tmp_path, capsys):
    assert make_plan("none", None, []) is None
    with pytest.raises(BadInput, match="--first_rung=3 has an effect with a pruner only"):
        make_plan("none", 3, [])
