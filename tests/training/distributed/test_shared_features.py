"""Features that all processes compute, for `imbalance features` and for heads, which one process writes or fits."""

import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.jobs import Job, in_double, worst_difference
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance.config.experiment import validate
from imbalance.deploy import extract_features
from imbalance.errors import Diverged, Interrupted
from imbalance.training import finish
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import from_main_with_help, start_accelerator
from imbalance.training.loop import train

HEADS = {
    "crt": dict(by="class", epochs=2, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0.0),
    "temperature": dict(),
}


def with_head(config: ConfigDict, head: str) -> ConfigDict:
    config = in_double(config.copy_and_resolve_references())
    config.head = create(name=head, **HEADS[head])
    config.trainer.eval_batch_size = 50
    return config


def compute_on_two(config: ConfigDict, folder: Path) -> None:
    """In one of two processes: fit heads, extract features, and let a request fail; count what this process computes."""
    rank, counts = os.environ["RANK"], {}

    def counted(name, function):
        def call(*args):
            counts[name] = counts.get(name, 0) + 1
            return function(*args)

        return call

    finish.features = counted("head", finish.features)
    for head in HEADS:
        train(with_head(config, head), folder / head)
    make = extract_features.make_compute
    extract_features.make_compute = lambda *args: counted("extract", make(*args))
    extract(folder / "crt_alone", folder / "two")

    accelerator = start_accelerator(validate(config))

    def compute(request: int) -> torch.Tensor:
        if request == 3:
            raise Diverged(f"request 3, on process {rank}")
        return torch.tensor([request, int(rank)])

    errors = []
    for requests in (range(5), range(3)):
        try:
            answers = from_main_with_help(
                accelerator, lambda ask, r=requests: [t.tolist() for t in ask(list(r))], compute
            )
        except Diverged as error:
            errors.append(str(error))
    (folder / f"counts{rank}.json").write_text(json.dumps([counts, errors, answers]))
    raise SystemExit


def extract(run: Path, into: Path) -> str:
    return extract_features.features(
        config=None, run=str(run), output=str(into), overrides={"trainer.eval_batch_size": 100}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request) -> Path:
    from conftest import ROOT

    from imbalance.config.resolve import load

    folder = tmp_path_factory.mktemp("shared")
    config = load(ROOT / "configs" / "digits_poly.py")
    config.work_dir = str(folder / "runs")
    config.trainer.update(epochs=2, batch_size=64, eval_every=1)
    for head in HEADS:
        train(with_head(config, head), folder / f"{head}_alone")
    extract(folder / "crt_alone", folder / "one")
    job = Job(config, world=2, target=partial(compute_on_two, config, folder))
    assert job.wait() == [0, 0], job.stderr() + job.stderr(1)
    return folder


@pytest.mark.parametrize("head", HEADS)
def test_a_head_fitted_by_two_processes_is_that_of_one(folder, head):
    assert worst_difference(folder / head, folder / f"{head}_alone") < 1e-9
    test, alone = (np.load(folder / name / "predictions" / "test.npz")["logits"] for name in (head, f"{head}_alone"))
    assert np.abs(test - alone).max() < 1e-9


def test_features_of_two_processes_are_those_of_one_to_the_bit_and_one_writes_them(folder):
    names = {path.name for path in (folder / "one").iterdir()}
    assert names == {path.name for path in (folder / "two").iterdir()}
    for name in names - {"checked.json"}:  # the time at which the files were written
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes(), name


def test_each_process_computes_its_part(folder):
    (zero, *_), (one, *_) = (json.loads((folder / f"counts{rank}.json").read_text()) for rank in (0, 1))
    # 287 + 361 + 360 examples in batches of 100; and batches of 50 of train for one head, of val for the other.
    assert zero["extract"] + one["extract"] == sum(
        -(-n // 100) for n in np.load(folder / "one" / "splits.npy", mmap_mode="r").shape[:0] or (287, 361, 360)
    )
    assert abs(zero["extract"] - one["extract"]) <= 1 and one["head"] > 0 and zero["head"] >= one["head"]


def test_an_error_in_a_part_is_raised_on_every_process_and_the_next_work_goes_on(folder):
    for rank in (0, 1):
        _, errors, answers = json.loads((folder / f"counts{rank}.json").read_text())
        assert errors == ["request 3, on process 1"]
        assert answers == [[0, 0], [1, 1], [2, 0]]  # the request, and the process that computed it


def test_a_signal_waits_for_the_exchange_and_then_stops_the_fit():
    interrupt = Interrupt()
    interrupt.defer()
    with pytest.raises(Interrupted), interrupt.at_once():
        with interrupt.deferred():
            interrupt._note(15, None)
            reached = True
        raise AssertionError("the signal must raise before")
    assert reached


def test_one_process_computes_one_request_after_the_other():
    accelerator = SimpleNamespace(num_processes=1, process_index=0)
    computed = []

    def compute(request):
        computed.append(request)
        return torch.tensor(request)

    def function(compute_all):
        answers = compute_all([1, 2, 3])
        assert next(answers) == 1 and computed == [1]
        return sum(answers).item()

    assert from_main_with_help(accelerator, function, compute) == 5
