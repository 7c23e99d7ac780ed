"""Views: independently augmented inputs of one batch, for objectives that compare them."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance.config.experiment import validate
from imbalance.data import DATASETS, Dataset
from imbalance.data.splits import class_split
from imbalance.methods.objectives.reductions import Average
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.training import loop
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import Learner, make_learner
from imbalance.training.stacked.train import train_stacked
from imbalance.training.state.forensics import trace_forward
from imbalance.training.step import draw_epoch

EVERY = slice(0, 90)


class Consistency(Average):
    """The mean loss, plus the mean squared distance between the logits of two views."""

    columns = ("distances",)
    views = 2

    def terms(self, model, loss, batch):
        terms = super().terms(model, loss, batch)
        return terms | {"distances": (terms["logits"] - model(batch.views[1])).square().sum(1)}

    def forward(self, losses, weights, groups, *, distances):
        return super().forward(losses, weights, groups) + distances.mean()


def images(augmentations: tuple[str, ...]) -> Dataset:
    pixels = torch.randint(0, 256, (90, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = class_split(pixels, (torch.arange(90) % 3 == 0).numpy(), torch.arange(90).numpy())
    names = ("0", "1")
    return Dataset(split, split, split, names, names, mean=(0.5,) * 3, std=(0.25,) * 3, augmentations=augmentations)


@pytest.fixture
def config(config, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "consistency", Consistency)
    for name, augmentations in (("augmented", ("flip", "pad_crop")), ("plain", ())):
        monkeypatch.setitem(DATASETS, name, partial(images, augmentations))
    config.data, config.objective = create(name="augmented"), create(name="consistency")
    config.model = create(name="mlp", hidden=(8,))
    config.trainer.update(batch_size=40, epochs=2, dtype="float64")
    return config


def learner_of(config, directory: Path) -> Learner:
    return make_learner(validate(config), start_accelerator(config), directory)


def test_the_first_view_is_that_of_an_objective_with_one_view(config, tmp_path):
    two = draw_epoch(learner_of(config, tmp_path), 1).batch(EVERY)
    config.objective = create(name="average")
    one = draw_epoch(learner_of(config, tmp_path), 1).batch(EVERY)
    assert len(one.views) == 1 and len(two.views) == 2
    assert torch.equal(one.inputs, two.inputs) and torch.equal(two.inputs, two.views[0])


def test_a_view_is_a_function_of_seed_epoch_and_example(config, tmp_path):
    epoch = draw_epoch(learner_of(config, tmp_path), 1)
    first, second = epoch.batch(EVERY).views
    differ = (first != second).flatten(1).any(1)
    assert differ.double().mean() > 0.9  # 1 in 162 draws are equal
    for places in (slice(30, 60), slice(1, 90, 2)):  # another batch, another process
        assert torch.equal(epoch.batch(places).views[1], second[places])
    again = draw_epoch(learner_of(config, tmp_path), 1).batch(EVERY)
    assert torch.equal(again.views[1], second)
    train = {}
    for name, seed, number in (("same", 0, 1), ("epoch", 0, 2), ("seed", 1, 1)):
        config.seed = seed
        batch = draw_epoch(learner_of(config, tmp_path), number).batch(EVERY)
        train[name] = batch.views[1][batch.rows.argsort()]
    assert not torch.equal(train["epoch"], train["same"]) and not torch.equal(train["seed"], train["same"])


def test_each_view_is_mixed_with_the_same_view_of_the_partner(config, tmp_path):
    plain = draw_epoch(learner_of(config, tmp_path), 0).batch(EVERY)
    config.mix = create(name="mixup", alpha=1.0)
    learner = learner_of(config, tmp_path)
    mixed, mix = draw_epoch(learner, 0).batch(EVERY), learner.mixing(0, learner.sampler(0))
    assert torch.equal(mixed.rows, plain.rows)
    shares = mix.shares[:, None, None, None]
    for view in range(2):
        own, partner = plain.views[view], plain.views[view][mix.partners]
        torch.testing.assert_close(mixed.views[view], shares * own + (1 - shares) * partner)


def test_views_without_augmentation_are_the_same_and_a_warning_says_so(config, tmp_path):
    config.data = create(name="plain")
    first, second = draw_epoch(learner_of(config, tmp_path), 0).batch(EVERY).views
    assert torch.equal(first, second)
    warnings = loop.train(config, tmp_path)["warnings"]
    assert [
        line for line in warnings if "compares 2 views of each example, and this data set has no augmentation" in line
    ]


@pytest.mark.parametrize("parts", [2, 40])
def test_parts_of_a_batch_make_its_step(config, tmp_path, parts):
    whole = loop.train(config, tmp_path / "whole")["metrics"]
    config.trainer.accumulation = parts
    found = loop.train(config, tmp_path / "parts")["metrics"]
    assert found == pytest.approx(whole, rel=1e-10, nan_ok=True)
    config.objective = create(name="average")
    config.trainer.accumulation = 1
    assert loop.train(config, tmp_path / "one view")["metrics"]["test/nll"] != pytest.approx(
        whole["test/nll"], rel=1e-6
    )


def test_stacked_runs_see_the_views_that_each_would_alone(config, tmp_path):
    configs = []
    for seed, lr in ((0, 0.1), (0, 0.01), (1, 0.1), (1, 0.01)):
        configs.append(ConfigDict(config.to_dict()))
        configs[-1].seed, configs[-1].optim.lr = seed, lr
    stacked = train_stacked([(one, tmp_path / f"stacked {i}") for i, one in enumerate(configs)])
    for i, one in enumerate(configs):
        assert stacked[i]["together"] == 4
        loop.train(one, tmp_path / f"alone {i}")
        alone = json.loads((tmp_path / f"alone {i}" / "summary.json").read_text())
        ours, theirs = ({k: v for k, v in one["metrics"].items() if v is not None} for one in (stacked[i], alone))
        assert ours == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize("values", [(1.0, float("nan")), (float("nan"), 1.0), (2.0, 3.0)])
def test_the_trace_of_a_divergence_covers_every_view(config, tmp_path, values):
    learner = learner_of(config, tmp_path)
    views = [torch.full((2, 3, 12, 12), value, dtype=torch.float64) for value in values]
    trace, ones = trace_forward(learner, views), [trace_forward(learner, [view]) for view in views]
    assert list(trace) == list(ones[0])
    for name, magnitude in trace.items():
        assert magnitude == pytest.approx(np.max([one[name] for one in ones]), nan_ok=True)
