"""The head "test_time": the value and gradient of the published code, and a run whose experts suit one kind of test set."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.published import assert_published, exact, published
from ml_collections import ConfigDict
from torch import nn

from imbalance import load as load_run
from imbalance import run
from imbalance.config.resolve import load
from imbalance.data import as_dataset
from imbalance.errors import BadInput
from imbalance.methods.heads.test_time import agreement
from imbalance.methods.heads.test_time import test_time as fit_test_time
from imbalance.methods.objectives.experts import expert_logits
from imbalance.models.experts import ExpertLinear

SETTINGS = dict(epochs=5, batch_size=16, lr=0.1, momentum=0.9, weight_decay=0.0)


def test_the_agreement_of_two_views_is_that_of_the_published_code():
    expected = published("ride_sade")["sade_test_time"]
    raw_shares = exact(expected["weights_before_softmax"], requires_grad=True)
    first, second = (exact(view).transpose(0, 1) for view in expected["two_views_expert_logits"])
    value = -agreement(raw_shares, (first, second))
    value.backward()
    assert_published(value, expected["loss_minus_mean_cosine"], 1e-7)
    assert_published(raw_shares.grad, expected["grad_weights"], 1e-9)


def test_an_expert_that_predicts_steadily_gets_the_largest_share():
    """Of two experts with features of their own, the second sees other features in each view."""
    draw = torch.Generator().manual_seed(0)
    head = ExpertLinear(2, 3, 4)
    with torch.no_grad():
        head.weight.copy_(torch.randn(4, 6, generator=draw))
        head.bias.zero_()
    steady = torch.randn(64, 3, generator=draw)
    first, second = (torch.cat([steady, torch.randn(64, 3, generator=draw)], dim=1) for _ in range(2))
    with pytest.warns(
        UserWarning, match=r"^config.head.name: 'test_time' gave the experts the shares 0.\d\d, 0.0\d, so"
    ):
        new = fit_test_time(head, lambda split: (first, second), draw, **SETTINGS)
    factors = new.weight / head.weight
    shares = factors[0, ::3] / 2
    torch.testing.assert_close(factors, (2 * shares).repeat_interleave(3).expand(4, 6))
    assert shares[0] > 0.8 and shares.sum().item() == pytest.approx(1, abs=1e-6)
    expected = (shares[:, None] * expert_logits(head, first, 2)).sum(1)
    torch.testing.assert_close(new(first), expected)


def test_a_model_without_experts_is_refused():
    with pytest.raises(BadInput, match="'test_time' weights the experts of a model; use config.model.name='experts'"):
        fit_test_time(nn.Linear(4, 3), lambda split: (torch.zeros(2, 4),) * 2, torch.Generator(), **SETTINGS)


def images(draw: np.random.Generator, counts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy uint8 images (N, 1, 8, 8) whose class is the quarter that is bright."""
    targets = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    pixels = draw.integers(0, 120, (len(targets), 1, 8, 8))
    for number, target in enumerate(targets.tolist()):
        pixels[number, 0, 4 * (target // 2) : 4 * (target // 2) + 4, 4 * (target % 2) : 4 * (target % 2) + 4] += 60
    return torch.from_numpy(pixels.astype(np.uint8)), targets


@pytest.fixture
def config() -> ConfigDict:
    config = load(ROOT / "configs" / "digits_erm.py")
    config.objective = ConfigDict(dict(name="sade", tau=2.0, scale=1.0))
    config.model = ConfigDict(dict(name="experts", network=dict(name="mlp", hidden=(8, 6)), experts=3, shared=3))
    config.head = ConfigDict(dict(name="test_time", **SETTINGS))
    config.trainer.update(epochs=2, batch_size=16)
    return config


def test_a_run_weights_its_experts_and_is_loaded_with_them(config, tmp_path):
    draw = np.random.default_rng(0)
    splits = {
        name: images(draw, counts) for name, counts in dict(train=(30, 10, 5, 3), val=(6,) * 4, test=(6,) * 4).items()
    }
    dataset = as_dataset(splits)
    with pytest.raises(
        BadInput, match="config.head.name: 'test_time' compares augmented views, and these data have no aug"
    ):
        run(config, data=dataset, directory=tmp_path / "no augmentation")
    results = {}
    for name, head in (("weighted", config.head), ("mean", ConfigDict(dict(name="none")))):
        config.head = head
        results[name] = run(config, data=replace(dataset, augmentations=("flip",)), directory=tmp_path / name)
    logits = {
        name: np.load(result.directory / "predictions" / "test.npz")["logits"] for name, result in results.items()
    }
    assert not np.allclose(logits["weighted"], logits["mean"])
    loaded = load_run(results["weighted"].directory).predict(splits["test"][0].numpy()).probabilities
    expected = torch.from_numpy(logits["weighted"]).softmax(1).numpy()
    np.testing.assert_allclose(loaded, expected, atol=1e-5)
