"""What every entry of every table keeps, whatever it does: parts, processes, kills, divergence, settings, batching.

A new entry needs an example here, and fails `test_every_entry_has_an_example` until it has one.
"""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from helpers.jobs import Job, at_call
from ml_collections import ConfigDict

from imbalance.config.experiment import validate
from imbalance.config.load import load
from imbalance.config.registries import registries
from imbalance.config.schema import fields as settings_of
from imbalance.config.tags import tags_of
from imbalance.deploy.extract_features import features
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.training import loop
from imbalance.training.stacked.train import in_common, train_stacked
from imbalance.training.state import forensics

CONFIGS = ROOT / "configs"
DRO = dict(name="group_dro", step_size=0.1, size_adjustment=1.0)
BY_GROUP = dict(sampler=dict(name="balanced", by="group"))
# By section and name: its settings, and what else a run with it must say ("section": a whole one, "section__key": one
# setting).
EXAMPLES = {
    ("groups", "data"): (dict(), dict(objective=DRO)),
    ("groups", "eiil"): (dict(first_epochs=1, ascent_steps=9, ascent_lr=0.1), dict(objective=DRO)),
    ("groups", "xrm"): (dict(first_epochs=4, lr=0.2), dict(objective=DRO)),
    ("sampler", "shuffle"): (dict(), {}),
    ("sampler", "undersample"): (dict(by="group", redraw=True), {}),
    ("sampler", "reject"): (dict(by="class", redraw=True), {}),
    ("sampler", "oversample"): (dict(by="class"), {}),
    ("sampler", "balanced"): (dict(by="group"), {}),
    ("sampler", "resample"): (dict(by="group", exponent=1.0), {}),
    ("sampler", "annealed_linear"): (dict(by="group"), {}),
    ("sampler", "annealed_sigmoid"): (dict(by="group", steepness=4.0), {}),
    ("sampler", "annealed_step"): (dict(by="group"), {}),
    ("weights", "uniform"): (dict(), {}),
    ("weights", "importance"): (dict(by="group", exponent=1.0), {}),
    ("weights", "square_root"): (dict(by="group"), {}),
    ("weights", "truncated"): (dict(by="group", exponent=1.0, ceiling=2.0), {}),
    ("weights", "effective_number"): (dict(by="group", beta=0.9), {}),
    ("weights", "deferred"): (dict(by="group", beta=0.9, start_epoch=1), {}),
    ("weights", "given"): (dict(by="class", values=(1.0, 2.0)), {}),
    ("weights", "residual"): (dict(), dict(sampler=dict(name="annealed_linear", by="group"))),
    ("weights", "just_train_twice"): (dict(first_epochs=1, upweight=5.0), {}),
    ("mix", "none"): (dict(), {}),
    ("mix", "mixup"): (dict(alpha=0.5), {}),
    ("mix", "remix"): (dict(alpha=0.5, kappa=2.0, tau=0.5), {}),
    ("mix", "lisa"): (dict(alpha=2.0, same_label=0.5), BY_GROUP),
    ("loss", "cross_entropy"): (dict(), {}),
    ("loss", "poly"): (dict(alpha=0.5, left="logistic"), dict(optim__lr=0.5)),
    ("loss", "vs"): (dict(gamma=0.2, tau=1.0), {}),
    ("loss", "vs_group"): (dict(gamma=0.2, tau=1.0), {}),
    ("loss", "cdt"): (dict(gamma=0.2), {}),
    ("loss", "logit_adjusted"): (dict(tau=1.0), {}),
    ("loss", "balanced_softmax"): (dict(), {}),
    ("loss", "ldam"): (dict(max_margin=0.5, scale=2.0), {}),
    ("loss", "focal"): (dict(gamma=2.0), {}),
    ("loss", "class_balanced"): (dict(beta=0.9, gamma=1.0), {}),
    ("loss", "class_balanced_sigmoid"): (dict(beta=0.9, gamma=1.0), {}),
    ("objective", "average"): (dict(), {}),
    ("objective", "log_average"): (dict(), {}),
    ("objective", "group_dro"): (dict(step_size=0.1, size_adjustment=1.0), {}),
    ("objective", "cvar"): (dict(level=0.4), {}),
    ("objective", "worst_group"): (dict(), {}),
    ("objective", "irm"): (dict(environments="group", penalty=2.0, warmup_steps=4), {}),
    ("objective", "coral"): (dict(environments="group", penalty=2.0), {}),
    ("objective", "mmd"): (dict(environments="group", penalty=2.0, gammas=(0.1, 1.0)), {}),
    ("objective", "lff"): (dict(amplification=0.7, decay=0.5), {}),
    ("objective", "xrm"): (dict(), {}),
    ("head", "none"): (dict(), {}),
    ("head", "logit_adjusted"): (dict(tau=1.0), {}),
    ("head", "tau_normalised"): (dict(tau=0.7), {}),
    ("head", "crt"): (dict(by="group", epochs=2, batch_size=30, lr=0.1, momentum=0.5, weight_decay=0.01), {}),
    ("head", "lws"): (dict(by="group", epochs=2, batch_size=30, lr=0.1, momentum=0.5, weight_decay=0.01), {}),
    ("head", "dfr"): (dict(inverse_penalties=(0.3, 1.0), fits=2), {}),
    ("head", "dpe"): (
        dict(
            by="group",
            members=3,
            epochs=2,
            batch_size=10,
            lr=0.01,
            momentum=0.5,
            entropic_scale=5.0,
            norm_penalty=1.0,
            similarity_penalty=10.0,
        ),
        {},
    ),
    ("head", "temperature"): (dict(), {}),
    ("head", "thresholds"): (dict(metric="balanced_accuracy", rounds=1), {}),
    ("head", "hold_out"): (dict(fraction=0.25), {}),
    ("head", "self"): (dict(fraction=0.25, first_epochs=1, share=0.5, steps=9, batch_size=8, lr=0.5), {}),
    ("head", "afr"): (dict(fraction=0.25, gamma=4.0, penalty=0.1, steps=20, lr=0.5), {}),
    ("model", "linear"): (dict(init="default"), {}),
    ("model", "mlp"): (dict(hidden=(8,)), {}),
    ("model", "mlp_cosine"): (dict(hidden=(8,)), {}),
    ("optim", "sgd"): (
        dict(lr=0.1, momentum=0.9, weight_decay=0.01, decayed="weights"),
        dict(trainer__clip_norm=0.05),
    ),
    ("optim", "adam"): (dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.01, decayed="all"), {}),
    ("optim", "sgd_apart"): (
        dict(lr=0.02, head_factor=5.0, momentum=0.9, weight_decay=0.01, decayed="weights"),
        dict(trainer__clip_norm=0.05),
    ),
    ("optim", "adamw_apart"): (
        dict(lr=0.01, head_factor=3.0, betas=(0.9, 0.99), weight_decay=0.01, decayed="all"),
        {},
    ),
    ("optim", "adamw"): (
        dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.01, decayed="weights"),
        dict(trainer__clip_norm=0.05),
    ),
}
# The models that need images larger than these; batch normalisation sees one part, and is refused in many processes.
LARGER = {"convnet", "lenet", "resnet18", "resnet34", "resnet50", "resnet20", "resnet32", "torchvision", "timm"}
LARGER |= {"transformers_vision", "pretrained"}  # the latter of a run, which it needs
LARGER |= {"bag_of_embeddings", "transformer", "encoder"}  # whose inputs are texts: tests/data/texts/test_text.py
LARGER |= {f"{name}_cosine" for name in LARGER} | {"linear_cosine"}  # whose one setting has one value
# Other settings than twice the example's, where that is none.
OTHERS = {
    "by": lambda by: "class" if by == "group" else "group",
    "redraw": lambda redraw: not redraw,
    "start_epoch": lambda epoch: 0,
    "beta": lambda beta: 0.99,
    "values": lambda values: (2.0, 1.0),
    "same_label": lambda share: 0.0,
    "left": lambda left: "linear",
    "environments": lambda name: "attribute",
    "gammas": lambda gammas: (10.0,),
    "momentum": lambda momentum: 0.0,
    "decayed": lambda which: "all" if which == "weights" else "weights",
    "betas": lambda betas: (0.5, 0.9),
    "decay": lambda decay: 0.9,
    "init": lambda init: "zeros",
    "hidden": lambda hidden: (7,),
    "inverse_penalties": lambda penalties: (0.01, 0.02),
    "first_epochs": lambda epochs: 20,
    "warmup_steps": lambda steps: 0,
    "metric": lambda metric: "worst_group_accuracy",
}
# Two classes have one threshold, which the first round finds: tests/methods/heads/test_heads.py has three.
IDLE = {("head", "thresholds", "rounds")}
SECTIONS = ("groups", "sampler", "weights", "mix", "loss", "objective", "head", "model", "optim")
IDS = [" ".join(entry) for entry in EXAMPLES]


