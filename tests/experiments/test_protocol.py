import pytest

from imbalance.cli import commands
from imbalance.cli.main import arguments_of
from imbalance.experiments import protocol
from imbalance.experiments.protocol import best_rate
from imbalance.sweep import launch, worker

pytest.importorskip("optuna")


def test_the_best_rate_is_by_val_the_smaller_of_equals_and_never_one_that_diverged():
    assert best_rate({0.1: {"score": 0.5}, 0.01: {"score": 0.5}, 1.0: {"score": None}}) == 0.01
    assert best_rate({0.1: {"score": 0.5}, 0.01: {"score": 0.4}}) == 0.1
    assert best_rate({0.1: {"score": None}}) is None


def test_the_protocol_tunes_each_method_and_compares_them_over_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "launch", lambda place, *_, **__: worker.work(place, None, False, 1, 16))
    given = arguments_of(
        "protocol",
        [
            "--data=digits",
            "--batch_sizes=512",
            "--rates=0.05,1e30",
            "--epochs=3",
            "--seeds=2",
            f"--work_dir={tmp_path}",
        ],
    )
    protocol.protocol(**given)
    first = capsys.readouterr().out
    protocol.protocol(**given)
    assert capsys.readouterr().out == first
    tuning, results = first.split("Test, %")
    assert tuning.count("1e+30: diverged") == 2 and tuning.count("**0.05: ") == 2
    rows = [row.split(" | ") for row in results.splitlines() if row.startswith("| digits")]
    assert [row[2] for row in rows] == ["ce", "poly"] and [row[7] for row in rows] == ["2", "2"]
    assert rows[1][9].count(",") == 1 and not rows[0][9].strip(" |")  # two seeds: their differences, no interval
    # Two methods at two rates, and one more seed of each at the best rate: nothing is run twice.
    assert len(list(tmp_path.rglob("summary.json"))) == 6


def test_the_command_line_knows_the_data_sets_without_importing_what_trains_them():
    assert tuple(protocol.RATES_OF) == commands.DATA
