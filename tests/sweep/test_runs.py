import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import nullcontext
from math import isnan
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.surroundings import surroundings
from helpers.writing import write_for

from imbalance.cli.main import call
from imbalance.config.resolve import load, run_directory
from imbalance.errors import BadInput
from imbalance.report import kept_results
from imbalance.report.saved_runs import evaluations_of, metric, summary_of
from imbalance.sweep import launch
from imbalance.sweep import runs as sweep_runs
from imbalance.sweep.runs import make_batches, make_run, run_all, shares_of_gpus, train_quietly, worker_pool
from imbalance.training.stacked import train as stacked_training
from imbalance.utils import workers

SHORT = {"trainer.epochs": 2, "trainer.eval_every": 1}


def test_a_configured_run_has_the_directory_that_main_gives_it(tmp_path):
    config, directory = make_run("digits_poly", {"optim.lr": 1, "model.hidden": (8,)}, 3, str(tmp_path))
    base = load("configs/digits_poly.py")
    assert directory == run_directory(config, "digits_poly", base=base) and config.optim.lr == 1.0


@pytest.mark.parametrize(
    ("path", "overrides", "words"),
    [
        ("digits_poly", {"optim.lrr": 1.0}, "config.optim.lrr: "),
        ("digits_poly", {"optim.lr.x": 1.0}, "config.optim.lr.x: "),
        ("digits_poly", {"optim.lr": "fast"}, "config.optim.lr: 'fast' given"),
        ("digits_poly", {"optim.lr": -1.0}, "config.optim.lr: -1.0 given"),
        ("nothing.py", {}, "no config nothing.py"),
    ],
)
def test_a_mistake_in_a_run_is_one_line(path, overrides, words, tmp_path):
    with pytest.raises(BadInput) as error:
        make_run(path, overrides, 0, str(tmp_path))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("command", "override", "owner"),
    [
        ("reproduce every_method --data=law --methods=erm", "trainer.epochs=3", "trainer.epochs"),
        ("reproduce every_method --data=law --methods=erm", "data.source.file=mine.csv", "data.source"),
        ("reproduce every_method --data=law --methods=poly", "loss.alpha=2", "loss"),
        ("reproduce leads_along_training --data=fashion", "optim.lr=1", "optim.lr"),
        ("reproduce early_stopping --data=fashion", "trainer.eval_every=1", "trainer.eval_every"),
        ("reproduce pairs --data=fashion", "weights.exponent=2", "weights.exponent"),
        ("reproduce ten_data_sets", "data.classes=1,2", "data.classes"),
        ("reproduce figure3 --data=cifar", "trainer.eval_splits=val", "trainer.eval_splits"),
        ("select --config=digits_ce", "callbacks.keep_logits=False", "callbacks.keep_logits"),
        ("protocol --data=digits", "optim.lr=1", "optim.lr"),
    ],
)
def test_an_override_of_what_a_command_sets_itself_is_refused(command, override, owner, tmp_path, monkeypatch, capsys):
    for place in (sweep_runs, launch):
        monkeypatch.setattr(place, "worker_pool", lambda *_: pytest.fail("trained before the refusal"), raising=False)
    monkeypatch.chdir(tmp_path)
    assert call([*command.split(), f"--config.{override}"]) == 2
    key = override.partition("=")[0]
    assert capsys.readouterr().err.endswith(
        f"set no config.{key}: this command sets config.{owner} itself, for each of its runs\n"
    )


