"""Networks and weights that torchvision, timm and transformers publish, by name, and the preprocessing of the weights.

A network's name and weights are found where its library looks for them: in its cache, in a folder of one's own, or on
the network, which is asked for nothing that is there already.
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

FILTERS = {"bilinear": "", "bicubic": " bicubic"}  # how a step of `imbalance.data.images.decode.Recipe` says so


# torchvision


def torchvision_weights(network: str, pretrained: str) -> Any:
    """The named weights of torchvision; None for a name that is no name of weights, and so that of a file.

    Raises:
        BadInput: the network has weights, and none of that name.
    """
    models = import_torchvision().models
    names = models.get_model_weights(network).__members__
    name = "IMAGENET1K_V1" if pretrained == "imagenet" else pretrained
    if name in names:
        return names[name]
    if name.isidentifier() and name.isupper() and not Path(name).exists():
        raise BadInput(f"config.model.pretrained: {pretrained!r} given{suggestion(name, names)} (of {network})")
    return None


def published_by_torchvision(network: str, pretrained: str) -> Callable[[], Mapping[str, Tensor]] | None:
    """What fetches named weights, where these are."""
    weights = torchvision_weights(network, pretrained)
    return (lambda: weights.get_state_dict(check_hash=True)) if weights else None


def torchvision_preparation(network: str, pretrained: str) -> Preparation | None:
    """That of named weights."""
    weights = torchvision_weights(network, pretrained)
    if not weights:
        return None
    made = weights.transforms()
    return prepared("shorter", made.resize_size[0], made.crop_size[0], made.interpolation.value, made.mean, made.std)


def prepared(
    resize: Literal["shorter", "square"],
    size: int,
    crop: int,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
    cut: Literal["crop", "crop floor"] = "crop",
) -> Preparation:
    """Resized, and the square in the middle of that."""
    if interpolation not in FILTERS:
        raise BadInput(
            f"config.model.pretrained: its images are resized by {interpolation} interpolation, which is not done here; say "
            "config.data.size"
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
    """A classification network of torchvision, without its last linear layer.

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
            f"config.model.network: {network!r} has another kind of head than one linear layer; take another"
        )
    parent, _, last = layers[-1].rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    if pretrained:
        load_weights(model, pretrained, published_by_torchvision(network, pretrained), f"{layers[-1]}.")
    return topped(model, network, input_shape, num_classes, head, frozen)


# timm and transformers, which are extras


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
    """A network of timm (Wightman, "PyTorch Image Models"), pooled as timm does for its head.

    Args:
        network: the name in timm with the tag of its weights ("vit_small_patch14_dinov2.lvd142m"),
            "hf-hub:<repository>", or a folder with the config.json and model.safetensors of timm.
        pretrained: "" for none, "published" for the weights of that name or folder; a state dict of the network
            without its head, or the directory of a run that trained it.
        frozen: train the head alone.
    """
    library_ = import_library("timm", "vision")
    name = f"local-dir:{network}" if Path(network).is_dir() else network
    try:
        model = library_.create_model(name, pretrained=pretrained == "published", num_classes=0)
    except Exception as error:  # no such network, none to be had, damaged
        raise unavailable(network, pretrained, error) from None
    return filled(model, network, input_shape, num_classes, head, pretrained, frozen)


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
    """An image encoder of transformers: ViT, DINOv2, CLIP's and SigLIP's image side, ConvNeXt, Swin, …

    Its features are the pooled output, which is the normalised class token of CLIP (before the projection, as Radford et
    al., ICML 2021, take it for linear probes) and DINOv2, and a mean over places of networks without such a token. Where
    pooling is a layer that no image classifier has trained (ViT's), they are the class token.

    Args:
        network: a name on the Hugging Face hub ("facebook/dinov2-small"), or a folder as `save_pretrained` writes
            it.
        pretrained: "" for random weights, "published" for the weights of that name or folder; a state dict of the
            network without its head, or the directory of a run that trained it.
        frozen: train the head alone.
    """
    library_ = import_library("transformers", "vision")
    try:
        with quiet_transformers(library_):
            config = library_.AutoConfig.from_pretrained(network)
            if pretrained == "published":
                model = library_.AutoModel.from_pretrained(network, dtype=torch.float32)
            else:
                model = library_.AutoModel.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise unavailable(network, pretrained, error) from None
    return filled(Pooled(getattr(model, "vision_model", model)), network, input_shape, num_classes, head, pretrained, frozen)  # fmt: skip


