"""The study on KEEL's tables, on a made-up table: rows of a real run, judgements by brute force, and tables of made-up rows."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from imbalance.data import load
from imbalance.errors import BadInput
from imbalance.experiments import keel_tables as experiment
from imbalance.experiments.keel_tables import ERM, Method
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
    experiment.keel_tables(
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
    values = dict(zip(experiment.MEASURES, experiment.measured(rows[1], Method(arm))))
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


# Tables from made-up rows


def made_up_rows(tables: int = 6, seeds: int = 3) -> list[dict[str, str]]:
    """Return rows in which weights are right on two rare examples more than ERM, and boosting on all."""
    rows = []
    for table, seed in itertools.product(range(tables), range(seeds)):
        cells = {}
        for arm in experiment.ARMS:
            rare = {"weights 1/n": 4 + seed % 2, "gradient boosting": 10}.get(arm, 2)
            cells |= {f"{arm}: right": f"{40 - table}|{rare}", f"{arm}: right at val": f"{36 - seed}|{min(10, rare + 4)}",
                      f"{arm}: auroc": "0.9", f"{arm}: auprc": "0.5"}  # fmt: skip
        cells["cRT: auroc"] = "" if table == seed == 0 else "0.8"
        rows.append({"name": "keel", "overrides": f"table=t{table}", "seed": str(seed), "data": "d", "table": f"t{table}",
                     "base": f"b{table // 2}", "classes": "2", "train counts": f"{100 * (table + 1)}|20",
                     "test counts": "40|10", "status": "done", "commit": "0123456789", **cells})  # fmt: skip
    return rows


def test_the_tables_from_kept_rows(tmp_path):
    for make in (experiment.outcome_text, experiment.summary_table, experiment.arms_table, experiment.ratio_table):
        assert make(tmp_path) == experiment.NOTHING
    kept_results.add("keel", tmp_path, made_up_rows(), packed=True)
    results = experiment.read_results(tmp_path)
    assert results and results.diverged == {"cRT": 1}
    lost = experiment.measured(made_up_rows()[0], Method("cRT"))
    assert lost == [0.5, 0.0, 0.5, 0.2], "a diverged run counts as a constant classifier"
    # Weights are right on 4 + (0, 1, 0) of 10 rare examples, ERM on 2: (7/3)/10/2 points more, in every table.
    gain = results.difference(Method("weights 1/n"), Method(ERM))
    assert gain.value == pytest.approx(7 / 60) and gain.n == 6
    best, chosen = results.best_of_others()
    assert chosen == [Method("weights 1/n", at_val=True)] * 3
    assert best == pytest.approx([7 / 60] * 3)
    # All three bases gain the same, so only the draws that flip no base reach the largest t: 1 of 8.
    assert results.p_after_choice(chosen[0]) == pytest.approx(1 / 4, abs=0.02)
    text = experiment.outcome_text(tmp_path)
    assert "(a) Weights 1/n gain 11.7" in text and "6 tables of 3 bases, 3 seeds of each" in text
    assert "| gradient boosting, val's thresholds |" in experiment.summary_table(tmp_path)
    arms = experiment.arms_table(tmp_path)
    assert all(f"| {arm} |" in arms for arm in experiment.ARMS) and "Diverged runs: cRT: 1." in arms
    ratios = experiment.ratio_table(tmp_path)
    assert "| 3 to 10 | 1 | 1 |" in ratios and "| 10 to 30 | 4 | 3 |" in ratios
    assert "| 10 to 29 | 6 | 3 |" in experiment.rare_table(tmp_path)
    experiment.draw(str(tmp_path))
    assert (tmp_path / "keel.png").stat().st_size > 10_000


def test_wrong_arguments_are_refused(tmp_path, monkeypatch):
    def call(**values):
        given = dict(data_dir="", train=False, overrides={}, tables=[], seeds=1, work_dir="", results=str(tmp_path))
        experiment.keel_tables(**{**given, **values})

    with pytest.raises(BadInput, match="--tables: 'german' is no table of the study; use some of glass-0-4_vs_5"):
        call(tables=["german"])
    with pytest.raises(BadInput, match="is no folder; name the folder that has keel.csv.gz"):
        call(results=str(tmp_path / "nope"))
    monkeypatch.setattr(experiment, "clean_commit", lambda: "0123456789")
    monkeypatch.setattr(experiment, "SMOTE_MODULE", "numpy")  # stands in for a package that is installed
    with pytest.raises(BadInput, match="the KEEL table ecoli3 is not in .*data download keel"):
        call(train=True, data_dir=str(tmp_path), work_dir=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(experiment, "SMOTE_MODULE", "no_such_module_as_imblearn")
    with pytest.raises(BadInput, match="need imbalanced-learn, which is not installed; type pip install"):
        call(train=True)
