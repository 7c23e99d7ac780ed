"""LOS and MiSLAS: heads that are trained further with smoothed labels."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from imbalance.config.schema import By, Count, Fraction, NonNegative, Positive, Repeats
from imbalance.data import Dataset
from imbalance.methods.heads.descent import balanced_draws, fused_sgd, sgd, train_layer
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import LabelAwareSmoothing, smoothed_cross_entropy


def copied_layer(head: nn.Linear, inputs: Tensor) -> nn.Linear:
    """Return a trainable copy of `head` with the type and on the device of `inputs`."""
    return linear(head.weight.to(inputs, copy=True), head.bias.to(inputs, copy=True))


def los(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    generator: Generator,
    *,
    smoothing: Fraction,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> nn.Module:
    """Train the last layer further on all training examples, by cross-entropy with strongly smoothed labels.

    Sun et al., "Rethinking Classifier Re-Training in Long-Tailed Recognition: Label Over-Smooth Can Balance", ICLR
    2025 (LOS). The target gets the share 1 − δ + δ / K, and every other class δ / K. Every example is drawn once an
    epoch, without balancing. The descent starts from the trained layer, and the learning rate falls to 0 along half a cosine.

    The authors' code (github.com/bilibili/LOS) augments the images of this stage, updates the running statistics of
    batch normalisation, and keeps the best epoch on test. Here the features are computed once, without augmentation, and the
    last epoch is kept.

    Args:
        smoothing: δ; 0.98 in the authors' commands.
        epochs: the number of epochs; 20 in the authors' commands.
        batch_size: the batch size; 64 in the authors' commands.
        lr: the first learning rate of SGD; 0.0005 in the authors' commands.
        momentum: the momentum of SGD.
        weight_decay: the weight decay; 0 in the authors' commands.
    """
    inputs, targets = features("train"), dataset.train.targets
    return train_layer(
        "los",
        lambda: copied_layer(head, inputs),
        inputs,
        targets,
        lambda logits, targets: smoothed_cross_entropy(logits, targets, smoothing),
        lambda: torch.arange(len(targets)),
        generator,
        epochs,
        batch_size,
        sgd(lr, momentum, weight_decay),
    )


class ScaledLinear(nn.Module):
    """A linear layer whose logits are multiplied by a trainable factor for each class, 1 at first."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer, self.factors = layer, nn.Parameter(torch.ones_like(layer.bias))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) * self.factors


def mislas(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    class_counts: Tensor,
    generator: Generator,
    *,
    by: By,
    head_smoothing: Fraction,
    tail_smoothing: Fraction,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    layer_factor: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> nn.Module:
    """Train the last layer and a factor on each logit, by label-aware smoothing on balanced training examples.

    Zhong, Cui, Liu and Jia, "Improving Calibration for Long-Tailed Recognition", CVPR 2021 (MiSLAS): the second of its
    two stages. The first stage is a run with mixup, `config.mix=dict(name="mixup", alpha=1.0)`. The loss is
    `imbalance.methods.losses.LabelAwareSmoothing`. The descent starts from the trained layer and factors of 1, and both
    learning rates fall to 0 along half a cosine.

    The authors' code (github.com/dvlab-research/MiSLAS) augments the images of this stage, updates the running statistics of
    batch normalisation on CIFAR-100, and keeps the best epoch on test. Here the features are computed once, without
    augmentation, and the last epoch is kept.

    Args:
        by: "class" to draw all classes equally often, as in the paper; "group" to draw all groups equally often.
        head_smoothing: ε of the most frequent class; 0.3 for CIFAR-10-LT with imbalance 100 in the authors' commands.
        tail_smoothing: ε of the rarest class; 0 for CIFAR-10-LT in the authors' commands.
        epochs: the number of epochs; 10 in the authors' commands.
        batch_size: the batch size; 128 in the authors' commands.
        lr: the first learning rate of SGD for the factors; 0.1 in the authors' commands.
        layer_factor: the learning rate of the layer divided by `lr`; 0.5 for CIFAR-10-LT with imbalance 100.
        momentum: the momentum of SGD.
        weight_decay: the weight decay of the layer and the factors.
    """
    inputs = features("train")

    def optimizer(model: ScaledLinear) -> torch.optim.SGD:
        groups = [{"params": list(model.layer.parameters()), "lr": lr * layer_factor}]
        return fused_sgd([*groups, {"params": [model.factors], "lr": lr}], momentum, weight_decay)

    trained = train_layer(
        "mislas",
        lambda: ScaledLinear(copied_layer(head, inputs)),
        inputs,
        dataset.train.targets,
        LabelAwareSmoothing(class_counts, head=head_smoothing, tail=tail_smoothing).to(inputs.device),
        balanced_draws(dataset, generator, by),
        generator,
        epochs,
        batch_size,
        optimizer,
    )
    return linear(trained.layer.weight * trained.factors[:, None], trained.layer.bias * trained.factors)
