"""Measure the work around training: configs, studies, scores, predictions, reports and compiling.

All times are of the processor, because most of these measurements are short and write files.

- config: resolving a config file, relative to executing the file alone.
- bookkeeping: short runs as trials of a study, relative to the same runs without one.
- scores: scikit-learn's AUROC and AUPRC of every class, relative to these and calibration by this package.
- predictions: writing a compressed file, relative to writing the predictions of a split as a run does.
- report: collecting runs, relative to parsing their JSON files; and the first report, relative to one on unchanged runs.
- compile: a step compiled by torch, relative to the same step as it is, on a CPU. There is no bar: "no" is the default.
"""

import json
import runpy
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbalance.bench.cases import make, our_epoch
from imbalance.bench.steps import digits_mlp
from imbalance.bench.timing import Row, halved, in_turns
from imbalance.config.experiment import validate
from imbalance.config.files import CONFIGS
from imbalance.config.resolve import override, resolve
from imbalance.metrics.scores import score_metrics
from imbalance.report.collect import collect
from imbalance.report.report import report
from imbalance.report.run_index import NAME, SETTLED
from imbalance.sweep import study, worker
from imbalance.sweep.storage import StudyLocation
from imbalance.training.logging.run_log import RunLog
from imbalance.training.loop import train
from imbalance.utils.read import read_json, seal, short_hash

RUNS = 300  # number of runs that are collected and reported
TRIALS = 20
LOGITS = (5000, 200)  # shape of the logits that are scored


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of all processors of this process in which `call` runs; what the call prints is lost."""
    started = time.process_time()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        call()
    return time.process_time() - started


def ratios(first: Callable[[], Any], second: Callable[[], Any], repeats: int, each: int = 1) -> list[float]:
    """Return ratios of the processor time of `first` to that of `second`, after one warm-up call of each."""
    for call in (first, second):
        cpu_seconds(call)
    return in_turns(lambda: cpu_seconds(first), lambda: cpu_seconds(second), repeats, each)


def config_rows(repeats: int) -> Iterator[Row]:
    """Compare the resolution of a config with the execution of its file."""
    path = CONFIGS / "digits_poly.py"
    ours = ratios(lambda: resolve(path, {"seed": 1}), lambda: runpy.run_path(str(path))["get_config"](), repeats, 25)
    yield Row("config: resolved / executed", "configs/digits_poly.py, again in one process", ours, "≤ 4")


def bookkeeping_rows(repeats: int) -> Iterator[Row]:
    """Compare runs of one epoch as trials of a study with the same runs trained one by one."""
    changes = {"trainer.epochs": 1, "trainer.eval_every": 1, "model.hidden": (8,)}
    points = [{"config": str(CONFIGS / "digits_ce.py"), "seed": seed, **changes} for seed in range(TRIALS)]

    def in_study(folder: str) -> None:
        location = StudyLocation("study", folder, "")
        study.add(location, points)
        worker.work(location, None, wait=False, workers=1, stacked=1)

    def alone(folder: str) -> None:
        for point in points:
            train(*study.run_of(point, folder))

    def measured(runs: Callable[[str], None]) -> Callable[[], None]:
        def call() -> None:
            with tempfile.TemporaryDirectory() as folder:
                runs(folder)

        return call

    case = f"{TRIALS} runs of digits_ce, one epoch"
    yield Row("bookkeeping: in a study / alone", case, ratios(measured(in_study), measured(alone), repeats), "≤ 1.3")


def score_rows(repeats: int) -> Iterator[Row]:
    """Compare the scores of many classes with scikit-learn's functions."""
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.preprocessing import label_binarize

    rng, (size, classes) = np.random.default_rng(0), LOGITS
    logits, targets = rng.standard_normal(LOGITS, dtype=np.float32), np.arange(size) % classes
    names, indicator = list(map(str, range(classes))), label_binarize(targets, classes=range(classes))

    def theirs() -> None:
        roc_auc_score(indicator, logits, average="macro")
        average_precision_score(indicator, logits, average="macro")

    ours = ratios(theirs, lambda: score_metrics(logits, targets, names), halved(repeats))
    yield Row("scores: scikit-learn's AUROC and AUPRC / all scores", f"{size:,} × {classes:,} logits", ours, "≥ 2")


