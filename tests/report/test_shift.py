"""The command that computes the accuracy of finished runs for other class shares."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.metrics.label_shift import long_tailed_prior
from imbalance.report.shift import shift
from imbalance.training.loop import train
from imbalance.utils.read import seal

RUN = "digits_erm/default/seed=0"


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A work directory with a finished run on long-tailed digits."""
    folder = tmp_path_factory.mktemp("label_shift")
    config = load(ROOT / "configs" / "digits_erm.py")
    config.model = dict(name="linear", init="default")
    config.trainer.update(epochs=30, eval_every=30)
    train(config, folder / RUN)
    return folder


def table_of(folder, tmp_path, ratios=(50, 5)) -> list[dict[str, str]]:
    shift(ratios=ratios, work_dir=str(folder), output=str(tmp_path / "shift.csv"))
    return list(csv.DictReader((tmp_path / "shift.csv").read_text().splitlines()))


def test_the_table_is_of_the_saved_predictions(work, tmp_path, capsys):
    rows = table_of(work, tmp_path)
    printed = capsys.readouterr().out
    saved = np.load(work / RUN / "predictions" / "test.npz")
    summary = json.loads((work / RUN / "summary.json").read_text())
    logits, targets = saved["logits"], saved["targets"]
    counts = np.array(list(summary["classes"]["train"].values()))
    log_model = np.log(counts / counts.sum())  # plain cross-entropy has the prior of the training set
    names = ["forward 50", "forward 5", "uniform", "backward 5", "backward 50"]
    assert [(row["prior"], row["known"]) for row in rows] == [(n, k) for k in ("False", "True") for n in names]
    for row, ratio in zip(rows, 2 * [50, 5, 1, 1 / 5, 1 / 50]):
        prior = long_tailed_prior(counts, ratio)
        shifts = np.log(prior) - log_model if row["known"] == "True" else 0
        right = (logits + shifts).argmax(1) == targets
        expected = sum(share * right[targets == k].mean() for k, share in enumerate(prior))
        assert float(row["accuracy"]) == pytest.approx(expected, abs=1e-9)
        assert float(row["low"]) < expected < float(row["high"])
    uniform = float(rows[2]["accuracy"])
    assert uniform == pytest.approx(summary["metrics"]["test/balanced_accuracy"], abs=1e-6)
    assert (
        f"| digits_erm | – | {100 * float(rows[0]['accuracy']):.1f} (" in printed
        and "| digits_erm | known |" in printed
    )


def test_a_run_without_a_known_prior_has_no_second_row(work, tmp_path, capsys):
    """Runs of older versions have no entry `prior` in model.json, and carried runs have no model.json."""
    shutil.copytree(work / RUN, tmp_path / "work" / RUN)
    path = tmp_path / "work" / RUN / "model.json"
    summary = tmp_path / "work" / RUN / "summary.json"
    values = json.loads(summary.read_text())
    del values["files"]["model.json"]
    summary.write_text(json.dumps(seal({k: v for k, v in values.items() if k != "digest"})))
    about = json.loads(path.read_text())
    del about["prior"]
    path.write_text(json.dumps(seal({k: v for k, v in about.items() if k != "digest"})))
    assert {row["known"] for row in table_of(tmp_path / "work", tmp_path)} == {"False"}
    path.unlink()
    assert {row["known"] for row in table_of(tmp_path / "work", tmp_path)} == {"False"}
    assert "| known |" not in capsys.readouterr().out


def test_runs_that_differ_in_seed_share_a_row(work, tmp_path, capsys):
    for seed in range(3):
        run = tmp_path / "work" / f"digits_erm/default/seed={seed}"
        shutil.copytree(work / RUN, run)
        config, summary = (json.loads((run / name).read_text()) for name in ("config.json", "summary.json"))
        (run / "config.json").write_text(json.dumps(config | {"seed": seed}))
        del summary["files"], summary["digest"]
        (run / "summary.json").write_text(json.dumps(seal(summary)))
    shift(ratios=[10], work_dir=str(tmp_path / "work"), output=None)
    row = next(line for line in capsys.readouterr().out.splitlines() if "| – |" in line)
    assert row.count("(all 3 equal)") == 3 and row.endswith("| 3 |")


def test_runs_of_one_seed_in_two_folders_are_two_rows(work, tmp_path, capsys):
    """They counted as two seeds."""
    for folder in ("a", "b"):
        shutil.copytree(work / RUN, tmp_path / folder / RUN)
    shift(ratios=[10], work_dir=str(tmp_path), output=None)
    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if "| – |" in line]
    assert [row.split()[1] for row in rows] == ["a/digits_erm", "b/digits_erm"]
    assert all(row.endswith("| 1 |") for row in rows)
    assert f"a/{RUN} and b/{RUN} have the same config name, overrides and seed" in printed.err


def test_wrong_values_are_refused(work, tmp_path):
    with pytest.raises(BadInput, match=r"^--ratios: 1 given; a ratio must be above 1, as in --ratios=50,10$"):
        shift(ratios=[10, 1], work_dir=str(work), output=None)
    with pytest.raises(BadInput, match="has no finished run with predictions of test"):
        shift(ratios=[10], work_dir=str(tmp_path), output=None)
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(BadInput, match="mine.csv"):
        shift(ratios=[10], work_dir=str(work), output=str(tmp_path / "mine.csv"))
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_a_run_without_predictions_is_named(work, tmp_path, capsys):
    """Its seed was missing from the mean without a word."""
    for seed in ("seed=0", "seed=1"):
        shutil.copytree(work / RUN, tmp_path / "work" / Path(RUN).parent / seed)
    (tmp_path / "work" / Path(RUN).parent / "seed=1" / "predictions" / "test.npz").unlink()
    table_of(tmp_path / "work", tmp_path)
    assert re.search(
        r"1 finished run left out, because predictions/test.npz is missing: .*seed=1;", capsys.readouterr().err
    )
