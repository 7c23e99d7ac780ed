"""The command line of main.py: in this process, and in new processes for a run and for bad usage."""

import errno
import json
from pathlib import Path

import pytest
from conftest import ROOT

from imbalance.cli.main import call

CONFIG = "--config=configs/digits_poly.py"


@pytest.fixture
def train(monkeypatch, tmp_path, capsys):
    """Return a function that does as `python main.py …` in this process, and returns exit status, stdout and stderr."""
    monkeypatch.chdir(ROOT)

    def here(*args: str) -> tuple[int, str, str]:
        status = call(["train", *args, *([f"--config.work_dir={tmp_path / 'runs'}"] if args else [])])
        return status, *capsys.readouterr()

    return here


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "the following arguments are required: --config"),
        (["--config=nope.py"], "config: no config nope.py"),
        (["--config=configs/digts_poly.py"], "did you mean digits_poly or"),
        ([CONFIG, "extra"], "extra: unknown"),
        ([CONFIG, "--config.optim.lrr=1"], "did you mean config.optim.lr"),
        ([CONFIG, "--config.optim.Lr=1"], "config.optim.Lr: no such key; did you mean config.optim.lr?"),
        ([CONFIG, "--config.lr=1"], "config.lr: no such key; did you mean config.optim.lr?"),
        ([CONFIG, "--config.optim.lr=abc"], "--config.optim.lr=abc: not a number"),
        ([CONFIG, "--config.optim.lr"], "--config.optim.lr: lacks a value"),
        ([CONFIG, "--config.model.hidden=(10**12,)"], "--config.model.hidden=(10**12,): not values with commas"),
        ([CONFIG, "--confg.seed=1"], "--confg.seed=1: unknown"),
        ([CONFIG, "--config.optim={'lr': 3}"], "config.optim.schedule: must be a section"),
        ([CONFIG, "--config.loss={'name': 'poly', 'alpha': 1.0}"], "add --config.loss.left=<'logistic', 'exponential'"),
        ([CONFIG, "--config.loss.name=vs"], "add --config.loss.gamma=<number, at least 0> --config.loss.tau=<number"),
        (
            [CONFIG, "--config.loss=poly"],
            "config.loss: a section, not a value; set its keys one by one, such as config.loss.name",
        ),
        ([CONFIG, "--config.seed=18446744073709551616"], "config.seed: 18446744073709551616 given"),
        ([CONFIG, "--config.trainer.accumulation=1000000000"], "config.trainer.accumulation: 1000000000 given"),
        ([CONFIG, "--config.model.hidden=1000000000000"], "config.model: weights and gradients take 512,000.0 GB"),
        ([CONFIG, "--config.score=val/\n\x1b[31m"], r"config.score: 'val/\n\x1b[31m' given"),
        (["--config=no\nsuch"], r"config: no config no\nsuch"),
        (["--config=setup.py"], "config: setup.py is no config: it has no get_config()"),
        (["--config=README.md"], "config: README.md is no config; name a .py or .json file"),
        (["--config=configs"], "config: configs is no config"),
        (["--config=" + "x" * 300], "config: no config xxx"),
        ([CONFIG, "--config.trainer.epochs=0"], "config.trainer.epochs: 0 given"),
        ([CONFIG, "--config.score=val/recall/cat"], "'cat' must be one of 0, 1, 2"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(train, args, words):
    status, out, err = train(*args)
    assert status == 2
    assert words in err
    assert err.count("\n") == 1, err
    assert "{" not in out


def test_a_file_with_several_problems_is_answered_with_the_command_that_lists_them(train, tmp_path):
    rows = [f"{row},{'unknown' if row in (3, 5) else row % 2}" for row in range(20)]
    (tmp_path / "table.csv").write_text("\n".join(["age,target", *rows]))
    status, _, err = train("--config=arrays_erm", f"--config.data_dir={tmp_path}")
    assert status == 2 and "line 5: target is 'unknown'" in err
    assert err.endswith(" (and 1 more); imbalance data verify lists all\n")


def test_a_config_in_a_folder_that_cannot_be_read_is_not_called_missing(train, monkeypatch):
    """The rights of folders do not bind root, as whom tests may run."""

    def is_file(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", is_file)
    status, _, err = train("--config=private/mine.py")
    assert status == 2 and err == "config: private/mine.py: Permission denied; name a file that can be read\n"


def test_bad_usage_of_main_is_one_line_and_status_2(main):
    done = main(CONFIG, "--config.seed=18446744073709551616")
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.seed: 18446744073709551616 given" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("torn.json", '{"seed": 0', "is no config: no JSON: Expecting"),
        ("deep.json", "[" * 100_000, "is no config: no JSON: maximum recursion depth"),
        ("deep.py", f"x = {'-' * 100_000}1", "is no config"),
        ("list.json", "[]", "is no config: no JSON object"),
        ("binary.json", b"\xff\xfe", "is no config: not UTF-8 text"),
        ("empty.py", "", "it has no get_config()"),
        ("open.py", "def get_config(:\n", "line 1: "),
        ("other.py", "def get_config():\n    return {}\n", "returns dict, not a ConfigDict"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(train, tmp_path, name, text, words):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    status, _, err = train(f"--config={path}")
    assert status == 2 and words in err and err.count("\n") == 1, err


def test_a_config_file_with_a_bug_is_one_line_that_says_where(train, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_config():\n    return {}['nothing']\n")
    status, _, err = train(f"--config={path}")
    assert status == 2
    assert "broken.py, line 2: KeyError: 'nothing'" in err and "Traceback" not in err


def test_dry_run_prints_the_resolved_config_and_trains_nothing(train, tmp_path):
    status, out, _ = train(CONFIG, "--config.optim.lr=0.5", "--dry_run")
    assert status == 0
    text, _, directory = out.strip().rpartition("\n")
    assert json.loads(text)["optim"]["lr"] == 0.5
    assert directory.endswith("/digits_poly/optim.lr=0.5/seed=0")
    assert not (tmp_path / "runs").exists()


def test_a_saved_config_runs_again_beside_the_run_that_saved_it(train, config, tmp_path):
    """Under the same name, with its overrides and the new ones; lists are tuples again."""
    saved = tmp_path / "elsewhere" / "digits_poly" / "optim.lr=0.5" / "seed=3" / "config.json"
    saved.parent.mkdir(parents=True)
    saved.write_text(json.dumps(config.to_dict()))
    status, out, err = train(f"--config={saved}", "--config.trainer.batch_size=32", "--dry_run")
    assert status == 0, err
    text, _, directory = out.strip().rpartition("\n")
    config.trainer.batch_size, config.work_dir = 32, str(tmp_path / "runs")
    assert json.loads(text) == json.loads(json.dumps(config.to_dict()))
    assert directory == f"{tmp_path}/runs/digits_poly/optim.lr=0.5,trainer.batch_size=32/seed=0"


def test_a_run_ends_with_its_result_and_is_not_run_again(main, train, tmp_path):
    args = (CONFIG, "--config.trainer.epochs=20", "--config.seed=4")
    first = main(*args)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout.splitlines()[-1])
    assert result["run_directory"] == str(tmp_path / "runs" / "digits_poly" / "trainer.epochs=20" / "seed=4")
    assert result["status"] == "done" and 0 < result["score"] < 1
    assert all(word in first.stdout for word in ("recall", "precision", "accuracy", "score: val/balanced_accuracy"))

    status, out, _ = train(*args)
    assert status == 0
    assert "done before" in out
    assert json.loads(out.splitlines()[-1]) == result


def test_a_non_finite_loss_is_one_line_and_status_3(train, tmp_path):
    status, out, err = train(CONFIG, "--config.optim.lr=1e20")
    assert status == 3
    assert err.startswith("non-finite loss") and err.count("\n") == 1
    assert all(word in err for word in ("step 1", "epoch 1", "learning rate 1e+20", "row numbers"))
    assert json.loads(out.splitlines()[-1])["status"] == "diverged"
    (summary,) = (tmp_path / "runs").rglob("summary.json")
    assert json.loads(summary.read_text())["status"] == "diverged"