@pytest.mark.parametrize("model", ["convnet", "lenet", "mlp"])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_convolutions_are_stacked_on_a_gpu_and_never_on_a_cpu(model, on_gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    changes = {} if model == "convnet" else {"model.name": model}
    changes |= {"model.hidden": (8,)} if model == "mlp" else {}
    runs = [make_run("cifar_ce", changes, seed, str(tmp_path)) for seed in range(4)]
    batches = make_batches(runs, jobs=1, stacked=16)
    assert batches == ([runs] if on_gpu or model == "mlp" else [[run] for run in runs])
    assert make_batches(runs, jobs=1, stacked=1) == [[run] for run in runs]


@pytest.mark.parametrize(("pause", "sizes"), [(0.0, [1, 1, 1, 1, 1, 1, 1, 1, 0]), (3600.0, [8])])
def test_rows_are_added_while_the_same_workers_go_on(pause, sizes, tmp_path, monkeypatch):
    """New workers take seconds to start, so a table with many short runs starts them once."""
    pools, added = [], []

    class Pool:
        def __init__(self, jobs: int, **_: object):
            pools.append(jobs)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, function, runs) -> Future:
            (done := Future()).set_result([{"status": "done", "score": 0.5} for _ in runs])
            return done

    def add(table, folder, rows, packed):
        added.append([row["seed"] for row in rows])

    monkeypatch.setattr(sweep_runs, "worker_pool", Pool)
    monkeypatch.setattr(sweep_runs, "SAVE_EVERY", pause, raising=False)
    monkeypatch.setattr(kept_results, "add", add)
    monkeypatch.setattr(kept_results, "check_row", lambda row: None)
    monkeypatch.setattr("imbalance.training.state.provenance.clean_commit", lambda: "0123456789")
    batches = [[make_run("digits_poly", {}, seed, str(tmp_path))] for seed in range(8)]
    to_row = lambda directory: {"seed": directory.name}  # noqa: E731
    sweep_runs.run_and_keep(batches, 1, "table", tmp_path, ("name", "overrides", "seed"), to_row)
    assert pools == [1] and [len(rows) for rows in added] == sizes
    assert sorted(row for rows in added for row in rows) == [f"seed={seed}" for seed in range(8)]


def test_a_stopped_command_keeps_the_rows_of_finished_batches(tmp_path, monkeypatch):
    def stopped(batches, jobs, on_finish):
        on_finish(batches[0])
        raise KeyboardInterrupt

    added = []
    monkeypatch.setattr(sweep_runs, "run_batches", stopped)
    monkeypatch.setattr(kept_results, "add", lambda table, folder, rows, packed: added.extend(rows))
    monkeypatch.setattr(kept_results, "check_row", lambda row: None)
    monkeypatch.setattr("imbalance.training.state.provenance.clean_commit", lambda: "0123456789")
    batches = [[make_run("digits_poly", {}, seed, str(tmp_path))] for seed in range(2)]
    with pytest.raises(KeyboardInterrupt):
        sweep_runs.run_and_keep(batches, 1, "table", tmp_path, ("name",), lambda directory: {"seed": directory.name})
    assert added == [{"seed": "seed=0"}]


def test_batches_are_in_the_order_of_the_runs(tmp_path):
    """The first batch of each setting comes before the second of any, so early runs of all settings end early."""
    settings = ("digits_ce", "digits_poly")
    runs = [make_run(name, {}, seed, str(tmp_path)) for seed in range(4) for name in settings]
    found = [[(run.directory.parts[-3], run.config.seed) for run in batch] for batch in make_batches(runs, 1, 2)]
    assert found == [[(name, seed), (name, seed + 1)] for seed in (0, 2) for name in settings]


def test_a_stack_without_memory_is_trained_in_halves(tmp_path, monkeypatch, capsys):
    sizes, train = [], stacked_training.train_stacked

    def limited(runs, pause):
        sizes.append(len(runs))
        if len(runs) > 2:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return train(runs, pause)

    monkeypatch.setattr(stacked_training, "train_stacked", limited)
    runs = [make_run("digits_ce", SHORT, seed, str(tmp_path)) for seed in range(4)]
    summaries = train_quietly(runs)
    assert sizes == [4, 2, 2] and [summary["status"] for summary in summaries] == ["done"] * 4
    assert [summary["run_directory"] for summary in summaries] == [str(run.directory) for run in runs]
    assert "out of memory for 4 stacked runs; going on with half as many" in capsys.readouterr().err


def test_run_all_returns_summaries_in_order_trains_nothing_twice_and_reports_a_diverged_run(tmp_path, capsys):
    rates = (0.05, 1e30, 0.1)
    runs = [make_run("digits_ce", SHORT | {"optim.lr": lr}, 0, str(tmp_path)) for lr in rates]
    summaries = run_all(runs, 1, 16)
    assert "3 of 3 runs done" in capsys.readouterr().err.splitlines()[-1]
    assert [s["status"] for s in summaries] == ["done", "diverged", "done"]
    assert [s["run_directory"] for s in summaries] == [str(run.directory) for run in runs]
    assert np.isnan(metric(summaries[1], "test/accuracy")) and 0 < metric(summaries[0], "test/accuracy") < 1
    assert [row["epoch"] for row in evaluations_of(runs[0].directory)] == [1, 2]

    before = (runs[0].directory / "summary.json").stat().st_mtime_ns
    run_all(runs[:1], 1, 16)
    assert (runs[0].directory / "summary.json").stat().st_mtime_ns == before


