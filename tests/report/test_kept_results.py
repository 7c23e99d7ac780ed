"""What is kept of runs: complete, once each, and whatever the order."""

import gzip
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.archives import unpacks

from imbalance.cli.main import call
from imbalance.errors import BadInput, Damaged
from imbalance.metrics.selection import RULES, balanced, evaluations
from imbalance.report import carried_runs
from imbalance.report import kept_results as results
from imbalance.sweep.runs import make_run, run_all
from imbalance.training.loop import train

SHORT = {"trainer.epochs": 4, "trainer.eval_every": 1, "trainer.eval_splits": ("val", "test"),
         "callbacks.keep_logits": True, "model.hidden": (8,)}  # fmt: skip


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """Take the code under test for committed code, also while somebody works on it; see test_provenance_of_code.py."""
    monkeypatch.setattr(results, "check_row", lambda row: None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("runs")
    of = [
        make_run("digits_poly", SHORT | {"optim.lr": lr}, seed, str(work_dir))
        for lr, seed in ((0.3, 0), (0.3, 1), (1e30, 0))
    ]
    run_all(of, 1, 1)
    return of


def test_a_row_says_what_was_run_and_what_came_out(runs):
    directory = runs[0].directory
    row, summary = results.row_of(directory), json.loads((directory / "summary.json").read_text())
    assert (row["name"], row["seed"], row["status"]) == ("digits_poly", "0", "done")
    assert (row["loss"], row["lr"], row["exponent"], row["precision"]) == ("poly", "0.3", "1.5", "float32")
    assert float(row["test balanced"]) == pytest.approx(summary["metrics"]["test/balanced_accuracy"], abs=1e-6)
    found = [float(value) for value in row["test of groups"].split("|")]
    of_groups = [summary["metrics"][f"test/group_accuracy/{name}"] for name in row["groups"].split("|")]
    np.testing.assert_allclose(found, of_groups, atol=1e-6)
    assert sum(map(int, row["train counts"].split("|"))) == sum(summary["groups"]["train"].values())
    assert summary["commit"] is None or summary["commit"].startswith(row["commit"].rstrip("+"))


def test_other_rules_choose_as_they_do_from_logits(runs):
    (epochs, val), (_, test) = (evaluations(runs[1].directory, split) for split in ("val", "test"))
    row, chosen = results.row_of(runs[1].directory), {name: rule for name, _, rule in RULES}
    for name in ("best average", "best balanced", "best worst group"):
        at = chosen[name](val, test, 0.1, 0)
        assert int(row[f"{name}: epoch"]) == epochs[at]
        assert float(row[f"{name}: test balanced"]) == pytest.approx(balanced(test)[at], abs=1e-6)


def test_a_rule_passes_over_an_epoch_whose_metric_is_0_over_0():
    lines = [
        {"epoch": epoch, "test/balanced_accuracy": test, "test/accuracy": test, "test/group_accuracy/a": test,
         "val/accuracy": val, "val/balanced_accuracy": val, "val/worst_group_accuracy": val}
        for epoch, val, test in ((1, None, 0.9), (2, 0.8, 0.6), (3, 0.8, 0.7))
    ]  # fmt: skip
    found = results.selected_by_rules(lines)
    assert (found["best balanced: epoch"], found["best balanced: test of groups"], found["oracle: epoch"]) == (
        2,
        "0.6",
        1,
    )
    assert results.selected_by_rules([{"epoch": 1, "val/accuracy": 1.0}]) == {}


def test_a_diverged_run_is_kept_and_an_unfinished_one_is_not(runs, tmp_path):
    row = results.row_of(runs[2].directory)
    assert (
        row["status"] == "diverged"
        and not row.get("test balanced")
        and np.isnan(results.numbers([row], "test balanced"))
    )
    (tmp_path / "seed=0").mkdir()
    assert results.row_of(tmp_path / "seed=0") is None


def test_a_debug_run_is_not_kept(tmp_path):
    run = make_run("digits_poly", SHORT | {"debug": True}, 0, str(tmp_path))
    assert run_all([run], 1, 1)[0]["status"] == "done" and results.row_of(run.directory) is None
    with pytest.raises(BadInput, match="has no finished run besides debug runs"):
        results.keep(study="rows", work_dir=str(tmp_path), results=str(tmp_path / "results"))


def test_the_digest_distinguishes_splits(runs):
    first, second = (results.row_of(run.directory)["data"] for run in runs[:2])
    assert first != second and len(first) == 10


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_is_kept_twice_and_the_order_leaves_no_trace(runs, tmp_path, packed):
    rows = [results.row_of(run.directory) for run in runs]
    assert results.add("study", tmp_path, rows, packed) == 3 and results.add("study", tmp_path, rows, packed) == 0
    path = results.file_of("study", tmp_path)
    assert path.name == ("study.csv.gz" if packed else "study.csv")
    before = path.read_bytes()
    path.unlink()
    for row in reversed(rows):
        assert results.add("study", tmp_path, [row], packed) == 1
    after = results.file_of("study", tmp_path).read_bytes()
    content, other = (gzip.decompress(c) if packed else c for c in (before, after))
    assert content == other and len(results.read("study", tmp_path)) == 3


def test_the_command_adds_what_is_new(runs, tmp_path):
    work_dir = str(runs[0].directory.parents[2])
    (runs[0].directory / "wandb").mkdir()
    (runs[0].directory / "wandb" / "config.json").write_text("{}")
    assert results.keep(study="digits", work_dir=work_dir, results=str(tmp_path)).endswith(
        "3 of 3 runs added; the file now has 3 runs"
    )
    assert results.keep(study="digits", work_dir=work_dir, results=str(tmp_path)).endswith(
        "0 of 3 runs added; the file now has 3 runs"
    )
    with pytest.raises(BadInput, match="has no finished run"):
        results.keep(study="digits", work_dir=str(tmp_path), results=str(tmp_path))


def test_a_refused_run_does_not_keep_others_out(runs, tmp_path, monkeypatch):
    def check(row):
        if row["seed"] == "1":
            raise BadInput("digits_poly/seed=1: files had uncommitted changes")

    monkeypatch.setattr(results, "check_row", check)
    message = "2 of 3 runs added; the file now has 2 runs; 1 run refused, the first: digits_poly/seed=1: files had"
    with pytest.raises(BadInput, match=message):
        results.keep(study="digits", work_dir=str(runs[0].directory.parents[2]), results=str(tmp_path))
    assert [row["seed"] for row in results.read("digits", tmp_path)] == ["0", "0"]


def test_a_run_of_a_changed_config_file_is_no_run_that_has_a_row(runs, tmp_path):
    """The name of a run directory has overrides only, not the values of the config file."""
    row = results.row_of(runs[0].directory)
    assert results.add("digits", tmp_path, [row]) == 1
    assert results.add("digits", tmp_path, [row | {"lr": "0.30"}]) == 0  # as an older version may have written it
    for column, value in (("lr", "0.777"), ("loss", "focal"), ("epochs", "5")):
        with pytest.raises(
            BadInput, match=f"seed=0: .* and other values: {column} {value} instead of {row[column]}; give"
        ):
            results.add("digits", tmp_path, [row | {column: value}])
        with pytest.raises(BadInput, match="other values"):  # in one command
            results.add("none", tmp_path, [row, row | {column: value}])
    assert results.read("none", tmp_path) == [] and len(results.read("digits", tmp_path)) == 1


def test_the_digests_of_a_config_are_those_of_its_file_and_no_path_or_seed_changes_them(runs, tmp_path):
    run = runs[0]
    row, config = results.row_of(run.directory), run.config.to_dict()
    assert row["config"] == results.config_digests(config) == results.row_of(runs[1].directory)["config"]
    assert row["config"] == results.config_digests(config | {"data_dir": "elsewhere", "work_dir": "other", "seed": 9})
    without = {
        key: value for key, value in config["trainer"].items() if key != "clip_norm"
    }  # a file of an older version
    assert row["config"] == results.config_digests(config | {"trainer": without})
    changed = results.config_digests(config | {"trainer": {**config["trainer"], "clip_norm": 1.0}})
    differing = set(changed.split()) ^ set(row["config"].split())
    assert len(differing) == 2 and all(part.startswith("trainer=") for part in differing)


def test_a_row_of_an_older_version_is_compared_by_the_columns_that_it_has(runs, tmp_path):
    row = results.row_of(runs[0].directory)
    results.add("old", tmp_path, [{key: value for key, value in row.items() if key != "config"}])
    before = results.file_of("old", tmp_path).read_bytes()
    assert results.add("old", tmp_path, [row]) == 0
    assert results.file_of("old", tmp_path).read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "other", "expected"),
    [
        ("optim.lr=0.1", "optim.lr=0.1", []),
        ("optim.lr=0.1,trainer.clip_norm=1.0", "optim.lr=0.1", ["trainer.clip_norm=1.0 instead of no trainer.clip_norm"]),
        ("default", "optim.momentum=0.5", ["no optim.momentum instead of optim.momentum=0.5"]),
        ("data.classes=a+b-0123abcd", "data.classes=a+b", []),  # versions write one value otherwise; the column decides
        # The name of a folder was cut, so the hash is all that tells of later keys.
        ("data.classes=a+-0123456789ab", "data.classes=a+-ba9876543210",
         ["data.classes=a+-0123456789ab instead of data.classes=a+-ba9876543210"]),
    ],
)  # fmt: skip
def test_differing_overrides_are_named(overrides, other, expected):
    assert (
        results.differences({"overrides": overrides, "classes": "a+b"}, {"overrides": other, "classes": "a+b"})
        == expected
    )


