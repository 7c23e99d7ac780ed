"""Automatic feature reweighting: the last layer refitted to what the model is not sure of."""

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
    """(N,) β_y · exp(−γ p_y), with p = softmax(z) and β_y = N / n_y, scaled to sum to 1."""
    sure = logits.softmax(1).gather(1, targets[:, None]).squeeze(1)
    weights = (-gamma * sure).exp() / torch.bincount(targets)[targets]
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
    """The last layer, trained further by gradient descent on a held-out share of train, of Σ_i μ_i ℓ_i + λ ‖w − w_0‖².

    Qiu, Potapczynski, Izmailov and Wilson, "Simple and Fast Group Robustness by Automatic Feature Reweighting", ICML
    2023: μ_i ∝ β_y exp(−γ p_y), p_y being what the trained layer w_0 gives the right class, β_y the inverse
    of the class's count, Σ μ = 1; ℓ is cross-entropy. As in their code (github.com/AndPotap/afr) every step is on all of
    the share, from w_0, without momentum, and the penalty is on the bias too. Their code evaluates val after every step
    and keeps the best; here the last step counts. Their commands scale a gradient of a norm above 1 down to 1, which
    this does not, and their script has the β_y only where it is asked to, their notebooks always. Uses no groups. It
    needs examples of the small groups in the share: where there are two or none, a γ of 5 follows single examples.

    Args:
        fraction: the share of each class of train that is held out from training and fits the layer; 0.2 in the
            paper.
        gamma: how much more an uncertain example counts, γ; 0 for weights by class alone. The authors' commands
            have 10 for Waterbirds and 1.44 for CelebA.
        penalty: the factor λ of the distance to the trained layer; 0 for Waterbirds and 0.001 for CelebA in the
            authors' commands.
        steps: the number of steps; 500 for Waterbirds and 1,000 for CelebA in the authors' commands.
        lr: the learning rate; 0.01 for Waterbirds and 0.02 for CelebA in the authors' commands.
    """
    inputs, targets = features("held_out"), dataset.held_out.targets
    with torch.no_grad():
        start = [parameter.detach().to(inputs) for parameter in (head.weight, head.bias)]
        weights = confidence_weights(nn.functional.linear(inputs, *start), targets, gamma)
    layer = [parameter.clone().requires_grad_() for parameter in start]

    def loss() -> Tensor:
        moved = sum((now - then).square().sum() for now, then in zip(layer, start))
        return (weights * cross_entropy(nn.functional.linear(inputs, *layer), targets)).sum() + penalty * moved

    minimise((loss() for _ in range(steps)), torch.optim.SGD(layer, lr=lr))
    return linear(*layer)
