"""Many processes give the answer of one, and end together."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import ROOT
from helpers.jobs import Job, in_double, stop_at, worst_difference
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import nn
from torch.distributed import HashStore

import imbalance.training.loop as loop
import imbalance.training.step as step_module
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.config.run_directory import read_predictions
from imbalance.errors import BadInput
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.methods.samplers import SAMPLERS
from imbalance.models import MODELS, with_head
from imbalance.training import evaluate
from imbalance.training.distributed import heartbeat, processes
from imbalance.training.distributed.processes import from_main, start_accelerator
from imbalance.training.loop import train
from imbalance.utils import read


def silence(seconds: float) -> None:
    heartbeat.INTERVAL, heartbeat.SILENCE = seconds / 10, seconds


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_is_stopped_is_named_and_the_run_goes_on_with_it(config, stopped):
    """Process 0 keeps the store here; under torchrun the launcher does, and it is named as any other."""
    config.trainer.epochs = 1_000_000
    job = Job(config, world=2, target=partial(silence, 1.0))
    job.wait_for(lambda: job.directory.joinpath("metrics.jsonl").exists() and job.metrics())
    os.kill(job.processes[stopped].pid, signal.SIGSTOP)
    other = 1 - stopped
    job.wait_for(lambda: "has not answered for 1 s" in job.stderr(other), timeout=20)
    assert ("process 1 has not" if stopped else "(process 0, or the launcher) has not") in job.stderr(other)
    time.sleep(2.5)
    assert job.stderr(other).count("has not answered") == 1  # once in a silence, however long
    os.kill(job.processes[stopped].pid, signal.SIGCONT)
    before = job.metrics()
    job.wait_for(lambda: len(job.metrics()) > len(before))
    for process in job.processes:
        os.kill(process.pid, signal.SIGTERM)
    assert job.wait() == [143, 143]


def stand_still(rank: int, place: str) -> None:
    """The process `rank` never comes to its second call of `loop.<place>`."""
    heartbeat.INTERVAL = 0.2
    function, calls = getattr(loop, place), itertools.count()

    def patched(*args):
        if os.environ["RANK"] == str(rank) and next(calls):
            time.sleep(1000)
        return function(*args)

    setattr(loop, place, patched)


@pytest.mark.parametrize(
    ("still", "place", "what", "last"),
    [(1, "draw_epoch", "a step", "counts and sums"), (0, "close_epoch", "collecting values", "counts and sums")],
)
def test_a_process_that_has_waited_for_too_long_says_for_whom_and_ends(config, still, place, what, last):
    """The limit is the environment variable; the first process that is left prints the line of the result."""
    job = Job(config, world=2, target=partial(stand_still, still, place), IMBALANCE_WAIT_MINUTES="0.1")
    other = 1 - still
    job.processes[other].join(60)
    job.processes[still].kill()
    assert job.processes[other].exitcode == 2 and "Traceback" not in job.stderr(other)
    assert job.stderr(other).splitlines()[-1] == (
        f"{'process 1: ' if other else ''}waited 0:00:06 (IMBALANCE_WAIT_MINUTES) in '{what}' for process {still}, last in "
        f"'{last}'; read the stderr of that process, and start all processes again; the same command resumes from the last "
        "checkpoint, or from the start without one"
    )
    assert json.loads(job.stdout(other).splitlines()[-1]) == {
        "run_directory": str(job.directory), "status": "interrupted", "score": None,
    }  # fmt: skip


@pytest.mark.parametrize("killed", [0, 1])
def test_each_process_that_is_left_names_the_one_that_was_killed(config, killed):
    """Without torchrun process 0 serves torch's store, so that the store ends with it."""
    config.trainer.epochs = 1_000_000
    job, left = Job(config, world=3, target=partial(silence, 2.0)), [rank for rank in range(3) if rank != killed]
    job.wait_for(lambda: job.directory.joinpath("metrics.jsonl").exists() and job.metrics())
    job.processes[killed].kill()
    assert [job.wait()[rank] for rank in left] == [2, 2]
    for rank in left:
        assert "Traceback" not in job.stderr(rank)
        line = job.stderr(rank).splitlines()[-1]
        assert re.search(rf"process {killed}, last in '[^']+', has ended; .*; the same command resumes", line)
    results = [line for rank in left for line in job.stdout(rank).splitlines() if line.startswith("{")]
    assert [json.loads(line)["status"] for line in results] == ["interrupted"]


