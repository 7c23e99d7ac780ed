"""The paper's rows: each with its settings and its published value, and a ledger that mixes nothing."""

import importlib
import json
import re

import pytest

from imbalance.cli.main import arguments_of
from imbalance.experiments import figure3, figure4, figure5, paper_rows
from imbalance.experiments.paper_rows import best_group_average, compare, last, result_of
from imbalance.experiments.published import published
from imbalance.metrics.selection import KEPT, RULES, evaluations, group_average
from imbalance.report import kept_results
from imbalance.sweep.runs import Run
from imbalance.sweep.variants import Variant
from imbalance.training.loop import train


@pytest.mark.parametrize("number", [3, 4, 5])
def test_every_row_of_the_paper_is_a_valid_config_with_a_published_value(number):
    rows = importlib.import_module(f"experiments.figure{number}").ROWS
    for data, of_data in rows.items():
        directories = {variant.run(KEPT, 0, "runs").directory for variant in of_data.values()}
        assert len(directories) == len(of_data) >= 4
        assert all(50 < published(f"figure{number} {data}", row).value < 90 for row in of_data)


# Exponent of the weights (0: none), learning rate, momentum and epochs, from the paper's appendix and code.
SETTINGS = {
    ("cifar", "No IW"): (0, 1e-3, 0.9, 400),
    ("cifar", "IW"): (1, 1e-3, 0.9, 400),
    ("cifar", "IW-Exp"): (1.5, 8e-3, 0.0, 400),
    ("celeba", "No IW"): (0, 4e-4, 0.9, 50),
    ("celeba", "IW"): (1, 4e-4, 0.9, 50),
    ("celeba", "IW-Exp"): (2, 4e-4, 0.9, 100),
}


def test_runs_go_seed_by_seed_with_cross_entropy_and_poly_side_by_side(tmp_path, monkeypatch):
    """So that what is finished can be compared when the time is up."""
    ordered = []
    monkeypatch.setattr(paper_rows, "run_all", lambda runs, *_: ordered.extend(runs))
    monkeypatch.setattr(paper_rows, "draw", lambda *_: None)
    flags = ["--data=cifar", "--seeds=2", f"--work_dir={tmp_path}", f"--folder={tmp_path}"]
    figure3.figure3(**arguments_of("reproduce figure3", flags))
    assert [run.config.seed for run in ordered] == [0] * 6 + [1] * 6
    seed_0 = [
        (run.config.loss.name, run.config.weights.name, run.config.weights.get("exponent")) for run in ordered[:6]
    ]
    losses, weights = [name for name, *_ in seed_0], [rest for _, *rest in seed_0]
    assert losses == ["cross_entropy", "poly"] * 3
    assert weights[::2] == weights[1::2] == [["uniform", None], ["importance", 1.0], ["importance", 1.5]]


def test_a_kept_run_in_another_precision_is_one_of_the_row_and_the_table_says_so(tmp_path):
    cells = {
        "name": "cifar_ce", "status": "done", "test balanced": "0.58", "best balanced: test balanced": "0.61", "interpolation epoch": "200",
        "seconds": "3600",
    }  # fmt: skip
    exponent = "optim.lr=0.008,optim.momentum=0.0,{}weights.exponent=1.5"
    overrides = {
        "bf16": exponent.format("trainer.mixed_precision=bf16,"),
        "float32": exponent.format(""),
        "other": exponent.format("trainer.epochs=9,"),
    }
    rows = [{**cells, "overrides": text, "seed": str(seed), "data": "", "precision": precision}
            for seed, (precision, text) in enumerate(overrides.items())]  # fmt: skip
    kept_results.add("rows", tmp_path, rows)
    table = paper_rows.kept_table(figure3.ROWS["cifar"], tmp_path).splitlines()[2:]
    assert [line.split(" | ")[0] for line in table] == ["| ce IW-Exp, last epoch", "| ce IW-Exp, early-stopped"]
    assert all("(2) |" in line and line.endswith("| 200 | bf16, float32 | 1.0 |") for line in table)


