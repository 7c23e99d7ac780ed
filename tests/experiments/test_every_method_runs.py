"""The runs of the comparison of every method on real data: windows of learning rates, the choice on val, rows."""

import json

import pytest
from helpers.every_method import row, rows_at

from imbalance.errors import BadInput
from imbalance.experiments import every_method_runs as every
from imbalance.experiments.every_method_data import EXTRACTIONS
from imbalance.experiments.every_method_runs import DATA, EVERY, Data
from imbalance.report import kept_results
from imbalance.sweep.runs import make_run, train_quietly

DIGITS = dict(
    name="colored_digits", train_per_group=(60, 20, 20, 60), saturation=0.5, val_fraction=0.1, test_fraction=0.3
)


@pytest.mark.parametrize(
    ("best", "trained", "expected"),
    [
        (-3, (-4, -3, -2), (-4, -3, -2)),  # the best rate is in the middle
        (-2, (-4, -3, -2), (-3, -2, -1)),  # at the upper end, so the window moves up
        (-2, (-4, -3, -2, -1), (-3, -2, -1)),  # and stays there
        (-1, (-4, -3, -2, -1), (-2, -1, 0)),
        (0, (-4, -3, -2, -1, 0), (-2, -1, 0)),  # two moves at most
        (-6, (-6, -5, -4, -3, -2), (-6, -5, -4)),
        (None, (), (-4, -3, -2)),  # nothing is trained yet
    ],
)
def test_the_window_moves_towards_the_rate_that_most_seeds_choose(best, trained, expected):
    rows = rows_at(lambda e: 0.9 - 0.01 * abs(e - best), trained) if trained else []
    assert tuple(every.window(rows, DATA["dominoes"], "erm", "worst group")) == expected


def test_the_window_stays_if_only_half_of_the_seeds_choose_an_end():
    rows = [
        row("erm", e, seed, 0.5 + 0.1 * (e == (-4 if seed < 2 else -3)), 0.5) for e in (-4, -3, -2) for seed in range(4)
    ]
    assert tuple(every.window(rows, DATA["dominoes"], "erm", "worst group")) == (-4, -3, -2)


def test_each_seed_chooses_its_own_rate_by_each_rule_and_never_a_diverged_run():
    rows = [
        row("erm", -4, 0, 0.6, 0.11, balanced=(0.9, 0.21)), row("erm", -3, 0, 0.7, 0.12, balanced=(0.8, 0.22)),
        row("erm", -2, 0, 0, 0, status="diverged"), row("erm", -4, 1, 0.7, 0.13, balanced=(0.7, 0.23)),
        row("erm", -3, 1, 0.7, 0.14, balanced=(0.8, 0.24)), row("erm", -2, 1, 0.1, 0.15, balanced=(0.1, 0.25)),
    ]  # fmt: skip
    assert every.outcome(rows, DATA["dominoes"], "erm", "worst group") == {0: 0.12, 1: 0.13}
    assert every.outcome(rows, DATA["dominoes"], "erm", "balanced") == {0: 0.21, 1: 0.24}


def test_a_row_has_the_test_scores_at_the_best_epoch_on_val_and_one_run_repeats_its_stack(tmp_path, monkeypatch):
    values = {
        "data.source": DIGITS, "data.train_counts": (40, 8, 8, 40), "data.val_counts": (8,), "data.test_counts": (15,),
        "data.standardise": False,
    }  # fmt: skip
    monkeypatch.setitem(DATA, "tiny", Data("tiny", "columns", values))
    runs = {
        (method, seed): make_run(every.CONFIG, {**every.run_values(DATA["tiny"], method, -2), "trainer.epochs": 6}, seed, str(tmp_path))
        for method in ("erm", "reweight") for seed in (0, 1)
    }  # fmt: skip
    train_quietly(list(runs.values()))
    keys = {run.directory: ("tiny", method, -2) for (method, _), run in runs.items()}
    for run in runs.values():
        lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
        lines = [line for line in lines if "val/worst_group_accuracy" in line]
        made = every.to_row(run.directory, keys)
        for rule, metric in every.SCORES.items():
            best = max(lines, key=lambda line, m=metric: (line[f"val/{m}"], -line["epoch"]))
            assert made[f"{rule}: epoch"] == str(best["epoch"])
            assert made[f"{rule}: val"] == kept_results.text(best[f"val/{metric}"])
            for score, name in every.SCORES.items():
                assert made[f"{rule}: {score}"] == kept_results.text(best[f"test/{name}"])
        assert made["last: balanced"] == kept_results.text(lines[-1]["test/balanced_accuracy"])
        assert made["representation"] == "columns" and made["train counts"] == "40|8|8|40"