def test_no_table_escapes():
    """What a schedule makes is a function of how far a run is, see tests/training/test_optim.py; data have tests of their own."""
    assert registries().keys() - {"data", "optim.schedule"} == set(SECTIONS)


def test_every_entry_has_an_example():
    entries = {(section, name) for section in SECTIONS for name in registries()[section]}
    assert entries - {("model", name) for name in LARGER} == EXAMPLES.keys()


def config_of(entry: tuple[str, str], **settings) -> ConfigDict:
    """Two epochs of colored digits, of which the last batch has one example, with one entry in its example's settings."""
    section, name = entry
    example, besides = EXAMPLES[entry]
    config = load(CONFIGS / "colored_digits_erm.py")
    config.data.update(train_per_group=(50, 20, 10, 20), val_fraction=0.1, test_fraction=0.1)
    config.trainer.update(epochs=2, batch_size=33, eval_every=1, dtype="float64", eval_batch_size=60)
    config.model = ConfigDict(dict(name="mlp", hidden=(8,)))
    config.callbacks.select = "last"
    schedule = config.optim.schedule
    for key, value in besides.items():
        path, _, last = key.partition("__")
        if last:
            config[path][last] = value
        else:
            config[path] = ConfigDict(value)
    config[section] = ConfigDict(dict(name=name) | example | settings)
    config.optim.schedule = schedule
    return config


