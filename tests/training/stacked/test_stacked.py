"""Runs trained at once are the runs that would have been trained one by one."""

import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.jobs import at_call
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import nn

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.config.tags import tags_of
from imbalance.data import DATASETS
from imbalance.data.splits import Dataset, class_split
from imbalance.errors import Diverged, Interrupted
from imbalance.models import MODELS
from imbalance.training import loop
from imbalance.training.loop import train
from imbalance.training.stacked import train as batched
from imbalance.training.stacked.train import in_common, train_stacked
from imbalance.training.stacked.vectorised import TransposedLinear, transposed
from imbalance.training.state import forensics
from imbalance.training.state.progress import Clock

TOLERANCE = 1e-9  # in float64, absolute and relative; of losses, metrics, weights and logits


@pytest.fixture
def config(config: ConfigDict) -> ConfigDict:
    config.trainer.dtype = "float64"
    config.model.hidden = (16, 12)
    return config


def varied(config: ConfigDict, *changes: dict) -> list[ConfigDict]:
    """The config once for each of `changes`, flat keys to values."""
    configs = []
    for change in changes:
        of_one = config.copy_and_resolve_references()
        for key, value in change.items():
            section, _, last = key.rpartition(".")
            (of_one[section] if section else of_one)[last] = value
        configs.append(of_one)
    return configs


# Three seeds' data, orders and first weights; rates; how much examples count.
MEMBERS = (
    {"seed": 0, "optim.lr": 0.05},
    {"seed": 1, "optim.lr": 0.2, "weights": create(name="uniform")},
    {"seed": 2, "optim.lr": 0.02, "weights": create(name="importance", by="class", exponent=2.0)},
    {"seed": 0, "optim.lr": 0.1},
)


# As many at every seed: they share what a seed draws.
GRID = (*MEMBERS[1:3], *({**member, "optim.lr": 0.07} for member in MEMBERS[1:3]))
# Two runs with other weights at each seed.
WEIGHTED = (*MEMBERS[1:3], {**MEMBERS[1], "seed": 2}, {**MEMBERS[2], "seed": 1})


def at_once(configs: list[ConfigDict], folder: Path) -> list[Path]:
    directories = [folder / f"{i}" for i in range(len(configs))]
    assert len({in_common(validate(config)) for config in configs} - {None}) == 1
    assert [s["run_directory"] for s in train_stacked(list(zip(configs, directories)))] == list(map(str, directories))
    return directories


def one_by_one(configs: list[ConfigDict], folder: Path) -> list[Path]:
    directories = [folder / f"{i}" for i in range(len(configs))]
    for config, directory in zip(configs, directories):
        train(config, directory)
    return directories


def assert_same(ours: Path, theirs: Path) -> None:
    """All that a finished run leaves behind, but for times and what was printed."""
    ours_has, theirs_has = ({str(p.relative_to(d)) for p in d.rglob("*")} for d in (ours, theirs))
    assert ours_has - {"checkpoints/last.previous.pt"} == theirs_has - {"checkpoints/last.previous.pt"}
    assert (ours / "config.json").read_bytes() == (theirs / "config.json").read_bytes()
    lines = [[json.loads(line) for line in (d / "metrics.jsonl").read_text().splitlines()] for d in (ours, theirs)]
    assert_close(*lines)
    summaries = [json.loads((d / "summary.json").read_text()) for d in (ours, theirs)]
    for summary in summaries:
        for key in ("run_directory", "seconds", "together", "files", "digest"):  # digests follow from the other files
            del summary[key]
    assert_close(*summaries)
    for name in ("selected", "last"):
        states = [torch.load(d / "checkpoints" / f"{name}.pt", weights_only=True) for d in (ours, theirs)]
        for state in states:
            # Nothing random is left; numbers may differ in their last digits
            for key in ("random", "metrics_position", "metrics_digest"):
                state.pop(key, None)
            for key in ("seconds", "together", "logits"):
                state.get("progress", {}).pop(key, None)
        assert_close(*states)
    for path in (*theirs.glob("predictions/*.npz"), *theirs.glob("evaluations/*.npy")):
        pair = [np.load(d / path.relative_to(theirs)) for d in (ours, theirs)]
        assert_close(*(dict(p) if path.suffix == ".npz" else p for p in pair))


