"""The benchmark measures what it says; how fast anything is, only it can say."""

import json
import math
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from imbalance.bench import (
    bench,
    bookkeeping,
    evaluation,
    features,
    gpu_speed,
    image_loading,
    limits,
    paper_loop,
    scaling,
    stacked,
    startup,
    steps,
    tables,
    timing,
)
from imbalance.bench.cases import make, on_images, our_epoch, start_run
from imbalance.bench.timing import Row, in_turns, measure_in_process
from imbalance.cli.commands import BENCH
from imbalance.cli.main import call
from imbalance.config.resolve import override
from imbalance.data import DATASETS, Dataset, Split
from imbalance.report import report, run_index
from imbalance.training.evaluate import evaluate, split_metrics, training_metrics
from imbalance.training.state.progress import Progress
from imbalance.utils.package import process_environment


@pytest.mark.parametrize("case", (steps.digits_mlp, lambda: on_images("linear", size=80, batch_size=32)))
def test_the_bare_loop_takes_the_same_steps_as_ours(case):
    config = case()
    ours, theirs = make(config), make(config)
    start = [parameter.detach().clone() for parameter in ours.model.parameters()]
    our_epoch(config, ours)()
    order = theirs.sampler(0)
    steps.bare_epoch(theirs, steps.bare_optimizer(config, theirs), order, config.trainer.batch_size)
    for before, our, their in zip(start, ours.model.parameters(), theirs.model.parameters()):
        assert not torch.equal(our, before)
        torch.testing.assert_close(our, their)


def test_the_bare_group_dro_takes_the_same_steps_as_ours():
    config = override(
        steps.gaussian_dro(), {"data.train_per_class": (200, 60), "data.dim": 20, "objective.step_size": 0.5}
    )
    ours, theirs = make(config), make(config)
    our_epoch(config, ours)()
    objective = steps.BareGroupDRO(2, 0.5)
    steps.bare_epoch(
        theirs, steps.bare_optimizer(config, theirs), theirs.sampler(0), config.trainer.batch_size, objective
    )
    torch.testing.assert_close(ours.objective.log_weights.exp(), objective.weights, check_dtype=False)
    assert (objective.weights - 0.5).abs().max() > 0.05
    for our, their in zip(ours.model.parameters(), theirs.model.parameters()):
        torch.testing.assert_close(our, their)


def test_made_up_features_are_trained_on_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EXAMPLES", (64, 32, 32))
    monkeypatch.setattr(features, "WIDTH", 300)
    monkeypatch.setattr(features, "SEEDS", 1)
    monkeypatch.setattr(features, "RATES", 2)
    features.make_features(tmp_path / "made_up")
    rates = [config.optim.lr for config in features.heads(tmp_path / "made_up", tmp_path)]
    assert rates == [1e-4, 2e-4]
    assert features.stacked_seconds(tmp_path / "made_up") > 0
    assert min(features.scikit_learn_seconds(tmp_path / "made_up")) > 0


def test_our_epochs_follow_one_another():
    config = on_images("linear", size=80, batch_size=32)
    learner = make(config)
    epoch = our_epoch(config, learner)
    drawn = []
    sampler = learner.sampler
    learner.sampler = lambda number: drawn.append(number) or sampler(number)
    epoch()
    epoch()
    assert drawn == [0, 1]


def test_the_papers_loop_sees_the_same_images_and_learns_them():
    config = on_images("linear", size=48, batch_size=16)
    learner = make(config)
    theirs = paper_loop.Transformed(learner.dataset)
    seen = torch.stack([image for image, _ in theirs])
    torch.testing.assert_close(seen, learner.normalise(learner.dataset.train.inputs), rtol=1e-4, atol=1e-4)
    loader = DataLoader(theirs, 16, shuffle=True)
    optimizer = torch.optim.SGD(learner.model.parameters(), lr=0.001, momentum=0.9)
    epochs = [paper_loop.papers_epoch(learner.model, loader, optimizer, torch.ones(2)) for _ in range(10)]
    assert [len(epoch) for epoch in epochs] == [3] * 10
    assert not learner.model.training  # each batch was seen again in evaluation mode
    assert epochs[-1][0][0] < epochs[0][0][0] / 2 and epochs[-1][-1][1] == 1


