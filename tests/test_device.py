"""The program on a device: nothing is mixed, and a step launches and waits for little more than a bare loop."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

CASES = ("linear, cross-entropy", "MLP, poly", "MLP, group DRO", "MLP, CVaR", "MLP, cRT", "ConvNet, augmentation")
STORE = "ConvNet, from a store"  # 24 images of 3,072 bytes a split, in batches of 8, evaluated in batches of 4
# Launches of a step beyond those of a bare loop with cross-entropy.
MORE = {
    "linear, cross-entropy": 13,
    "MLP, poly": 38,
    "MLP, group DRO": 29,
    "MLP, CVaR": 28,
    "MLP, cRT": 11,
    "ConvNet, augmentation": 24,
}

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def counts() -> dict:
    """What `counts.py` finds, in a process of its own: torch keeps a device that it has been given."""
    if not hasattr(torch._C, "_acc"):
        pytest.skip(f"torch {torch.__version__} knows no device that is written in Python")
    command = [sys.executable, "tests/counts.py", *CASES, STORE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", [*CASES, STORE])
def test_a_run_on_a_device_is_that_on_a_cpu(counts, case):
    assert counts[case]["same"]


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_once_and_launches_little_more_than_a_bare_one(counts, case):
    launches, waits = counts[case]["parts"]["take_step"]
    assert waits == 1 and launches <= counts[case]["bare"] + MORE[case]


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
    of_head = 8 if case == "MLP, cRT" else 0  # features, a layer to begin with, an order an epoch, and what comes of it
    assert waits <= 3 * 2 + 2 + of_head


def test_two_pinned_blocks_bring_all_batches_from_a_store(counts):
    """Each waits for the batch before the last at most, which has most often arrived by then."""
    assert 0 < counts[STORE]["pinned"] <= 2 * 8 * 3072 + 64
    for part, batches, waits in (("take_step", 1, 1), ("evaluate", 6, 1), ("finish", 18, 8)):
        assert counts[STORE]["parts"][part][1] <= batches + waits