def assert_close(ours, theirs, where: str = "") -> None:
    """Of any nesting of dictionaries, lists, tensors and numbers."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_close(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for i, pair in enumerate(zip(ours, theirs)):
            assert_close(*pair, f"{where}/{i}")
    elif isinstance(theirs, float | torch.Tensor | np.ndarray):
        np.testing.assert_allclose(ours, theirs, TOLERANCE, TOLERANCE, err_msg=where)
    else:
        assert ours == theirs, where


def random_images(seed: int) -> Dataset:
    """As many at every seed, but not of each class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (16, 3, 20, 20), dtype=torch.uint8, generator=generator)
    split = class_split(images, (torch.arange(16) % (seed + 3) == 0).numpy(), torch.arange(16).numpy())
    return Dataset(split, split, split, ("0", "1"), ("0", "1"), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def same_images() -> Dataset:
    """At every seed; what is augmented differs."""
    images = random_images(0)
    return replace(images, augmentations=("flip", "pad_crop"))


def linear(config: ConfigDict) -> ConfigDict:
    """Two classes, the logarithm of the average, whole batches."""
    config = load(ROOT / "configs" / "gaussian_poly.py")
    config.data.update(dim=20, radius=0.0, val_per_class=(40, 40), test_per_class=(40, 40))
    config.trainer.epochs, config.trainer.eval_every = 12, 4
    return config


def convnet(config: ConfigDict) -> ConfigDict:
    config.data, config.model = create(name="random_images"), create(name="convnet")
    config.trainer.update(epochs=2, batch_size=11)
    return config


def lenet(config: ConfigDict) -> ConfigDict:
    config = convnet(config)
    config.model = create(name="lenet")
    return config


def augmented(config: ConfigDict) -> ConfigDict:
    """Images that are gathered and augmented for all seeds at once."""
    config = convnet(config)
    config.data = create(name="same_images")
    return config


def refitted(config: ConfigDict) -> ConfigDict:
    """A head on a fifth of the examples that were held out of train: others at every seed."""
    config.data = create(name="same_images")
    config.head = create(name="afr", fraction=0.2, gamma=4.0, lr=0.01, penalty=0.1, steps=20)
    return config


def uneven(config: ConfigDict) -> ConfigDict:
    """A loss that knows how many examples of each class there are."""
    config.data, config.loss = create(name="random_images"), create(name="vs", tau=1.0, gamma=0.2)
    return config


def with_loss(**loss) -> callable:
    def changed(config: ConfigDict) -> ConfigDict:
        config.loss = create(**loss)
        return config

    return changed


def grid(config: ConfigDict) -> ConfigDict:
    """Learning rates times seeds."""
    return config


def adjusted(config: ConfigDict) -> ConfigDict:
    """Weight decay but of biases, no momentum, clipped, warm-up, and every evaluation's logits."""
    config.optim.update(momentum=0.0, weight_decay=0.01, decayed="weights")
    config.trainer.clip_norm = 0.05
    config.optim.schedule = create(name="linear", warmup_epochs=1.5)
    config.callbacks.keep_logits = True
    return config


def best(config: ConfigDict) -> ConfigDict:
    """Runs that end at different epochs, and test the weights of different ones."""
    config.callbacks.update(select="best", monitor="val/balanced_accuracy", patience=3)
    config.trainer.epochs = 15
    return config


def resampled(config: ConfigDict) -> ConfigDict:
    config.sampler = create(name="undersample", by="class", redraw=True)
    config.objective = create(name="cvar", level=0.3)
    config.head = create(name="tau_normalised", tau=1.0)
    return config


def mixed(config: ConfigDict) -> ConfigDict:
    """Mixtures whose factors on the two losses depend on the importance weights of a run."""
    config.mix = create(name="remix", alpha=1.0, kappa=1.0, tau=0.5)
    return config


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config,
        grid,
        mixed,
        linear,
        convnet,
        lenet,
        adjusted,
        best,
        resampled,
        uneven,
        augmented,
        refitted,
        with_loss(name="ldam", max_margin=0.5, scale=5.0),
        with_loss(name="focal", gamma=2.0),
        with_loss(name="smoothed", label_smoothing=0.1, gamma=0.2, tau=1.0),
    ],
)
def test_each_leaves_what_it_would_alone(change, config, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "random_images", random_images)
    monkeypatch.setitem(DATASETS, "same_images", same_images)
    config = change(config)
    members = GRID if change in (grid, adjusted, linear, augmented) else WEIGHTED if change is mixed else MEMBERS
    if config.sampler.name != "shuffle":  # which balances the classes already
        config.weights = create(name="uniform")
        members = [{key: value for key, value in member.items() if key != "weights"} for member in MEMBERS]
    configs = varied(config, *members)
    for ours, theirs in zip(at_once(configs, tmp_path / "ours"), one_by_one(configs, tmp_path / "theirs")):
        assert_same(ours, theirs)