def test_turns_alternate_and_give_sorted_ratios():
    calls, values = [], iter([8.0, 2.0, 4.0, 2.0, 9.0, 3.0])

    def measured(name: str) -> float:
        calls.append(name)
        return next(values)

    assert in_turns(lambda: measured("a"), lambda: measured("b"), 3) == [0.5, 3, 4]
    assert calls == ["a", "b", "b", "a", "a", "b"]


def short() -> ConfigDict:
    config = stacked.protocol("digits_ce")
    config.trainer.epochs = 1
    return config


def test_every_part_gives_rows(monkeypatch):
    """Those that start processes are tried in this one."""
    tiny = {"linear": (lambda: on_images("linear", size=64, batch_size=32), 2, "≤ 1")}
    monkeypatch.setattr(steps, "CASES", tiny)
    found = [*steps.rows(2), *evaluation.rows(2, [("linear", 64, 3, 5, "")])]
    monkeypatch.setattr(image_loading, "BARS", {("uint8", 0): "≥ 20", ("float32", 0): ""})
    monkeypatch.setattr(image_loading.photograph_row, "__defaults__", ((400, 300),))
    found += image_loading.rows(2, count=10)
    monkeypatch.setattr(tables, "SHAPE", (20, 10))
    monkeypatch.setattr(tables, "SMALL", (20, 10))
    found += tables.rows(2)
    monkeypatch.setattr(paper_loop, "measure_in_process", lambda _, **values: paper_loop.measure(**values))
    monkeypatch.setattr(scaling, "measure_in_process", lambda _, **values: [1 + values["size"]] * 3)
    monkeypatch.setattr(paper_loop, "on_images", lambda _, **values: on_images("linear", **values))
    monkeypatch.setattr(paper_loop, "gains_from_bf16", lambda: True)
    found += paper_loop.rows(4, batches=1)
    examples = scaling.Scaled("examples", dict(size=20), dict(size=2000), "≤ 1", "≤ 1")
    found += scaling.rows(4, [examples], dict(classes=3, groups=4))
    monkeypatch.setattr(stacked, "EPOCHS", {"linear": (steps.digits_mlp, 1, "")})
    monkeypatch.setattr(stacked, "RATES", 2)
    monkeypatch.setattr(stacked, "SEEDS", 2)
    monkeypatch.setattr(stacked, "RUNS", {})
    found += [*stacked.rows(2), Row(stacked.PART, "runs", stacked.run_ratios(short, 2), "")]
    assert [row.part.partition(":")[0] for row in found] == [
        "step", "evaluation", "images", "images", "images", "tables", "tables", "paper", "paper", "growth", "growth", "growth", "sweep", "sweep"
    ]  # fmt: skip
    for row in found:
        assert len(row.ratios) == 2 and row.ratios == sorted(row.ratios) and row.ratios[0] <= row.median
    assert found[11].ratios == [1, 1]  # memory grows by a byte with each byte of data


def test_the_work_around_training_is_measured(monkeypatch):
    for name, value in dict(RUNS=20, TRIALS=2, LOGITS=(200, 4)).items():
        monkeypatch.setattr(bookkeeping, name, value)
    monkeypatch.setattr(bookkeeping, "SETTLED", 0)
    monkeypatch.setattr(run_index, "SETTLED", -1)
    monkeypatch.setattr(report, "SETTLED", -1)
    monkeypatch.setattr(run_index, "FEWEST", 10)
    monkeypatch.setattr(report, "find_spec", lambda name: None)  # without figures
    parts = bookkeeping.config_rows, bookkeeping.bookkeeping_rows, bookkeeping.score_rows, bookkeeping.prediction_rows
    measured = [row for part in parts for row in part(1)]
    *collected, again = bookkeeping.report_rows(1)
    assert [row.part.partition(":")[0] for row in measured] == ["config", "bookkeeping", "scores", "predictions"]
    assert all(len(row.ratios) == 1 and row.ratios[0] > 0 for row in [*measured, *collected])
    assert again.median > 2  # the second report only compares the files


def test_limits_count_operations_and_bytes():
    left, right = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7, requires_grad=True)
    work = limits.count(lambda: (left @ right).sum().backward())
    assert work.operations == 3 * 2 * 3 * 5 * 7  # a product forward, and two back
    product = 4 * (15 + 35 + 21)
    assert 3 * product <= work.bytes < 3 * product + 4 * 200  # and the sum, its gradient, and what autograd copies
    viewed = torch.ones(100)
    assert limits.count(lambda: viewed.view(10, 10).t()).bytes == 0
    assert limits.Work(100, 10).limit(limits.Peaks(50, 1)) == 10


