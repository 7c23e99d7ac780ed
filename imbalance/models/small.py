"""Small networks: linear, perceptron, and the paper's ConvNet. Each is `features`, then a linear `head`."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

from torch import nn

from imbalance.errors import BadInput
from imbalance.methods.tags import tagged
from imbalance.schema import Count


def with_head(features: nn.Module, width: int, num_classes: int) -> nn.Sequential:
    """`features`, then a linear layer from `width` to the classes, reachable as `model.features` and `model.head`."""
    return nn.Sequential(OrderedDict(features=features, head=nn.Linear(width, num_classes)))


@tagged(batched=True)
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


@tagged(batched=True)
def mlp(input_shape: Sequence[int], num_classes: int, *, hidden: tuple[Count, ...]) -> nn.Sequential:
    """A perceptron with ReLU layers of the widths of `hidden` on the flattened input."""
    widths = [prod(input_shape), *hidden]
    layers = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return with_head(nn.Sequential(*layers), widths[-1], num_classes)


@tagged(batched=True)
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
