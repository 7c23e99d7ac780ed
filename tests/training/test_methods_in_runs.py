"""Methods in the loop: what they do to a run, and that a run under them stops, resumes and is reported as it should."""

import functools
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.errors import BadInput, Interrupted
from imbalance.methods.mixing import MIXINGS
from imbalance.methods.samplers import SAMPLERS
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.loop import train

CONFIGS = ROOT / "configs"


@pytest.fixture
def config(tmp_path):
    """Colored digits, for six epochs of nine batches."""
    config = load(CONFIGS / "colored_digits_erm.py")
    config.work_dir = str(tmp_path / "runs")
    config.trainer.update(epochs=6, eval_every=1)
    config.callbacks.select = "last"
    return config


def rows(summary):
    return [json.loads(line) for line in (Path(summary["run_directory"]) / "metrics.jsonl").open()]


def test_patience_ends_training_after_so_many_evaluations_without_a_better_one(config):
    config.trainer.epochs = 60
    config.callbacks.update(patience=3, select="best")
    summary = train(config)
    scores = [row["val/worst_group_accuracy"] for row in rows(summary)]
    best = int(np.argmax(scores))
    assert len(scores) == best + 1 + 3 < 60
    assert summary["selected_epoch"] == best + 1 and summary["epoch"] == len(scores)
    assert summary["metrics"]["val/worst_group_accuracy"] == scores[best] == summary["score"]


def test_training_ends_at_interpolation_and_says_when_that_was(config):
    config.trainer.epochs, config.trainer.eval_every = 100, 7
    config.callbacks.stop_at_interpolation = True
    summary = train(config)
    last = rows(summary)[-1]
    assert last["train/accuracy"] == 1 and last["epoch"] == summary["epoch"] == summary["interpolation_epoch"] < 100
    assert all(row["train/accuracy"] < 1 for row in rows(summary)[:-1])
    assert min(last[f"train/margin_min/{name}"] for name in ("even red", "even green", "odd red", "odd green")) > 0


def test_only_drawn_examples_count_for_interpolation(config, monkeypatch):
    """As the description of the key says; most examples, which the sampler never draws, stay wrong or right by chance."""
    monkeypatch.setitem(SAMPLERS, "first", lambda generator: torch.arange(10))
    config.sampler = {"name": "first"}
    config.trainer.epochs = 100
    config.callbacks.stop_at_interpolation = True
    summary = train(config)
    assert summary["interpolation_epoch"] == summary["epoch"] < 100
    predictions = np.load(Path(summary["run_directory"]) / "predictions" / "train.npz")
    right = predictions["logits"].argmax(1) == predictions["targets"]
    assert len(right) > 10 and not right.all()


def test_without_the_callbacks_interpolation_is_noted_and_training_goes_on(config):
    config.trainer.epochs, config.trainer.eval_every = 60, 60
    summary = train(config)
    assert 0 < summary["interpolation_epoch"] < 60 == summary["epoch"]


class StopsAfter(Interrupt):
    """A signal that arrives during the step after `steps` of them."""

    steps = 0

    def __init__(self):
        self._asked = 0

    @property
    def signum(self):
        self._asked += 1
        return 15 if self._asked > self.steps else 0

    @signum.setter
    def signum(self, value):
        pass