@pytest.mark.parametrize("minutes", ["", "soon", "0", "-5", "nan", "inf"])
def test_a_limit_that_is_no_time_is_refused(config, monkeypatch, minutes):
    monkeypatch.setenv("IMBALANCE_WAIT_MINUTES", minutes)
    with pytest.raises(BadInput, match="^IMBALANCE_WAIT_MINUTES: .* a number of minutes above 0"):
        start_accelerator(validate(config))


def test_before_nccl_ends_a_process_it_says_for_whom_it_waits(monkeypatch):
    """NCCL's watchdog ends the process itself, so that there is no error to catch."""
    said = []
    monkeypatch.setenv("IMBALANCE_WAIT_MINUTES", "1e-9")
    monkeypatch.setattr(heartbeat.threading.Thread, "start", lambda thread: None)
    monkeypatch.setattr(heartbeat, "on_loss", said.append)
    store = HashStore()
    store.set("1", "3 6 work that process 0 does for all")
    watch = heartbeat.Heartbeat(store, 0, 2, aborts=True)
    watch._beat()
    monkeypatch.setattr(heartbeat, "_watch", watch)
    watch.number = 6
    with heartbeat.exchange("a step"):
        watch._beat()
    (error,) = said
    assert "in 'a step' for process 1, last in 'work that process 0 does for all'" in str(error)
    assert error.ranks == [1]


OBJECTIVES_TRIED = [
    dict(name="average"),
    dict(name="log_average"),
    dict(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False),
]
SAMPLERS_TRIED = [
    dict(name="shuffle"),
    dict(name="undersample", by="class", redraw=True),
    dict(name="resample", by="class", exponent=1.0),
]
# Of 287 examples, or 20 undersampled: batches of the same size, a last one of another, a last one of one example, which
# leaves a process empty-handed.
BATCH_SIZES = {"even": (41, 10), "uneven": (44, 9), "lonely": (143, 19)}
TABLE = {
    f"{objective['name']}, {sampler['name']}, {batches}": (objective, sampler, batches)
    for objective, sampler, batches in product(OBJECTIVES_TRIED, SAMPLERS_TRIED, BATCH_SIZES)
    if objective["name"] in OBJECTIVES and sampler["name"] in SAMPLERS
}


@pytest.fixture
def config(config: ConfigDict) -> ConfigDict:
    return in_double(config)


def train_table(work_dir: Path, world: int) -> None:
    """One run for each row; with two processes also in three parts a batch, where one has the whole batch at once."""
    for row, (objective, sampler, batches) in TABLE.items():
        config = in_double(load(ROOT / "configs" / "digits_poly.py"))
        config.objective, config.sampler = create(**objective), create(**sampler)
        if sampler["name"] != "shuffle":
            config.weights = create(name="uniform")
        config.callbacks.monitor = "val/auroc"  # of the logits that all processes gather
        config.trainer.batch_size = BATCH_SIZES[batches][sampler["name"] == "undersample"]
        if world == 2 and batches != "even":  # as if logits took gigabytes
            config.trainer.eval_batch_size = 50
            evaluate.BLOCK_BYTES = 1
        train(config, work_dir / row / str(world))
        if world == 2 and batches == "uneven":
            config.trainer.accumulation = 3
            train(config, work_dir / row / "accumulated")
    sys.exit()


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp("table")
    for world in (1, 2):
        config = load(ROOT / "configs" / "digits_poly.py")
        config.work_dir = str(work_dir)
        job = Job(config, world=world, target=partial(train_table, work_dir, world))
        assert job.wait(timeout=200) == [0] * world, job.stderr()
    return work_dir


@pytest.mark.parametrize("row", TABLE)
def test_two_processes_are_one(table, row):
    assert json.loads((table / row / "2" / "summary.json").read_text())["processes"] == 2
    difference = worst_difference(table / row / "1", table / row / "2")
    for name in ("train", "val", "test"):
        one, two = (read_predictions(table / row / world, name) for world in ("1", "2"))
        assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one if key != "logits")
        difference = max(difference, np.abs(one["logits"] - two["logits"]).max() * 1e-3)  # of float32
    print(f"{row}: {difference:.1e}")
    assert difference < 1e-9


@pytest.mark.parametrize("row", [row for row in TABLE if "uneven" in row])
def test_a_batch_in_parts_is_the_batch(table, row):
    assert worst_difference(table / row / "1", table / row / "accumulated") < 1e-9


