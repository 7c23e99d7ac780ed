import hashlib
import math

import numpy as np
import pytest

from imbalance.cli.main import arguments_of
from imbalance.errors import BadInput
from imbalance.experiments import subpopbench
from imbalance.experiments.subpopbench import DATA, METHODS, QUOTED_RULE, point
from imbalance.metrics.intervals import mean
from imbalance.sweep import launch, study
from imbalance.sweep.runs import make_run

pytest.importorskip("optuna")


def arguments(*flags):
    return arguments_of("reproduce subpopbench", ["--data=colored_digits", "--steps=54", *flags])


def worst_group(directory, split, epoch):
    """Return the accuracy of the worst group of a saved evaluation, group by group."""
    saved, logits = (
        np.load(directory / f"predictions/{split}.npz"),
        np.load(directory / f"evaluations/{split}-{epoch}.npy"),
    )
    right = logits.argmax(1) == saved["targets"]
    return min(right[saved["groups"] == group].mean() for group in range(4))


def test_the_protocol_selects_setting_and_checkpoint_and_reports_the_chosen_setting_over_seeds(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(launch, "launch", lambda place, *_: study.work(place, None, False, 1, 16))
    given = arguments("--methods=reweight,crt", "--trials=2", "--seeds=2", f"--work_dir={tmp_path}")
    subpopbench.subpopbench(**given)
    first = capsys.readouterr().out
    runs = sorted(tmp_path.rglob("summary.json"))
    subpopbench.subpopbench(**given)
    assert capsys.readouterr().out == first and sorted(tmp_path.rglob("summary.json")) == runs  # nothing runs twice

    def directory(setting, seed):
        values = point("colored_digits", "reweight", setting, seed, "known", 54)
        config, changes = values.pop("config"), {k: v for k, v in values.items() if k != "seed"}
        return make_run(config, changes, seed, str(tmp_path)).directory

    def best(folder):
        epochs = sorted(int(path.stem.split("-")[1]) for path in folder.glob("evaluations/val-*.npy"))
        return max((worst_group(folder, "val", epoch), -epoch) for epoch in epochs)

    setting = max((0, 1), key=lambda s: (best(directory(s, 0))[0], -s))
    chosen = [directory(setting, seed) for seed in (0, 1)]
    expected = mean([worst_group(folder, "test", -best(folder)[1]) for folder in chosen])
    row = next(line for line in first.splitlines() if line.startswith("| ReWeight"))
    assert row.split(" | ")[1:3] == [str(setting), expected.percent()] and expected.value > 0
    assert first.count("| CRT |") == 3 and "published" not in first.split("\n", 2)[2]


@pytest.mark.parametrize("setting", (1, 15))
def test_a_random_setting_is_that_of_the_released_code_and_all_methods_share_its_learning_rate(setting):
    def drawn(name):
        inner = int(hashlib.md5(f"({setting},)".encode()).hexdigest(), 16) % 2**31
        return np.random.RandomState(int(hashlib.md5(f"({inner}, '{name}')".encode()).hexdigest(), 16) % 2**31)

    points = {method: point("waterbirds", method, setting, 0, "known", 0) for method in METHODS}
    assert {values["optim.lr"] for values in points.values()} == {10 ** drawn("lr").uniform(-4, -2)}
    assert points["groupdro"]["objective.step_size"] == 10 ** drawn("groupdro_eta").uniform(-3, -1)
    assert points["jtt"]["weights.upweight"] == 10 ** drawn("jtt_lambda").uniform(0, 2.5)
    assert 32 <= points["lff"]["trainer.batch_size"] < 54 and 64 <= points["erm"]["trainer.batch_size"] < 108


def test_every_data_set_and_method_has_valid_runs_of_the_published_number_of_steps():
    for name, data in DATA.items():
        for method in METHODS:
            values = point(name, method, 0, 0, "known", 0)
            changes = {key: value for key, value in values.items() if key not in ("config", "seed")}
            config = make_run(values["config"], changes, 0, "runs").config
            epochs = config.trainer.epochs + values.get("weights.first_epochs", 0)
            steps_per_epoch = math.ceil(data.size / config.trainer.batch_size)
            assert abs(epochs * steps_per_epoch - data.steps) <= steps_per_epoch / 2, (name, method)


def test_published_values_are_quoted_for_the_rule_and_the_attributes_that_they_have():
    assert subpopbench.quotation("waterbirds", "known", "DFR") == "91 ± 0.3"
    assert subpopbench.quotation("celeba", "unknown", "ERM") == "57.6 ± 0.8"
    assert subpopbench.quotation("colored_digits", "known", "ERM") == ""
    assert QUOTED_RULE == {"known": "val worst group", "unknown": "val worst class"}


def test_without_attributes_methods_balance_classes_and_others_are_refused(tmp_path):
    assert point("waterbirds", "reweight", 0, 0, "unknown", 0)["weights.by"] == "class"
    for flags, message in {
        ("--methods=erm,irm", "--attributes=unknown"): "--methods=irm: the method reads the attributes",
        ("--methods=erm,er",): "--methods: 'er' given; valid: erm, mixup",
        ("--methods=erm,erm",): "given twice",
    }.items():
        with pytest.raises(BadInput, match=message):
            subpopbench.subpopbench(**arguments(*flags, f"--work_dir={tmp_path}", "--dry_run"))
    assert not list(tmp_path.iterdir())


def test_a_dry_run_counts_runs_and_steps_and_trains_nothing(tmp_path, capsys):
    subpopbench.subpopbench(
        **arguments("--methods=erm", "--trials=2", "--seeds=3", f"--work_dir={tmp_path}", "--dry_run")
    )
    out = capsys.readouterr().out
    assert "| colored_digits | ERM | 2 | 6 |" in out and "--steps=200" in out and not list(tmp_path.iterdir())