@unpacks
def test_runs_are_carried_to_another_machine_in_small_files(runs, tmp_path, capsys):
    """Every file that the table and the report read; no checkpoint; a finished run there stays as it is."""
    work_dir, carried, other = runs[0].directory.parents[2], tmp_path / "carried", tmp_path / "other"
    (work_dir / "pack").mkdir(exist_ok=True)
    (work_dir / "pack" / "waits.json").write_text('{"device": "a GPU"}')
    (work_dir / "pack" / "waits.done").touch()
    assert call(["keep", f"--work_dir={work_dir}", f"--to={carried}"]) == 0
    assert capsys.readouterr().out.startswith(f"{carried / 'runs-1-of-1.tar.gz'}: 0.")
    assert call(["keep", f"--from={carried}", "--study=rows", f"--work_dir={other}", f"--results={tmp_path}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{other}: 3 runs from {carried}",
        f"{tmp_path / 'rows.csv'}: 3 of 3 runs added; the file now has 3 runs",
    ]
    results.add("direct", tmp_path, results.finished(work_dir))
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "direct.csv").read_bytes()
    copy = other / runs[0].directory.relative_to(work_dir)
    for name in ("config.json", "summary.json", "metrics.jsonl", "log.txt", "predictions/test.npz"):
        assert (copy / name).read_bytes() == (runs[0].directory / name).read_bytes()
    assert not list(other.rglob("*.pt"))
    assert sorted(path.name for path in (other / "pack").iterdir()) == ["waits.done", "waits.json"]

    (copy / "log.txt").write_text("another log")
    unfinished = other / runs[1].directory.relative_to(work_dir)
    (unfinished / "summary.json").write_text('{"status": "interrupted"}')
    assert carried_runs.read_runs(carried, other) == 1
    assert (copy / "log.txt").read_text() == "another log"
    assert json.loads((unfinished / "summary.json").read_text())["status"] == "done"


