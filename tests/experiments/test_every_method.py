"""The tables of the comparison of every method on real data."""

import numpy as np
import pytest
from helpers.every_method import row, rows_at
from scipy import stats

from imbalance.cli.main import arguments_of
from imbalance.errors import BadInput
from imbalance.experiments import every_method as every
from imbalance.experiments.every_method_runs import DATA, ends_at_edge
from imbalance.metrics.intervals import mean, paired_difference
from imbalance.report import kept_results


def test_the_tables_have_means_differences_holm_and_ranks(tmp_path, capsys):
    rng = np.random.default_rng(0)
    base, gain = rng.uniform(0.4, 0.6, 10), {"erm": 0.0, "reweight": 0.2, "poly": 0.002}
    noise = {method: 0.01 * rng.standard_normal(10) for method in gain}
    tests = {m: {s: round(base[s] + gain[m] + noise[m][s], 6) for s in range(10)} for m in gain}
    rows = [
        row(method, e, seed, 0.5 + 0.1 * (e == middle), value if e == middle else 0.0, name, balanced=(0.5 + 0.1 * (e == middle), value))
        for name, middle in (("dominoes", -3), ("law", -2)) for method, by_seed in tests.items() for seed, value in by_seed.items()
        for e in (middle - 1, middle, middle + 1)
    ]  # fmt: skip
    kept_results.add(every.STUDY, tmp_path, rows, packed=True)
    every.every_method(**arguments_of("reproduce every_method", ["--no-train", f"--results={tmp_path}"]))
    text = capsys.readouterr().out
    p_value = {
        m: stats.ttest_rel(list(tests[m].values()), list(tests["erm"].values())).pvalue for m in ("reweight", "poly")
    }
    small, large = sorted(p_value.values())
    lines = every.lines_of(kept_results.read(every.STUDY, tmp_path), "dominoes", "worst group")
    assert lines["reweight"].p_value == pytest.approx(2 * small) and lines["poly"].p_value == pytest.approx(
        max(large, 2 * small)
    )
    difference = paired_difference(tests["reweight"], tests["erm"], 0, 1).percent()
    assert f"| ReWeight | train | {mean(list(tests['reweight'].values()), 0, 1).percent()} | {difference} † |" in text
    assert (
        "**Dominoes** (lite0; test worst-group accuracy, %; 10 seeds)" in text and "| ReWeight | train | 1.0 |" in text
    )

    mean_of_sets = f"{100 * np.mean([tests['reweight'][s] - tests['erm'][s] for s in range(10)]):.1f}"
    summary = every.summary_table(tmp_path)
    cells = " | ".join([f"{mean_of_sets}, {mean_of_sets} to {mean_of_sets} (1, 0)"] * 4)  # law's class is rare
    assert f"| ReWeight | train | {cells} | – | 0.0, 0.0 to 0.0 |" in summary
    assert "| poly | none |" in summary and "| ERM | none |  |  |  |  |  | 0.0, 0.0 to 0.0 |" in summary


def test_results_on_pixels_are_in_no_mean_with_results_on_features(tmp_path):
    rows = [
        row(method, e, seed, 0.5 + 0.1 * (e == middle), gain, name, balanced=(0.5 + 0.1 * (e == middle), gain))
        for name, middle, gains in (("dominoes", -3, (0.4, 0.5)), ("dominoes_pixels", -2, (0.2, 0.6)), ("corrupted_1_pixels", -2, (0.1, 0.15)))
        for method, gain in zip(("erm", "reweight"), gains) for seed in range(2) for e in (middle - 1, middle, middle + 1)
    ]  # fmt: skip
    kept_results.add(every.STUDY, tmp_path, rows, packed=True)
    (line,) = (line for line in every.summary_table(tmp_path).splitlines() if line.startswith("| ReWeight |"))
    cells = [cell.strip() for cell in line.split("|")[5:-2]]
    assert [cell.partition(",")[0] for cell in cells] == ["10.0", "10.0", "–", "40.0", "5.0"]
    text = every.kept_tables(tmp_path)
    assert "**Dominoes, from scratch** (pixels; test worst-group accuracy" in text
    assert text.count("Over all data sets of pixels, val's groups choose:") == 1


def test_a_method_that_was_not_planned_changes_no_corrected_p_value(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row(method, -3, seed, 0.5, 0.5 + gain + rng.uniform(0, 0.02)) for method, gain in (("erm", 0), ("poly", 0.01), ("reweight", 0.02))
            for seed in range(5)]  # fmt: skip
    more = [row("undersample_longer", -3, seed, 0.5, 0.7 + seed / 100) for seed in range(5)]
    with_it, without = (
        every.lines_of([*rows, *more], "dominoes", "worst group"),
        every.lines_of(rows, "dominoes", "worst group"),
    )
    assert np.isnan(with_it.pop("undersample_longer").p_value)
    assert {method: line.p_value for method, line in with_it.items() if method != "erm"} == {
        method: line.p_value for method, line in without.items() if method != "erm"
    }


