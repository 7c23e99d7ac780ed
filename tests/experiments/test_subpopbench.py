import hashlib
import math
import re

import numpy as np
import pytest

from imbalance.cli.main import arguments_of
from imbalance.errors import BadInput
from imbalance.experiments import subpopbench
from imbalance.experiments.subpopbench import QUOTED_RULE, Comparison
from imbalance.experiments.subpopbench_settings import DATA, METHODS, OWN, SHARED, point
from imbalance.metrics.intervals import mean, paired_difference, quantiles
from imbalance.report import kept_results
from imbalance.sweep import launch, worker
from imbalance.sweep.runs import make_run

pytest.importorskip("optuna")


def arguments(*flags, data="colored_digits", steps=54):
    return arguments_of("reproduce subpopbench", [f"--data={data}", f"--steps={steps}", *flags])


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
    monkeypatch.setattr(launch, "launch", lambda place, *_, **__: worker.work(place, None, False, 1, 16))
    given = arguments("--methods=reweight,crt", "--trials=2", "--seeds=2", f"--work_dir={tmp_path}")
    subpopbench.subpopbench(**given)
    first = capsys.readouterr().out
    runs = sorted(tmp_path.rglob("summary.json"))
    monkeypatch.setattr(kept_results, "check_row", lambda row: None)  # this checkout may have uncommitted changes
    kept = tmp_path / "results"
    subpopbench.subpopbench(**given | {"keep": True, "results": str(kept)})
    added, again = capsys.readouterr().out.split("\n\n", 1)
    assert again == first and sorted(tmp_path.rglob("summary.json")) == runs  # nothing runs twice
    assert added == f"{kept / 'subpopbench.csv.gz'}: {len(runs)} of {len(runs)} runs added"
    subpopbench.subpopbench(**given | {"train": False, "results": str(kept)})
    assert capsys.readouterr().out == first

    def directory(setting, seed):
        values = point(DATA["colored_digits"], "reweight", setting, seed, "known", 54)
        config, changes = values.pop("config"), {k: v for k, v in values.items() if k != "seed"}
        return make_run(config, changes, seed, str(tmp_path)).directory

    def best(folder):
        epochs = sorted(int(path.stem.split("-")[1]) for path in folder.glob("evaluations/val-*.npy"))
        return max((worst_group(folder, "val", epoch), -epoch) for epoch in epochs)

    setting = max((0, 1), key=lambda s: (best(directory(s, 0))[0], -s))
    chosen = [directory(setting, seed) for seed in (0, 1)]
    expected = mean([worst_group(folder, "test", -best(folder)[1]) for folder in chosen])
    _, main, by_group, *_ = first.split("| method |")
    row = next(line for line in by_group.splitlines() if line.startswith("| ReWeight"))
    assert row.split(" | ")[1:3] == [str(setting), expected.percent()] and expected.value > 0
    row = next(line for line in main.splitlines() if line.startswith("| ReWeight"))
    assert row.split(" | ")[1] == expected.percent() and row.endswith(f"| {setting} | 2 | 2 |")
    assert first.count("| CRT |") == 4 and "published" not in first
    assert "2 settings (scaled down from 16) a method at seed 0, 2 seeds of the chosen ones, 54 steps a run" in first
    assert "scaled down from 5,001" in first


@pytest.mark.parametrize("setting", (1, 15))
def test_a_random_setting_is_that_of_the_released_code_and_all_methods_share_its_learning_rate(setting):
    def drawn(name):
        inner = int(hashlib.md5(f"({setting},)".encode()).hexdigest(), 16) % 2**31
        return np.random.RandomState(int(hashlib.md5(f"({inner}, '{name}')".encode()).hexdigest(), 16) % 2**31)

    points = {method: point(DATA["waterbirds"], method, setting, 0, "known", 0) for method in METHODS}
    assert {values["optim.lr"] for values in points.values()} == {10 ** drawn("lr").uniform(-4, -2)}
    assert points["groupdro"]["objective.step_size"] == 10 ** drawn("groupdro_eta").uniform(-3, -1)
    assert points["jtt"]["weights.upweight"] == 10 ** drawn("jtt_lambda").uniform(0, 2.5)
    assert 32 <= points["lff"]["trainer.batch_size"] < 54 and 64 <= points["erm"]["trainer.batch_size"] < 108


def test_texts_have_the_dropout_of_bert_where_the_released_code_draws_none_and_tables_have_the_drawn_layers():
    dropouts = [point(DATA["multinli"], "erm", setting, 0, "known", 0)["model.dropout"] for setting in range(16)]
    assert dropouts[0] == 0.5 and set(dropouts) == {0.1, 0.5}
    table = DATA["colored_digits"]._replace(kind="tabular")
    for setting in range(16):
        values = point(table, "erm", setting, 0, "known", 0)
        assert 2 <= len(values["model.hidden"]) <= 4 and 64 <= values["model.hidden"][0] <= 1024
        assert 128 <= values["trainer.batch_size"] <= 1024
    assert point(table, "lff", 0, 0, "known", 0)["trainer.batch_size"] == 128


def test_every_data_set_and_method_has_valid_runs_of_the_published_number_of_steps():
    for name, row in DATA.items():
        data = row if row.size else row._replace(size=100_000)  # counted from the files
        for method in METHODS:
            if data.kind == "text" and not METHODS[method].texts:
                continue
            values = point(data, method, 0, 0, "known", 0)
            changes = {key: value for key, value in values.items() if key not in ("config", "seed")}
            config = make_run(values["config"], changes, 0, "runs").config
            epochs = config.trainer.epochs + values.get("weights.first_epochs", 0)
            steps_per_epoch = math.ceil(data.size / config.trainer.batch_size)
            assert abs(epochs * steps_per_epoch - data.steps) <= steps_per_epoch / 2, (name, method)


