"""Models: functions that build networks; a network maps inputs to logits (B, K). A network is `features`, then a linear `head`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from imbalance.config.schema import look_up
from imbalance.config.tags import tagged, tags_of
from imbalance.data.images.decode import Preparation
from imbalance.models.backbones import lite0, minilm
from imbalance.models.encoder import encoder
from imbalance.models.experts import experts
from imbalance.models.from_run import pretrained
from imbalance.models.library_models import timm, torchvision, transformers_vision
from imbalance.models.resnet import cifar_resnet, resnet, resnet_of_depth
from imbalance.models.small import CosineLinear, convnet, lenet, linear, mlp, with_head
from imbalance.models.text import bag_of_embeddings, transformer


def with_cosine_head(model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return a function like `model` that builds the same network with `CosineLinear` as the last layer."""
    return tagged(preparation=tags_of(model).preparation)(partial(model, head=CosineLinear))


LINEAR = {
    "linear": linear,
    "mlp": mlp,
    "convnet": convnet,
    "lenet": lenet,
    "resnet18": resnet_of_depth(18),
    "resnet34": resnet_of_depth(34),
    "resnet50": resnet_of_depth(50),
    "resnet20": partial(cifar_resnet, 20),
    "resnet32": partial(cifar_resnet, 32),
    "torchvision": torchvision,
    "timm": timm,
    "transformers_vision": transformers_vision,
    "lite0": lite0,
    "experts": experts,
    "pretrained": pretrained,
    "bag_of_embeddings": bag_of_embeddings,
    "transformer": transformer,
    "encoder": encoder,
    "minilm": minilm,
}
# Each model also has a variant with the last layer `CosineLinear`: "mlp_cosine", "resnet32_cosine", …
COSINE = {f"{name}_cosine": with_cosine_head(model) for name, model in LINEAR.items()}
MODELS = LINEAR | COSINE


def preparation_of(section: Mapping[str, Any]) -> Preparation | None:
    """Return the image preprocessing of the pretrained weights in `config.model`.

    Return None if the model starts from random weights, or if the preprocessing of its weights is not known.

    Args:
        section: the section `config.model`.
    """
    preparation = tags_of(look_up(MODELS, section["name"])).preparation
    return preparation(section) if preparation else None


__all__ = [
    "COSINE",
    "MODELS",
    "CosineLinear",
    "bag_of_embeddings",
    "cifar_resnet",
    "convnet",
    "encoder",
    "experts",
    "lenet",
    "linear",
    "lite0",
    "minilm",
    "mlp",
    "preparation_of",
    "pretrained",
    "resnet",
    "timm",
    "torchvision",
    "transformer",
    "transformers_vision",
    "with_head",
]