def test_each_process_draws_its_own_dropout(config, tmp_path):
    """Were the masks the same, two processes would drop the same units for both halves of a batch."""
    config.model = create(name="masked")
    config.debug = True
    job = Job(config, world=2, target=partial(add_masked, tmp_path))
    assert job.wait() == [0, 0], job.stderr()
    masks = [torch.load(tmp_path / f"mask{rank}.pt") for rank in (0, 1)]
    assert {0.0, 2.0} == set(masks[0].tolist()) == set(masks[1].tolist())
    assert not torch.equal(*masks)


def add_masked(folder: Path) -> None:
    """Enter a model with dropout, which keeps the mask of its first step."""

    class Kept(nn.Dropout):
        def forward(self, x):
            path = folder / f"mask{os.environ['RANK']}.pt"
            if self.training and not path.exists():
                random = torch.get_rng_state()
                torch.save(super().forward(torch.ones(64)), path)
                torch.set_rng_state(random)
            return super().forward(x)

    def model(input_shape, num_classes: int) -> nn.Module:
        return with_head(nn.Sequential(nn.Flatten(), Kept(0.5)), 64, num_classes)

    MODELS["masked"] = model


def test_a_run_goes_on_in_another_number_of_processes(config, tmp_path):
    """From the middle of an epoch, where both have drawn and predicted."""
    config.trainer.update(epochs=3, batch_size=44)
    config.callbacks.checkpoint_minutes = 1e-9
    reference = train(config, tmp_path / "reference")["run_directory"]
    for before, after in ((1, 2), (2, 1)):
        config.work_dir = str(tmp_path / f"{before}{after}")
        job = Job(config, world=before, target=partial(stop_at, 13))
        assert job.wait() == [143] * before, job.stderr()
        job = Job(config, world=after)
        assert job.wait() == [0] * after, job.stderr()
        assert "resumed at epoch 1, step 13" in job.stdout()
        assert worst_difference(Path(reference), job.directory) < 1e-9


def test_a_process_that_reads_another_checkpoint_ends_all_with_a_line(config):
    """As on a disk that the machines do not share."""
    directory = Path(config.work_dir) / "experiment" / "default" / f"seed={config.seed}"
    train(config, directory)
    (directory / "summary.json").unlink()
    job = Job(config, world=2, target=stale_disk)
    assert job.wait() == [2, 2]
    assert job.stderr().count("\n") == 1 and job.stderr(1) in ("", f"process 1: {job.stderr()}")
    assert re.match(
        r"config.work_dir: process 1 cannot read .*last.pt: .* a disk that all machines share", job.stderr()
    )


def stale_disk() -> None:
    """Let the last process see an archive with another stamp."""
    if os.environ["RANK"] == "1":
        read._stamp_of = lambda _: "another"


def launch(config: ConfigDict, *command: str) -> subprocess.CompletedProcess:
    """A real launcher with two processes; it turns every failing status into 1."""
    path = Path(config.work_dir) / "experiment.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", *command, "main.py", f"--config={path}"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)