def test_the_table_of_the_last_epoch_has_each_rate_of_the_pixels_alone(tmp_path):
    """DFR is left out, because the last layer of its only evaluation is fitted after training; so is a run that diverged."""
    rows = [
        row(method, e, seed, 0.5, chosen + (seed + e) / 100, name, status) | {"last: worst group": str(last + (seed + e) / 100) if status == "done" else ""}
        for name in ("dominoes", "dominoes_pixels") for e in (-3, -2, -1)
        for method, chosen, last in (("erm", 0.3, 0.1), ("reweight", 0.6, 0.4), ("dfr", 0.7, 0.7))
        for seed, status in enumerate(("done", "done", "diverged" if e == -2 else "done"))
    ]  # fmt: skip
    kept_results.add(every.STUDY, tmp_path, rows, packed=True)
    cells = {
        value: [mean([value + (seed + e) / 100 for seed in range(2 if e == -2 else 3)], 0, 1).percent() for e in (-3, -2, -1)]
        for value in (0.1, 0.3, 0.4, 0.6)
    }  # fmt: skip
    assert every.last_epoch_table(tmp_path).splitlines()[2:] == [
        f"| Dominoes, from scratch | {title} | {' | '.join(map(' → '.join, zip(cells[chosen], cells[last])))} |"
        for title, chosen, last in (("ERM", 0.3, 0.1), ("ReWeight", 0.6, 0.4))
    ]


def test_means_are_by_source_first_and_have_the_range_over_data_sets():
    by_set = {"dominoes": 0.1, "corrupted_5": 0.3, "law": 0.6}  # the first two are made of CIFAR-10
    assert every.mean_by_source(by_set) == pytest.approx(0.4)
    assert every.mean_and_range(by_set) == "40.0, 10.0 to 60.0"


@pytest.mark.parametrize(
    ("trained", "best", "at_edge"),
    [((-4, -3, -2), -3, False), ((-4, -3, -2, -1, 0), 0, True), ((-6, -5, -4, -3, -2), -6, True), ((-4, -3, -2, -1), -2, False)],
)  # fmt: skip
def test_a_cell_is_marked_if_most_seeds_end_at_the_edge_of_the_window(tmp_path, trained, best, at_edge):
    rows = rows_at(lambda e: 0.9 - 0.01 * abs(e - best), trained)
    assert ends_at_edge(rows, DATA["dominoes"], "erm", "worst group") is at_edge
    assert ("‡" in every.data_table(rows, "dominoes").split("val's classes")[1].split(" | ")[3]) is at_edge


def test_pairs_of_methods_are_tested_within_a_data_set_by_holm(tmp_path):
    rng = np.random.default_rng(1)
    gain = {"groupdro": 0.08, "reweight": 0.0, "dfr": 0.05, "undersample": 0.001}
    tests = {m: np.round(0.5 + gain[m] + 0.01 * rng.standard_normal(10), 6) for m in gain}
    rows = [
        row(method, e, seed, 0.5 + 0.1 * (e == -3), value if e == -3 else 0.0, balanced=(0.5 + 0.1 * (e == -3), 0.5))
        for method, values in ({"erm": tests["reweight"]} | tests).items() for seed, value in enumerate(values)
        for e in (-4, -3, -2)
    ]  # fmt: skip
    kept_results.add(every.STUDY, tmp_path, rows, packed=True)
    lines = [line.strip("| ").split(" | ") for line in every.balanced_table(tmp_path).splitlines()[2:]]
    by_groups = [line for line in lines if line[1] == "val's groups"]
    p_values = sorted(stats.ttest_rel(tests["groupdro"], tests[m]).pvalue for m in ("reweight", "undersample"))
    assert sorted(line[2] for line in by_groups) == ["GroupDRO minus ReWeight", "GroupDRO minus undersampling"]
    expected = sorted(f"{p:.1g}" for p in (3 * p_values[0], max(3 * p_values[0], 2 * p_values[1])))
    assert sorted(line[4] for line in by_groups) == expected
    difference = paired_difference(dict(enumerate(tests["dfr"])), dict(enumerate(tests["reweight"])), 0, 1).percent()
    assert f"| Dominoes | 150 | {difference} |" in every.dfr_table(tmp_path)


def test_the_variance_shares_are_those_of_the_kept_values(tmp_path):
    """The method alone moves the accuracy, apart from a little noise."""
    rng = np.random.default_rng(0)
    rows = []
    for number, method in enumerate(("erm", "reweight", "poly", "focal")):
        for exponent in (-4, -3, -2):
            for seed in range(4):
                made = row(method, exponent, seed, 0.5, 0.0)
                made |= {
                    f"{rule}: worst group": str(0.1 * number + 1e-4 * rng.random())
                    for rule in ("worst group", "balanced", "last")
                }
                rows.append(made)
    kept_results.add(every.STUDY, tmp_path, rows, packed=True)
    before, after = (line.strip("| ").split(" | ") for line in every.variance_table(tmp_path).splitlines()[-2:])
    assert before[:4] == ["Dominoes", "before", "4", f"{100 * np.std([0.0, 0.1, 0.2, 0.3] * 36, ddof=1):.1f}"]
    assert before[4].startswith("100%") and all(cell.startswith("0%") for cell in before[5:])
    assert after[:2] == ["after", "4"] and after[3].startswith("100%") and after[4] == "–"
    assert all(cell.startswith("0%") for cell in after[5:])


def test_a_wrong_name_is_one_line(tmp_path):
    for flag, name in (("data", "waterbirds"), ("methods", "erms")):
        given = arguments_of("reproduce every_method", [f"--{flag}={name}", "--no-train", f"--results={tmp_path}"])
        with pytest.raises(BadInput, match=f"--{flag}: '{name}' given; valid: "):
            every.every_method(**given)
