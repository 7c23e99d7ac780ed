"""Residual networks of torchvision, and small ones for 32×32 images. Each is `features`, then a linear `head`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.tags import tagged
from imbalance.errors import BadInput
from imbalance.models.library_models import torchvision_download, torchvision_preparation
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
    """Build a residual network of torchvision for RGB images (He et al., "Deep Residual Learning", CVPR 2016).

    Args:
        pretrained: "" for random weights; the name of weights of torchvision, such as "IMAGENET1K_V2", which are
            downloaded if they are not in torch's cache; the path of a state dict of this network; or the directory of
            a finished run that trained this network. "imagenet" means IMAGENET1K_V1, the weights that the literature on
            group shift uses. The head is always new.
        frozen: true to train the head alone.
    """
    if len(input_shape) != 3 or input_shape[0] != 3:
        raise BadInput(
            f"config.model.name: resnet{depth} takes RGB images; this data set has {tuple(input_shape)} inputs; use "
            + ("resnet20 or resnet32, which take any number of channels" if len(input_shape) == 3 else "mlp")
        )
    network = import_torchvision().models.get_model(f"resnet{depth}")
    width, network.fc = network.fc.in_features, nn.Identity()
    if pretrained:
        load_weights(network, pretrained, torchvision_download(f"resnet{depth}", pretrained), "fc.")
    return with_head(Frozen(network) if frozen else network, width, num_classes, head)


def resnet_of_depth(depth: Literal[18, 34, 50]) -> Callable[..., nn.Sequential]:
    """Return the function that builds the torchvision network `resnet` of this depth."""
    tag = tagged(preparation=lambda section: torchvision_preparation(f"resnet{depth}", section.pretrained))
    return tag(partial(resnet, depth))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut.

    The shortcut keeps every `stride`-th pixel of each row and column, and adds channels of zeros up to `after` channels.

    Args:
        before, after: the numbers of input and output channels.
        stride: the stride of the first convolution; that of the second is 1.
    """

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
    """Build the residual network for 32×32 images of He et al., CVPR 2016, section 4.2, with shortcuts of option A.

    The literature on long tails uses this network. It has three stages of (depth − 2) / 6 blocks with 16, 32 and 64
    channels. Images can have any number of channels.

    Args:
        frozen: true to train the head alone.
    """
    if len(input_shape) != 3:
        raise BadInput(
            f"config.model.name: resnet{depth} takes images; this data set has {tuple(input_shape)} inputs; use mlp"
        )
    layers = [nn.Conv2d(input_shape[0], 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for before, after in ((16, 16), (16, 32), (32, 64)):
        layers.append(BasicBlock(before, after, after // before))
        layers += [BasicBlock(after, after, 1) for _ in range((depth - 2) // 6 - 1)]
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return with_head(Frozen(features) if frozen else features, 64, num_classes, head)