def test_shares_of_the_limit_are_of_every_job(monkeypatch):
    monkeypatch.setattr(limits, "SIDE", 64)
    monkeypatch.setattr(limits, "COPIED", 4096)
    monkeypatch.setattr(limits, "JOBS", {"a product": (lambda: lambda: torch.ones(64, 64) @ torch.ones(64, 64), 10)})
    (row,) = limits.rows(2)
    assert len(row.ratios) == 2 and row.ratios[0] > 0 and row.case.startswith("a product: 0.01 GFLOP")  # 10 × 2 × 64³


def test_heads_are_timed_over_processes_and_scikit_learn(tmp_path, monkeypatch):
    for name, value in dict(EXAMPLES=(60, 20, 20), WIDTH=12, RATES=2, SEEDS=2).items():
        monkeypatch.setattr(features, name, value)
    started = []
    monkeypatch.setattr(features, "python", lambda *arguments: started.append(arguments))
    features.make_features(tmp_path / "features")
    found = features.head_rows(tmp_path / "features", 4)
    assert len(found) == 3 and len(started) == 2 * features.TIMED
    for row in found:
        assert len(row.ratios) == 2 and row.ratios == sorted(row.ratios) and row.ratios[0] > 0
    fits, steps = features.scikit_learn_seconds(tmp_path / "features")
    assert 0 < steps < fits  # which take several


def test_the_timed_fits_have_nearly_the_penalties_of_scikit_learn_and_all_differ(monkeypatch):
    penalties, lbfgs = [], features.lbfgs

    def observed(parameters, **options):
        penalties.append(options["weight_decay"])
        return lbfgs(parameters, **options)

    monkeypatch.setattr(features, "lbfgs", observed)
    features.fits_seconds(torch.eye(10), torch.arange(10) % 2, copies=3)
    assert len(set(penalties)) == 3 * features.RATES
    # scikit-learn minimises the sum of N losses plus the squared length over 2 C.
    logarithms = [math.log10(2 / (10 * penalty)) for penalty in penalties]
    assert logarithms == pytest.approx(3 * [2, 1, 0, -1, -2, -3, -4, -5], abs=0.01)


def test_what_has_a_bar_on_a_gpu_alone_is_not_measured_without_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = list(gpu_speed.rows(2))
    assert [row.bar for row in found] == ["≥ 4"] + ["≤ 1.05"] * 3 + ["≥ 5"]
    assert all(row.median is None and "| not measured |" in bench.table_row(row) for row in found)


def test_what_a_gpu_is_measured_by_runs(monkeypatch):
    """Here, with graphs that run as they are, and less of everything."""
    compile = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", lambda function, **_: compile(function, backend=lambda graph, _: graph.forward)
    )
    monkeypatch.setattr(gpu_speed, "SHAPE", (100, 3, 8, 8))
    for ratios in (
        gpu_speed.step_ratios(on_images("linear", size=80, batch_size=32), 2),
        gpu_speed.image_ratios(2),
        stacked.epoch_ratios(lambda: on_images("linear", size=80, batch_size=32), 1, 2, 2, 1),
    ):
        assert len(ratios) == 2 and ratios[0] > 0