OWN = """
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from imbalance.methods.objectives.base import Objective


class OfSeed(nn.Module):
    "Cross-entropy times 1 + seed."

    def __init__(self, seed: int):
        super().__init__()
        self.function = lambda losses: losses * (1 + seed)

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        return self.function(F.cross_entropy(logits, targets, reduction="none"))


class OfData(nn.Module):
    "Cross-entropy times a number that the classes decide."

    def __init__(self, targets: Tensor):
        super().__init__()
        self.inner = nn.Identity()
        self.inner.factor = 0.2 + float(targets.double().mean())

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        return self.inner.factor * F.cross_entropy(logits, targets, reduction="none")


class OfBuffer(nn.Module):
    "Cross-entropy times a number that the seed decides, in a buffer."

    def __init__(self, seed: int):
        super().__init__()
        self.register_buffer("factor", torch.tensor(1.0 + seed))

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        return self.factor * F.cross_entropy(logits, targets, reduction="none")


class Convex(OfBuffer):
    "The same, said to be convex."

    is_convex = True


class Mean(Objective):
    "Mean times 1 + seed, in a buffer."

    def __init__(self, seed: int):
        super().__init__()
        self.register_buffer("factor", torch.tensor(1.0 + seed))

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        return self.factor * (weights * losses).mean()
"""


def by_lbfgs(config: ConfigDict) -> ConfigDict:
    """Zeros at the start, and all examples in each step."""
    config.model = create(name="linear", init="zeros")
    config.data = create(name="same_images")
    schedule = create(name="constant", warmup_epochs=0.0)
    config.optim = create(name="lbfgs", weight_decay=0.1, decayed="weights", tolerance=1e-8, schedule=schedule)
    config.trainer.clip_norm = 0.0
    return config


@pytest.mark.parametrize(
    "section, name, stacks",
    [
        ("loss", "OfSeed", {1, 2}),
        ("loss", "OfData", {2}),  # seeds 1 and 2 have as many examples of each class
        ("loss", "OfBuffer", {4}),
        ("objective", "Mean", {1, 2}),
    ],
)
def test_an_own_loss_or_objective_of_a_seed_serves_that_seed_alone(
    section, name, stacks, config, tmp_path, monkeypatch
):
    """Two of the four runs have the seed 0; the buffers of a loss are stacked, all else that it holds must be equal."""
    monkeypatch.setitem(DATASETS, "random_images", random_images)
    (tmp_path / "own.py").write_text(OWN)
    config.data = create(name="random_images")
    config[section] = create(name=f"{tmp_path / 'own.py'}:{name}")
    configs = varied(config, *MEMBERS)
    ours = at_once(configs, tmp_path / "ours")
    assert {json.loads((d / "summary.json").read_text())["together"] for d in ours} == stacks
    for mine, theirs in zip(ours, one_by_one(configs, tmp_path / "theirs")):
        assert_same(mine, theirs)


