"""Networks and weights published by torchvision, timm and transformers, by name, with the preprocessing of the weights.

The libraries look for a network in their cache, in a folder of your own, or on the internet. They download only what
is missing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imbalance.config.schema import Name, suggestion
from imbalance.config.tags import tagged
from imbalance.data.images.decode import Preparation
from imbalance.errors import BadInput
from imbalance.models.small import Head, with_head
from imbalance.models.weights import Frozen, check_finite, load_weights
from imbalance.utils.libraries import import_library, quiet_transformers
from imbalance.utils.torchvision_import import import_torchvision

FILTERS = {"bilinear": "", "bicubic": " bicubic"}  # interpolation → suffix of a step of a recipe, see images/decode.py


# torchvision


def torchvision_weights(network: str, pretrained: str) -> Any:
    """Return the named weights of torchvision; None for a name that must be a file.

    Raises:
        BadInput: the network has weights, but none with that name.
    """
    models = import_torchvision().models
    names = models.get_model_weights(network).__members__
    name = "IMAGENET1K_V1" if pretrained == "imagenet" else pretrained
    if name in names:
        return names[name]
    if name.isidentifier() and name.isupper() and not Path(name).exists():
        raise BadInput(f"config.model.pretrained: {pretrained!r} given{suggestion(name, names)} (of {network})")
    return None


def torchvision_download(network: str, pretrained: str) -> Callable[[], Mapping[str, Tensor]] | None:
    """Return a function that downloads the named weights; None for a name that must be a file."""
    weights = torchvision_weights(network, pretrained)
    return (lambda: weights.get_state_dict(check_hash=True)) if weights else None


def torchvision_preparation(network: str, pretrained: str) -> Preparation | None:
    """Return the preprocessing of the named weights; None for a name that must be a file."""
    weights = torchvision_weights(network, pretrained)
    if not weights:
        return None
    made = weights.transforms()
    return center_crop("shorter", made.resize_size[0], made.crop_size[0], made.interpolation.value, made.mean, made.std)


def center_crop(
    resize: Literal["shorter", "square"],
    size: int,
    crop: int,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
    cut: Literal["crop", "crop floor"] = "crop",
) -> Preparation:
    """Return the preprocessing that resizes an image and crops the square in its middle.

    Raises:
        BadInput: the interpolation is neither bilinear nor bicubic.
    """
    if interpolation not in FILTERS:
        raise BadInput(
            f"config.model.pretrained: the weights need {interpolation} interpolation; there are bilinear and bicubic; set "
            "config.data.size to resize without the preprocessing of the weights"
        )
    return Preparation(((resize + FILTERS[interpolation], size), (cut, crop)), tuple(mean), tuple(std))


@tagged(preparation=lambda section: torchvision_preparation(section.network, section.pretrained))
def torchvision(
    input_shape: Sequence[int],
    num_classes: int,
    head: Head = nn.Linear,
    *,
    network: Name,
    pretrained: str,
    frozen: bool,
) -> nn.Sequential:
    """Build a classification network of torchvision with a new last layer.

    Args:
        network: the name in torchvision: "resnet50", "convnext_tiny", "vit_b_16", …
        pretrained: "" for none; the name of torchvision's weights, such as "IMAGENET1K_V2" or
            "IMAGENET1K_SWAG_E2E_V1"; a state dict of the network, or the directory of a run that trained it.
        frozen: train the head alone.
    """
    models = import_torchvision().models
    names = models.list_models(module=models)
    if network not in names:
        raise BadInput(f"config.model.network: {network!r} given{suggestion(network, names)}")
    model = models.get_model(network)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers or network in ("googlenet", "inception_v3"):  # SqueezeNet's head is a convolution
        raise BadInput(
            f"config.model.network: {network!r} given; its head must be one linear layer; use another network"
        )
    parent, _, last = layers[-1].rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    if pretrained:
        load_weights(model, pretrained, torchvision_download(network, pretrained), f"{layers[-1]}.")
    return with_new_head(model, network, input_shape, num_classes, head, frozen)


# timm and transformers, which are optional dependencies


@tagged(preparation=lambda section: timm_preparation(section.network, section.pretrained))
def timm(
    input_shape: Sequence[int],
    num_classes: int,
    head: Head = nn.Linear,
    *,
    network: Name,
    pretrained: str,
    frozen: bool,
) -> nn.Sequential:
    """Build a network of timm (Wightman, "PyTorch Image Models"), with timm's pooling and a new last layer.

    Args:
        network: the name in timm with the tag of its weights ("vit_small_patch14_dinov2.lvd142m"),
            "hf-hub:<repository>", or a folder with the config.json and model.safetensors of timm.
        pretrained: "" for none, "published" for the weights of that name or folder; a state dict of the network
            without its head, or the directory of a run that trained it.
        frozen: train the head alone.
    """
    package = import_library("timm", "vision")
    name = f"local-dir:{network}" if Path(network).is_dir() else network
    try:
        model = package.create_model(name, pretrained=pretrained == "published", num_classes=0)
    except Exception as error:  # an unknown, unavailable or damaged network can fail in any way
        raise load_error(network, pretrained, error) from None
    return with_weights(model, network, input_shape, num_classes, head, pretrained, frozen)


@tagged(preparation=lambda section: transformers_preparation(section.network, section.pretrained))
def transformers_vision(
    input_shape: Sequence[int],
    num_classes: int,
    head: Head = nn.Linear,
    *,
    network: Name,
    pretrained: str,
    frozen: bool,
) -> nn.Sequential:
    """Build an image encoder of transformers with a new last layer: ViT, DINOv2, CLIP, SigLIP, ConvNeXt, Swin and others.

    The features are the pooled output. For CLIP and DINOv2 that is the normalised class token, for CLIP before the
    projection, as Radford et al. (ICML 2021) take it for linear probes. For networks without a class token it is a mean
    over positions. If the pooling is a layer that no image classifier has trained (ViT), the features are the class
    token.

    Args:
        network: a name on the Hugging Face hub ("facebook/dinov2-small"), or a folder as `save_pretrained` writes
            it.
        pretrained: "" for random weights, "published" for the weights of that name or folder; a state dict of the
            network without its head, or the directory of a run that trained it.
        frozen: train the head alone.
    """
    package = import_library("transformers", "vision")
    try:
        with quiet_transformers(package):
            config = package.AutoConfig.from_pretrained(network)
            if pretrained == "published":
                model = package.AutoModel.from_pretrained(network, dtype=torch.float32)
            else:
                model = package.AutoModel.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise load_error(network, pretrained, error) from None
    return with_weights(Pooled(getattr(model, "vision_model", model)), network, input_shape, num_classes, head, pretrained, frozen)  # fmt: skip


class Pooled(nn.Module):
    """A transformers model of images that returns one vector (B, D) for each image."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        if isinstance(getattr(getattr(network, "pooler", None), "dense", None), nn.Linear):
            network.register_module("pooler", None)

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.network(pixel_values=images)
        pooled = getattr(outputs, "pooler_output", None)
        return outputs.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


