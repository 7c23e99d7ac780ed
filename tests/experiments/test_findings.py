"""The tables are what results/ says, and the pages have those tables."""

import itertools

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from imbalance.errors import BadInput
from imbalance.experiments import figure3, findings, image_draws, long_tails, pairs, paper_rows, protocol
from imbalance.experiments.paper_rows import agreement
from imbalance.report import kept_results as results
from imbalance.sweep import runs as sweep_runs
from imbalance.sweep.compare import compare_kept
from imbalance.sweep.variants import Variant


def test_the_pages_agree_with_results():
    """After a change of results/ or of a table: imbalance findings."""
    names = set()
    for page in findings.PAGES:
        text = page.read_text(encoding="utf-8")
        assert findings.with_new_tables(text, ROOT / "results") == text, page
        names |= {name for _, name, _ in findings.BLOCK.findall(text)}
    assert names == set(findings.TABLES)
    # Every clone has all versions of results/, so it is limited. Five megabytes have room for one row a run of the 145 tables
    # of KEEL and of every method on real data; curves and predictions stay in the run directories.
    assert sum(path.stat().st_size for path in (ROOT / "results").iterdir()) < 5_000_000


def row(method, pair, seed, rate, test=None, interpolation="50", val=0.8):
    loss, exponent = method
    return {
        "name": f"fashion_pair_{loss}", "overrides": f"{pair}{exponent}{rate}", "seed": str(seed), "data": f"{pair}{seed}",
        "classes": pair, "exponent": f"{exponent:g}", "lr": f"{rate:g}", "batch size": "32", "epochs": "100",
        "status": "diverged" if test is None else "done", "interpolation epoch": interpolation, "train counts": "250|25",
        "train of groups": "1|0.8", "val balanced": "" if test is None else str(val),
        "test balanced": "" if test is None else str(test),
        "best balanced: test balanced": "" if test is None else str(test + 0.01),
    }  # fmt: skip


def made_up(rng) -> list[dict]:
    """All six pairs of four classes at three seeds and the tuning runs of every method, at rates .001 and .003."""
    rows = []
    for method in pairs.METHODS:
        for seed in pairs.TUNING_SEEDS:
            # The smaller rate is better on val, but only the larger one interpolates.
            rows.append(row(method, "a+b", seed, 0.001, 0.9, interpolation="", val=0.9))
            rows.append(row(method, "a+b", seed, 0.003, 0.9, val=0.8))
        for pair in ("a+b", "a+c", "a+d", "b+c", "b+d", "c+d"):
            for seed in range(3):
                better = 0.1 * (method[0] == "poly")
                rows.append(row(method, pair, seed, 0.003, round(0.7 + better + rng.uniform(0, 0.02), 3)))
    return rows