def test_only_runs_that_were_done_are_counted_as_before_this_command(tmp_path, capsys):
    """Interrupted, diverged and damaged runs have a summary.json too, and this command trains them."""
    done, interrupted, diverged, damaged, new = (make_run("digits_ce", SHORT, s, str(tmp_path)) for s in range(5))
    train_quietly([done])
    for run in (interrupted, diverged, damaged):
        train_quietly([run], pause=1)
    (diverged.directory / "summary.json").write_text('{"status": "diverged", "score": null}')
    (damaged.directory / "summary.json").write_text('{"status": "done"')
    assert summary_of(interrupted.directory)["status"] == "interrupted"
    capsys.readouterr()
    summaries = run_all([done, interrupted, diverged, damaged, new], 1, 1)
    assert [summary["status"] for summary in summaries] == ["done"] * 5
    assert "5 of 5 runs done (1 before this command)" in capsys.readouterr().err.splitlines()[-1]


def test_a_refused_run_removes_the_folders_that_another_process_made_for_runs(tmp_path, monkeypatch):
    """With several workers, the folders that one worker made and another worker left last remained."""
    work_dir = tmp_path / "new" / "runs"
    run = make_run("folder_erm", {"data.folder": "nowhere"}, 0, str(work_dir))

    def submit(function, batch):
        run.directory.parent.mkdir(parents=True)  # by another worker
        function(batch)

    monkeypatch.setattr(sweep_runs, "worker_pool", lambda jobs: nullcontext(SimpleNamespace(submit=submit)))
    with pytest.raises(BadInput, match="nowhere"):
        run_all([run], 1, 1)
    assert not any(tmp_path.iterdir())
    work_dir.mkdir(parents=True)  # by the user
    with pytest.raises(BadInput, match="nowhere"):
        run_all([run], 1, 1)
    assert work_dir.is_dir() and not any(work_dir.iterdir())


def test_runs_are_divided_into_batches_that_keep_every_worker_busy(tmp_path):
    def of(config: str, seeds: int) -> list:
        return [make_run(config, {}, seed, str(tmp_path)) for seed in range(seeds)]

    runs = of("digits_poly", 10) + of("digits_ce", 2) + of("waterbirds_ce", 3)
    for jobs, stacked, sizes in (
        (1, 16, [10, 2, 1, 1, 1]),
        (2, 16, [5, 5, 2, 1, 1, 1]),
        (1, 4, [4, 3, 3, 2, 1, 1, 1]),
    ):
        batches = make_batches(runs, jobs, stacked)
        assert [len(batch) for batch in batches] == sizes
        assert sorted(run.directory for batch in batches for run in batch) == sorted(run.directory for run in runs)
    assert all(len(batch) == 1 for batch in make_batches(runs, 2, 1))