class Pooled(nn.Module):
    """(B, D) of a transformers model of images."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        if isinstance(getattr(getattr(network, "pooler", None), "dense", None), nn.Linear):
            network.pooler = None

    def forward(self, images: Tensor) -> Tensor:
        found = self.network(pixel_values=images)
        pooled = getattr(found, "pooler_output", None)
        return found.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


def filled(
    model: nn.Module,
    network: str,
    input_shape: Sequence[int],
    num_classes: int,
    head: Head,
    pretrained: str,
    frozen: bool,
) -> nn.Sequential:
    """With weights of one's own, where these are asked for, and its head."""
    if pretrained == "published":
        check_finite(model, network)
    elif pretrained:
        load_weights(model, pretrained)
    return topped(model, network, input_shape, num_classes, head, frozen)


def topped(
    model: nn.Module, network: str, input_shape: Sequence[int], num_classes: int, head: Head, frozen: bool
) -> nn.Sequential:
    """`model`, then a head, after a look at whether it takes such images, and how many features it makes of one."""
    try:
        with torch.no_grad():
            made = model.eval()(torch.zeros(1, *input_shape))
    except Exception as error:
        hint = "config.data.size=0 takes the size of its weights" if len(input_shape) == 3 else "it is for images"
        raise BadInput(
            f"config.model.network: {network} does not take inputs of shape {tuple(input_shape)} "
            f"({' '.join(str(error).split())[:150]}); {hint}"
        ) from None
    model.train()
    return with_head(Frozen(model) if frozen else model, made.shape[1], num_classes, head)


def unavailable(network: str, pretrained: str, error: Exception) -> BadInput:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    hint = "give its name, or a folder that holds it, and for its weights a network connection once"
    what = "no weights of" if pretrained == "published" else "no network"
    return BadInput(f"config.model.network: {what} {network!r} ({reason}); {hint}")


def timm_preparation(network: str, pretrained: str) -> Preparation | None:
    """That of the weights of the name or the folder."""
    if pretrained != "published":
        return None
    library_ = import_library("timm", "vision")
    try:
        if Path(network).is_dir():
            found = json.loads((Path(network) / "config.json").read_text())
            found = found.get("pretrained_cfg", found)
        elif network.startswith("hf-hub:"):
            found, *_ = library_.models.load_model_config_from_hf(network.removeprefix("hf-hub:"))
        else:
            found = library_.get_pretrained_cfg(network).to_dict()
    except Exception as error:
        raise unavailable(network, pretrained, error) from None
    found = library_.data.resolve_data_config(pretrained_cfg=found)
    size, resized = found["input_size"][-1], int(found["input_size"][-1] / found["crop_pct"])
    if found["crop_mode"] not in ("center", "squash") or found["input_size"][0] != 3:
        raise BadInput(f"config.model.network: {network} crops in the way {found['crop_mode']!r}, which is not done here; say config.data.size")  # fmt: skip
    return prepared("square" if found["crop_mode"] == "squash" else "shorter", resized, size, *(found[key] for key in ("interpolation", "mean", "std")))  # fmt: skip


def transformers_preparation(network: str, pretrained: str) -> Preparation | None:
    """That of the image processor beside the weights, from its preprocessor_config.json."""
    if pretrained != "published":
        return None
    library_ = import_library("transformers", "vision")
    try:
        with quiet_transformers(library_):
            found = library_.AutoImageProcessor.from_pretrained(network).to_dict()
    except Exception as error:
        raise unavailable(network, pretrained, error) from None
    size, crop = found.get("size") or {}, found.get("crop_size") or {}
    shorter, square = size.get("shortest_edge"), size.get("height")
    cropped = crop.get("height") if found.get("do_center_crop") else None
    if shorter and found.get("crop_pct") and shorter < 384:  # ConvNeXt's: `size` is what comes out
        shorter, cropped = int(shorter / found["crop_pct"]), shorter
    same = square == size.get("width") and crop.get("height") == crop.get("width")
    if not (found.get("do_resize") and same and (square or (shorter and cropped)) and found.get("do_normalize")):
        raise BadInput(f"config.model.network: the image processor of {network} does what is not done here; say config.data.size")  # fmt: skip
    interpolation = {2: "bilinear", 3: "bicubic"}.get(int(found["resample"]), f"PIL's {found['resample']}")
    return prepared("square" if square else "shorter", square or shorter, cropped or square, interpolation, found["image_mean"], found["image_std"], "crop floor")  # fmt: skip
