"""The tables of the study on KEEL from made-up rows, and its wrong arguments."""

import itertools

import pytest
from conftest import ROOT

from imbalance.errors import BadInput
from imbalance.experiments import keel_tables as experiment
from imbalance.experiments import keel_tables_runs as runs
from imbalance.experiments.keel_tables import Method
from imbalance.experiments.keel_tables_runs import ERM
from imbalance.report import kept_results


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
    monkeypatch.setattr(runs, "clean_commit", lambda: "0123456789")
    monkeypatch.setattr(runs, "SMOTE_MODULE", "numpy")  # stands in for a package that is installed
    with pytest.raises(BadInput, match="the KEEL table ecoli3 is not in .*data download keel"):
        call(train=True, data_dir=str(tmp_path), work_dir=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(runs, "SMOTE_MODULE", "no_such_module_as_imblearn")
    with pytest.raises(BadInput, match="need imbalanced-learn, which is not installed; type pip install"):
        call(train=True)


def test_the_network_of_logit_adjustment_has_the_learning_rate_of_weights_as_the_outcome_says():
    rates = runs.tuned_rates(kept_results.read("keel_rates", ROOT / "results"))
    assert rates["logit adjustment after training"] == rates["weights 1/n"] != rates[ERM]
