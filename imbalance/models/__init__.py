"""Models: from a batch of inputs to logits (B, K). Each is `features`, then a linear `head`."""

from functools import partial

from imbalance.models.pretrained import pretrained
from imbalance.models.resnet import cifar_resnet, resnet
from imbalance.models.small import CosineLinear, convnet, lenet, linear, mlp, with_head

LINEAR = {
    "linear": linear,
    "mlp": mlp,
    "convnet": convnet,
    "lenet": lenet,
    "resnet18": partial(resnet, 18),
    "resnet34": partial(resnet, 34),
    "resnet50": partial(resnet, 50),
    "resnet20": partial(cifar_resnet, 20),
    "resnet32": partial(cifar_resnet, 32),
    "pretrained": pretrained,
}
# Each also with a normalised head, as "mlp_cosine", "resnet32_cosine", …
COSINE = {f"{name}_cosine": partial(model, head=CosineLinear) for name, model in LINEAR.items()}
MODELS = LINEAR | COSINE

__all__ = [
    "COSINE",
    "MODELS",
    "CosineLinear",
    "cifar_resnet",
    "convnet",
    "lenet",
    "linear",
    "mlp",
    "pretrained",
    "resnet",
    "with_head",
]