@unpacks
def test_an_unfinished_run_goes_on_elsewhere_if_it_fits_into_one_file(tmp_path):
    """Its checkpoint was left out, so that another machine began again."""
    run = make_run("digits_ce", {"trainer.epochs": 2, "trainer.eval_every": 1}, 0, str(tmp_path / "runs"))
    assert train(*run, pause=1)["status"] == "interrupted"
    for limit, steps in ((carried_runs.LIMIT, 1), (1000, 0)):
        carried, other = tmp_path / f"carried {limit}", tmp_path / f"other {limit}"
        carried_runs.write_runs(tmp_path / "runs", carried, limit)
        carried_runs.read_runs(carried, other)
        copy = other / run.directory.relative_to(tmp_path / "runs")
        assert not list(copy.rglob("*.previous.*"))
        moved = make_run("digits_ce", {"trainer.epochs": 2, "trainer.eval_every": 1}, 0, str(other))
        assert moved.directory == copy and train(*moved)["status"] == "done"
        assert (copy / "log.txt").read_text().count("resumed at epoch 1") == steps


@unpacks
def test_what_is_too_large_for_one_file_is_in_several(runs, tmp_path):
    work_dir = runs[0].directory.parents[2]
    (whole,) = carried_runs.write_runs(work_dir, tmp_path)
    limit = whole.stat().st_size * 2 // 3
    files = carried_runs.write_runs(work_dir, tmp_path, limit)
    assert len(files) > 1 and all(file.stat().st_size <= limit for file in files)
    assert sorted(tmp_path.iterdir()) == sorted(files)  # the file of before is gone
    assert carried_runs.read_runs(tmp_path, tmp_path / "other") == 3
    files[0].unlink()
    with pytest.raises(BadInput, match=f"{files[0].name} is missing; copy all files"):
        carried_runs.read_runs(tmp_path, tmp_path / "more")
    assert carried_runs.LIMIT == 16 * 2**20


