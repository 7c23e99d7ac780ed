"""Learning rates by depth are those of timm, and blocks of other networks are found in the same way."""

from importlib import import_module

import pytest
from conftest import ROOT
from helpers.texts import save_bert
from torch import nn

from imbalance.config.resolve import load, upgrade_saved_config
from imbalance.methods.objectives.base import Pair
from imbalance.models import transformer, with_head
from imbalance.models.depth import features_below_head, layers_above
from imbalance.training.learner import head_parameters
from imbalance.training.optim import OPTIMIZERS
from imbalance.utils.torchvision_import import import_torchvision

import_torchvision()
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")


class Plain(nn.Module):
    """A module that hides the method `group_matcher` of a network of timm."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network


@pytest.mark.parametrize("head_factor", [1.0, 5.0])
@pytest.mark.parametrize("network", ["test_vit", "test_vit2", "test_convnext", "test_efficientnet", "test_resnet"])
def test_the_parameter_groups_are_those_of_timm(network, head_factor):
    """timm's network with its own head, against the same network below a head of this program."""
    with_own = timm.create_model(network, num_classes=3)
    groups = import_module("timm.optim").param_groups_layer_decay(with_own, weight_decay=0.05, layer_decay=0.7)
    names = {parameter: name for name, parameter in with_own.named_parameters()}
    theirs = {names[p]: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    features = timm.create_model(network, num_classes=0)
    model = with_head(features, features.num_features, 3)
    optimizer = OPTIMIZERS["adamw_apart"](
        model.parameters(), head_parameters(model), lambda: layers_above(model),
        lr=0.1, head_factor=head_factor, layer_decay=0.7, betas=(0.9, 0.999), weight_decay=0.05, decayed="weights",
    )  # fmt: skip
    names = {parameter: name for name, parameter in model.named_parameters()}
    ours = {names[p]: (g["factor"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(ours) == len(names)
    for name, (factor, decay) in ours.items():
        if name.startswith("head."):
            assert (factor, decay) == (head_factor, 0.05 if name == "head.weight" else 0.0)
        else:
            assert theirs[name.removeprefix("features.")] == (pytest.approx(factor, rel=1e-12), decay), name


@pytest.mark.parametrize("network", ["test_vit", "resnet18"])
def test_the_layers_of_any_network_are_found_as_timm_defines_them(network):
    features = timm.create_model(network, num_classes=0)
    assert features_below_head(Plain(features)) == features_below_head(features)


def test_the_layers_of_an_encoder_of_transformers(tmp_path):
    """Embeddings, the blocks, and the pooler, which belongs to the last block."""
    model = transformers.AutoModel.from_pretrained(save_bert(tmp_path / "bert"))
    blocks = model.config.num_hidden_layers
    for name, above in zip(dict(model.named_parameters()), features_below_head(model).values(), strict=True):
        part, *rest = name.split(".")
        expected = {"embeddings": blocks + 1, "pooler": 1}.get(part) or blocks - int(rest[1])
        assert above == expected, name


def test_each_of_two_networks_has_its_own_layers():
    def make() -> nn.Module:
        return transformer(vocabulary=9, num_classes=2, width=8, depth=2, heads=2, dropout=0.0)

    pair = Pair(make(), biased=make())
    above = dict(zip(dict(pair.named_parameters()), layers_above(pair).values()))
    for prefix in ("", "biased."):
        assert above[f"{prefix}features.embedding.weight"] == 3
        assert above[f"{prefix}features.blocks.0.project.weight"] == 2
        assert above[f"{prefix}features.norm.weight"] == 1
        assert above[f"{prefix}head.weight"] == 0


def test_an_older_config_has_one_rate_for_all_layers_before_the_last():
    config = load(ROOT / "configs" / "digits_erm.py")
    schedule = config.optim.schedule
    config.optim = dict(name="sgd_apart", lr=0.1, head_factor=2.0, momentum=0.0, weight_decay=0.0, decayed="all")
    config.optim.schedule = schedule
    assert upgrade_saved_config(config.to_dict())["optim"]["layer_decay"] == 1.0