def prediction_rows(repeats: int) -> Iterator[Row]:
    """Compare the writing of predictions as a run does, with its digest, with the writing of a compressed file."""
    with tempfile.TemporaryDirectory() as folder, RunLog(Path(folder), validate(digits_mlp()), writes=True) as log:
        log.claim()
        labels = torch.zeros(LOGITS[0] * 10, dtype=torch.int64)
        columns = {"logits": torch.randn(len(labels), 100), **dict.fromkeys(("targets", "groups", "indices"), labels)}

        def compressed() -> None:
            arrays: dict[str, Any] = {name: column.numpy() for name, column in columns.items()}
            np.savez_compressed(Path(folder) / "compressed.npz", **arrays)

        def as_a_run_does() -> None:
            with log.predictions("test", len(labels)) as file:
                file.append(columns["logits"])
                file.complete(**{name: column for name, column in columns.items() if name != "logits"})

        ours = ratios(compressed, as_a_run_does, halved(repeats))
    yield Row("predictions: compressed / a run's file", f"{len(labels):,} × 100 logits", ours, "≥ 5")


def make_runs(folder: Path, count: int) -> None:
    """Train one short run, and copy it to `count` run directories that differ in the seed and the learning rate."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        train(
            *resolve(
                CONFIGS / "digits_ce.py",
                {"trainer.epochs": 10, "trainer.eval_every": 1, "work_dir": str(folder / "first")},
            )
        )
    (first,) = (path.parent for path in (folder / "first").rglob("summary.json"))
    config, summary = read_json(first / "config.json"), read_json(first / "summary.json")
    for number in range(count):
        rate, seed = round(0.01 * (1 + number // 10), 2), number % 10
        directory = folder / "runs" / "digits_ce" / f"optim.lr={rate}" / f"seed={seed}"
        shutil.copytree(first, directory, ignore=shutil.ignore_patterns("checkpoints", "train.npz", "val.npz"))
        own = json.dumps(seal(config | {"seed": seed, "optim": config["optim"] | {"lr": rate}})).encode()
        (directory / "config.json").write_bytes(own)
        files = summary["files"] | {"config.json": short_hash(own)}
        (directory / "summary.json").write_text(json.dumps(seal(summary | {"files": files})))


def report_rows(repeats: int) -> Iterator[Row]:
    """Measure the collection of runs and the reports on them."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        make_runs(folder, RUNS)
        time.sleep(SETTLED / 1e9)  # files that have just changed are not remembered
        runs = folder / "runs"
        paths = [*runs.rglob("config.json"), *runs.rglob("summary.json")]

        def collect_anew() -> None:
            (runs / NAME).unlink(missing_ok=True)
            collect(runs)

        def report_on_all() -> None:
            report(work_dir=str(runs), folder=str(folder / "report"), metrics=(), pictured=0)

        def report_anew() -> None:
            (runs / NAME).unlink(missing_ok=True)
            shutil.rmtree(folder / "report", ignore_errors=True)
            report_on_all()

        parsed = ratios(collect_anew, lambda: [json.loads(path.read_bytes()) for path in paths], repeats)
        yield Row("report: collected / JSON parsed", f"{RUNS} runs", parsed, "≤ 6")
        again = ratios(lambda: collect(runs), collect_anew, repeats)
        yield Row("report: collected again / first", f"{RUNS} runs", again, "≤ 0.35")
        cpu_seconds(report_anew)  # imports what reports need
        pages = in_turns(lambda: cpu_seconds(report_anew), lambda: cpu_seconds(report_on_all), halved(repeats))
        yield Row("report: first / again", f"{RUNS} runs", pages, "≥ 20")


def compile_rows(repeats: int) -> Iterator[Row]:
    """Compare steps that torch compiles with the same steps as they are."""
    config = digits_mlp()
    compiled = override(config, {"trainer.compile": "default"})
    compiled_epoch, epoch = (our_epoch(values, make(values)) for values in (compiled, config))
    measured = ratios(compiled_epoch, epoch, repeats, 3)
    yield Row("compile: compiled / not, on this device", "epochs of an MLP, digits", measured, "")