@unpacks
def test_carried_runs_that_are_nowhere_else_are_never_replaced(runs, tmp_path):
    """A second work_dir, whose runs are others or have other results, must not take the place of the first one's files."""
    work_dir, carried = runs[0].directory.parents[2], tmp_path / "carried"
    first, names = tmp_path / "first", [run.directory.relative_to(work_dir) for run in runs]
    for name in names:
        shutil.copytree(work_dir / name, first / name)
    (file,) = carried_runs.write_runs(first, carried)
    content = file.read_bytes()
    other = tmp_path / "other"
    shutil.copytree(runs[0].directory, other / names[0])
    with pytest.raises(BadInput, match=f"runs-1-of-1.tar.gz has .*, which --work_dir={other} lacks; name another"):
        carried_runs.write_runs(other, carried)
    for run, name in zip(runs[1:], names[1:]):
        shutil.copytree(run.directory, other / name)
    assert carried_runs.write_runs(other, carried) == [file]  # the same runs
    summary = other / names[0] / "summary.json"
    summary.write_text(summary.read_text() + " ")
    with pytest.raises(
        BadInput, match=f"has {re.escape(str(names[0]))}, which --work_dir={other} has with another result"
    ):
        carried_runs.write_runs(other, carried)
    assert carried_runs.read_runs(carried, tmp_path / "again") == 3
    summary.write_text('{"status": "interrupted"}')
    elsewhere = tmp_path / "elsewhere"
    carried_runs.write_runs(other, elsewhere)
    shutil.copy(runs[0].directory / "summary.json", summary)  # the run has gone on since
    carried_runs.write_runs(other, elsewhere)
    file.write_bytes(content[:-2000])
    carried_runs.write_runs(other, carried)  # nobody could read the damaged file
    assert carried_runs.read_runs(carried, tmp_path / "third") == 3


