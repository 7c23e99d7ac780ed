"""Cells of grids: configs with overrides, and which rows and runs are theirs."""

import json

import pytest

from imbalance.experiments import figure3, figure5, ten_data_sets
from imbalance.experiments.colored_digits_methods import METHODS, UNTUNED
from imbalance.metrics.selection import KEPT
from imbalance.sweep.variants import Variant
from imbalance.training.loop import run

HALF_POWER = Variant("digits_ce", {"weights.exponent": 0.5})


def test_a_variant_is_called_by_its_config_and_what_it_overrides():
    assert str(Variant("digits_ce")) == "digits_ce" and Variant("digits_ce").folder() == "default"
    assert str(HALF_POWER) == "digits_ce, weights.exponent=0.5"
    config, directory = HALF_POWER.run({"optim.lr": 0.3}, 7, "elsewhere")
    assert (config.weights.exponent, config.optim.lr, config.seed) == (0.5, 0.3, 7)
    assert directory.parts == ("elsewhere", "digits_ce", "optim.lr=0.3,weights.exponent=0.5", "seed=7")


def test_rows_are_of_a_variant_if_nothing_else_is_overridden():
    kept = "callbacks.keep_logits=True,trainer.eval_splits=val+test"
    rows = [
        {"name": name, "overrides": overrides}
        for name in ("digits_ce", "digits_erm")
        for overrides in ("default", kept, "weights.exponent=0.5", f"{kept},weights.exponent=0.5", "optim.lr=0.3,weights.exponent=0.5")
    ]  # fmt: skip
    assert Variant("digits_ce").rows(rows) == rows[:2]
    assert HALF_POWER.rows(rows) == rows[2:4]
    assert set(KEPT) == {part.partition("=")[0] for part in kept.split(",")}


def distinct(variants: list[Variant]) -> bool:
    return len({variant.run({}, 0, "runs").directory for variant in variants}) == len(variants)


def test_no_two_rows_of_a_table_are_the_same_run():
    assert distinct([variant for _, variant, _ in METHODS]) and distinct(list(UNTUNED.values()))
    for rows in (*figure3.ROWS.values(), *figure5.ROWS.values()):
        assert distinct(list(rows.values()))
    for data in ten_data_sets.PAIRS:
        assert distinct([Variant(f"{data}_pair_ce", overrides) for overrides in ten_data_sets.METHODS.values()])


OVERRIDDEN = {title: variant for title, variant, _ in METHODS if variant.overrides}
OVERRIDDEN |= {title: variant for title, variant in UNTUNED.items() if variant.overrides}


@pytest.mark.parametrize("title", OVERRIDDEN)
def test_a_method_runs_in_debug_mode(title, tmp_path):
    config, _ = OVERRIDDEN[title].run({"debug": True}, 0, str(tmp_path))
    assert 0 <= run(config).score <= 1
    (summary,) = tmp_path.rglob("seed=*/summary.json")
    assert json.loads(summary.read_text())["step"] == 1