@pytest.mark.parametrize(("data", "row"), [(data, row) for data, rows in figure3.ROWS.items() for row in rows])
def test_the_rows_of_figure_3_have_the_papers_settings(data, row):
    config = figure3.ROWS[data][row].run(KEPT, 0, "runs").config
    loss, _, weighting = row.partition(" ")
    exponent = config.weights.exponent if config.weights.name == "importance" else 0
    assert (exponent, config.optim.lr, config.optim.momentum, config.trainer.epochs) == SETTINGS[data, weighting]
    assert config.loss.name == {"ce": "cross_entropy", "poly": "poly"}[loss] and config.optim.weight_decay == 0
    assert config.trainer.batch_size == 64 and config.optim.schedule.name == "constant"


# The loss, the exponent of the weights, the objective, learning rate, momentum and epochs, from the paper's released
# commands, where CDT and LA are its VS loss at τ = 0 and at γ = 0.
TUNED = {
    ("cifar", "CE+US"): ({"name": "cross_entropy"}, 0, "average", 1e-3, 0.9, 600),
    ("cifar", "LDAM"): ({"name": "ldam", "max_margin": 1.0, "scale": 1.0}, 0, "average", 0.01, 0.9, 300),
    ("cifar", "CDT"): ({"name": "cdt", "gamma": 0.5}, 0, "average", 0.01, 0.9, 300),
    ("cifar", "LA"): ({"name": "logit_adjusted", "tau": 3.0}, 0, "average", 0.01, 0.9, 300),
    ("cifar", "VS"): ({"name": "vs", "gamma": 0.3, "tau": 3.0}, 0, "average", 0.01, 0.9, 300),
    ("cifar", "Poly+IW"): ({"name": "poly", "alpha": 2.0, "left": "logistic"}, 3, "average", 0.08, 0.0, 600),
    ("celeba", "CE+US"): ({"name": "cross_entropy"}, 0, "average", 4e-4, 0.9, 50),
    ("celeba", "VS"): ({"name": "vs_group", "gamma": 0.4, "tau": 0.0}, 0, "average", 4e-4, 0.9, 50),
    ("celeba", "Poly+IW"): ({"name": "poly", "alpha": 2.0, "left": "logistic"}, 2.5, "average", 4e-4, 0.9, 200),
    ("celeba", "CE+DRO"): ({"name": "cross_entropy"}, 0, "group_dro", 1e-3, 0.9, 200),
    ("celeba", "VS+DRO"): ({"name": "vs_group", "gamma": 0.4, "tau": 0.0}, 0, "group_dro", 1e-3, 0.9, 200),
    ("celeba", "Poly+DRO"): ({"name": "poly", "alpha": 2.0, "left": "logistic"}, 0, "group_dro", 1e-3, 0.9, 200),
}


@pytest.mark.parametrize(("data", "row"), [(data, row) for data, rows in figure5.ROWS.items() for row in rows])
def test_the_rows_of_figure_5_have_the_papers_settings(data, row):
    config = figure5.ROWS[data][row].run(KEPT, 0, "runs").config
    exponent = config.weights.exponent if config.weights.name == "importance" else 0
    optim, epochs = config.optim, config.trainer.epochs
    found = config.loss.to_dict(), exponent, config.objective.name, optim.lr, optim.momentum, epochs
    assert found == TUNED[data, row] and optim.weight_decay == 0
    assert config.sampler.name == ("reject" if row == "CE+US" else "shuffle") and config.trainer.batch_size == 64
    if config.objective.name == "group_dro":
        assert config.objective.step_size == 0.05


def test_figure_4_trains_nothing_of_its_own():
    for data, rows in figure4.ROWS.items():
        assert len(rows) == 4 and all(variant in figure3.ROWS[data].values() for variant in rows.values())


def test_early_stopping_by_metrics_is_the_rule_of_that_name_by_logits(config, tmp_path):
    config.trainer.update(eval_splits=("val", "test"), epochs=6)
    config.callbacks.keep_logits = True
    config.optim.lr = 0.3
    summary = train(config, tmp_path)
    (epochs, val), (_, test) = evaluations(tmp_path, "val"), evaluations(tmp_path, "test")
    (rule,) = (rule for name, _, rule in RULES if name == "best group average")
    chosen = rule(val, test, 0.1, 0)
    found = result_of(Run(config, tmp_path), best_group_average)
    assert found.status == "done" and found.chosen == epochs[chosen] and found.epoch == 6
    assert found.test == pytest.approx(group_average(test)[chosen])
    at_the_end = result_of(Run(config, tmp_path), last)
    assert at_the_end.test == pytest.approx(summary["metrics"]["test/group_balanced_accuracy"])


