"""The tables of docs/choose.md have each number beside the labels that it read."""

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from imbalance.config.resolve import resolve
from imbalance.config.schema import flatten
from imbalance.experiments import choose
from imbalance.report import kept_results, leaderboard
from imbalance.report.settings import selection_rule


def row(config, seed, worst, balanced, few=False):
    """Return a row of results whose worst group has the accuracy `worst`, and `balanced` at the epoch that classes select."""
    return {
        "name": config, "overrides": choose.FEW if few else "default", "seed": str(seed), "data": f"{seed}{few}", "status": "done",
        "val counts": "8|9|9|9" if few else "89|89|90|90", "test of groups": f"1|{worst}|0.99|1",
        "best balanced: test of groups": f"0.98|1|{balanced}|1",
    }  # fmt: skip


def cells_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_a_number_is_that_of_the_epoch_which_the_labels_of_its_row_select(tmp_path):
    worst = {"colored_digits_jtt": (0.79, 0.8, 0.81), "colored_digits_xrm": (0.59, 0.6, 0.61)}
    rows = [row(c, seed, value, value - 0.3) for c, values in worst.items() for seed, value in enumerate(values)]
    rows += [row("colored_digits_jtt", seed, 0.4, 0.1, few=True) for seed in range(3)]
    kept_results.add(choose.STUDY, tmp_path, rows)
    half = 100 * 0.01 * stats.t.ppf(0.975, 2) / np.sqrt(3)  # the standard deviation of each three values is 0.01
    jtt, inferred = "[JTT](methods/jtt.md)", "[XRM](methods/xrm.md), then group DRO"
    # The config of XRM selects by groups that it infers, so its rows have no other epoch.
    assert [line[:4] for line in cells_of(choose.groups_table(tmp_path))] == [
        ["groups in val only, 89 of the smallest", jtt, f"80.0 ± {half:.1f}", "3"],
        ["groups in val only, 8 of the smallest", jtt, "40.0 (all 3 equal)", "3"],
        ["no groups, only classes", jtt, f"50.0 ± {half:.1f}", "3"],
        ["", inferred, f"60.0 ± {half:.1f}", "3"],
    ]
    reads = [line[4] for line in cells_of(choose.groups_table(tmp_path))]
    assert [text.split("; ")[1] for text in reads] == [
        "epoch: val groups", "epoch: val groups", "epoch: val classes", "epoch: groups inferred from the classes",
    ]  # fmt: skip


METHODS = {method.config: method for _, methods, _, _ in choose.SITUATIONS for method in methods}


@pytest.mark.parametrize("config", METHODS)
def test_the_labels_of_a_method_are_those_of_its_config(config):
    flat, method = flatten(resolve(config, {})[0].to_dict()), METHODS[config]
    assert leaderboard.labels_in_train(flat) == method.labels.partition(";")[0]
    monitor = selection_rule({f"config.{key}": value for key, value in flat.items()})
    assert monitor["labels"] == ("val classes" if config in choose.OWN_GROUPS else "val groups")
    assert ("inferred" in flat["callbacks.monitor"]) == (config in choose.OWN_GROUPS)
    assert ("last layer" in method.labels) == (flat["head.name"] in leaderboard.FITTED)


def test_every_method_of_the_page_has_ten_runs_in_each_of_its_rows():
    lines = cells_of(choose.groups_table(ROOT / "results"))
    assert [line[3] for line in lines] == ["10"] * sum(len(methods) for _, methods, _, _ in choose.SITUATIONS)
    digits = cells_of(choose.classes_table(ROOT / "results"))
    assert [line[3] for line in digits] == ["10"] * len(choose.ON_DIGITS)
    assert digits[1][1] == "83.3 ± 2.1" and digits[1][4].endswith("of 10")


def test_without_runs_the_tables_say_so(tmp_path):
    assert choose.groups_table(tmp_path) == choose.classes_table(tmp_path) == "No run has finished yet.\n"