@unpacks
def test_run_that_was_carried_says_that_its_model_was_left_out(runs, tmp_path, capsys):
    carried, other = tmp_path / "carried", tmp_path / "other"
    work_dir = runs[0].directory.parents[2]
    carried_runs.write_runs(work_dir, carried)
    carried_runs.read_runs(carried, other)
    run = other / runs[0].directory.relative_to(work_dir)
    assert call(["export", str(run), str(tmp_path / "model.pt2")]) == 2
    error = capsys.readouterr().err
    assert (
        "left out by `imbalance keep --to`, which copies no model" in error and "give a run that is done" not in error
    )


@unpacks
def test_carried_runs_that_are_missing_or_damaged_are_one_line(runs, tmp_path, capsys):
    for arguments, words in (
        ([f"--to={tmp_path}", "--study=rows"], "--to writes no table and reads no runs; leave --study and --from out"),
        ([], "--study is missing; type the name of a table, as --study=rows, or --to=<folder>"),
        ([f"--from={tmp_path}", "--study=rows"], "no file runs-<i>-of-<n>.tar.gz; type the folder that"),
        (
            [f"--to={tmp_path / 'x'}", f"--work_dir={tmp_path / 'none'}"],
            "has no runs; type a folder of run directories",
        ),
    ):
        assert call(["keep", *arguments]) == 2
        assert words in capsys.readouterr().err
    (file,) = carried_runs.write_runs(runs[0].directory.parents[2], tmp_path)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(BadInput, match="runs-1-of-1.tar.gz is damaged .*; copy it again"):
        carried_runs.read_runs(tmp_path, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


@unpacks
def test_carried_runs_with_a_wrong_checksum_are_not_unpacked(runs, tmp_path):
    (file,) = carried_runs.write_runs(runs[0].directory.parents[2], tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[:-8] + bytes(4) + content[-4:])  # the checksum of gzip: 4 bytes before the size
    with pytest.raises(BadInput, match="runs-1-of-1.tar.gz is damaged .*; copy it again"):
        carried_runs.read_runs(tmp_path, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())
    file.write_bytes(content)
    assert carried_runs.read_runs(tmp_path, tmp_path / "other") == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("digits_poly,default", "line 3 has more or fewer cells than the first line"),
        ("digits_poly,default,1,a,done,more", "line 3 has more or fewer cells than the first line"),
        ("digits_poly,default,one,a,done", "line 3 is no run: a run has a name, and an integer as its seed"),
        (",default,1,a,done", "line 3 is no run"),
        ("digits_poly,default,1,a,don", "line 3 has the status 'don', not done or diverged"),
    ],
)
def test_a_broken_row_of_a_table_is_damage_with_its_line(tmp_path, line, words):
    table = tmp_path / "rows.csv"
    table.write_text(f"name,overrides,seed,data,status\ndigits_poly,default,0,a,done\n{line}\n")
    with pytest.raises(Damaged, match=f"rows.csv: damaged .{words}"):
        results.read("rows", tmp_path)
    table.write_text(
        "name,overrides,seed,data,status\ndigits_poly,default,0,a,done\ndigits_poly,default,1,a,diverged\n"
    )
    assert [row["seed"] for row in results.read("rows", tmp_path)] == ["0", "1"]


def test_one_run_is_counted_in_the_singular(runs, tmp_path):
    message = results.keep(study="one", work_dir=str(runs[2].directory), results=str(tmp_path))
    assert message.endswith("1 of 1 run added; the file now has 1 run")


def test_rows_that_are_added_at_the_same_time_are_all_kept(tmp_path, monkeypatch):
    read = results.read
    monkeypatch.setattr(results, "read", lambda *where: (read(*where), time.sleep(0.02))[0])  # others come in between
    rows = [{"name": "a", "overrides": "", "seed": str(seed), "data": ""} for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: results.add("rows", tmp_path, [row]), rows)) == [1] * 8
    assert read("rows", tmp_path) == rows
