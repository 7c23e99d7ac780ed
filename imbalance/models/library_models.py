"""Networks of torchvision, timm and transformers, by name, with pretrained weights and their image preprocessing.

The libraries look for weights in their cache or in a folder that you name, and download weights that they do not find.
"""

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
from imbalance.utils.read import read_json
from imbalance.utils.torchvision_import import import_torchvision

# The end of the name of a resizing step for each interpolation, see `images.decode.Recipe`.
FILTERS = {"bilinear": "", "bicubic": " bicubic"}


# torchvision


def torchvision_weights(network: str, pretrained: str) -> Any:
    """Return torchvision's enum member for the weights `pretrained`; None if `pretrained` is not the name of weights.

    Args:
        network: the name of the network in torchvision.
        pretrained: the name of weights of torchvision, "imagenet" for IMAGENET1K_V1, or a path of other weights.

    Raises:
        BadInput: `pretrained` looks like the name of weights, but the network has no weights of this name.
    """
    models = import_torchvision().models
    names = models.get_model_weights(network).__members__
    name = "IMAGENET1K_V1" if pretrained == "imagenet" else pretrained
    if name in names:
        return names[name]
    if name.isidentifier() and name.isupper() and not Path(name).exists():
        raise BadInput(f"config.model.pretrained: {pretrained!r} given for {network}{suggestion(name, names)}")
    return None


def torchvision_download(network: str, pretrained: str) -> Callable[[], Mapping[str, Tensor]] | None:
    """Return a function that downloads torchvision's weights `pretrained`; None if torchvision has no such weights."""
    weights = torchvision_weights(network, pretrained)
    return (lambda: weights.get_state_dict(check_hash=True)) if weights else None