def with_weights(
    model: nn.Module,
    network: str,
    input_shape: Sequence[int],
    num_classes: int,
    head: Head,
    pretrained: str,
    frozen: bool,
) -> nn.Sequential:
    """Load the weights of `pretrained` into `model` if it names any, and return `model` with a head."""
    if pretrained == "published":
        check_finite(model, network)
    elif pretrained:
        load_weights(model, pretrained)
    return with_new_head(model, network, input_shape, num_classes, head, frozen)


def with_new_head(
    model: nn.Module, network: str, input_shape: Sequence[int], num_classes: int, head: Head, frozen: bool
) -> nn.Sequential:
    """Return `model` with a head, after a forward pass of one image that shows the number of features.

    Raises:
        BadInput: the network does not take inputs of that shape.
    """
    try:
        with torch.no_grad():
            features = model.eval()(torch.zeros(1, *input_shape))
    except Exception as error:
        hint = "config.data.size=0 takes the size of its weights" if len(input_shape) == 3 else "use it for images"
        raise BadInput(
            f"config.model.network: {network} does not take inputs of shape {tuple(input_shape)} "
            f"({' '.join(str(error).split())[:150]}); {hint}"
        ) from None
    model.train()
    return with_head(Frozen(model) if frozen else model, features.shape[1], num_classes, head)