def ends_in(directory: Path) -> dict[str, torch.Tensor]:
    """What a finished run leaves that a method has a part in: weights, what it has learned, logits of test."""
    selected, last = (
        torch.load(directory / "checkpoints" / f"{name}.pt", weights_only=True) for name in ("selected", "last")
    )
    return {f"model {key}": value for key, value in selected.items()} | {
        f"objective {key}": value for key, value in last["objective"].items()
    }


def assert_close(ours: Path, theirs: Path, tolerance: float = 1e-9) -> None:
    a, b = ends_in(ours), ends_in(theirs)
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(
            a[key], b[key], rtol=tolerance, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run directory of an entry's example, trained once."""
    directory, done = tmp_path_factory.mktemp("whole"), set()

    def of(entry: tuple[str, str]) -> Path:
        path = directory / "-".join(entry)
        if entry not in done:
            loop.train(config_of(entry), path)
            done.add(entry)
        return path

    return of


@pytest.mark.parametrize("entry", EXAMPLES, ids=IDS)
def test_three_parts_make_the_step_of_one(entry, whole, tmp_path):
    config = config_of(entry)
    config.trainer.accumulation = 3
    loop.train(config, tmp_path)
    assert_close(tmp_path, whole(entry))


@pytest.fixture(scope="module")
def pixels_as_features(tmp_path_factory) -> Path:
    """The examples' data set as `imbalance features` keeps it, of a network that hands the pixels on."""
    config, folder = config_of(("loss", "cross_entropy")), tmp_path_factory.mktemp("features") / "pixels"
    config.model = ConfigDict(dict(name="linear", init="default"))
    file = folder.with_name("config.json")
    file.write_text(json.dumps(config.to_dict()))
    features(config=str(file), run=None, output=str(folder), overrides={})
    return folder


@pytest.mark.parametrize("entry", EXAMPLES, ids=IDS)
def test_on_features_it_does_what_it_does_on_inputs(entry, whole, pixels_as_features, tmp_path):
    config = config_of(entry)
    config.data = ConfigDict(dict(name="features", folder=str(pixels_as_features), standardise=False))
    loop.train(config, tmp_path)
    assert_close(tmp_path, whole(entry))


def train_all(work_dir: Path) -> None:
    """Every example, one after another: the processes are started once."""
    for entry in EXAMPLES:
        loop.train(config_of(entry), work_dir / "-".join(entry))
    sys.exit()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp("by_two")
    config = config_of(("loss", "cross_entropy"))
    config.work_dir = str(work_dir)
    job = Job(config, world=2, target=partial(train_all, work_dir))
    assert job.wait(timeout=500) == [0, 0], job.stderr()
    return work_dir


@pytest.mark.parametrize("entry", EXAMPLES, ids=IDS)
def test_two_processes_are_one(entry, whole, by_two):
    directory = by_two / "-".join(entry)
    assert json.loads((directory / "summary.json").read_text())["processes"] == 2
    assert_close(directory, whole(entry))


@pytest.mark.parametrize("entry", EXAMPLES, ids=IDS)
def test_stopped_and_gone_on_with_it_ends_in_the_same_bits(entry, whole, tmp_path, monkeypatch):
    """In the second step: of a first run, where there is one."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config_of(entry), tmp_path)
    loop.train(config_of(entry), tmp_path)
    assert_close(tmp_path, whole(entry), tolerance=0)


@pytest.mark.parametrize("entry", EXAMPLES, ids=IDS)
def test_a_divergence_is_reported_and_can_be_replayed(entry, tmp_path):
    config = config_of(entry)
    config.optim.lr = 1e308
    with pytest.raises(
        Diverged, match=r"^non-finite .* step \d+.*; first non-finite: .*; to look into it: imbalance forensics"
    ):
        loop.train(config, tmp_path)
    directory = next(iter(sorted(tmp_path.rglob("divergence.pt")))).parent  # of a first run, where there is one
    assert json.loads((directory / "summary.json").read_text())["status"] == "diverged"
    assert not list(directory.glob("checkpoints/selected.pt"))
    report = forensics.replay(directory)
    assert "the losses are the same, bit for bit" in report
    assert any(line.split()[:1] in (["nan"], ["inf"]) for line in report.splitlines()) or "the objective" in report


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        (entry, key)
        for entry in EXAMPLES
        for key in settings_of(registries()[entry[0]][entry[1]])
        if (*entry, key) not in IDLE
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_every_setting_acts(entry, key, whole, tmp_path):
    value = EXAMPLES[entry][0][key]
    other = {key: OTHERS[key](value) if key in OTHERS else 2 * value}
    if entry == ("weights", "given") and key == "by":
        other |= dict(values=(1.0, 1.0, 1.0, 9.0))
    loop.train(config_of(entry, **other), tmp_path)
    ours, theirs = ends_in(tmp_path), ends_in(whole(entry))
    assert any(ours[name].shape != theirs[name].shape or not ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize("entry", EXAMPLES, ids=IDS)
def test_trained_at_once_is_trained_alone_or_is_refused(entry, whole, tmp_path):
    section, name = entry
    config = config_of(entry)
    tags = tags_of(registries()[section][name])
    if in_common(validate(config)) is None:
        refusers = [tags_of(registries()[s][config[s].name]) for s in ("sampler", "mix", "objective", "model", "optim")]
        assert not all(of_one.batched for of_one in refusers) or tags.first_run
        return
    other = config_of(entry)
    other.seed = 1
    for summary in train_stacked([(config, tmp_path / "0"), (other, tmp_path / "1")]):
        assert summary["status"] == "done" and summary["together"] == 2
    assert_close(tmp_path / "0", whole(entry))


def test_a_method_that_asks_for_what_no_run_has_is_refused(monkeypatch):
    monkeypatch.setitem(registries()["objective"], "average", lambda env_counts: None)
    with pytest.raises(
        BadInput, match="config.objective.name: 'average' asks for 'env_counts'; there are class_counts"
    ):
        validate(config_of(("objective", "average")))