def test_accelerate_launches_two_processes_of_which_one_prints(config):
    form = (
        "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
    )
    done = launch(config, "accelerate.commands.launch", *form.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"run_directory"') == done.stdout.count("score: ") == 1
    summary = Path(json.loads(done.stdout.splitlines()[-1])["run_directory"], "summary.json")
    assert json.loads(summary.read_text())["processes"] == 2


def test_torchrun_ends_with_the_message_of_the_process_that_has_it(config):
    """Only the main process looks at the run directory; the others wait for its answer."""
    directory = Path(config.work_dir) / "experiment" / "default" / "seed=0"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "metrics.jsonl").write_text("{}\n")  # something has been trained there
    done = launch(config, "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "use another config.work_dir" in line]
    assert said[0].startswith("config.adapter.name: ")
    assert said[-1].startswith("  traceback : config.adapter.name: ")  # torchrun's report, which stands last
    assert all(line.startswith("process 1: ") for line in said[1:-1])  # where the launcher is slow to end it


KILLER = """
import os
import signal

from imbalance.methods.losses import CrossEntropy


class Killed(CrossEntropy):
    \"\"\"The cross-entropy; process 1 is killed in its 13th call of the first start.\"\"\"

    calls = 0

    def forward(self, logits, targets, groups):
        self.calls += self.training
        if self.calls == 13 and os.environ["TORCHELASTIC_RESTART_COUNT"] + os.environ["RANK"] == "01":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(logits, targets, groups)
"""


def test_torchrun_starts_a_run_again_that_resumes(config, tmp_path, monkeypatch):
    """As docs/how-to/many-processes.md says."""
    (tmp_path / "killer.py").write_text(KILLER)
    in_double(config).trainer.update(batch_size=44)
    config.callbacks.checkpoint_minutes = 1e-9
    config.loss = create(name="cross_entropy")
    reference = train(config, tmp_path / "reference")["run_directory"]
    config.loss = create(name=f"{tmp_path}/killer.py:Killed")
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    form = "--standalone --max_restarts 1 --nproc_per_node 2"
    done = launch(config, "torch.distributed.run", *form.split())
    assert done.returncode == 0, done.stderr
    assert "resumed at epoch 1, step " in done.stdout
    directory = Path(json.loads(done.stdout.splitlines()[-1])["run_directory"])
    assert worst_difference(Path(reference), directory) < 1e-9


def test_the_form_of_accelerate_that_starts_one_process_only_says_what_to_type(config):
    """It sets these, as `prepare_simple_launcher_cmd_env` says, and no WORLD_SIZE."""
    job = Job(config, "--config.seed=0", ACCELERATE_MIXED_PRECISION="no", MASTER_ADDR="127.0.0.1")
    assert job.wait() == [2]
    assert job.stderr().startswith("launch: ") and job.stderr().count("\n") == 1
    path = Path(config.work_dir) / "experiment.json"
    typed = f"torchrun --standalone --nproc_per_node N main.py --config={path} --config.seed=0\n"
    assert job.stderr().endswith(typed)


def raise_on_the_last_process() -> None:
    heartbeat.INTERVAL = 0.2
    if os.environ["RANK"] == "1":
        steps = itertools.count()

        def take_step(*args):
            if next(steps) == 3:
                raise BadInput("row 17: cannot be decoded")
            return step_module.take_step(*args)

        loop.take_step = take_step


def test_an_error_of_one_process_ends_all_and_is_seen(config):
    job = Job(config, world=2, target=raise_on_the_last_process)
    statuses = job.wait()
    assert statuses[1] == 2 and statuses[0] != 0
    assert "process 1: row 17: cannot be decoded" in job.stderr(1)


def test_a_non_finite_loss_ends_all_processes(config):
    config.optim.lr = 1e200
    job = Job(config, world=2)
    assert job.wait() == [3, 3]
    assert job.stderr().startswith("non-finite loss") and job.stderr().count("\n") == 1 and not job.stderr(1)
    assert json.loads(job.stdout().splitlines()[-1])["status"] == job.summary()["status"] == "diverged"


def test_batch_normalisation_is_not_silently_of_one_process(config):
    config.model = create(name="normalised")
    job = Job(config, world=2, target=add_batch_norm)
    assert job.wait() == [2, 2]
    assert job.stderr().startswith("config.model.name: the model has batch normalisation")


def add_batch_norm() -> None:
    MODELS["normalised"] = lambda input_shape, num_classes: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())


@pytest.mark.parametrize("ending", ["done", "diverged"])
def test_processes_exchange_nothing_in_inference_mode(config, tmp_path, monkeypatch, ending):
    """torch 2.4 refuses it: "Inplace update to inference tensor outside InferenceMode"."""
    exchanged = []

    class Gathering(Accelerator):
        def gather(self, tensor):
            exchanged.append(torch.is_inference_mode_enabled() or tensor.is_inference())
            return super().gather(tensor)

    def gather_object(values: list) -> list:
        exchanged.append(torch.is_inference_mode_enabled())
        return values

    monkeypatch.setattr(processes, "Accelerator", Gathering)
    monkeypatch.setattr(processes, "gather_object", gather_object)
    config.callbacks.keep_logits = True
    if ending == "diverged":
        monkeypatch.setattr(evaluate, "split_metrics", lambda run, name, _: evaluate.non_finite_rows(run, name))
        monkeypatch.setattr(loop, "split_metrics", evaluate.split_metrics)
    with suppress(TypeError):  # the rows are no metrics
        train(config, tmp_path)
    assert len(exchanged) > 3 and not any(exchanged)


def test_work_that_process_0_does_for_all_returns_its_result_or_raises_its_error():
    accelerator = SimpleNamespace(is_main_process=True, num_processes=1)
    assert from_main(accelerator, lambda: 3) == 3
    with pytest.raises(NotADirectoryError):
        from_main(accelerator, lambda: Path(__file__, "x").read_bytes())
