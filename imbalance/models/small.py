"""Small networks: linear, perceptron, ConvNet and LeNet. Each is `features`, then a linear `head`.

The argument `head` of each function is the Python class of the last layer: `nn.Linear`, or `CosineLinear` for the
models "…_cosine" of `imbalance.models.MODELS`.
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
from imbalance.methods.batch import Inputs
from imbalance.methods.margins import at_least_float32


class CosineLinear(nn.Linear):
    """A last layer whose logits are the cosines between the feature vector and the weight vector of each class.

    The layer has no bias. It is the normalised head of Cao et al., NeurIPS 2019 (`NormedLinear` in their code), whose
    LDAM loss multiplies the cosines by a scale such as 30. The weight vectors start in random directions with length 1.
    The layer computes in at least float32. In bfloat16 a cosine would have an error of 1/256, and a logit of LDAM an
    error of about 0.1.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(F.normalize(self.weight.uniform_(-1, 1), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features, weight = at_least_float32(features), at_least_float32(self.weight)
            return F.linear(F.normalize(features, dim=1), F.normalize(weight, dim=1))


Head = type[nn.Linear]


class Classifier(nn.Sequential):
    """A network of `features`, then a linear `head`.

    This class defines `forward`, because torch's compiler skips the `forward` of `nn.Sequential`.
    """

    features: nn.Module
    head: nn.Linear

    def forward(self, inputs: Inputs) -> Tensor:
        return self.head(self.features(inputs))


def with_head(features: nn.Module, width: int, num_classes: int, head: Head = nn.Linear) -> Classifier:
    """Return a network of `features` and a new last layer.

    Args:
        features: the layers before the last layer.
        width: the number of outputs of `features`.
        head: the Python class of the last layer.
    """
    return Classifier(OrderedDict(features=features, head=head(width, num_classes)))


@tagged(batched=True)
def linear(
    input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear, *, init: Literal["default", "zeros"]
) -> nn.Sequential:
    """Build logistic regression on the flattened input.

    Args:
        init: "default" for the random initialisation of torch; "zeros" for a weight and bias of zeros. To compare with
            a limit direction of `imbalance.theory`, use "zeros": gradient descent never changes the part of the weight
            that is orthogonal to all inputs, so with "default" this part would stay random.
    """
    model = with_head(nn.Flatten(), prod(input_shape), num_classes, head)
    if init == "zeros":
        if head is CosineLinear:
            raise BadInput(
                "config.model.init: 'zeros' given; the model linear_cosine needs weight vectors that are not zero; use "
                "'default'"
            )
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    return model


@tagged(batched=True)
def mlp(
    input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear, *, hidden: tuple[Count, ...]
) -> nn.Sequential:
    """Build a perceptron with ReLU layers on the flattened input.

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
    """Build the ConvNet of Byrd and Lipton, "What is the Effect of Importance Weighting in Deep Learning?", ICML 2019.

    The CIFAR experiments of Wang et al. (ICLR 2022) use this network. It has five unpadded 3×3 convolutions and two
    hidden layers, and neither normalisation nor dropout. Images must be at least 20×20.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 20:
        raise BadInput(
            f"config.model.name: convnet takes images of at least 20×20; this data set has {tuple(input_shape)} inputs; "
            "use mlp"
        )
    channels, height, width = input_shape

    def conv(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3), nn.ReLU()]

    # Two unpadded 3×3 convolutions reduce each side by 4 pixels, three by 6; a pooling layer halves it.
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


@tagged(batched=True)
def lenet(input_shape: Sequence[int], num_classes: int, head: Head = nn.Linear) -> nn.Sequential:
    """Build LeNet-5 (LeCun et al., 1998) with ReLU and max pooling, which is small enough for a CPU.

    The network has two unpadded 5×5 convolutions with 6 and 16 channels, and two hidden layers with 120 and 84 units.
    Images must be at least 16×16.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 16:
        raise BadInput(
            f"config.model.name: lenet takes images of at least 16×16; this data set has {tuple(input_shape)} inputs; use "
            "mlp"
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