def test_an_own_loss_of_a_seed_is_fitted_for_that_seed_alone(config, tmp_path, monkeypatch):
    """By "lbfgs", which takes one loss with its tensors for all runs."""
    monkeypatch.setitem(DATASETS, "same_images", lambda: random_images(0))
    (tmp_path / "own.py").write_text(OWN)
    config = by_lbfgs(config)
    config.loss = create(name=f"{tmp_path / 'own.py'}:Convex")
    configs = varied(config, {"seed": 0}, {"seed": 1}, {"seed": 0, "optim.weight_decay": 0.01})
    ours = at_once(configs, tmp_path / "ours")
    assert [json.loads((d / "summary.json").read_text())["together"] for d in ours] == [2, 1, 2]
    for mine, theirs in zip(ours, one_by_one(configs, tmp_path / "theirs")):
        assert_same(mine, theirs)


def images_by_seed(seed: int) -> Dataset:
    """One example more in train at seed 1, in val at seed 2 and in test at seed 3."""
    splits = random_images(0)
    train, val, test = (splits.train.subset(torch.arange(15 + (seed == size))) for size in (1, 2, 3))
    return replace(splits, train=train, val=val, test=test)


@pytest.mark.parametrize("sampler", ["shuffle", "undersample"])
def test_data_of_other_sizes_at_each_seed(sampler, config, tmp_path, monkeypatch):
    """An epoch has another number of examples, because train has, or because the smallest class has."""
    monkeypatch.setitem(DATASETS, "random_images", images_by_seed if sampler == "shuffle" else random_images)
    config.data, config.weights = create(name="random_images"), create(name="uniform")
    if sampler == "undersample":
        config.sampler = create(name="undersample", by="class", redraw=True)
    configs = varied(config, {"seed": 0}, {"seed": 1}, {"seed": 2}, {"seed": 3}, {"seed": 1, "optim.lr": 0.01})
    ours = at_once(configs, tmp_path / "ours")
    assert len({json.loads((d / "summary.json").read_text())["together"] for d in ours}) > 1
    for mine, theirs in zip(ours, one_by_one(configs, tmp_path / "theirs")):
        assert_same(mine, theirs)


