"""A network with low-rank changes computes W x + (α/r) B A x, trains nothing else, and is saved with plain layers."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.jobs import at_call
from helpers.texts import save_bert, text_config
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import nn

import imbalance
from imbalance.config.experiment import validate
from imbalance.config.resolve import load, override
from imbalance.errors import BadInput, Interrupted
from imbalance.models import mlp, with_head
from imbalance.models.adapters import ADAPTERS, lora, merge_adapter
from imbalance.training import loop
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import make_learner
from imbalance.utils.torchvision_import import import_torchvision

import_torchvision()
pytest.importorskip("peft")
LORA = dict(name="lora", rank=2, alpha=6.0, dropout=0.0, targets=())


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return mlp((5,), 3, hidden=(4, 4)).double()


def randomise(network: nn.Module) -> None:
    """Give B, which starts at zero, random values, as after training."""
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)


def test_the_forward_pass_is_the_closed_form():
    """And so is that of the merged network, whose layers are plain again."""
    plain, network, inputs = two_layers(), two_layers(), torch.randn(7, 5, dtype=torch.float64)
    lora(network, rank=2, alpha=6.0, dropout=0.0, targets=())
    network.double()
    assert torch.equal(network(inputs), plain(inputs))  # B is zero
    randomise(network)
    parts = dict(network.named_parameters())
    hidden = inputs
    for i in ("1", "3"):
        weight, bias = plain.get_parameter(f"features.{i}.weight"), plain.get_parameter(f"features.{i}.bias")
        a, b = (parts[f"features.{i}.lora_{part}.default.weight"] for part in "AB")
        assert (a.shape[0], b.shape[1]) == (2, 2)
        hidden = (hidden @ weight.T + bias + 6.0 / 2 * (hidden @ a.T @ b.T)).relu()
    expected = plain.head(hidden)
    torch.testing.assert_close(network(inputs), expected, rtol=1e-12, atol=1e-12)
    merge_adapter(network)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert [type(module) for module in network.modules()] == [type(module) for module in plain.modules()]
    torch.testing.assert_close(network(inputs), expected, rtol=1e-12, atol=1e-12)


def test_only_the_changes_and_the_last_layer_are_trained():
    network = lora(two_layers(), rank=2, alpha=6.0, dropout=0.0, targets=("3",))
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained == [f"features.3.lora_{part}.default.weight" for part in "AB"] + ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("make", "targets", "message"),
    [
        (
            two_layers,
            ("query",),
            r"targets: query given \(.*\); name layers that peft can change, such as linear layers \(1, 3\)$",
        ),
        (
            two_layers,
            ("2",),
            r"targets: 2 given \(.*ReLU.*\); name layers that peft can change, such as linear layers \(1, 3\)$",
        ),
        (lambda: with_head(nn.Flatten(), 5, 2), (), r"targets: \(\) given, .* and the model has none"),
    ],
)
def test_layers_that_cannot_be_changed_are_refused(make, targets, message):
    with pytest.raises(BadInput, match=rf"^config\.adapter\.{message}"):
        lora(make(), rank=2, alpha=6.0, dropout=0.0, targets=targets)


def test_the_command_line_names_an_adapter():
    flags = {"adapter.name": "lora", "adapter.rank": 4, "adapter.alpha": 8.0, "adapter.dropout": 0.1}
    config = validate(override(load(ROOT / "configs" / "digits_erm.py"), flags | {"adapter.targets": ("1",)}))
    assert config.adapter.to_dict() == dict(name="lora", rank=4, alpha=8.0, dropout=0.1, targets=("1",))


# Networks of the libraries


def timm_config(folder: Path) -> ConfigDict:
    config = load(ROOT / "configs" / "digits_erm.py")
    config.data.update(total=60, imbalance_ratio=2.0)
    network = pytest.importorskip("timm").create_model("test_vit", img_size=8, patch_size=4, in_chans=1, num_classes=0)
    pytest.importorskip("timm").models.save_for_hf(
        network, str(folder / "vit"), model_args=dict(img_size=8, patch_size=4, in_chans=1)
    )
    torch.save(network.state_dict(), folder / "vit.pth")
    config.model = create(name="timm", network=str(folder / "vit"), pretrained=str(folder / "vit.pth"), frozen=False)
    return config


def bert_config(folder: Path) -> ConfigDict:
    config = text_config(folder)
    weights = str(save_bert(folder / "bert"))
    config.data.update(tokenizer=weights, vocabulary=0, max_tokens=24)
    config.model = create(name="encoder", pretrained=weights, pool="first", dropout=0.1)
    return config


@pytest.fixture(params=[timm_config, bert_config], ids=["timm", "transformers"])
def config(request, tmp_path) -> ConfigDict:
    """Two epochs of fine-tuning with low-rank changes, an average of the weights, rates by depth and a refitted head."""
    config = request.param(tmp_path)
    config.adapter = create(**LORA | dict(dropout=0.2))
    config.optim = create(
        name="adamw_apart", lr=0.01, head_factor=2.0, layer_decay=0.8, betas=(0.9, 0.999), weight_decay=0.1,
        decayed="weights", schedule=config.optim.schedule,
    )  # fmt: skip
    config.trainer.update(epochs=2, batch_size=16, eval_every=1, dtype="float64", ema_decay=0.5)
    config.head = create(name="crt", by="class", epochs=2, batch_size=30, lr=0.1, momentum=0.5, weight_decay=0.01)
    config.work_dir = str(tmp_path / "runs")
    return config


def selected(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoints" / "selected.pt", weights_only=True)


def test_a_run_is_the_same_to_the_bit_after_a_stop_and_its_model_is_used_without_peft(config, tmp_path, monkeypatch):
    loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path / "run")
    loop.train(config, tmp_path / "run")
    one, two = selected(tmp_path / "whole"), selected(tmp_path / "run")
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert not any("lora" in key or "base_layer" in key for key in one)

    # The merged model, alone, has the logits of the unmerged one, and the saved predictions.
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert any("lora_A" in key for key in last["ema"])
    learner = make_learner(validate(config), start_accelerator(validate(config)), tmp_path)
    learner.ema.load_state_dict(last["ema"])
    learner.ema.head.load_state_dict({key: two[f"head.{key}"] for key in ("weight", "bias")})
    test = learner.dataset.test
    with torch.no_grad():
        expected = learner.ema.eval()(learner.normalise(test.inputs[: len(test)]))
    model = imbalance.load(tmp_path / "run")
    torch.testing.assert_close(model.logits(test.inputs[: len(test)]), expected, rtol=1e-9, atol=1e-9)
    saved = np.load(tmp_path / "run" / "predictions" / "test.npz")["logits"]
    torch.testing.assert_close(torch.from_numpy(saved), expected.float(), rtol=1e-5, atol=1e-5)
    frozen = [key for key, value in last["model"].items() if "base_layer" in key]
    assert frozen and all(torch.equal(last["model"][key], last["ema"][key]) for key in frozen)

    model.export(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size > 0


def test_a_finished_run_is_the_pretrained_network_of_another_one_with_an_adapter(config, tmp_path):
    loop.train(config, tmp_path / "first")
    config.model = create(name="pretrained", pretrained=str(tmp_path / "first"))
    config.trainer.epochs = 1
    loop.train(config, tmp_path / "second")
    one, two = selected(tmp_path / "first"), selected(tmp_path / "second")
    changed = {key for key in one if not torch.equal(one[key], two[key])}
    assert one.keys() == two.keys() and any("weight" in key and "features" in key for key in changed)
    assert not any("norm" in key.lower() and "features" in key for key in changed)


def test_a_frozen_network_is_refused(tmp_path):
    config = timm_config(tmp_path)
    config.adapter, config.model.frozen = create(**LORA), True
    with pytest.raises(
        BadInput, match=r"^config\.adapter\.name: 'lora' given, but all layers before the last are frozen"
    ):
        make_learner(validate(config), start_accelerator(validate(config)), tmp_path)


def test_every_adapter_is_listed():
    assert sorted(ADAPTERS) == ["lora", "none"]
