"""Networks and weights of torchvision, timm and transformers, from small random ones in the real formats."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from ml_collections.config_dict import create
from PIL import Image

from imbalance.config.resolve import load as load_config
from imbalance.config.schema import build
from imbalance.data import load
from imbalance.data.images.decode import Recipe, image_pixels
from imbalance.errors import BadInput
from imbalance.models import MODELS, preparation_of
from imbalance.training import loop
from imbalance.training.learner import load_dataset
from imbalance.utils.torchvision_import import import_torchvision

import_torchvision()
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((53, 41))
SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8)  # fmt: skip


def folder_of(kind: str, path) -> str:
    """A small random network of a kind, as its library saves it."""
    torch.manual_seed(1)
    if kind == "timm":
        cfg = dict(input_size=(3, 32, 32), crop_pct=0.8, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))  # fmt: skip
        model = timm.create_model("test_vit", img_size=32, num_classes=5, pretrained_cfg_overlay=cfg)
        model.pretrained_cfg.update(num_classes=5)
        timm.models.save_for_hf(model, str(path), model_args=dict(img_size=32))
        return str(path)
    processor = transformers.ViTImageProcessor(size=dict(height=32, width=32), resample=2)
    if kind == "vit":
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL))
    elif kind == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, mlp_ratio=1))
        processor = transformers.BitImageProcessor(size=dict(shortest_edge=40), crop_size=dict(height=32, width=32), resample=3)  # fmt: skip
    elif kind == "clip":
        text = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=99)
        model = transformers.CLIPModel(transformers.CLIPConfig(vision_config=SMALL, text_config=text, projection_dim=7))
        processor = transformers.CLIPImageProcessor(size=dict(shortest_edge=32), crop_size=dict(height=32, width=32))
    else:
        sizes = dict(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], num_stages=4)
        model = transformers.ConvNextModel(transformers.ConvNextConfig(**sizes))
        processor = transformers.ConvNextImageProcessor(size=dict(shortest_edge=32), crop_pct=0.8)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return str(path)


def theirs(kind: str, path: str, images: torch.Tensor) -> torch.Tensor:
    """The features by the library itself."""
    if kind == "timm":
        return timm.create_model(f"local-dir:{path}", pretrained=True, num_classes=0).eval()(images)
    if kind == "vit":
        model = transformers.ViTForImageClassification.from_pretrained(path).eval()
        model.classifier = torch.nn.Identity()
        return model(images).logits
    if kind == "clip":
        return transformers.CLIPVisionModel.from_pretrained(path).eval()(images).pooler_output
    return transformers.AutoModel.from_pretrained(path).eval()(images).pooler_output


def section(kind: str, path: str, **values) -> dict:
    name = "timm" if kind == "timm" else "transformers_vision"
    return create(**dict(name=name, network=path, pretrained="published", frozen=False) | values)


KINDS = ["timm", "vit", "dinov2", "clip", "convnext"]


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_images_are_those_of_the_library(kind, tmp_path):
    path = folder_of(kind, tmp_path)
    network = section(kind, path)
    model = build(MODELS, network, input_shape=(3, 32, 32), num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.features(images), theirs(kind, path, images))
        assert model(images).shape == (2, 3)

    made = preparation_of(network)
    pixels = image_pixels(PHOTOGRAPH, Recipe("RGB", made.steps)) / 255
    mean, std = (np.array(value)[:, None, None] for value in (made.mean, made.std))
    if kind == "timm":
        config = timm.data.resolve_data_config(model=timm.create_model(f"local-dir:{path}"))
        expected = timm.data.create_transform(**config)(PHOTOGRAPH).numpy()
    else:
        processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
        expected = np.asarray(processor(PHOTOGRAPH)["pixel_values"][0])
    np.testing.assert_allclose((pixels - mean) / std, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["timm", "clip"])
def test_random_weights_differ_and_frozen_ones_stay(kind, tmp_path):
    path, shape = folder_of(kind, tmp_path), dict(input_shape=(3, 32, 32), num_classes=2)
    whole, blank = (build(MODELS, section(kind, path, pretrained=name), **shape) for name in ("published", ""))
    assert not all(a.equal(b) for a, b in zip(whole.features.parameters(), blank.features.parameters()))
    frozen = build(MODELS, section(kind, path, frozen=True), **shape)
    assert not any(p.requires_grad for p in frozen.features.parameters()) and not frozen.train().features.training
    assert preparation_of(section(kind, path, pretrained="")) is None


@pytest.mark.parametrize(
    ("network", "weights", "steps"),
    [
        ("resnet50", "imagenet", (("shorter", 256), ("crop", 224))),
        ("resnet50", "IMAGENET1K_V2", (("shorter", 232), ("crop", 224))),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", (("shorter bicubic", 384), ("crop", 384))),
        ("resnet50", "some/file.pth", None),
    ],
)
def test_torchvision_says_what_its_weights_were_trained_on(network, weights, steps):
    made = preparation_of(create(name="torchvision", network=network, pretrained=weights, frozen=False))
    assert made.steps == steps if steps else made is None
    if network == "resnet50":
        assert preparation_of(create(name="resnet50", pretrained=weights, frozen=False)) == made


@pytest.mark.parametrize("network", ["mobilenet_v3_small", "vit_b_32"])
def test_torchvisions_networks_take_named_weights_without_their_head(network, monkeypatch):
    models = import_torchvision().models
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor.data.fill_(0.01))
    expected = models.get_model(network).eval()
    weights = models.get_model_weights(network)["IMAGENET1K_V1"]
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: expected.state_dict())
    values = dict(network=network, pretrained="IMAGENET1K_V1", frozen=False)
    model = build(MODELS, create(name="torchvision", **values), input_shape=(3, 224, 224), num_classes=2).eval()
    last = [module for module in expected.modules() if isinstance(module, torch.nn.Linear)][-1]
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(last(model.features(images)), expected(images))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(network="resnet51"), r"model.network: 'resnet51' given; did you mean resnet"),
        (dict(network="squeezenet1_0"), "its head must be a single linear layer"),
        (dict(network="resnet18", pretrained="IMAGENET1K_V3"), r"'IMAGENET1K_V3' given for resnet18; did you mean IMAGENET1K_V1\?"),
        (dict(network="vit_b_16"), r"vit_b_16 does not take inputs of shape \(3, 32, 32\).*; set config.data.size=0"),
        (dict(name="timm", network="resnet_eighteen"), "no network 'resnet_eighteen'"),
        (dict(name="transformers_vision", network="/nowhere/vit", pretrained="published"), "no weights of '/nowhere/vit'"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_one_line(values, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    values = dict(name="torchvision", pretrained="", frozen=False) | values
    with pytest.raises(BadInput, match=message) as error:
        build(MODELS, create(**values), input_shape=(3, 32, 32), num_classes=2)
    assert "\n" not in str(error.value)


@pytest.fixture
def config(tmp_path):
    for label in ("cat", "dog"):
        for i in range(8):
            path = tmp_path / "pets" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([i, label == "cat"]).integers(0, 256, (41, 53, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
    config = load_config(ROOT / "configs" / "folder_erm.py")
    config.data.update(folder="pets", val_fraction=0.25, test_fraction=0.25, size=0)
    config.update(data_dir=str(tmp_path), work_dir=str(tmp_path / "runs"), debug=True)
    config.trainer.update(batch_size=4, eval_batch_size=4, epochs=1)
    return config


def test_a_run_decodes_and_normalises_for_its_weights(config, tmp_path):
    path = folder_of("dinov2", tmp_path / "dinov2")
    with pytest.raises(
        BadInput, match=r"config.data.size: 0 given, which means the image size of the pretrained weights"
    ):
        load(config.data, config.data_dir, 0)
    config.model = section("dinov2", path)
    made, dataset = preparation_of(config.model), load_dataset(config)
    assert dataset.input_shape == (3, 32, 32) and (dataset.mean, dataset.std) == (made.mean, made.std)
    image = Image.open(tmp_path / "pets" / "cat" / f"{int(dataset.train.indices[0])}.png")
    assert np.array_equal(dataset.train.inputs[:1][0].numpy(), image_pixels(image, Recipe("RGB", made.steps)))
    loop.train(config, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "model.json").read_text())
    assert [tuple(step) for step in about["preprocessing"]["steps"]][-2:] == list(made.steps)