def test_the_pairs_table_is_what_a_loop_makes_of_the_rows(tmp_path):
    rows = made_up(np.random.default_rng(0))
    poly = [r for r in rows if r["name"] == "fashion_pair_poly" and r["exponent"] == "1" and r["seed"] in "012"]
    poly[0].update(row(("poly", 1.0), poly[0]["classes"], poly[0]["seed"], 0.003, interpolation=""))  # one diverged
    rows.append(row(("ce", 0.0), "a+e", 0, 0.003, 0.7))  # a pair that has not all of its runs

    method = ("poly", 1.0)
    assert pairs.tuning_results(rows, "fashion", method) == {
        0.001: (pytest.approx(0.9), 0),
        0.003: (pytest.approx(0.8), 1),
    }
    assert pairs.rate_of(rows, "fashion", method) == 0.003
    assert r"**0.003: 80.0 (100)** |" in pairs.tuning_table(rows, ["fashion"])
    ends = [r | {"lr": "0.1"} if r["lr"] == "0.003" else r for r in rows]
    assert r"**0.1: 80.0 (100)**\* |" in pairs.tuning_table(ends, ["fashion"]), "the largest rate that was tried"

    found = pairs.scores_by_data(pairs.by_method(rows, ["fashion", "cifar"]))
    assert list(found) == ["fashion"]
    scores, others = (found["fashion"][loss, 1.0] for loss in ("poly", "ce"))
    assert scores.train.shape == (6, 3)
    tests = np.sort([0.5 if r["status"] == "diverged" else float(r["test balanced"]) for r in poly])
    np.testing.assert_allclose(np.sort(scores.test["last epoch"], axis=None), tests)
    assert np.unique(scores.after).tolist() == pytest.approx([0, 0.51])
    assert np.nanmean(scores.train) == pytest.approx((250 + 0.8 * 25) / 275)

    result = pairs.compare(scores.test["last epoch"], others.test["last epoch"], scores.pairs)
    differences = scores.test["last epoch"] - others.test["last epoch"]
    assert result.difference.value == pytest.approx(differences.mean()) and result.difference.n == 18
    assert result.spread == pytest.approx(np.quantile(differences.mean(1), [0.1, 0.9]))
    tests = [stats.ttest_1samp(by_seed, 0) for by_seed in differences]
    order = np.argsort([t.pvalue for t in tests])
    significant = list(itertools.takewhile(lambda k: tests[order[k]].pvalue < 0.05 / (6 - k), range(6)))
    assert result.ahead == len(significant) > 0 and result.behind == 0 and result.pairs == 6
    assert result.difference.low < result.difference.value < result.difference.high
    assert result.verdict() == ("ahead" if result.difference.low > 0 else "open")
    text = pairs.comparisons_table(found)
    assert "| Fashion-MNIST | last epoch | poly, IW^1 over cross-entropy, IW^1 |" in text
    together = (scores.after > 0) & (others.after > 0)
    line = next(
        line
        for line in text.splitlines()
        if line.startswith("| Fashion-MNIST | last epoch | poly, IW^1 over cross-entropy, IW^1 |")
    )
    assert together.sum() == 17 and f"| {100 * differences[together].mean():.1f} | {result.ahead} | 0 | 6 |" in line
    assert pairs.methods_table(found).count("| Fashion-MNIST |") == 6
    past, gain = pairs.past_and_gain(found["fashion"], "last epoch", 1.0)
    np.testing.assert_allclose(gain, scores.test["last epoch"] - others.test["last epoch"])
    # One run of three never interpolated
    assert sorted(past) == pytest.approx([(0.51 * 2 / 3 + 0.51) / 2, *[0.51] * 5])
    assert pairs.trend_table(found).count("| Fashion-MNIST |") == 6
    assert pairs.interaction_table(found).count("| Fashion-MNIST |") == 4
    gains = {e: [found["fashion"][loss, e].test["early-stopped"] for loss in ("poly", "ce")] for e in (0.0, 1.0)}
    interaction = (gains[1.0][0] - gains[0.0][0] - gains[1.0][1] + gains[0.0][1]).mean()
    early = "under poly minus under cross-entropy, early-stopped"
    assert f"| {early} | {100 * interaction:.1f} ±" in pairs.interaction_table(found)
    pytest.importorskip("matplotlib")
    pairs.draw(found, str(tmp_path))
    assert (tmp_path / "pairs.png").stat().st_size > 10_000


def test_a_method_that_never_interpolates_gets_the_rate_at_which_most_runs_do():
    tuning = [row(("ce", 0.0), "a+b", seed, 0.001, 0.9, interpolation="", val=0.9) for seed in pairs.TUNING_SEEDS]
    tuning += [
        row(("ce", 0.0), "a+b", seed, 0.003, 0.9, interpolation="" if seed % 2 else "9") for seed in pairs.TUNING_SEEDS
    ]
    assert pairs.rate_of(tuning, "fashion", ("ce", 0.0)) == 0.003
    assert pairs.rate_of(tuning, "fashion", ("ce", 1.0)) is None


def test_runs_that_results_has_are_not_asked_for_again(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        sweep_runs,
        "run_batches",
        lambda batches, jobs, on_finish: asked.extend(run for batch in batches for run in batch),
    )
    monkeypatch.setattr(results, "row_of", lambda directory: None)
    monkeypatch.setattr("imbalance.training.state.provenance.clean_commit", lambda: "0123456789")
    settings = pairs.Settings(str(tmp_path), tmp_path, {}, 1)
    runs = [pairs.pair_run(settings, "fashion", ("poly", 1.0), ("bag", "coat"), 0.003, seed) for seed in (0, 1)]
    kept = row(("poly", 1.0), "bag+coat", 1, 0.003, 0.9) | {"overrides": runs[1].directory.parent.name}
    results.add(pairs.STUDY, tmp_path, [kept], packed=True)
    pairs.train(settings, [runs])
    assert [run.config.seed for run in asked] == [0]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("trainer.clip_norm", 1.0, "trainer.clip_norm=1.0 instead of no trainer.clip_norm"),
        ("trainer.epochs", 7, "epochs 7 instead of 100"),
    ],
)
def test_a_run_with_other_values_is_not_taken_for_a_kept_one_nor_put_beside_it(
    key, value, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep_runs, "run_batches", lambda *arguments: pytest.fail("trained before the refusal"))
    monkeypatch.setattr("imbalance.training.state.provenance.clean_commit", lambda: "0123456789")

    def settings(common):
        return pairs.Settings(str(tmp_path), tmp_path, common, 1)

    def run(common):
        return pairs.pair_run(settings(common), "fashion", ("poly", 1.0), ("bag", "coat"), 0.003, 0)

    kept = row(("poly", 1.0), "bag+coat", 0, 0.003, 0.9) | {"overrides": run({}).directory.parent.name}
    results.add(pairs.STUDY, tmp_path, [kept], packed=True)
    with pytest.raises(BadInput, match=f"another run of fashion_pair_poly, seed 0: {words}; type --results="):
        pairs.train(settings({key: value}), [[run({key: value})]])