def load_error(network: str, pretrained: str, error: Exception) -> BadInput:
    """Return the error for a network or weights that cannot be loaded."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    hint = "give the name of a network or its folder; new weights need an internet connection once"
    what = "no weights of" if pretrained == "published" else "no network"
    return BadInput(f"config.model.network: {what} {network!r} ({reason}); {hint}")


def timm_preparation(network: str, pretrained: str) -> Preparation | None:
    """Return the preprocessing of the weights of a name or folder; None unless `pretrained` is "published"."""
    if pretrained != "published":
        return None
    package = import_library("timm", "vision")
    try:
        if Path(network).is_dir():
            settings = json.loads((Path(network) / "config.json").read_text())
            settings = settings.get("pretrained_cfg", settings)
        elif network.startswith("hf-hub:"):
            settings, *_ = package.models.load_model_config_from_hf(network.removeprefix("hf-hub:"))
        else:
            settings = package.get_pretrained_cfg(network).to_dict()
    except Exception as error:
        raise load_error(network, pretrained, error) from None
    settings = package.data.resolve_data_config(pretrained_cfg=settings)
    size, resized = settings["input_size"][-1], int(settings["input_size"][-1] / settings["crop_pct"])
    if settings["crop_mode"] not in ("center", "squash") or settings["input_size"][0] != 3:
        raise BadInput(
            f"config.model.network: {network} has the crop mode {settings['crop_mode']!r} and {settings['input_size'][0]} "
            "channels; there are center and squash with 3 channels; set config.data.size"
        )
    resize = "square" if settings["crop_mode"] == "squash" else "shorter"
    return center_crop(resize, resized, size, settings["interpolation"], settings["mean"], settings["std"])


def transformers_preparation(network: str, pretrained: str) -> Preparation | None:
    """Return the preprocessing in the preprocessor_config.json of the weights; None unless `pretrained` is "published"."""
    if pretrained != "published":
        return None
    package = import_library("transformers", "vision")
    try:
        with quiet_transformers(package):
            settings = package.AutoImageProcessor.from_pretrained(network).to_dict()
    except Exception as error:
        raise load_error(network, pretrained, error) from None
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    shorter, square = size.get("shortest_edge"), size.get("height")
    cropped = crop.get("height") if settings.get("do_center_crop") else None
    if shorter and settings.get("crop_pct") and shorter < 384:  # for ConvNeXt `size` is the size after the crop
        shorter, cropped = int(shorter / settings["crop_pct"]), shorter
    same = square == size.get("width") and crop.get("height") == crop.get("width")
    if not (settings.get("do_resize") and same and (square or (shorter and cropped)) and settings.get("do_normalize")):
        raise BadInput(
            f"config.model.network: the image processor of {network} must resize, crop to a square, and normalise; it "
            "does something else; set config.data.size"
        )
    interpolation = {2: "bilinear", 3: "bicubic"}.get(int(settings["resample"]), f"PIL's {settings['resample']}")
    mean, std = settings["image_mean"], settings["image_std"]
    if square:
        return center_crop("square", square, cropped or square, interpolation, mean, std, "crop floor")
    assert shorter and cropped  # because of the check above
    return center_crop("shorter", shorter, cropped, interpolation, mean, std, "crop floor")