def write_run(work_dir, variant: Variant, seed: int, status: str | None, accuracies: list[float]) -> None:
    """A run directory as training leaves it, with an evaluation for every val accuracy; the better val, the worse test."""
    directory = variant.run(KEPT, seed, str(work_dir)).directory
    directory.mkdir(parents=True)
    lines = [
        {"epoch": epoch, "train/accuracy": 0.9, "val/group_accuracy/cat": accuracy,
         "test/group_accuracy/cat": 1 - accuracy, "test/group_accuracy/dog": 0.5, "test/group_accuracy/none": None}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]  # fmt: skip
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status:
        groups = {"test": {"cat": 1000, "dog": 500, "none": 0}}
        summary = {
            "status": status,
            "score": None,
            "metrics": {},
            "seconds": 60.0,
            "device": "cpu",
            "commit": "0123456789+",
            "groups": groups,
        }
        (directory / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("choose", "mean", "so_far"),
    [
        (last, "40.0, 50.0", ["seed 2, epoch 3 of 400: test 45.0", "seed 3, epoch 1 of 400: test 53.0"]),
        (best_group_average, "35.0, 35.0", ["seed 2, epoch 3 of 400, selected 1: test 25.0"]),
    ],
)
def test_the_ledger_keeps_what_is_not_done_apart(choose, mean, so_far, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    runs, to_higher_power = tmp_path / "runs", figure3.ROWS["cifar"]["poly IW-Exp"]
    write_run(runs, Variant("cifar_ce"), 0, "done", [0.4, 0.8, 0.7])
    write_run(runs, Variant("cifar_ce"), 1, "done", [0.8, 0.6, 0.5])
    write_run(runs, Variant("cifar_ce"), 2, None, [1.0, 0.8, 0.6])
    write_run(runs, Variant("cifar_ce"), 3, "interrupted", [0.44])
    write_run(runs, Variant("cifar_ce"), 4, "diverged", [0.3])
    write_run(runs, Variant("cifar_ce"), 5, None, [])
    write_run(runs, to_higher_power, 4, "done", [0.7])
    flags = ["--data=cifar", "--seeds=7", "--no-train", f"--work_dir={runs}", f"--folder={tmp_path}"]
    compare("figure3", "Last epoch", figure3.ROWS, choose, **arguments_of("reproduce figure3", flags))
    rows = {cells[2]: cells for line in capsys.readouterr().out.splitlines() if (cells := line.split(" | "))[1:]}
    ce = rows["cifar_ce"]
    assert ce[5:9] == [mean, "2", "90.0", "1"] and all(text in ce[9] for text in so_far) and "seed 4" not in ce[9]
    assert ce[3] == "57.8 ± 1.3" and ce[10:] == ["cpu", "1.0, 1.0", "0123456+ |"]
    assert rows["cifar_poly"][5:10] == ["–", "0", "–", "0", "–"]
    # Accuracies of .3 and .5 of 1,000 and 500: their mean's standard error is √(.3 · .7 / 1000 + .5 · .5 / 500) / 2.
    test, low, high = map(float, re.fullmatch(r"(.*) \((.*) to (.*)\)", rows[str(to_higher_power)][5]).groups())
    assert test == 40 and (low, high) == pytest.approx((37.4, 42.6), abs=0.3)
    assert (tmp_path / "figure3.png").stat().st_size > 5000


def test_a_figure_without_any_run_is_drawn_and_says_so(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    flags = ["--no-train", f"--work_dir={tmp_path / 'runs'}", f"--folder={tmp_path}"]
    figure4.figure4(**arguments_of("reproduce figure4", flags))
    assert "85.9 ± 2.5 | 10 | – | 0" in capsys.readouterr().out and (tmp_path / "figure4.pdf").exists()