def test_a_run_of_a_changed_config_file_is_not_taken_for_a_kept_one(tmp_path):
    run = pairs.pair_run(
        pairs.Settings(str(tmp_path), tmp_path, {}, 1), "fashion", ("poly", 1.0), ("bag", "coat"), 0.003, 0
    )
    config = run.config.to_dict()
    before = results.config_digests(config | {"trainer": {**config["trainer"], "clip_norm": 1.0}})
    cells = {"overrides": run.directory.parent.name, "config": before}
    results.add(pairs.STUDY, tmp_path, [row(("poly", 1.0), "bag+coat", 0, 0.003, 0.9) | cells], packed=True)
    with pytest.raises(BadInput, match="seed 0: other values in config.trainer; type --results="):
        sweep_runs.run_and_keep([[run]], 1, pairs.STUDY, tmp_path, pairs.IDENTITY)


def test_a_run_that_was_finished_with_uncommitted_code_is_not_kept_by_an_experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_runs, "run_batches", lambda batches, jobs, on_finish: on_finish(batches[0]))
    monkeypatch.setattr("imbalance.training.state.provenance.clean_commit", lambda: "0123456789")
    finished = row(("ce", 1.0), "bag+coat", 0, 0.003, 0.9) | {"commit": "0123456789+"}
    settings = pairs.Settings(str(tmp_path), tmp_path, {}, 1)
    run = pairs.pair_run(settings, "fashion", ("ce", 1.0), ("bag", "coat"), 0.003, 0)
    with pytest.raises(BadInput, match="uncommitted changes at commit 0123456789"):
        sweep_runs.run_and_keep([[run]], 1, pairs.STUDY, tmp_path, pairs.IDENTITY, lambda directory: finished)
    assert not results.read(pairs.STUDY, tmp_path)


def test_agreement_is_welchs_test():
    ours = np.array([61.0, 63.5, 62.2, 64.0])
    result = stats.ttest_ind_from_stats(ours.mean(), ours.std(ddof=1), 4, 63.0, 1.7, 10, equal_var=False)
    assert result.pvalue > 0.05 and agreement(ours, 63.0, 1.7, 10).startswith("yes: -0.3 ± ")
    assert agreement(ours, 70.0, 1.7, 10).startswith("no: -7.3 ± ")
    assert agreement(ours[:1], 63.0, 1.7, 10) == "one seed decides nothing"


def test_the_protocol_takes_the_best_rate_of_seed_0():
    def of(rate, seed, val, status="done"):
        return {"lr": rate, "seed": str(seed), "val balanced": str(val), "status": status}

    rows = [
        of("0.1", 0, 0.9),
        of("0.03", 0, 0.9),
        of("0.3", 0, "nan", "diverged"),
        of("0.01", 0, 0.8),
        of("0.03", 1, 0.1),
    ]
    best, runs = protocol.best_kept_rate(rows, "balanced_accuracy")
    assert best == "0.03" and [run["seed"] for run in runs] == ["0", "1"]


def test_the_protocols_table_pairs_the_losses_by_seed(tmp_path):
    def of(loss, seed, rate, val, test):
        return {"name": f"cifar_pair_lenet_{loss}", "overrides": f"lr={rate}", "seed": str(seed), "data": str(seed), "lr": rate,
                "batch size": "64", "status": "done", "val balanced": str(val), "test balanced": str(test),
                "interpolation epoch": "7" if seed else ""}  # fmt: skip

    noise = np.random.default_rng(0).normal(0, 0.05, 10)
    rows = [of("ce", seed, "0.1", 0.8, 0.6 + noise[seed]) for seed in range(10)]
    rows += [of("poly", seed, "0.3", 0.9, 0.62 + noise[seed]) for seed in range(10)]
    rows += [of("poly", 0, "0.1", 0.7, 0.9), of("ce", 0, "0.01", 0.1, 0.9)]  # other rates, at seed 0
    results.add("protocol", tmp_path, rows[1:])
    # Cross-entropy lacks a seed
    assert protocol.kept_table(protocol.IMAGES, tmp_path).startswith("No part of the protocol")
    results.add("protocol", tmp_path, rows)
    *_, ce, poly = protocol.kept_table(protocol.IMAGES, tmp_path).splitlines()
    value = stats.t.interval(0.95, 9, 60 + 100 * noise.mean(), 100 * stats.sem(noise))
    expected = f"{60 + 100 * noise.mean():.1f} ± {(value[1] - value[0]) / 2:.1f}"
    assert ce == f"| cat against dog, LeNet | 64 | cross-entropy | 0.1 | 10 | 90% | {expected} |  |"
    assert poly.startswith("| cat against dog, LeNet | 64 | poly | 0.3 | 10 | 90% |") and poly.endswith(
        "| 2.0 (all 10 equal) |"
    )