def test_published_values_are_quoted_for_the_rule_and_the_attributes_that_they_have():
    for data, attributes, title, text in (
        ("waterbirds", "known", "DFR", "91 ± 0.3"),
        ("celeba", "unknown", "ERM", "57.6 ± 0.8"),
        ("colored_digits", "known", "ERM", ""),
    ):
        assert subpopbench.quotation(Comparison(data, 5001, "", attributes), title) == text
    assert QUOTED_RULE == {"known": "val worst group", "unknown": "val worst class"}


def test_without_attributes_methods_balance_classes_and_others_are_refused(tmp_path):
    assert point(DATA["waterbirds"], "reweight", 0, 0, "unknown", 0)["weights.by"] == "class"
    folder = f"--results={tmp_path}"
    for given, message in (
        (arguments("--methods=erm,irm", "--attributes=unknown"), "--methods=irm: the method reads the attributes"),
        (arguments("--methods=erm,er"), "--methods: 'er' given; valid: erm, mixup"),
        (arguments("--methods=erm,erm"), "given twice"),
        (
            arguments("--methods=mixup", data="multinli"),
            "--methods=mixup: the method cannot be trained on the texts of multinli",
        ),
        (arguments(data="nonesuch"), "--data: 'nonesuch' given; valid: colored_digits, dominoes, waterbirds"),
        (arguments(data="digits", steps=0), "--data=digits: the protocol has no number of steps for this data set"),
        (arguments("--no-train", folder), "--data=colored_digits: .* has no runs with known attributes"),
    ):
        with pytest.raises(BadInput, match=message):
            subpopbench.subpopbench(**given | {"work_dir": str(tmp_path), "dry_run": True})
    assert not list(tmp_path.iterdir())


def test_a_dry_run_counts_runs_and_steps_and_trains_nothing(tmp_path, capsys):
    subpopbench.subpopbench(
        **arguments("--methods=erm", "--trials=2", "--seeds=3", f"--work_dir={tmp_path}", "--dry_run")
    )
    out = capsys.readouterr().out
    assert "| colored_digits | ERM | 2 | 6 |" in out and "--steps=200" in out and not list(tmp_path.iterdir())


def test_a_data_set_outside_the_protocol_is_counted_and_trained_by_sgd_for_the_steps_that_are_given(tmp_path, capsys):
    given = arguments("--methods=erm", "--trials=1", "--seeds=1", "--dry_run", data="digits")
    subpopbench.subpopbench(**given | {"work_dir": str(tmp_path)})
    batches = math.ceil((104 + 67 + 43 + 28 + 18 + 11 + 7 + 4 + 3 + 2) / 108)  # the class counts in results/ledger.csv
    assert f"| digits | ERM | 1 | 1 | {round(54 / batches) * batches} |" in capsys.readouterr().out


def test_ranges_contain_their_values_and_the_texts_of_the_ranges_say_so():
    for values in (*OWN.values(), *(range_ for kind in SHARED.values() for range_ in kind.values())):
        random = np.random.RandomState(0)
        drawn = [values.random(random) for _ in range(300)]
        assert len({type(value) for value in drawn}) == 1
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", values.text)]
        if values.text.startswith("one of"):
            assert set(drawn) == set(numbers)
            continue
        low, high = numbers[-2:]
        if "^U" in values.text:
            base, factor = numbers[-3], numbers[0] if "·" in values.text else 1.0
            low, high = factor * base**low, factor * base**high
        if values.text.startswith("1 −"):
            low, high = 1 - high, 1 - low
        assert low - 1 <= min(drawn) <= low + (high - low) / 4 and max(drawn) <= high, values.text


def test_joint_intervals_cover_all_means_at_once_where_separate_ones_do_not():
    random = np.random.default_rng(0)
    methods, seeds, draws = 20, 3, 20_000
    spreads = np.geomspace(0.1, 2, methods)[:, None]  # methods differ in their spread, and share the effects of seeds
    values = spreads * random.normal(size=(draws, methods, seeds)) + random.normal(size=(draws, 1, seeds))

    def coverage(sample, family):
        half = sample.std(2, ddof=1) / np.sqrt(seeds) * quantiles(seeds, family)[seeds - 2]
        return (abs(sample.mean(2)) <= half).all(1).mean()

    assert coverage(values, 1) < 0.75
    assert coverage(values, methods) > 0.945 and coverage(values[:, 1:] - values[:, :1], methods - 1) > 0.945


def test_joint_intervals_of_independent_means_cover_as_often_as_bonferroni_says():
    """Each of m independent intervals at the level 1 − 0.05 / m covers on its own, so all do in (1 − 0.05 / m)^m of cases."""
    from scipy import stats

    for n, family in ((3, 1), (3, 20), (10, 7)):
        expected = stats.t.ppf(1 - 0.025 / family, n - 1)
        values = np.arange(n, dtype=float)
        half = expected * stats.sem(values)
        assert mean(values, family=family).half == pytest.approx(half, rel=1e-9)
        difference = paired_difference(dict(enumerate(values)), dict.fromkeys(range(n), 1.0), family=family)
        assert difference.half == pytest.approx(half, rel=1e-9) and difference.value == values.mean() - 1
        assert 0.95 <= (1 - 0.05 / family) ** family <= 0.9513
