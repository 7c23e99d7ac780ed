"""Residual networks: torchvision's, and the small ones for 32×32 images. Each is `features`, then a linear `head`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.models.published import published_by_torchvision, torchvision_preparation
from imbalance.models.small import Head, with_head
from imbalance.models.weights import Frozen, load_weights
from imbalance.utils.torchvision_import import import_torchvision


def resnet(
    depth: Literal[18, 34, 50],
    input_shape: Sequence[int],
    num_classes: int,
    head: Head = nn.Linear,
    *,
    pretrained: str,
    frozen: bool,
) -> nn.Sequential:
    """torchvision's residual network (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), for RGB.

    Args:
        pretrained: "" for none; the name of weights of torchvision, such as "IMAGENET1K_V2", or "imagenet" for its
            IMAGENET1K_V1, those of the literature on group shift, fetched if they are not in torch's cache; the path of a
            state dict of this network, or the directory of a run that is done and trained this network. The head starts
            afresh in each case.
        frozen: train the head alone.
    """
    if input_shape[0] != 3:
        raise BadInput(
            f"config.model.name: resnet{depth} takes RGB images; this data set has {tuple(input_shape)}; resnet20 and resnet32 take any"
        )
    network = import_torchvision().models.get_model(f"resnet{depth}")
    width, network.fc = network.fc.in_features, nn.Identity()
    if pretrained:
        load_weights(network, pretrained, published_by_torchvision(f"resnet{depth}", pretrained), "fc.")
    return with_head(Frozen(network) if frozen else network, width, num_classes, head)


def of_depth(depth: Literal[18, 34, 50]) -> Callable[..., nn.Sequential]:
    """`resnet` of that depth."""
    model = partial(resnet, depth)
    model.tags = Tags(preparation=lambda section: torchvision_preparation(f"resnet{depth}", section.pretrained))
    return model


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
    depth: Literal[20, 32], input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear, *, frozen: bool
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
    return with_head(Frozen(features) if frozen else features, 64, num_classes, head)