def test_groups_that_wait_are_saved_at_a_signal(config, tmp_path, monkeypatch):
    """A run whose group has not begun says so, and all go on as if nothing had been."""
    monkeypatch.setitem(DATASETS, "random_images", images_by_seed)
    config.data = create(name="random_images")
    configs = varied(config, {"seed": 0}, {"seed": 1})
    whole = at_once(configs, tmp_path / "whole")
    with monkeypatch.context() as context, pytest.raises(Interrupted):
        at_call(context, batched.Stack, "terms", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        at_once(configs, tmp_path / "parts")
    summaries = [json.loads((tmp_path / "parts" / f"{i}" / "summary.json").read_text()) for i in range(2)]
    assert [(s["status"], s["step"]) for s in summaries] == [("interrupted", 2), ("interrupted", 0)]
    for theirs, ours in zip(whole, at_once(configs, tmp_path / "parts")):
        assert_same(ours, theirs)


@pytest.mark.parametrize("change, train, val", [(uneven, 3, 3), (augmented, 1, 1), (refitted, 3, 1)])
def test_runs_share_what_of_the_data_is_the_same(change, train, val, config, tmp_path, monkeypatch):
    """On the device, here in float64: train of those that hold some of it out is the same at one seed, val at all."""
    monkeypatch.setitem(DATASETS, "random_images", random_images)
    monkeypatch.setitem(DATASETS, "same_images", same_images)
    begun, fit = [], batched.fit

    def watched(members, interrupt, pause):
        begun.extend(members)
        fit(members, interrupt, pause)

    monkeypatch.setattr(batched, "fit", watched)
    at_once(varied(change(config), *MEMBERS), tmp_path)
    for name, copies in (("train", train), ("val", val)):
        splits = [getattr(member.learner.dataset, name) for member in begun]
        assert len({split.inputs.data_ptr() for split in splits}) == copies


def test_members_may_end_at_different_epochs(config, tmp_path):
    summaries = [
        json.loads((d / "summary.json").read_text()) for d in at_once(varied(best(config), *MEMBERS), tmp_path)
    ]
    assert len({summary["epoch"] for summary in summaries}) > 1
    assert {summary["together"] for summary in summaries} == {4}


def test_one_that_diverges_does_not_stop_the_others(config, tmp_path):
    """Half-way through an epoch, and as it would alone; with the step that did it kept to be looked into."""
    configs = varied(config, *MEMBERS[:2], {"seed": 5, "optim.lr": 1e200}, MEMBERS[2])
    ours = at_once(configs, tmp_path / "ours")
    one_by_one_ends = one_by_one([configs[i] for i in (0, 1, 3)], tmp_path / "theirs")
    for mine, theirs in zip((ours[0], ours[1], ours[3]), one_by_one_ends):
        assert_same(mine, theirs)
    summary = json.loads((ours[2] / "summary.json").read_text())
    alone = tmp_path / "alone"
    with pytest.raises(ArithmeticError):
        train(configs[2], alone)
    expected = json.loads((alone / "summary.json").read_text())
    assert summary["status"] == "diverged" and 0 < summary["step"] == expected["step"]
    assert summary["reason"].replace(str(ours[2]), "") == expected["reason"].replace(str(alone), "")
    states = [torch.load(d / forensics.FILE, weights_only=True) for d in (ours[2], alone)]
    for state in states:
        del state["random"]
    assert states[0].keys() == states[1].keys()
    assert torch.equal(states[0]["rows"], states[1]["rows"])
    assert "first non-finite" in forensics.replay(ours[2])


def test_runs_that_all_diverge_at_their_end_end_so(config, tmp_path, monkeypatch):
    """On the first split of which something is not finite; there is no run left to evaluate on the next."""

    def not_finite(member, name, outcome, sink):
        raise Diverged(f"{name} is not finite")

    monkeypatch.setattr(batched, "record_split", not_finite)
    for directory in at_once(varied(config, *MEMBERS[:2]), tmp_path):
        summary = json.loads((directory / "summary.json").read_text())
        assert (summary["status"], summary["reason"]) == ("diverged", "train is not finite")


def test_one_infinite_loss_among_finite_ones_is_seen(config, tmp_path, monkeypatch):
    """Where it is not nan, that the others would take on in a sum or a mean."""
    configs, of_batch, calls = varied(config, *MEMBERS), batched.Stack.terms, []

    def patched(self, *arguments):
        terms = of_batch(self, *arguments)
        calls.append(terms["values"].numel())
        if len(calls) == 3:
            seed_1 = self.members.index(next(member for member in self.members if member.config.seed == 1))
            terms["values"].view(-1)[seed_1] += torch.inf
        return terms

    with monkeypatch.context() as context:
        context.setattr(batched.Stack, "terms", patched)
        ours = at_once(configs, tmp_path / "ours")
    assert calls[:4] == [4, 4, 4, 3]
    assert json.loads((ours[1] / "summary.json").read_text())["status"] == "diverged"
    others = [0, 2, 3]
    for i, theirs in zip(others, one_by_one([configs[i] for i in others], tmp_path / "theirs")):
        assert_same(ours[i], theirs)


@pytest.mark.parametrize("number", [1, 3, 7, 8])
def test_stopped_and_gone_on_with(number, config, tmp_path, monkeypatch):
    """In any step; some of them then by themselves, the others at once."""
    configs = varied(config, *MEMBERS)
    whole = at_once(configs, tmp_path / "whole")
    with monkeypatch.context() as context, pytest.raises(Interrupted):
        at_call(context, batched.Stack, "terms", number, lambda: os.kill(os.getpid(), signal.SIGTERM))
        at_once(configs, tmp_path / "parts")
    summaries = [json.loads((tmp_path / "parts" / f"{i}" / "summary.json").read_text()) for i in range(4)]
    assert {(s["status"], s["step"]) for s in summaries} == {("interrupted", number)}
    train(configs[2], tmp_path / "parts" / "2")
    for theirs, ours in zip(whole, at_once(configs, tmp_path / "parts")):
        assert_same(ours, theirs)


def test_killed_between_two_saves(config, tmp_path, monkeypatch):
    """Some stand at another step then than the others."""
    configs = varied(config, *MEMBERS)
    whole = at_once(configs, tmp_path / "whole")

    saved = itertools.count(1)

    def save_nine(member):
        if next(saved) > 9:  # in whichever thread
            raise KeyboardInterrupt
        loop.save(member)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Clock, "save_is_due", lambda self, epoch_ends: True)
        context.setattr(batched, "save", save_nine)
        at_once(configs, tmp_path / "parts")
    steps = [torch.load(tmp_path / "parts" / f"{i}" / "checkpoints" / "last.pt")["progress"]["step"] for i in range(4)]
    assert sorted(steps) == [2, 2, 2, 3]
    for theirs, ours in zip(whole, at_once(configs, tmp_path / "parts")):
        assert_same(ours, theirs)


