"""Residual networks: their published sizes, weights from a file, and features that stay as they are."""

import os

import pytest
import torch
from ml_collections.config_dict import create

from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.models import MODELS
from imbalance.training.loop import train
from imbalance.utils.budget import MemoryBudget
from imbalance.utils.torchvision_import import import_torchvision


def model_of(name: str, shape=(3, 32, 32), num_classes: int = 10, **values):
    torch.manual_seed(0)
    return build(MODELS, dict(name=name, **values), input_shape=shape, num_classes=num_classes)


@pytest.mark.parametrize(("name", "parameters"), [("resnet20", 269_722), ("resnet32", 464_154)])
def test_cifar_resnets_have_the_published_size(name, parameters):
    model = model_of(name, frozen=False)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) == int(name[6:]) - 1
    assert model_of(name, shape=(1, 28, 28), frozen=False)(torch.randn(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_torchvisions_resnets_take_weights_of_a_file_without_their_head(tmp_path, name, parameters):
    theirs = import_torchvision().models.get_model(name).eval()
    assert sum(p.numel() for p in theirs.parameters()) == parameters
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model = model_of(name, num_classes=2, pretrained=str(tmp_path / "weights.pth"), frozen=False).eval()
    theirs.fc = model.head
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), theirs(images))


@pytest.mark.parametrize(
    "content", ["none", "text", "of another network", "empty", "a list", "a pipe", "a folder", "nan"]
)
def test_weights_that_are_not_there_are_one_line(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("<html>")
    elif content == "empty":
        path.write_bytes(b"")
    elif content == "a list":
        torch.save([1, 2], path)
    elif content == "a pipe":
        os.mkfifo(path)
    elif content == "a folder":
        path.mkdir()
    elif content == "nan":
        state = import_torchvision().models.resnet18().state_dict()
        state["layer1.0.conv1.weight"][0, 0] = torch.nan
        torch.save(state, path)
    elif content != "none":
        torch.save(model_of("resnet20", frozen=False).state_dict(), path)
    with pytest.raises(
        BadInput, match=r"^config.model.pretrained: .*weights.pth' (\(.+\)|holds .*conv1.weight)"
    ) as error:
        model_of("resnet18", pretrained=str(path), frozen=False)
    assert "\n" not in str(error.value)


def test_imagenet_weights_without_a_network_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(
        BadInput, match=r"^config.model.pretrained: no weights from 'imagenet' \(no route to host\); give the path"
    ):
        model_of("resnet18", pretrained="imagenet", frozen=False)


def test_grey_images_are_refused_by_networks_for_rgb():
    with pytest.raises(BadInput, match=r"resnet18 takes RGB images; this data set has \(1, 28, 28\)"):
        model_of("resnet18", shape=(1, 28, 28), pretrained="", frozen=False)


@pytest.mark.parametrize(
    ("name", "values"), [("resnet18", {"pretrained": ""}), ("resnet20", {}), ("resnet32_cosine", {})]
)
def test_columns_are_refused_with_the_name_of_a_model_that_takes_them(name, values):
    with pytest.raises(BadInput, match=r"takes .*images; this data set has \(5,\) inputs; use mlp$"):
        model_of(name, shape=(5,), frozen=False, **values)


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_frozen_features_stay_as_they_are_batch_norm_and_all(name):
    model = model_of(name, frozen=True, **({"pretrained": ""} if name == "resnet18" else {}))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    model.train()
    images = torch.randn(4, 3, 32, 32)
    for _ in range(2):
        model(images).sum().backward()
        optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"head.weight", "head.bias"}
    assert not any(module.training for module in model.features.modules())
    assert torch.equal(model.features(images), model.eval().features(images))


@pytest.mark.parametrize("hidden", [(10**12,), (10**12, 10**12), (10**18,), (2**62,), (2**63 - 1,), (64, 10**11)])
def test_a_model_that_no_memory_holds_is_refused_before_it_is_asked_for(config, tmp_path, hidden):
    config.model = create(name="mlp", hidden=hidden)
    with pytest.raises(
        BadInput, match=r"^config.model: (weights and gradients take [\d,.]+ GB or more, and|too large)"
    ) as error:
        train(config, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mlp", "resnet20", "convnet"])
def test_the_budget_is_what_the_weights_take_and_changes_none(name):
    values = {"mlp": dict(hidden=(50, 20)), "resnet20": dict(frozen=False), "convnet": {}}[name]
    plain, budget = model_of(name, **values), MemoryBudget("config.model", 10**9)
    with budget:
        counted = model_of(name, **values)
    size = sum(tensor.numel() * tensor.element_size() for tensor in plain.parameters())
    assert size <= budget.needed / 2 <= size * 1.02  # and batch norm's statistics
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), counted.state_dict().values()))
    with pytest.raises(BadInput, match="GB are free"), MemoryBudget("config.model", 2 * size - 1):
        model_of(name, **values)
