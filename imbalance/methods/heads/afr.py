"""AFR: automatic feature reweighting, a head that is fitted with more weight on uncertain examples."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imbalance.config.schema import Fraction, NonNegative, Positive, Repeats
from imbalance.config.tags import tagged
from imbalance.data import Dataset
from imbalance.methods.heads.descent import minimise
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import cross_entropy


def confidence_weights(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Return (N,) weights β_y · exp(−γ p_y) of examples, scaled to sum to 1.

    p_y is the softmax probability of the target y, and β_y = N / n_y for n_y examples of class y.

    Args:
        logits: (N, K).
        targets: (N,).
        gamma: γ.
    """
    confidence = logits.softmax(1).gather(1, targets[:, None]).squeeze(1)
    weights = (-gamma * confidence).exp() / torch.bincount(targets)[targets]
    return weights / weights.sum()


@tagged(held_out=lambda section: section.fraction)
def afr(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    *,
    fraction: Fraction,
    gamma: NonNegative,
    penalty: NonNegative,
    steps: Repeats,
    lr: Positive,
) -> nn.Module:
    """Train the last layer further on held-out examples of train, by gradient descent on Σ_i μ_i ℓ_i + λ ‖w − w_0‖².

    Qiu, Potapczynski, Izmailov and Wilson, "Simple and Fast Group Robustness by Automatic Feature Reweighting", ICML
    2023. The example weights are μ_i ∝ β_y exp(−γ p_y) with Σ μ = 1. Here p_y is the probability that the trained layer
    w_0 gives to the target y, and β_y is one over the number of held-out examples of class y. ℓ is cross-entropy. As in
    the authors' code (github.com/AndPotap/afr), the descent starts from w_0, every step uses all held-out examples,
    there is no momentum, and the penalty includes the bias.

    There are three differences. The authors' code evaluates val after every step and keeps the best layer; here the
    last layer is kept. Their commands clip the gradient to a norm of 1; here it is not clipped. Their script uses β_y
    on request, their notebooks and this head always. The head reads no groups. The held-out examples must include
    several of each small group: with at most two of a group, a γ of 5 puts most weight on single examples.

    Args:
        fraction: the share of each class of train that is held out from training, to fit the layer on; 0.2 in the
            paper.
        gamma: γ; a larger γ gives uncertain examples more weight, and 0 gives weights by class alone. The authors'
            commands have 10 for Waterbirds and 1.44 for CelebA.
        penalty: the factor λ of the squared distance to the trained layer; 0 for Waterbirds and 0.001 for CelebA in
            the authors' commands.
        steps: the number of steps; 500 for Waterbirds and 1,000 for CelebA in the authors' commands.
        lr: the learning rate; 0.01 for Waterbirds and 0.02 for CelebA in the authors' commands.
    """
    assert dataset.held_out is not None  # the tag `held_out` makes the run hold examples out
    inputs, targets = features("held_out"), dataset.held_out.targets
    with torch.no_grad():
        start = [parameter.detach().to(inputs) for parameter in (head.weight, head.bias)]
        weights = confidence_weights(nn.functional.linear(inputs, *start), targets, gamma)
    layer = [parameter.clone().requires_grad_() for parameter in start]

    def loss() -> Tensor:
        distance = sum((now - before).square().sum() for now, before in zip(layer, start))
        return (weights * cross_entropy(nn.functional.linear(inputs, *layer), targets)).sum() + penalty * distance

    minimise((loss() for _ in range(steps)), torch.optim.SGD(layer, lr=lr))
    return linear(*layer)