def test_the_table_and_the_file_have_every_row(tmp_path, monkeypatch, capsys):
    assert bench.PARTS.keys() == set(BENCH)
    parts = {name: lambda repeats, name=name: [Row(name, "a case", [1.0] * repeats + [2.5], "≤ 1.5")] for name in BENCH}
    monkeypatch.setattr(bench, "PARTS", parts)
    assert call(["bench", "--only=images", "--repeats=2", f"--output={tmp_path / 'bench.json'}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| images | a case | 1.00 | 1.00 to 2.50 | ≤ 1.5 |"
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert saved["rows"] == [{"part": "images", "case": "a case", "ratios": [1, 1, 2.5], "bar": "≤ 1.5", "median": 1}]
    assert saved["torch"] == torch.__version__


def test_a_row_is_in_the_file_as_soon_as_it_is_measured(tmp_path, monkeypatch):
    """What was measured before a machine goes away is not lost."""

    def rows(repeats):
        yield Row("images", "first", [1.0], "")
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "PARTS", bench.PARTS | {"images": rows})
    with pytest.raises(KeyboardInterrupt):
        bench.bench(only=["images"], repeats=1, output=str(tmp_path / "bench.json"))
    assert [row["case"] for row in json.loads((tmp_path / "bench.json").read_text())["rows"]] == ["first"]


def test_the_work_that_was_queued_before_is_not_timed(monkeypatch):
    """A GPU that works through a queue: a call only adds to it, and the host waits for all of it."""
    queue, now = [], [0.0]

    def synchronize() -> None:
        now[0] += sum(queue)
        queue.clear()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing.timed_in_turns(lambda: queue.append(6.0), lambda: queue.append(2.0), 2) == [3, 3]


ON_STANDIN = """
import json, os
from helpers.standin import Device
from imbalance.bench import paper_loop, steps
from imbalance.bench.cases import on_images

def small(*_, **values):
    return on_images("linear", size=80, batch_size=32)

seen, bare_epoch = [], steps.bare_epoch

def observed(learner, optimizer, order, batch_size, objective):
    device.reset()
    bare_epoch(learner, optimizer, order, batch_size, objective)
    seen.append([order.device.type, optimizer.defaults["fused"], dict(device.waits)])

steps.bare_epoch, paper_loop.on_images = observed, small
with Device() as device:
    steps.time_ratios(small(), 1, 1)
    seconds = [paper_loop.measure(whose, batches=1) for whose in ("ours", "theirs")]
print(json.dumps([seen, seconds]), flush=True)
os._exit(0)  # as in tests/counts.py: torch's threads for the device now and then abort a process that ends by itself
"""


def test_on_a_gpu_the_bare_loop_never_waits_and_the_papers_loop_runs(standin):
    """On the stand-in, in a process of its own, because torch's engine knows only devices from before its first use.

    The paper's loop has images and labels on the CPU, and NumPy takes no tensor of a GPU.
    """
    env = process_environment(OMP_NUM_THREADS="1")
    env["PYTHONPATH"] += f":{ROOT / 'tests'}"
    done = subprocess.run([sys.executable, "-c", ON_STANDIN], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    seen, seconds = json.loads(done.stdout.splitlines()[-1])
    assert seen == [["standin", True, {}]] * 2
    assert len(seconds) == 2 and min(seconds) > 0


def test_other_processes_measure_and_start():
    seconds, memory, data = measure_in_process("imbalance.bench.scaling", size=2000, classes=2, groups=2)
    assert seconds > 0 and data == 2000 * 3 * 32 * 32 and data < memory < 100 * data
    startup.train_one_step("digits_ce")  # raises where no step is made


def test_nothing_grows_with_groups_times_examples():
    """The largest tensor of a step, of an evaluation and of the training metrics has N·K or K² elements."""
    size, classes, groups = 90, 60, 70  # N·K and N·G exceed the 5,056 bytes of a generator's state

    def points(seed: int) -> Dataset:
        rows = torch.arange(size)
        split = Split(torch.randn(size, 2), rows % classes, rows % groups, rows)
        return Dataset(split, split, split, *(tuple(map(str, range(count))) for count in (classes, groups)))

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return out

    config = on_images("linear", size=size, batch_size=size)
    config.data, config.weights.by = create(name="points"), "group"
    config.objective = create(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False)
    with pytest.MonkeyPatch.context() as patch, Largest() as largest:
        patch.setitem(DATASETS, "points", points)
        learner = make(config)
        largest.elements = 0
        our_epoch(config, learner)()
        trained = start_run(config, learner)
        split_metrics(trained, "train", *evaluate([trained], "train"))
        rows = torch.arange(size)
        trained.progress = Progress(drawn=[rows], predictions=[rows % classes], values=[torch.ones(())])
        trained.progress.margins = [torch.ones(size)]
        training_metrics([trained])
    assert size * classes <= largest.elements < size * groups


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--only=steps", "--only: 'steps' given; valid: step, paper"),
        ("--repeats=0", "--repeats: 0 given; it must be at least 1"),
        ("--output=.", "--output: . is a folder"),
    ],
)
def test_what_it_does_not_know_it_says(argument, words, capsys):
    assert call(["bench", argument]) == 2
    said = capsys.readouterr()
    assert words in said.err and not said.out
