"""Small networks: linear, perceptron, and the paper's ConvNet. Each is `features`, then a linear `head`.

A model's argument `head` is the class of its last layer, which the table `MODELS` fills in.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Count
from imbalance.config.tags import tagged
from imbalance.errors import BadInput
from imbalance.methods.margins import at_least_float32


class CosineLinear(nn.Linear):
    """A last layer whose logits are cosines: unit rows times unit features, without a bias, in [−1, 1].

    The normalised head of Cao et al., NeurIPS 2019 (their code's `NormedLinear`), whose LDAM loss multiplies these
    logits by its scale. Rows start as random directions of length 1. Computed in at least float32: in bfloat16 a
    cosine is known to 1/256, which times a scale of 30 is a tenth.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(F.normalize(self.weight.uniform_(-1, 1), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features, rows = at_least_float32(features), at_least_float32(self.weight)
            return F.linear(F.normalize(features, dim=1), F.normalize(rows, dim=1))


Head = type[nn.Linear]


class Classifier(nn.Sequential):
    """`features`, then a linear `head`. Says itself what it computes: torch's compiler skips the code of `nn.Sequential`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


def with_head(features: nn.Module, width: int, num_classes: int, head: Head = nn.Linear) -> Classifier:
    """`features`, then a `head` from `width` to the classes, reachable as `model.features` and `model.head`."""
    return Classifier(OrderedDict(features=features, head=head(width, num_classes)))


@tagged(batched=True)
def linear(
    input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear, *, init: Literal["default", "zeros"]
) -> nn.Sequential:
    """Logistic regression on the flattened input.

    Args:
        init: "zeros" starts both head parameters at zero, as the limit directions of `d > n` need: what lies outside
            the span of the data is never moved by gradient descent.
    """
    model = with_head(nn.Flatten(), prod(input_shape), num_classes, head)
    if init == "zeros":
        if head is CosineLinear:
            raise BadInput(
                "config.model.init: 'zeros' given; a normalised head has no direction at zero; use 'default'"
            )
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    return model


@tagged(batched=True)
def mlp(
    input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear, *, hidden: tuple[Count, ...]
) -> nn.Sequential:
    """A perceptron with ReLU layers of the widths of `hidden` on the flattened input.

    Args:
        hidden: the widths of the hidden layers.
    """
    widths = [prod(input_shape), *hidden]
    layers = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return with_head(nn.Sequential(*layers), widths[-1], num_classes, head)


@tagged(batched=True)
def convnet(input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear) -> nn.Sequential:
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
        head,
    )  # fmt: skip


def lenet(input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear) -> nn.Sequential:
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
        head,
    )  # fmt: skip