@pytest.mark.parametrize("change", [
    dict(callbacks=dict(patience=2)),
    dict(objective=dict(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False)),
    dict(weights=dict(name="deferred", by="group", beta=0.99, start_epoch=2)),
    dict(sampler=dict(name="annealed_linear", by="group"), weights=dict(name="residual")),
    dict(mix=dict(name="lisa", alpha=2.0, same_label=0.5), sampler=dict(name="balanced", by="group")),
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(config, change, monkeypatch, tmp_path):
    for section, values in change.items():
        config[section] = config[section].to_dict() | values if section == "callbacks" else values
    whole = train(config, tmp_path / "whole")
    StopsAfter.steps = 11
    with monkeypatch.context() as patch:
        patch.setattr("imbalance.training.loop.Interrupt", StopsAfter)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "parts")
    parts = train(config, tmp_path / "parts")
    assert json.dumps(parts["metrics"]) == json.dumps(whole["metrics"]) and parts["epoch"] == whole["epoch"]
    assert [json.dumps(row) for row in rows(parts)] == [json.dumps(row) for row in rows(whole)]


def test_a_deferred_schedule_is_uniform_until_it_starts(config):
    plain = rows(train(config))
    config.weights = dict(name="deferred", by="group", beta=0.999, start_epoch=3)
    deferred = rows(train(config))
    assert deferred[:3] == plain[:3] and deferred[3]["train/loss"] != plain[3]["train/loss"]


@pytest.mark.parametrize("head", [
    dict(name="logit_adjusted", tau=1.0),
    dict(name="tau_normalised", tau=1.0),
    dict(name="crt", by="group", epochs=3, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0.0005),
    dict(name="lws", by="group", epochs=3, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0.0005),
    dict(name="dfr", inverse_penalties=(1.0, 0.1), fits=3),
    dict(name="dpe", by="group", members=2, epochs=2, batch_size=16, lr=0.01, momentum=0.9, entropic_scale=30.0,
         norm_penalty=1.0, similarity_penalty=10.0),
], ids=lambda head: head["name"])  # fmt: skip
def test_a_head_changes_the_last_layer_and_nothing_else(config, head):
    plain = train(config)
    config.head = head
    changed = train(config)
    assert [json.dumps(row) for row in rows(changed)] == [json.dumps(row) for row in rows(plain)]
    before, after = (
        torch.load(Path(s["run_directory"]) / "checkpoints" / "selected.pt", weights_only=True)
        for s in (plain, changed)
    )
    left = after.keys() - before.keys()
    assert left == ({"head.prototypes", "head.scales"} if head["name"] == "dpe" else set())
    moved = {key for key in before if key not in after or not before[key].equal(after[key])}
    assert "head.bias" in moved and moved <= {"head.weight", "head.bias"}
    log = (Path(changed["run_directory"]) / "log.txt").read_text()
    shifts = ", ".join(f"{name} {-math.log(n / 576):+.3g}" for name, n in (("even", 442), ("odd", 134)))
    assert (f"config.head.name='logit_adjusted' adds to the logits: {shifts}" in log) == (
        head["name"] == "logit_adjusted"
    )
    assert changed["metrics"] != plain["metrics"]


def test_just_train_twice_weighs_what_a_first_run_got_wrong(config):
    config.weights = dict(name="just_train_twice", first_epochs=2, upweight=20.0)
    summary = train(config)
    directory = Path(summary["run_directory"])
    first = json.loads((directory / "first" / "summary.json").read_text())
    with np.load(directory / "first" / "predictions" / "train.npz") as saved:
        wrong = int((saved["logits"].argmax(1) != saved["targets"]).sum())
        assert len(saved["targets"]) == 576
    assert first["epoch"] == 2 and 0 < wrong < 200
    weights = np.where(np.arange(576) < wrong, 20.0, 1.0)
    assert summary["effective_sample_size"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


@pytest.mark.parametrize("name", SAMPLERS)
def test_effective_sample_size_and_margins_are_reported_under_every_sampler(config, name):
    values = dict(
        undersample=dict(by="group", redraw=True), reject=dict(by="group", redraw=False), shuffle={},
        resample=dict(by="class", exponent=1.0), annealed_sigmoid=dict(by="group", steepness=4.0), within_class={},
        expanding=dict(by="group", warmup_epochs=1, every=1, added=9),
    )  # fmt: skip
    config.trainer.epochs = 1
    config.sampler = dict(name=name, **values.get(name, dict(by="group")))
    summary = train(config)
    assert summary["effective_sample_size"] == pytest.approx(576)
    row = rows(summary)[-1]
    assert row["weight_norm"] > 0 and row["train/margin_min/odd red"] <= row["train/margin_mean/odd red"]
    assert summary["metrics"]["train/margin_min/even red"] <= summary["metrics"]["train/margin_mean/even red"]


def test_margins_are_those_of_the_saved_logits(config):
    summary = train(config)
    with np.load(Path(summary["run_directory"]) / "predictions" / "train.npz") as saved:
        z, y = saved["logits"], saved["targets"]
        margin = (z[:, 1] - z[:, 0]) * (2 * y - 1)
        for group, name in enumerate(("even red", "even green", "odd red", "odd green")):
            of_group = margin[saved["groups"] == group]
            assert summary["metrics"][f"train/margin_mean/{name}"] == pytest.approx(of_group.mean(), rel=1e-5)
            assert summary["metrics"][f"train/margin_min/{name}"] == pytest.approx(of_group.min(), rel=1e-5)


def test_methods_that_need_val_say_so(config):
    config.trainer.eval_splits = ("test",)
    config.callbacks.patience = 2
    with pytest.raises(
        BadInput, match="config.trainer.eval_splits: .* add 'val', which config.callbacks.patience=2 reads"
    ):
        validate(config)


def test_the_first_run_of_just_train_twice_ends_at_its_own_epoch_whatever_the_second_selects(config, tmp_path):
    """Neither patience nor interpolation ends it, and its errors are those of its last epoch."""
    config.weights = dict(name="just_train_twice", first_epochs=30, upweight=20.0)
    config.trainer.epochs = 1
    config.callbacks.update(select="best", patience=1, stop_at_interpolation=True)
    train(config, tmp_path / "run")
    first = json.loads((tmp_path / "run" / "first" / "summary.json").read_text())
    assert first["epoch"] == first["selected_epoch"] == 30


def test_every_epoch_mixes_other_partners_in_other_shares(config, monkeypatch):
    seen, mixup = [], MIXINGS["mixup"]

    @functools.wraps(mixup)
    def recorded(*args, **kwargs):
        seen.append(mixup(*args, **kwargs))
        return seen[-1]

    monkeypatch.setitem(MIXINGS, "mixup", recorded)
    config.mix = dict(name="mixup", alpha=0.4)
    config.trainer.update(epochs=3, batch_size=10_000)
    train(config)
    assert len(seen) == 3
    for mix, other in itertools.pairwise(seen):
        assert not mix.partners.equal(other.partners) and not mix.shares.equal(other.shares)


def test_the_effective_sample_size_is_that_of_the_last_epoch_s_weights(config):
    config.trainer.epochs = 3
    config.weights = dict(name="deferred", by="group", beta=0.999, start_epoch=2)
    deferred = train(config)["effective_sample_size"]
    config.work_dir += "2"
    config.weights = dict(name="effective_number", by="group", beta=0.999)
    assert deferred == pytest.approx(train(config)["effective_sample_size"]) and deferred < 500