def test_a_run_with_other_values_is_not_put_beside_a_kept_one(tmp_path):
    run = make_run(every.CONFIG, every.run_values(DATA["law"], "erm", -2), 0, "runs")
    kept = row("erm", -2, 0, 0.5, 0.5, name="law") | {"overrides": run.directory.parent.name}
    kept_results.add(every.STUDY, tmp_path, [kept], packed=True)
    with pytest.raises(
        BadInput, match="row of erm on law, seed 0, without --config.trainer.clip_norm; type --results=<another folder>"
    ):
        every.train_windows(("law",), ("erm",), {"trainer.clip_norm": 1.0}, 1, "runs", 1, 1, tmp_path)


def test_all_methods_of_all_data_sets_have_valid_configs():
    for data in DATA.values():
        for method in every.methods_for(data):
            make_run(every.CONFIG, every.run_values(data, method, data.rates), 0, "runs")
    assert set(every.methods_for(DATA["dominoes"])) == set(EVERY) - set(every.NEEDS_FEATURES)
    assert {"lisa", "irm", "reweight_class"}.isdisjoint(every.methods_for(DATA["cifar10lt_100"]))
    assert set(every.methods_for(DATA["law"])) == set(EVERY) == set(every.methods_for(DATA["dominoes_pixels"]))


def test_longer_undersampling_has_as_many_steps_and_evaluations_as_the_other_methods():
    steps = {}
    for name, method in (
        ("dominoes_pixels", "undersample_longer"),
        ("dominoes_pixels", "erm"),
        ("adult", "undersample_longer"),
        ("adult", "erm"),
    ):
        data = DATA[name]
        values = every.run_values(data, method, data.rates)
        counts = values["data.train_counts"]
        drawn = sum(counts) if method == "erm" else len(counts) * min(counts)
        epochs = values["trainer.epochs"]
        steps[name, method] = epochs * len(range(0, drawn, data.batch)), epochs // values["trainer.eval_every"]
    assert steps["dominoes_pixels", "undersample_longer"] == steps["dominoes_pixels", "erm"] == (40 * 32, 20)
    assert steps["adult", "undersample_longer"] == (20 * 6 * 3, 10) and steps["adult", "erm"] == (20 * 20, 10)
    assert "undersample_longer" not in every.methods_for(DATA["compas"])  # an epoch has as many steps already


def test_a_seed_draws_the_same_images_for_pixels_as_it_draws_features():
    """The features are those of the images that the pixels have as source, in the same order."""
    for name in every.FROM_SCRATCH:
        features, pixels = DATA[name], DATA[f"{name}_pixels"]
        extraction = EXTRACTIONS[features.values["data.source"]["folder"]]
        assert pixels.values["data.source"] == extraction.values["data"]
        for part in ("train", "val", "test"):
            assert pixels.values[f"data.{part}_counts"] == features.values[f"data.{part}_counts"]
        assert pixels.source == features.source and pixels.test_examples == features.test_examples


def test_one_call_trains_the_runs_of_several_data_sets_in_the_order_of_their_names(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(every, "make_batches", lambda runs, jobs, stacked: [list(runs)])
    monkeypatch.setattr(every, "run_and_keep", lambda batches, *_, **__: trained.extend(batches))
    every.train_windows(("law", "dominoes"), ("erm", "crt"), {}, 2, "runs", 1, 1, tmp_path)
    (batch,) = trained  # of one call; CRT does not fit the features of Dominoes
    models = [run.config.model.name for run in batch]
    assert models == ["mlp"] * 12 + ["linear"] * 6
    assert [run.config.seed for run in batch] == 3 * [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("method", "labels"),
    [("erm", "none"), ("jtt", "none"), ("bsoftmax", "none"), ("reweight", "train"), ("reweight_class", "none"), ("groupdro", "train"),
     ("undersample", "train"), ("dfr", "val"), ("lisa", "train")],
)  # fmt: skip
def test_a_table_says_which_groups_a_method_reads(method, labels):
    assert every.labels_read(DATA["law"], method) == labels


def test_conflicting_images_have_the_stated_share():
    for percent in (5, 2, 1, 0.5):
        counts = DATA[f"corrupted_{percent}"].values["data.train_counts"]
        assert sum(counts[1::2]) == 50 * percent and sum(counts) == 5000 and min(counts) > 0
    assert DATA["cifar10lt_100"].values["data.train_counts"][::9] == (1000, 10)
