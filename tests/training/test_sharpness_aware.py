"""SAM, ImbSAM and Focal-SAM: a step of the published code, what changes once a step, and what is refused."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import ROOT
from helpers.published import assert_published, exact, published
from torch import nn
from torch.nn.functional import cross_entropy

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.errors import BadInput, Diverged
from imbalance.methods.batch import Batch
from imbalance.methods.objectives.reductions import Average
from imbalance.training.loop import train
from imbalance.training.optim import SharpnessAware, focal_sam, imb_sam, sam
from imbalance.training.state import forensics
from imbalance.training.step import sharpness_aware_passes

IMBSAM = published("imbsam")
INPUTS = IMBSAM["inputs"]
COUNTS, TARGETS = torch.tensor(INPUTS["cls_num_list"]), torch.tensor(INPUTS["labels"])
PLAIN: dict[str, Any] = dict(lr=0.1, momentum=0.0, weight_decay=0.0, decayed="all", radius=0.05)
FOCAL = "focal_sam gamma={} lambda={}"
TWICE = 1.0 + (TARGETS > 0).double()  # the published code of ImbSAM counts the losses of rare classes twice
CASES = {
    "sam": (sam, {}, None),
    "imbsam": (imb_sam, dict(tail_below=21), TWICE),
    "imbsam_paper_no_factor_2 (numpy only)": (imb_sam, dict(tail_below=21), None),
    FOCAL.format(1.0, 0.5): (focal_sam, dict(gamma=1.0, strength=0.5), None),
    FOCAL.format(2.0, 0.8): (focal_sam, dict(gamma=2.0, strength=0.8), None),
}
OPTIM = dict(name="sam", lr=0.1, momentum=0.9, weight_decay=0.0, decayed="all", radius=0.05)
SPLITTING = OPTIM | dict(name="imb_sam", tail_below=200)


def step(model: nn.Module, optimizer: SharpnessAware, weights: torch.Tensor, inputs: torch.Tensor) -> None:
    objective = Average()
    batch = Batch((inputs,), TARGETS, torch.zeros_like(TARGETS), weights, torch.arange(len(TARGETS)))

    def pass_of(weights: torch.Tensor) -> None:
        losses = cross_entropy(model(inputs), TARGETS, reduction="none")
        objective.value({"losses": losses}, batch._replace(weights=weights)).backward()

    learner = cast(Any, SimpleNamespace(model=model, objective=objective))
    first = cross_entropy(model(inputs), TARGETS, reduction="none")
    sharpness_aware_passes(
        learner,
        optimizer,
        batch,
        lambda weights: objective.value({"losses": first}, batch._replace(weights=weights)).backward(),
        pass_of,
    )
    optimizer.step()


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_the_published_code(name):
    make, settings, weights = CASES[name]
    model = nn.Linear(3, 3).double()
    model.load_state_dict({"weight": exact(INPUTS["weight"]), "bias": exact(INPUTS["bias"])})
    counts = {} if make is sam else dict(class_counts=COUNTS)
    optimizer = cast(SharpnessAware, make(list(model.parameters()), **counts, **PLAIN, **settings))
    step(model, optimizer, torch.ones(8).double() if weights is None else weights, exact(INPUTS["X"]))
    expected = IMBSAM["after_one_step"][name]
    if "coefficients" in expected:
        assert_published(optimizer.shares, expected["coefficients"])
    assert_published(model.weight, expected["weight_after"])
    assert_published(model.bias, expected["bias_after"])


def test_the_running_statistics_move_once_and_gradients_of_zero_displace_nothing():
    """In float32, in which a division by the norm of 0 could overflow."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    once = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    once.load_state_dict(model.state_dict())
    optimizer = cast(SharpnessAware, sam(list(model.parameters()), **PLAIN))
    step(model, optimizer, torch.zeros(8), exact(INPUTS["X"]).float())  # weights of 0, so all gradients are 0
    once(exact(INPUTS["X"]).float())
    assert all(ours.equal(theirs) for ours, theirs in zip(model.state_dict().values(), once.state_dict().values()))


def config_of(**sections: Any) -> Any:
    config = load(ROOT / "configs" / "colored_digits_erm.py")
    schedule = config.optim.schedule
    for path, value in sections.items():
        if isinstance(value, dict) and "name" in value:
            config[path] = value
        else:
            config[path].update(value)
    config.optim.schedule = schedule
    config.trainer.epochs, config.trainer.eval_every, config.model.hidden = 1, 1, (8,)
    return config


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (dict(objective=dict(name="worst_group")), "config.objective.name: 'worst_group' given, .*'imb_sam' splits"),
        (dict(mix=dict(name="mixup", alpha=1.0)), "config.mix.name: 'mixup' given, .*'imb_sam' splits"),
        (dict(trainer=dict(compile="reduce-overhead")), "config.trainer.compile: .*'imb_sam' computes 3 passes"),
    ],
)
def test_what_cannot_be_split_or_recorded_is_refused(sections, words):
    with pytest.raises(BadInput, match=words):
        validate(config_of(optim=SPLITTING, **sections))


def test_without_a_rare_class_imbsam_is_refused(tmp_path):
    with pytest.raises(BadInput, match="config.optim.tail_below: 10 given, but the smallest class has 134 training"):
        train(config_of(optim=OPTIM | dict(name="imb_sam", tail_below=10)), tmp_path)


def test_sam_in_a_tiny_radius_is_sgd_and_the_state_of_the_objective_changes_once_a_step(tmp_path):
    dro = dict(name="group_dro", step_size=0.1, size_adjustment=0.0, adjust_absent=False)
    plain = {key: value for key, value in OPTIM.items() if key != "radius"} | dict(name="sgd")
    states = []
    for optim in (plain, OPTIM | dict(radius=1e-9)):
        directory = tmp_path / optim["name"]
        train(config_of(optim=optim, objective=dro, trainer=dict(dtype="float64")), directory)
        saved = torch.load(directory / "checkpoints" / "last.pt", weights_only=True)
        states.append([*saved["model"].values(), *saved["objective"].values()])
    for ours, theirs in zip(*states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_replay_of_a_diverged_step_says_that_it_ends_before_the_second_pass(tmp_path):
    with pytest.raises(Diverged, match="non-finite update by step 0"):
        train(config_of(optim=OPTIM | dict(lr=1e308)), tmp_path)
    report = forensics.replay(tmp_path)
    assert "the losses are the same, bit for bit" in report
    assert "the other passes of config.optim.name='sam' and the update are not replayed" in report
    assert "gradient of head.weight" in report and "after the step" not in report


def test_mixed_precision_computes_the_passes_in_bfloat16(tmp_path):
    summary = train(config_of(optim=SPLITTING, trainer=dict(mixed_precision="bf16")), tmp_path)
    assert summary["status"] == "done"