def test_evaluations_leave_out_a_line_that_a_kill_cut_short(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    assert evaluations_of(tmp_path) == [{"epoch": 1}]


def test_no_worker_writes_after_the_refusal_of_another_run(tmp_path, monkeypatch):
    """A worker that soon ends by itself is waited for, and a worker that goes on is ended."""
    monkeypatch.setattr(sweep_runs, "END_AFTER", 1.0)
    short, long = tmp_path / "short", tmp_path / "long"
    with pytest.raises(BadInput, match="refused"), worker_pool(2) as pool:
        pool.submit(write_for, short, 0.5)
        pool.submit(write_for, long, 30)
        while not (short.exists() and long.exists()):
            time.sleep(0.01)
        raise BadInput("refused")
    written = long.stat().st_size
    assert short.with_suffix(".ended").exists()
    time.sleep(0.3)
    assert long.stat().st_size == written and not long.with_suffix(".ended").exists()


@pytest.mark.parametrize(
    ("visible", "n", "processes", "seen", "most", "each"),
    [
        ("5,GPU-b", 3, 1, ["5", "5", "GPU-b"], None, "2"),  # shared
        ("5,GPU-b", 1, 1, ["5"], None, "7"),  # one idle
        ("", 2, 1, ["", ""], None, "3"),  # hidden from all of them
        ("", 2, 1, ["", ""], "1", "1"),
        ("", 2, 1, ["", ""], "5", "3"),
        ("5,GPU-b,7,1,0", 2, 2, ["5,GPU-b", "7,1"], None, "1"),  # two a worker, one idle
    ],
)
def test_workers_divide_the_gpus_and_cores(visible, n, processes, seen, most, each, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SPAWN", multiprocessing.get_context("spawn"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if most:
        monkeypatch.setenv("OMP_NUM_THREADS", most)
    before = os.environ.get("OMP_NUM_THREADS")
    with worker_pool(n, processes) as pool:
        found = [pool.submit(surroundings, tmp_path, n) for _ in range(n)]
        gpus, threads = zip(*(future.result() for future in found))
    assert sorted(gpus) == seen and set(threads) == {each}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible and os.environ.get("OMP_NUM_THREADS") == before


@pytest.mark.parametrize(
    ("gpus", "workers", "processes", "message"),
    [
        (4, 2, 3, "--processes_per_run=3 with 2 workers needs 6 GPUs, but this machine has 4; type --jobs=1"),
        (
            4,
            1,
            8,
            "--processes_per_run=8 with 1 worker needs 8 GPUs, but this machine has 4; type --processes_per_run=4 --jobs=1",
        ),
        (0, 4, 2, "--processes_per_run=2 with 4 workers needs 8 cores, but this machine has 7; type --jobs=3"),
    ],
)
def test_more_processes_than_the_machine_has_devices_are_refused(gpus, workers, processes, message, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    with pytest.raises(BadInput) as error:
        shares_of_gpus([str(i) for i in range(gpus)], workers, processes)
    assert str(error.value) == message


def test_one_run_may_have_more_processes_than_there_are_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert shares_of_gpus([], 1, 2) == []


def test_a_metric_of_a_class_that_a_run_has_not_is_named_with_those_that_it_has():
    summary = {
        "status": "done",
        "run_directory": "runs/x",
        "metrics": {"test/recall/cat": 0.5, "test/recall/dog": None},
    }
    assert metric(summary, "test/recall/cat") == 0.5 and isnan(metric(summary, "test/recall/dog"))
    with pytest.raises(
        BadInput,
        match=r"--metric=test/recall/cow: the run runs/x has no such metric; type one of .*cat, test/recall/dog$",
    ):
        metric(summary, "test/recall/cow")
    assert isnan(metric({"status": "diverged"}, "test/recall/cow"))


def test_a_stopped_command_prints_no_warning_about_semaphores():
    """Python warns about semaphores that a process leaves when it ends without the usual clean-up."""
    code = (
        "import time\nfrom imbalance.cli.main import exit_on_signal\nfrom imbalance.sweep.runs import worker_pool\n"
        "if __name__ == '__main__':\n    with worker_pool(1) as pool:\n        pool.submit(time.sleep, 0).result()\n"
        "        exit_on_signal(2, trains=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 130 and done.stderr == "stopped; the same command resumes\n"


@pytest.mark.parametrize(
    "command", ["sweep --grid=optim.lr=0.1,0.2", "sweep --search=optim.lr=0.1:0.2 --trials=2", "compare", "select"]
)
def test_many_runs_on_data_in_memory_are_refused_before_anything_is_written(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = load(ROOT / "configs" / "digits_poly.py").copy_and_resolve_references()
    config.data = {"name": "in_memory"}
    (tmp_path / "saved.json").write_text(config.to_json_best_effort())
    assert call([*command.split(), "--config=saved.json", f"--work_dir={tmp_path / 'runs'}"]) == 2
    assert "means data that a program passed to imbalance.run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["saved.json"]


@pytest.mark.parametrize("key", ["data_dir=a,b", "logger.mode=disabled,offline"])
def test_what_names_no_run_directory_is_no_axis(key, tmp_path, capsys):
    """Its values would be two settings with the same runs."""
    assert call(["sweep", "--config=digits_poly", f"--grid={key}", f"--work_dir={tmp_path / 'runs'}"]) == 2
    assert "cannot be an axis, because all its values have the same run directory" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
