"""Weight balancing: a head that trains the last layer with weight decay and a bound on the norm of each class's weight vector."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from imbalance.config.schema import Count, Fraction, NonNegative, Positive, Probability, Repeats
from imbalance.data import Dataset
from imbalance.methods.heads.descent import sgd, train_layer
from imbalance.methods.heads.smoothing import copied_layer
from imbalance.methods.losses import ClassBalanced


def norm_limit(weight: Tensor, share: float) -> Tensor:
    """Return a norm: `share` of the way from the smallest to the largest norm of the rows of `weight`."""
    norms = weight.norm(dim=1)
    return torch.lerp(norms.min(), norms.max(), share)


@torch.no_grad()
def limit_norms(weight: Tensor, limit: Tensor) -> None:
    """Scale each row of `weight` with a norm above `limit` to this norm, in place."""
    weight.mul_((limit / weight.norm(dim=1, keepdim=True)).clamp(max=1))


def weight_balancing(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    class_counts: Tensor,
    generator: Generator,
    *,
    limit: Probability,
    beta: Fraction,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> nn.Module:
    """Train the last layer further by the class-balanced loss, with weight decay and a bound on the norm of weight vectors.

    Alshammari, Wang, Ramanan and Kong, "Long-Tailed Recognition via Weight Balancing", CVPR 2022: the second of its two
    stages, with weight decay and MaxNorm. The first stage is a run with cross-entropy and a tuned weight decay. After
    every step the weight vector of each class is scaled down to the norm r if its norm is larger. r is computed once,
    from the norms of the weight vectors after the first stage. The bias is not bounded. Every example is drawn
    once an epoch, without balancing, and the learning rate falls to 0 along half a cosine.

    There are three differences from the authors' code (github.com/ShadeAlsha/LTR-weight-balancing). Its class-balanced
    loss applies the binary cross-entropy to a softmax; here the loss is equation 6 of Cui et al. (CVPR 2019), see
    `imbalance.methods.losses.ClassBalanced`. The code augments the images of this stage; here the features are computed
    once, without augmentation. The code keeps the best epoch on test; here the last epoch is kept.

    Args:
        limit: the place of r between the smallest norm (0) and the largest norm (1); 0.1 in the authors' notebooks.
        beta: β of the class-balanced loss; 0.9999 in the authors' notebooks.
        epochs: the number of epochs; 10 in the authors' notebooks.
        batch_size: the batch size; 64 in the authors' notebooks.
        lr: the first learning rate of SGD; 0.01 in the authors' notebooks.
        momentum: the momentum of SGD.
        weight_decay: the weight decay of weights and bias; 0.1 in the authors' notebooks.
    """
    inputs, targets = features("train"), dataset.train.targets
    largest = norm_limit(head.weight.detach().to(inputs), limit)
    return train_layer(
        "weight_balancing",
        lambda: copied_layer(head, inputs),
        inputs,
        targets,
        ClassBalanced(class_counts, beta=beta, gamma=0.0).to(inputs.device),
        lambda: torch.arange(len(targets)),
        generator,
        epochs,
        batch_size,
        sgd(lr, momentum, weight_decay),
        lambda layer: limit_norms(layer.weight, largest),
    )