def test_what_is_done_is_not_done_again(config, tmp_path):
    configs = varied(config, *MEMBERS)
    at_once(configs[:2], tmp_path)
    before = [(tmp_path / f"{i}" / "summary.json").stat().st_mtime_ns for i in range(2)]
    at_once(configs, tmp_path)
    assert before == [(tmp_path / f"{i}" / "summary.json").stat().st_mtime_ns for i in range(2)]


def test_only_seed_rate_weights_and_head_may_differ(config):
    same = in_common(validate(config))
    assert {in_common(validate(of_one)) for of_one in varied(config, *MEMBERS)} == {same}
    for change in ({"loss.alpha": 2.0}, {"trainer.batch_size": 32}, {"optim.momentum": 0.5}, {"data_dir": "elsewhere"}):
        assert in_common(validate(*varied(config, change))) not in (same, None)


HEADS = (
    {"head": create(name="none")},
    {"head": create(name="tau_normalised", tau=1.0)},
    {"head": create(name="thresholds", metric="balanced_accuracy", rounds=2)},
)


def test_heads_may_differ(config, tmp_path):
    """Each run gets its own head, and equals the run that is trained alone."""
    configs = varied(config, *HEADS)
    alone = one_by_one(configs, tmp_path / "alone")
    for theirs, ours in zip(alone, at_once(configs, tmp_path / "stacked")):
        assert_same(ours, theirs)
    held_out = {"head": create(name="afr", fraction=0.2, gamma=4.0, lr=0.01, penalty=0.1, steps=20)}
    other = {"head": create(name="afr", fraction=0.5, gamma=4.0, lr=0.01, penalty=0.1, steps=20)}
    assert len(set(map(in_common, map(validate, varied(config, *HEADS, held_out, other))))) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"debug": True},
        {"trainer.accumulation": 2},
        {"trainer.dtype": "float32", "trainer.mixed_precision": "bf16"},
        {"trainer.compile": "default"},
        {"trainer.channels_last": True},
        {"objective": create(name="group_dro", step_size=0.1, size_adjustment=0.0, adjust_absent=False)},
        {"weights": create(name="just_train_twice", first_epochs=1, upweight=5.0)},
        {"sampler": create(name="reject", by="class", redraw=True), "weights": create(name="uniform")},
        {"mix": create(name="cutmix", alpha=0.2)},
        {"logger.mode": "offline"},
        {"model": create(name="resnet20", frozen=False)},
    ],
)
def test_what_must_be_trained_by_itself(change, config):
    assert in_common(validate(*varied(config, change))) is None


def test_transposed_layers_compute_the_same():
    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    inputs = torch.randn(11, 7, dtype=torch.float64)
    torch.testing.assert_close(transposed(model)(inputs), model(inputs), rtol=1e-14, atol=1e-14)
    assert not any(isinstance(module, TransposedLinear) for module in model.modules())


def test_every_model_without_a_state_of_its_own_is_batched():
    """A new model that keeps no statistics and draws no random numbers should be looked at here."""
    assert {name for name, model in MODELS.items() if tags_of(model).batched} == {
        "linear",
        "mlp",
        "convnet",
        "lenet",
        "bag_of_embeddings",
    }
