"""The program on a device: nothing is mixed, and a step launches and waits for little more than a bare loop."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from imbalance.methods.losses import LOSSES

CASES = (
    "linear, cross-entropy",
    "MLP, poly",
    "MLP, group DRO",
    "MLP, CVaR",
    "MLP, cRT",
    "MLP, SAM",
    "MLP, moving average of the weights",
    "ConvNet, two views",
    "ConvNet, augmentation",
    "ConvNet, store on the device",
)
LBFGS = "linear, lbfgs"  # a step is an iteration on all examples; its line search waits for a decision after each trial
STORE = "ConvNet, from a store"  # 24 images of 3,072 bytes a split, in batches of 8, evaluated in batches of 4
# Launches of a step beyond those of a bare loop with weighted cross-entropy.
MORE = {
    "linear, cross-entropy": 4,
    "MLP, poly": 26,
    "MLP, group DRO": 20,
    "MLP, CVaR": 19,
    "MLP, cRT": 2,
    "MLP, SAM": 70,  # of which a second forward and backward pass has 27
    "MLP, moving average of the weights": 8,
    "ConvNet, two views": 69,
    "ConvNet, augmentation": 15,
    "ConvNet, store on the device": 2,
}
# With each loss, by the number of classes: what it computes itself, and the copy of the value, are the difference.
MORE_OF_LOSS = {
    "cross_entropy": {2: 1, 10: 8},
    "poly": {2: 18, 10: 25},
    "vs": {2: 4, 10: 11},
    "smoothed": {2: 16, 10: 23},
    "vs_group": {2: 6, 10: 13},
    "cdt": {2: 3, 10: 10},
    "logit_adjusted": {2: 2, 10: 9},
    "balanced_softmax": {2: 2, 10: 9},
    "label_aware_smoothing": {2: 14, 10: 21},
    "ldam": {2: 5, 10: 12},
    "focal": {2: 11, 10: 18},
    "class_balanced": {2: 14, 10: 21},
    "class_balanced_sigmoid": {2: 14, 10: 14},
}
# With which losses, of two classes, a step is at most one and a tenth of a bare one.
WITHIN_A_TENTH = {
    "linear": ("cross_entropy",),
    "MLP": ("cross_entropy", "logit_adjusted", "balanced_softmax"),
    "ConvNet": ("cross_entropy", "logit_adjusted", "balanced_softmax", "vs", "cdt", "ldam"),
}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def everything() -> dict:
    """What `counts.py` finds, in a process of its own: torch keeps a device that it has been given."""
    if not hasattr(torch._C, "_acc"):
        pytest.skip(f"torch {torch.__version__} knows no device that is written in Python")
    command = [sys.executable, "tests/counts.py", *CASES, STORE, LBFGS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def counts(everything) -> dict:
    return everything["cases"]


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_launches_more_than_its_number_beyond_a_bare_step(everything, name):
    assert name in MORE_OF_LOSS, f"add the launches of {name!r} to MORE_OF_LOSS in tests/training/test_device.py"
    for case, found in everything["losses"].items():
        classes = 2 if case.endswith(" 2 classes") else 10
        assert found[name] - found["bare"] <= MORE_OF_LOSS[name][classes], case


@pytest.mark.parametrize("model", WITHIN_A_TENTH)
def test_with_two_classes_a_step_is_within_a_tenth_of_a_bare_one(everything, model):
    found = everything["losses"][f"{model}, 2 classes"]
    assert {name: found[name] for name in WITHIN_A_TENTH[model] if found[name] > 1.1 * found["bare"]} == {}


@pytest.mark.parametrize("case", [*CASES, STORE, LBFGS])
def test_a_run_on_a_device_is_that_on_a_cpu(counts, case):
    assert counts[case]["same"]


@pytest.mark.parametrize(("case", "launches"), [("MLP, cross-entropy", 68), ("ConvNet, augmentation", 162)])
def test_runs_at_once_on_a_device_are_those_on_a_cpu_and_wait_once_a_step(everything, case, launches):
    """Four of two seeds, whose step launches about twice what one's does."""
    found = everything["at once"][case]
    assert found["same"]
    assert found["step"][0] <= launches and found["step"][1] == 1


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_once_and_launches_little_more_than_a_bare_one(counts, case):
    launches, waits = counts[case]["parts"]["take_step"]
    assert waits == 1 and launches <= counts[case]["bare"] + MORE[case]


def test_an_iteration_of_lbfgs_waits_for_its_line_search_alone(counts):
    launches, waits = counts[LBFGS]["parts"]["take_step"]
    assert waits <= 8 and launches <= 370


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_is_moved_to_the_device_at_once(counts, case):
    _, waits = counts[case]["parts"]["draw_epoch"]
    assert waits == 1


@pytest.mark.parametrize("part", ("remember", "training_metrics", "evaluate"))
@pytest.mark.parametrize("case", CASES)
def test_after_an_epoch_the_host_waits_once_for_each_of(counts, case, part):
    _, waits = counts[case]["parts"][part]
    assert waits <= 1


@pytest.mark.parametrize("case", CASES)
def test_a_save_waits_for_the_state_and_what_the_epoch_has_drawn(counts, case):
    _, waits = counts[case]["parts"]["save"]
    assert waits <= 3  # and once to see whether the state is finite


@pytest.mark.parametrize("case", CASES)
def test_the_end_waits_for_logits_and_counts_of_each_split_and_for_the_weights(counts, case):
    _, waits = counts[case]["parts"]["finish"]
    # Features, a layer to begin with, an order an epoch, what comes of it, and two to tell what it does to the logits.
    of_head = 10 if case == "MLP, cRT" else 0
    assert waits <= 3 * 2 + 2 + 1 + of_head  # 1 for the importance weights, from which the prior of training follows


def test_two_pinned_blocks_bring_all_batches_from_a_store(counts):
    """Each waits for the batch before the last at most, which has most often arrived by then.

    One more image is for the trial pass before the first step.
    """
    assert 0 < counts[STORE]["pinned"] <= (2 * 8 + 1) * 3072 + 64
    for part, batches, waits in (("take_step", 1, 1), ("evaluate", 6, 1), ("finish", 18, 9)):
        assert counts[STORE]["parts"][part][1] <= batches + waits
