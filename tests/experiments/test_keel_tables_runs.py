"""The runs of the study on KEEL, on a made-up table: rows of a real run, and judgements by brute force."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from imbalance.data import load
from imbalance.errors import BadInput
from imbalance.experiments import keel_tables_runs as experiment
from imbalance.experiments.keel_tables import MEASURES, Method, keel_tables, measured
from imbalance.experiments.keel_tables_runs import ERM
from imbalance.report import kept_results

ARMS = (ERM, "undersampling", "AUC margin")
COUNTS = (45, 15)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Return a folder with a table of 60 rows."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    head = "@relation made\n@attribute a real [0, 1]\n@attribute b real [0, 1]\n@attribute c {no, yes}\n@data\n"
    rows = [f"{rng.normal(i >= 45):.3f}, {rng.normal():.3f}, {('no', 'yes')[i >= 45]}" for i in range(60)]
    (folder / "made.dat").write_text(head + "\n".join(rows))
    return folder


@pytest.fixture
def small(data_dir, monkeypatch):
    """Let the study have one table, a few arms, and no more steps than a test needs."""
    monkeypatch.setattr(experiment, "known_tables", lambda: {"made": COUNTS})
    monkeypatch.setattr(experiment, "NETWORKS", {arm: experiment.NETWORKS[arm] for arm in ARMS})
    for name, value in (("STEPS", 6), ("HEAD_STEPS", 3), ("RATES", (0.03, 0.1)), ("TUNED_ON", ("made",))):
        monkeypatch.setattr(experiment, name, value)
    plain = {arm: outsider for arm, outsider in experiment.OUTSIDERS.items() if not outsider.resampled}
    monkeypatch.setattr(experiment, "OUTSIDERS", {"logistic regression": plain["logistic regression"]})
    monkeypatch.setattr(experiment, "clean_commit", lambda: "0123456789")
    monkeypatch.setattr(experiment, "check_smote", lambda: None)
    return data_dir


def run(small, results, work_dir, seeds):
    keel_tables(
        data_dir=str(small),
        train=True,
        overrides={},
        tables=[],
        seeds=seeds,
        work_dir=str(work_dir),
        results=str(results),
    )


def test_two_seeds_of_a_made_up_table(small, tmp_path, capsys):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(small, tmp_path / "results", tmp_path / "runs", seeds=1)
        assert torch.get_num_threads() == 2, "the threads are given back"
    finally:
        torch.set_num_threads(before)
    assert "1 of 1 table: made, seeds 0 to 0" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "keel").exists(), "run directories are deleted once their rows are kept"
    (first,) = kept_results.read("keel", tmp_path / "results")
    run(small, tmp_path / "results", tmp_path / "runs", seeds=2)
    rows = kept_results.read("keel", tmp_path / "results")
    assert rows[0] == first and [row["seed"] for row in rows] == ["0", "1"]
    assert {(row["collection"], row["base"], row["train counts"], row["threads"]) for row in rows} == {
        ("keel", "made", "27|9", "1")
    }
    rates = kept_results.read("keel_rates", tmp_path / "results")
    assert len(rates) == 4 and all(0 <= float(row[arm]) <= 1 for row in rates for arm in ARMS)
    chosen = experiment.tuned_rates(rates)
    for arm in ARMS:
        means = {rate: np.mean([float(row[arm]) for row in rates if row["rate"] == rate]) for rate in ("0.03", "0.1")}
        assert means[f"{chosen[arm]:g}"] == pytest.approx(max(means.values()))

    # A problem computed alone, in another folder and without its neighbours, has the same results.
    settings = experiment.Settings(str(small), str(tmp_path / "other"), {})
    (again,) = experiment.compute(settings, "made", chosen, [1])
    changing = ("cpu seconds",)
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in rows[1].items() if k not in changing
    }
    # The outsider's cells, from scikit-learn alone.
    dataset = load(experiment.section("made") | {"check_counts": True}, str(small), 1)
    model = experiment.logistic().fit(dataset.train.inputs.numpy(), dataset.train.targets.numpy())
    targets, inputs = dataset.test.targets.numpy(), dataset.test.inputs.numpy()
    arm = "logistic regression"
    values = dict(zip(MEASURES, measured(rows[1], Method(arm))))
    assert values["balanced accuracy"] == pytest.approx(balanced_accuracy_score(targets, model.predict(inputs)))
    scores = model.predict_proba(inputs)[:, 1]
    assert values["AUROC"] == pytest.approx(roc_auc_score(targets, scores), abs=1e-6)
    assert values["AUPRC"] == pytest.approx(average_precision_score(targets, scores), abs=1e-6)


def test_thresholds_from_val_by_brute_force(small):
    dataset = load(experiment.section("made"), str(small), 0)
    targets = dataset.val.targets.numpy()
    logits = np.random.default_rng(1).normal(size=(len(targets), 2)) + np.eye(2)[targets]
    offsets = experiment.val_offsets(dataset, logits)
    lead = np.sort(logits[:, 1] - logits[:, 0])
    levels = [lead[0] - 1, *(lead[1:] + lead[:-1]) / 2, lead[-1] + 1]
    best = max(balanced_accuracy_score(targets, logits[:, 1] - logits[:, 0] > level) for level in levels)
    assert balanced_accuracy_score(targets, (logits + offsets).argmax(1)) == pytest.approx(best)


def test_the_outsiders_with_smote_learn_a_balanced_set():
    pytest.importorskip("imblearn")
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(40, 3)), np.repeat([0, 1, 2], [30, 8, 2])
    drawn, labels = experiment.smote(inputs, targets, seed=0)
    assert np.bincount(labels).tolist() == [30, 30, 30] and np.array_equal(drawn[:40], inputs)
    again, _ = experiment.smote(inputs, targets, seed=0)
    assert np.array_equal(drawn, again) and not np.array_equal(drawn, experiment.smote(inputs, targets, seed=1)[0])


def test_every_arm_has_a_valid_config_and_about_as_many_steps(small, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(experiment, "known_tables", lambda: {"made": COUNTS})
    settings = experiment.Settings(str(small), str(tmp_path), {})
    for arm in experiment.NETWORKS:
        (run,) = experiment.runs_of(settings, "made", (600, 20), arm, 0.1, [3])
        size = {"undersample": 40, "oversample": 1200}.get(run.config.sampler.name, 620)
        steps = run.config.trainer.epochs * -(-size // experiment.BATCH)
        assert abs(steps - experiment.STEPS) <= 10 and run.config.seed == 3 and run.directory.name == "seed=3"


def test_the_tables_of_the_study_follow_the_stated_rules():
    tables = experiment.sizes()
    assert len(tables) == 118 and len({experiment.base_of(table) for table in tables}) == 34
    assert not {"fars", "kr-vs-k", "nursery", "vowel", "bupa", "german"} & tables.keys()
    assert {experiment.base_of(t) for t in ("new-thyroid1", "new_thyroid2", "newthyroid")} == {"new"}
    assert {experiment.base_of(t) for t in ("ecoli1", "ecoli-0_vs_1")} == {"ecoli"}
    assert len({experiment.base_of(table) for table in list(tables)[:34]}) == 34, "one of each base comes first"


def test_an_override_of_what_the_study_sets_is_refused_rather_than_mixed_with_kept_rows():
    settings = experiment.Settings("data", "runs", {"trainer.epochs": 3})
    with pytest.raises(BadInput, match="^set no config.trainer.epochs: this command sets config.trainer.epochs itself"):
        experiment.runs_of(settings, "ecoli1", (155, 47), experiment.ERM, 0.1, [0])
