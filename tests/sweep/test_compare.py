"""The commands that train several runs and print a table, from their flags to the table."""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from imbalance.cli.main import call
from imbalance.config.metric_names import check_metric
from imbalance.errors import BadInput
from imbalance.sweep import select_epoch as selection
from imbalance.sweep.compare import count_warnings
from imbalance.sweep.runs import check_config_names


@pytest.fixture
def configs(tmp_path: Path) -> list[str]:
    """Two config files whose runs take a moment."""
    paths = []
    for name in ("digits_ce", "digits_poly"):
        text = (ROOT / "configs" / f"{name}.py").read_text()
        paths.append(tmp_path / f"{name}_short.py")
        paths[-1].write_text(text.replace("epochs=600", "epochs=2").replace("eval_every=10", "eval_every=1"))
    return list(map(str, paths))


@pytest.mark.parametrize(
    ("command", "rows"),
    [("compare", 2), ("select", 2 * sum("inferred" not in name for name, *_ in selection.RULES))],  # none are inferred
)
def test_a_command_trains_what_is_missing_and_prints_a_row_for_everything(command, rows, configs, tmp_path, capsys):
    arguments = [f"--config={','.join(configs)}", "--seeds=2", "--jobs=1", f"--work_dir={tmp_path / 'runs'}"]
    assert call([command, *arguments]) == 0
    first = capsys.readouterr().out
    assert call([command, *arguments]) == 0
    assert capsys.readouterr().out == first
    table = [line for line in first.splitlines() if line.startswith("| digits_")]
    assert len(table) == rows and all("_short" in line and ", " in line for line in table)
    assert len(list(tmp_path.glob("runs/*/*/seed=*/summary.json"))) == 4


@pytest.mark.parametrize("command", ["compare", "select", "sweep"])
def test_two_files_of_one_name_are_refused(command, configs, tmp_path, capsys):
    """Both rows had the values of the second file, because the runs share a directory."""
    other = tmp_path / "other" / Path(configs[0]).name
    other.parent.mkdir()
    other.write_text(Path(configs[0]).read_text().replace("lr=0.02", "lr=0.5"))
    axis = ["--grid=optim.lr=0.1"] if command == "sweep" else []
    work_dir = f"--work_dir={tmp_path / 'runs'}"
    assert call([command, f"--config={configs[0]},{other}", "--seeds=1", work_dir, *axis]) == 2
    error = capsys.readouterr().err
    assert f"{configs[0]} and {other} have the same name" in error and "another name" in error
    assert not (tmp_path / "runs").exists()
    check_config_names([configs[0], f"{other.parent}/../{other.name}", "digits_ce", "digits_ce"])  # one file twice


def test_a_variant_is_the_first_config_with_overrides(configs, tmp_path, capsys):
    common = ["--seeds=2", "--jobs=1", f"--work_dir={tmp_path / 'runs'}"]
    values = "loss.name=vs loss.gamma=0.2 --config.loss.tau=1"
    assert call(["compare", f"--config={configs[0]}", f"--variant={values}", "--variant=optim.lr=0.3", *common]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    name = f"digits_ce_short/{values.replace(' --config.', ' ').replace(' ', ',')}"
    assert [row[0] for row in rows] == ["| digits_ce_short", f"| {name}", "| digits_ce_short/optim.lr=0.3"]
    own = (json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/seed=*/summary.json"))
    scores = [run["metrics"]["test/balanced_accuracy"] for run in own if "loss.name=vs" in run["run_directory"]]
    assert len(scores) == 2 and all(f"{100 * score:.1f}" in rows[1][1] for score in scores)
    for wrong in ("optim.lr", "optim.lr=1 optim.lr=2", "", "seed=3"):
        assert call(["compare", f"--config={configs[0]}", f"--variant={wrong}", *common]) == 2
    capsys.readouterr()
    assert call(["compare", f"--config={configs[0]}", "--variant=loss.name=focal", *common]) == 2
    assert capsys.readouterr().err.endswith("loss.gamma is missing; add loss.gamma=<number, at least 0>\n")


def test_a_metric_that_is_no_fraction_is_not_in_percent_and_warnings_are_repeated(tmp_path, capsys):
    """After one epoch all is predicted as the common class, and a run warns of that."""
    arguments = ["--config=colored_digits_erm", "--config.trainer.epochs=1", f"--work_dir={tmp_path / 'runs'}"]
    assert call(["compare", *arguments, "--seeds=3", "--jobs=1", "--metric=test/nll"]) == 0
    out, err = capsys.readouterr()
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/seed=*/summary.json")]
    mean = sum(summary["metrics"]["test/nll"] for summary in summaries) / 3
    head, _, row = out.splitlines()
    assert head.startswith("| test/nll |") and f"| {mean:.3f} " in row
    warned = [summary for summary in summaries if summary["warnings"]]
    assert warned and f"WARNING: {len(warned)} of 3 runs: " in err
    announced, begun, *_ = err.splitlines()
    assert announced.startswith("compare: colored_digits_erm; seeds 0 to 2; run directories in ")
    assert begun == "0 of 3 runs done, 3 running"


def test_a_metric_without_a_value_is_no_divergence(tmp_path, capsys):
    metric = "few_shot_accuracy"  # no class of these data has fewer than 20 training examples
    arguments = ["--config=colored_digits_erm", "--config.trainer.epochs=1", f"--work_dir={tmp_path / 'runs'}"]
    arguments += ["--seeds=2", "--jobs=1", f"--metric=test/{metric}", f"--config.score=val/{metric}"]
    assert call(["compare", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "| colored_digits_erm | – | 0 | 0 |  |"
    assert f"WARNING: 2 of 2 runs: test/{metric} has no value on their data" in err and "diverged" not in err


def test_warnings_that_differ_only_in_numbers_are_one():
    runs = [["best at epoch 2", "no cat"], ["best at epoch 4.5", "best at epoch 8"], ["best at epoch 2"]]
    assert count_warnings(runs) == ["3 of 3 runs: best at epoch 2, or similar", "1 of 3 runs: no cat"]


def test_metrics_that_only_some_methods_have_can_be_compared():
    for name in ("test/worst_inferred_group_accuracy", "train/flip_rate", "val/worst_training_group_accuracy"):
        check_metric(name)
    with pytest.raises(BadInput, match="^--metric: 'test/flip_rates' given"):
        check_metric("test/flip_rates")


def test_the_config_of_a_run_is_compared_under_its_name_and_overrides(configs, tmp_path, capsys):
    """Two of one name, and a path with commas, as run directories have them."""
    overrides = [f"--config.work_dir={tmp_path / 'runs'}", "--config.loss.name=focal", "--config.loss.gamma=1.0"]
    assert call(["train", f"--config={configs[0]}", overrides[0]]) == 0
    assert call(["train", f"--config={configs[0]}", *overrides]) == 0
    capsys.readouterr()
    plain, focal = sorted(tmp_path.glob("runs/*/*/seed=0/config.json"))
    assert "," in str(focal)
    assert call(["compare", f"--config={plain},{focal},{configs[1]}", "--seeds=2", "--jobs=1", f"--work_dir={tmp_path / 'runs'}"]) == 0  # fmt: skip
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("| digits_")]
    assert rows == ["| digits_ce_short", "| digits_ce_short/loss.gamma=1.0,loss.name=focal", "| digits_poly_short"]
    assert len(list(tmp_path.glob("runs/*/*/seed=*/summary.json"))) == 6
