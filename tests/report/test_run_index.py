"""The index of runs: it changes no result, whatever happens to it, and saves reading what has not changed."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from imbalance.report import report as report_module
from imbalance.report import run_index
from imbalance.report.collect import collect
from imbalance.report.page.contents import page_contents
from imbalance.report.run_index import NAME, Part, read_each
from imbalance.utils.package import process_environment
from imbalance.utils.read import seal


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs with made-up scores, and an index that is written for one run already and settles at once."""
    monkeypatch.setattr(run_index, "FEWEST", 1)
    monkeypatch.setattr(run_index, "SETTLED", -1)
    for seed in range(3):
        write_run(tmp_path / "runs" / "made_up" / "default" / f"seed={seed}", seed, seed / 10)
    return tmp_path / "runs"


def write_run(directory, seed, score):
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "seed": seed, "trainer": {"epochs": 1}, "optim": {"lr": 0.1},
        "callbacks": {"monitor": "val/accuracy", "select": "last"}, "data": {"classes": ["a", "b"]},
    }  # fmt: skip
    summary = {"status": "done", "score": score, "metrics": {"test/accuracy": score, "val/accuracy": None}}
    (directory / "config.json").write_text(json.dumps(seal(config)))
    (directory / "summary.json").write_text(json.dumps(seal(summary | {"groups": {"test": {"a": 1}}})))


def unread(monkeypatch):
    """Make every reading of a run fail."""
    part = run_index.Part("row", ("config.json", "summary.json"), lambda directory: 1 / 0, bool)
    monkeypatch.setattr("imbalance.report.collect.ROW", part)


def test_unchanged_runs_are_not_read_again_and_changed_ones_are(runs, monkeypatch):
    before = collect(runs)
    assert [row["score"] for row in before] == [0, 0.1, 0.2] and (runs / NAME).exists()
    with monkeypatch.context() as patch:
        unread(patch)
        assert collect(runs) == before
    write_run(runs / "made_up" / "default" / "seed=1", 1, 0.9)
    write_run(runs / "made_up" / "default" / "seed=7", 7, 0.7)
    assert [row["score"] for row in collect(runs)] == [0, 0.9, 0.2, 0.7]
    (runs / "made_up" / "default" / "seed=0" / "summary.json").unlink()
    assert [(row["seed"], row["status"]) for row in collect(runs)][:2] == [(0, "incomplete"), (1, "done")]


def test_a_change_that_keeps_size_and_time_is_noticed(runs):
    collect(runs)
    path = runs / "made_up" / "default" / "seed=1" / "summary.json"
    times = path.stat().st_mtime_ns
    write_run(path.parent, 1, 0.5)  # a score of as many digits
    os.utime(path, ns=(times, times))
    assert [row["score"] for row in collect(runs)] == [0, 0.5, 0.2]


def test_a_file_that_has_just_changed_is_not_remembered(runs, monkeypatch):
    monkeypatch.setattr(run_index, "SETTLED", 3600 * 10**9)
    collect(runs)
    assert not (runs / NAME).exists()


def test_few_runs_get_no_index(runs, monkeypatch):
    monkeypatch.setattr(run_index, "FEWEST", 4)
    assert len(collect(runs)) == 3 and not (runs / NAME).exists()


def forge(runs):
    """Give the stored rows another content, and keep their digests."""
    with sqlite3.connect(runs / NAME) as index:
        index.execute("UPDATE parts SET content = replace(content, '0.2', '0.9')")
    index.close()


def replace_by_view(runs):
    """Make the table a view without an end."""
    with sqlite3.connect(runs / NAME) as index:
        index.execute("DROP TABLE parts")
        index.execute(
            "CREATE VIEW parts AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS part, i AS run, "
            "i AS stamp, i AS keys, i AS content, i AS digest FROM n"
        )
    index.close()


