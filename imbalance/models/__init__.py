"""Models: from a batch of inputs to logits (B, K). Each is `features`, then a linear `head`."""

from functools import partial

from imbalance.models.resnet import cifar_resnet, resnet
from imbalance.models.small import convnet, lenet, linear, mlp, with_head

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

__all__ = ["MODELS", "cifar_resnet", "convnet", "lenet", "linear", "mlp", "resnet", "with_head"]