def test_the_papers_table_has_finished_rows_beside_the_published_ones(tmp_path):
    def of(name, seed, status, last, stopped):
        return {"name": name, "overrides": "", "seed": str(seed), "data": "d", "status": status, "test balanced": str(last),
                "best balanced: test balanced": str(stopped), "interpolation epoch": "120", "seconds": "7200", "precision": "float32"}  # fmt: skip

    assert paper_rows.kept_table(figure3.ROWS["cifar"], tmp_path).startswith("No run of these rows")
    results.add(
        "rows", tmp_path, [of("cifar_poly_exponent15", seed, "done", 0.622 + seed / 100, 0.63) for seed in (0, 1, 2)]
    )
    results.add("rows", tmp_path, [of("cifar_poly_exponent15", 3, "diverged", "", "")])
    lines = paper_rows.kept_table(figure3.ROWS["cifar"], tmp_path).splitlines()[2:]
    assert len(lines) == 2
    assert lines[0].startswith(
        "| poly IW-Exp, last epoch | cifar_poly, optim.lr=0.008, optim.momentum=0.0, weights.exponent=1.5 | 63.0 ± 1.7 (10) | 63.2 ± 2.5 (3) | yes: +0.2 ± "
    )
    assert lines[0].endswith("| 120 | float32 | 2.0 |") and lines[1].startswith("| poly IW-Exp, early-stopped |")
    assert "63.5 ± 2.0 (10) | 63.0 (all 3 equal) (3)" in lines[1]


def test_weights_are_judged_at_the_rate_that_a_loss_has_without_them():
    rng, rows = np.random.default_rng(1), made_up(np.random.default_rng(0))
    for r in rows:  # without weights the best rate is another one
        if r["name"] == "fashion_pair_ce" and r["exponent"] == "0" and r["lr"] == "0.001":
            r["interpolation epoch"] = "90"
    tests = {(exponent, pair, seed): round(0.7 + exponent / 10 + rng.uniform(0, 0.02), 3)
             for exponent in pairs.EXPONENTS for pair in ("a+b", "a+c") for seed in range(3)}  # fmt: skip
    rows += [row(("ce", exponent), pair, seed, 0.001, test) for (exponent, pair, seed), test in tests.items()]
    rows.append(row(("ce", 1.5), "a+d", 0, 0.001, 0.1))  # a pair that has not all of its runs
    table = pairs.one_rate_table(pairs.by_method(rows, ["fashion"], one_rate=True))
    first, second = [line for line in table.splitlines() if "| cross-entropy |" in line]
    assert first.startswith("| Fashion-MNIST | cross-entropy | 0.001 | IW^1 | 51%, 51% |") and "IW^1.5" in second
    gained = [[tests[1.5, pair, seed] - tests[0.0, pair, seed] for seed in range(3)] for pair in ("a+b", "a+c")]
    ahead = sum(t.pvalue < 0.05 and t.statistic > 0 for t in (stats.ttest_1samp(of_pair, 0) for of_pair in gained))
    assert second.count(f"({ahead}, 0, 2)") == 2 and ahead == 2
    assert "| poly | 0.003 |" in table  # whose rate is the same without weights
    assert "poly minus cross-entropy" not in table, "the losses have other pairs"
    same = pairs.one_rate_table(pairs.by_method(made_up(np.random.default_rng(0)), ["fashion"], one_rate=True))
    found = pairs.scores_by_data(pairs.by_method(made_up(np.random.default_rng(0)), ["fashion"]))["fashion"]
    gains = [found[loss, 1.5].test["last epoch"] - found[loss, 0.0].test["last epoch"] for loss in ("poly", "ce")]
    assert f"| poly minus cross-entropy | – | IW^1.5 | – | {100 * (gains[0] - gains[1]).mean():.1f} ±" in same