DAMAGE = {
    "cut": lambda runs: os.truncate(runs / NAME, 5000),
    "empty": lambda runs: (runs / NAME).write_bytes(b""),
    "no database": lambda runs: (runs / NAME).write_bytes(b"PK\3\4" * 5000),
    "a page of zeros": lambda runs: (runs / NAME).write_bytes(
        (runs / NAME).read_bytes()[:4096] + bytes(4096) + (runs / NAME).read_bytes()[8192:]
    ),
    "another content": forge,
    "a view": replace_by_view,
    "another version": lambda runs: sqlite3.connect(runs / NAME).execute("PRAGMA user_version = 7").connection.close(),
    "removed": lambda runs: (runs / NAME).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_index_is_made_anew(runs, damage, monkeypatch):
    before = collect(runs)
    DAMAGE[damage](runs)
    assert collect(runs) == before
    unread(monkeypatch)
    assert collect(runs) == before


def test_a_folder_pipe_or_unwritable_place_of_the_index_leaves_the_result(runs, monkeypatch):
    before = collect(runs)
    (runs / NAME).unlink()
    (runs / NAME).mkdir()
    assert collect(runs) == before
    (runs / NAME).rmdir()
    os.mkfifo(runs / NAME)
    assert collect(runs) == before and (runs / NAME).is_fifo()
    (runs / NAME).unlink()

    def read_only(path, **_):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(sqlite3, "connect", read_only)  # root writes to read-only folders too
    assert collect(runs) == before and not (runs / NAME).exists()


def test_an_index_in_use_is_neither_waited_for_long_nor_removed(runs):
    before = collect(runs)
    write_run(runs / "made_up" / "default" / "seed=1", 1, 0.9)
    other = sqlite3.connect(runs / NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert [row["score"] for row in collect(runs)] == [0, 0.9, 0.2]
    other.execute("ROLLBACK")
    other.close()
    assert (runs / NAME).exists() and len(before) == 3


def test_what_could_not_be_read_is_tried_again(runs, monkeypatch):
    values = iter([{"sound": False}, {"sound": True}])
    part = Part("tried", ("config.json",), lambda directory: next(values), lambda value: value["sound"])
    run = ["made_up/default/seed=0"]
    assert [read_each(runs, run, part) for _ in range(3)] == [[{"sound": False}], [{"sound": True}], [{"sound": True}]]


def test_an_index_that_came_with_copied_runs_is_not_used(runs, tmp_path, monkeypatch):
    collect(runs)
    subprocess.run(["cp", "-a", str(runs), str(tmp_path / "copy")], check=True)
    unread(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        collect(tmp_path / "copy")


def test_two_processes_write_one_index(runs):
    code = (
        "import sys; from pathlib import Path; from imbalance.report import run_index; from imbalance.report.collect import collect\n"
        "run_index.FEWEST, run_index.SETTLED = 1, -1\n"
        "for _ in range(20): (Path(sys.argv[1]) / run_index.NAME).unlink(missing_ok=True); print(len(collect(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(runs)]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=process_environment()) for _ in range(2)]
    assert [job.communicate(timeout=60)[0].split() for job in jobs] == [["3"] * 20] * 2
    assert len(collect(runs)) == 3


def test_the_content_of_the_page_is_remembered_too(runs, monkeypatch):
    rows = collect(runs)
    before = page_contents(runs, rows)
    monkeypatch.setattr("imbalance.report.page.contents.read_content", lambda directory, size: 1 / 0)
    assert page_contents(runs, rows) == before


def test_a_report_on_unchanged_runs_is_left_as_it_is(runs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("jinja2")
    monkeypatch.setattr(report_module, "SETTLED", -1)
    monkeypatch.setattr(report_module, "find_spec", lambda name: None)  # without figures

    def report(metrics=("accuracy",)):
        report_module.report(work_dir=str(runs), folder=str(tmp_path / "report"), metrics=metrics, pictured=0)
        page = tmp_path / "report" / "index.html"
        return page.stat().st_mtime_ns, capsys.readouterr().out

    first, out = report()
    again, same = report()
    assert again == first and "left as they are" in same and "left as they are" not in out
    assert same.partition("3 runs")[0].strip() in out  # the table is printed again
    assert report(("balanced_accuracy",))[0] > first
    last, _ = report()
    write_run(runs / "made_up" / "default" / "seed=1", 1, 0.9)
    changed, out = report()
    assert changed > last and "left as they are" not in out
    (tmp_path / "report" / "results.tex").write_text("edited")
    report()
    assert (tmp_path / "report" / "results.tex").read_text() != "edited"
    (runs / "made_up" / "default" / "seed=2" / "config.json").write_text("{")
    assert len({report()[0], report()[0]}) == 2  # so that what is left out is named each time
