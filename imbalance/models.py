"""Models: from a batch of inputs to logits (B, K). Each is `features`, then a linear `head`."""

import pickle
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.errors import BadInput
from imbalance.schema import Count
from imbalance.vision import import_torchvision


def with_head(features: nn.Module, width: int, num_classes: int) -> nn.Sequential:
    """`features`, then a linear layer from `width` to the classes, reachable as `model.features` and `model.head`."""
    return nn.Sequential(OrderedDict(features=features, head=nn.Linear(width, num_classes)))


def linear(input_shape: Sequence[int], num_classes: int, *, init: Literal["default", "zeros"]) -> nn.Sequential:
    """Logistic regression on the flattened input.

    Args:
        init: "zeros" starts both head parameters at zero, as the limit directions of `d > n` need: what lies outside
            the span of the data is never moved by gradient descent.
    """
    model = with_head(nn.Flatten(), prod(input_shape), num_classes)
    if init == "zeros":
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    return model


def mlp(input_shape: Sequence[int], num_classes: int, *, hidden: tuple[Count, ...]) -> nn.Sequential:
    """A perceptron with ReLU layers of the widths of `hidden` on the flattened input."""
    widths = [prod(input_shape), *hidden]
    layers = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return with_head(nn.Sequential(*layers), widths[-1], num_classes)


def convnet(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """The ConvNet of Byrd and Lipton, "What is the Effect of Importance Weighting in Deep Learning?", ICML 2019.

    The network of the paper's CIFAR experiments: five unpadded 3×3 convolutions and two hidden layers, no
    normalisation, no dropout. Takes images of at least 20×20.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 20:
        raise BadInput(
            f"config.model.name: convnet takes images of at least 20×20; this data set has {tuple(input_shape)}"
        )
    channels, height, width = input_shape

    def conv(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3), nn.ReLU()]

    # Two unpadded 3×3 convolutions take 4 pixels off each side length, three take 6; a pool halves it.
    height, width = (((side - 4) // 2 - 6) // 2 for side in (height, width))
    return with_head(
        nn.Sequential(
            *conv(channels, 64), *conv(64, 64), nn.MaxPool2d(2),
            *conv(64, 128), *conv(128, 128), *conv(128, 128), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128 * height * width, 512), nn.ReLU(),
            nn.Linear(512, 128), nn.ReLU(),
        ),
        128,
        num_classes,
    )  # fmt: skip


def lenet(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """LeNet-5 (LeCun et al., 1998) as it is built today, with ReLU and max pooling: small enough for a CPU.

    Two unpadded 5×5 convolutions of 6 and 16 channels and two hidden layers of 120 and 84. Takes images of at least
    16×16.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 16:
        raise BadInput(
            f"config.model.name: lenet takes images of at least 16×16; this data set has {tuple(input_shape)}"
        )
    channels, height, width = input_shape
    height, width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return with_head(
        nn.Sequential(
            nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * height * width, 120), nn.ReLU(),
            nn.Linear(120, 84), nn.ReLU(),
        ),
        84,
        num_classes,
    )  # fmt: skip


class Frozen(nn.Module):
    """Features that no training step changes: no gradients, and batch norm and dropout as in evaluation, always."""

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features.requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.features(inputs)


def resnet(
    depth: Literal[18, 34, 50], input_shape: Sequence[int], num_classes: int, *, pretrained: str, frozen: bool
) -> nn.Sequential:
    """torchvision's residual network (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), for RGB.

    Args:
        pretrained: "" for none, "imagenet" for torchvision's weights (IMAGENET1K_V1, those of the literature on group
            shift), fetched if they are not in torch's cache, or the path of a state dict of this network.
        frozen: train the head alone.
    """
    if input_shape[0] != 3:
        raise BadInput(
            f"config.model.name: resnet{depth} takes RGB images; this data set has {tuple(input_shape)}; resnet20 and resnet32 take any"
        )
    network = import_torchvision().models.get_model(f"resnet{depth}")
    width, network.fc = network.fc.in_features, nn.Identity()
    if pretrained:
        load_weights(network, pretrained, f"ResNet{depth}_Weights")
    return with_head(Frozen(network) if frozen else network, width, num_classes)


def load_weights(network: nn.Module, pretrained: str, published: str) -> None:
    """Fill `network`, without its head, with torchvision's weights or those of a file."""
    try:
        if pretrained == "imagenet":
            weights = import_torchvision().models.get_weight(f"{published}.IMAGENET1K_V1")
            state = weights.get_state_dict(check_hash=True)
        else:
            state = torch.load(pretrained, map_location="cpu", weights_only=True)
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        network.load_state_dict(state)
    except (OSError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:  # no network, no file, another one
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        hint = "give the path of a file with them" if pretrained == "imagenet" else "it must hold a state dict of it"
        raise BadInput(f"config.model.pretrained: no weights from {pretrained!r} ({reason}); {hint}") from None


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut without parameters: every `stride`-th pixel, the new channels zero."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.stride, self.new_channels = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        first = self.new_channels // 2
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, first, self.new_channels - first)))


def cifar_resnet(
    depth: Literal[20, 32], input_shape: Sequence[int], num_classes: int, *, frozen: bool
) -> nn.Sequential:
    """The residual network for 32×32 images of He et al., CVPR 2016, section 4.2, with shortcuts of option A.

    That of the long-tailed literature. Three stages of (depth − 2) / 6 blocks with 16, 32 and 64 channels; any number
    of input channels.

    Args:
        frozen: train the head alone.
    """
    layers = [nn.Conv2d(input_shape[0], 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for before, after in ((16, 16), (16, 32), (32, 64)):
        layers.append(BasicBlock(before, after, after // before))
        layers += [BasicBlock(after, after, 1) for _ in range((depth - 2) // 6 - 1)]
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return with_head(Frozen(features) if frozen else features, 64, num_classes)


MODELS = {
    "linear": linear,
    "mlp": mlp,
    "convnet": convnet,
    "lenet": lenet,
    "resnet18": partial(resnet, 18),
    "resnet34": partial(resnet, 34),
    "resnet50": partial(resnet, 50),
    "resnet20": partial(cifar_resnet, 20),
    "resnet32": partial(cifar_resnet, 32),
}