def test_configs_are_compared_as_the_command_does_it(tmp_path):
    def row(name, seed, of_groups, overrides="default", status="done"):
        return {"name": name, "overrides": overrides, "seed": str(seed), "data": "", "status": status, "groups": "a|b|c",
                "test of groups": of_groups, "test balanced": "0.5"}  # fmt: skip

    variants = {
        "x": Variant("digits_ce"),
        "y": Variant("colored_digits_erm", {"loss": {"name": "focal", "gamma": 2.0}}),
    }
    rows = [row("digits_ce", seed, f"0.9|{0.5 + seed / 10}|") for seed in range(3)]
    rows += [
        row(
            "colored_digits_erm",
            seed,
            f"0.{6 + seed}|0.9|0.95",
            "loss.gamma=2.0,loss.name=focal",
            status="diverged" if seed == 2 else "done",
        )
        for seed in range(3)
    ]
    # No part of the table
    rows += [row("digits_ce", 10, "0.1|0.1|0.1"), row("digits_ce", 0, "0.1|0.1|0.1", "loss.alpha=2")]
    results.add("ledger", tmp_path, rows[:3])
    assert (
        compare_kept(variants, "worst_group_accuracy", tmp_path) == "Not all of these configs have kept results yet.\n"
    )
    results.add("ledger", tmp_path, rows)
    heads, _, x, y = compare_kept(variants, "worst_group_accuracy", tmp_path).splitlines()
    assert heads.startswith("| test/worst_group_accuracy over 3 groups, % |") and heads.endswith(
        "| difference from x |"
    )
    assert x == "| x | 60.0 ± 24.8 | 3 | 0 |  |"
    assert y == "| y | 60.0, 70.0 | 2 | 1 | 10.0, 10.0 |"


def test_the_draws_and_long_tails_tables_are_of_the_rows_that_there_are(tmp_path):
    assert image_draws.draws_table(tmp_path) == long_tails.long_tails_table(tmp_path) == "No run has finished yet.\n"
    rng, rows = np.random.default_rng(0), []
    tests = {(draw, loss): rng.normal(0.6, 0.02, 4).round(6) for draw in ("", "data.draw=stratified") for loss in ("ce", "poly")}  # fmt: skip
    for (draw, loss), values in tests.items():
        for seed, value in enumerate(values):
            rows.append({"name": f"cifar_{loss}", "overrides": f"{draw},model.name=lenet", "seed": str(seed), "data": draw,
                         "status": "done", "lr": "0.01", "interpolation epoch": "40" * (seed < 2), "test balanced": str(value)})  # fmt: skip
    results.add("draws", tmp_path, rows)
    table = image_draws.draws_table(tmp_path)
    published, own = (tests[draw, "poly"] for draw in ("", "data.draw=stratified"))
    assert f"| the published draw | poly | 0.01 | 4 | 50% | {100 * published.mean():.1f} ±" in table
    assert f"| drawn by each seed | poly | 0.01 | 4 | 50% | {100 * own.mean():.1f} ±" in table
    t = stats.ttest_rel(own, tests["data.draw=stratified", "ce"]).confidence_interval(0.95)
    assert f"| {50 * (t.low + t.high):.1f} ± {50 * (t.high - t.low):.1f} |" in table

    rows = [{"name": "cifar10lt_erm", "overrides": "", "seed": str(seed), "data": "", "model": "lenet", "loss": "cross_entropy", "test balanced": str(0.3 + seed / 10),
             "best balanced: test balanced": "0.35", "oracle: test balanced": "0.5"} for seed in range(3)]  # fmt: skip
    results.add("long_tails", tmp_path, rows)
    assert (
        "| lenet | cross-entropy | 3 | 40.0 ± 24.8 | 35.0 (all 3 equal) | 50.0 (all 3 equal) |"
        in long_tails.long_tails_table(tmp_path)
    )


def test_the_interval_of_a_standard_deviation_is_that_of_the_chi_square_table():
    """Of ten values: √(9 / 19.02) and √(9 / 2.70) times what they have."""
    values = np.array([-1.0] * 5 + [1.0] * 5) * np.sqrt(9 / 10) / 100
    assert image_draws.deviation(values.tolist()) == "1.0 (0.7 to 1.8)"


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(BadInput, match="nope: no such folder"):
        findings.findings(check=True, results=str(tmp_path / "nope"))
    assert pairs.one_rate_table(pairs.by_method([], ["fashion"], one_rate=True)) == "No pair has finished yet.\n"