def torchvision_preparation(network: str, pretrained: str) -> Preparation | None:
    """Return the image preprocessing of torchvision's weights `pretrained`; None if torchvision has no such weights."""
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
    """Return the image preprocessing that resizes an image and then crops the square in its middle.

    Args:
        resize: "shorter" resizes the shorter side of the image to `size`, "square" resizes the image to size × size.
        size: a length in pixels.
        crop: the side in pixels of the square that is cropped.
        interpolation: "bilinear" or "bicubic".
        mean, std: mean and standard deviation of each channel, as fractions of 255.
        cut: how the middle is rounded; see the steps "crop" and "crop floor" of `imbalance.data.images.decode.Recipe`.

    Raises:
        BadInput: the interpolation is neither bilinear nor bicubic.
    """
    if interpolation not in FILTERS:
        raise BadInput(
            f"config.model.pretrained: the weights need {interpolation} interpolation; only bilinear and bicubic are "
            "supported; set config.data.size to resize the images without this image processor"
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
        network: the name of the network in torchvision: "resnet50", "convnext_tiny", "vit_b_16", …
        pretrained: "" for random weights; the name of weights of torchvision, such as "IMAGENET1K_V2" or
            "IMAGENET1K_SWAG_E2E_V1"; the path of a state dict of the network; or the directory of a finished run that
            trained this network.
        frozen: true to train the last layer alone.
    """
    models = import_torchvision().models
    names = models.list_models(module=models)
    if network not in names:
        raise BadInput(f"config.model.network: {network!r} given{suggestion(network, names)}")
    model = models.get_model(network)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    # SqueezeNet has no linear layer; GoogLeNet and Inception have auxiliary heads.
    if not layers or network in ("googlenet", "inception_v3"):
        raise BadInput(
            f"config.model.network: {network!r} given; its head must be a single linear layer, and is not; use another network"
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
        network: the name of the network in timm, with the tag of its weights ("vit_small_patch14_dinov2.lvd142m");
            "hf-hub:<repository>"; or the path of a folder with the config.json and model.safetensors of timm.
        pretrained: "" for random weights; "published" for the weights that `network` names; the path of a state dict of
            the network without its last layer; or the directory of a finished run that trained this network.
        frozen: true to train the last layer alone.
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
    """Build an image encoder of transformers (ViT, DINOv2, CLIP, SigLIP, ConvNeXt, Swin, …) with a new last layer.

    The features are the `pooler_output` of the encoder. For CLIP and DINOv2 this is the class token after the last
    normalisation. For CLIP this vector precedes the projection; Radford et al. (ICML 2021) use it for linear probes. For
    networks without a class token, `pooler_output` is the mean over positions. ViT is an exception: its pooler is a
    dense layer that the published classifiers do not use and so do not train. So its features are the class token.

    Args:
        network: a name on the Hugging Face hub ("facebook/dinov2-small"), or the path of a folder that
            `save_pretrained` has written.
        pretrained: "" for random weights; "published" for the weights that `network` names; the path of a state dict of
            the network without its last layer; or the directory of a finished run that trained this network.
        frozen: true to train the last layer alone.
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
    """An image encoder of transformers, from images (B, C, H, W) to one vector for each image (B, D).

    If the encoder has a pooler with a dense layer, the pooler is removed, and the vector is the class token; see
    `transformers_vision`.
    """

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
    """Load the weights `pretrained` into `model`, if any, and return `model` with a new last layer.

    Args:
        model: the network without a last layer; it has the published weights already if `pretrained` is "published".
        network: the name of the network, for messages.
        head: the Python class of the new last layer.
        pretrained, frozen: as for `timm`.
    """
    if pretrained == "published":
        check_finite(model, network)
    elif pretrained:
        load_weights(model, pretrained)
    return with_new_head(model, network, input_shape, num_classes, head, frozen)


def with_new_head(
    model: nn.Module, network: str, input_shape: Sequence[int], num_classes: int, head: Head, frozen: bool
) -> nn.Sequential:
    """Return `model` with a new last layer, whose number of inputs is found by a forward pass of one image.

    Args:
        model: the network without a last layer.
        network: the name of the network, for messages.
        head: the Python class of the new last layer.
        frozen: true to train the new layer alone.

    Raises:
        BadInput: the network does not take inputs of shape `input_shape`.
    """
    try:
        with torch.no_grad():
            features = model.eval()(torch.zeros(1, *input_shape))
    except Exception as error:
        is_image = len(input_shape) == 3
        hint = "set config.data.size=0 for the image size of its weights" if is_image else "use a data set of images"
        raise BadInput(
            f"config.model.network: {network} does not take inputs of shape {tuple(input_shape)} "
            f"({' '.join(str(error).split())[:150]}); {hint}"
        ) from None
    model.train()
    return with_head(Frozen(model) if frozen else model, features.shape[1], num_classes, head)


def load_error(network: str, pretrained: str, error: Exception) -> BadInput:
    """Return the `BadInput` to raise if a library cannot load a network or its weights because of `error`."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    hint = "give the name of a network, or the path of its folder; a first download needs an internet connection"
    problem = "no weights of" if pretrained == "published" else "no network"
    return BadInput(f"config.model.network: {problem} {network!r} could be loaded ({reason}); {hint}")


def timm_preparation(network: str, pretrained: str) -> Preparation | None:
    """Return the image preprocessing of timm's weights for `network`; None if `pretrained` is not "published"."""
    if pretrained != "published":
        return None
    package = import_library("timm", "vision")
    try:
        if Path(network).is_dir():
            settings = read_json(Path(network) / "config.json")
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
            "channels; supported are 'center' and 'squash' with 3 channels; set config.data.size to resize without the "
            "preprocessing of the weights"
        )
    resize = "square" if settings["crop_mode"] == "squash" else "shorter"
    return center_crop(resize, resized, size, settings["interpolation"], settings["mean"], settings["std"])


def transformers_preparation(network: str, pretrained: str) -> Preparation | None:
    """Return the image preprocessing of transformers' weights for `network`, as its preprocessor_config.json says.

    Return None if `pretrained` is not "published".
    """
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
    if shorter and settings.get("crop_pct") and shorter < 384:  # ConvNeXt's file has the side after the crop as `size`
        shorter, cropped = int(shorter / settings["crop_pct"]), shorter
    same = square == size.get("width") and crop.get("height") == crop.get("width")
    if not (settings.get("do_resize") and same and (square or (shorter and cropped)) and settings.get("do_normalize")):
        raise BadInput(
            f"config.model.network: the image processor of {network} must resize, crop to a square, and normalise; it "
            "does something else; set config.data.size to resize the images without this image processor"
        )
    interpolation = {2: "bilinear", 3: "bicubic"}.get(int(settings["resample"]), f"PIL's {settings['resample']}")
    mean, std = settings["image_mean"], settings["image_std"]
    if square:
        return center_crop("square", square, cropped or square, interpolation, mean, std, "crop floor")
    assert shorter and cropped  # because of the check above
    return center_crop("shorter", shorter, cropped, interpolation, mean, std, "crop floor")
