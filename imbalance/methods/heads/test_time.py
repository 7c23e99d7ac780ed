"""Test-time aggregation of SADE: weight the experts so that the predictions for two views of the test inputs agree."""

import warnings
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cosine_similarity

from imbalance.config.schema import Count, Fraction, NonNegative, Positive, Repeats
from imbalance.errors import BadInput, Diverged
from imbalance.methods.heads.descent import fused_sgd, minimise
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.experts import expert_logits
from imbalance.methods.samplers import shuffled

LEAST_SHARE = 0.05  # the authors' code ends the descent once an expert has a smaller share


def agreement(raw_shares: Tensor, views: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean cosine between the class probabilities that two views of each example get.

    Args:
        raw_shares: (E,) numbers v; the shares of the experts are softmax(v).
        views: two (B, E, K) logits of the experts, one for each view.
    """
    first, second = ((raw_shares.softmax(0)[:, None] * logits).sum(1).softmax(1) for logits in views)
    return cosine_similarity(first, second, dim=1).mean()


def test_time(
    head: nn.Linear,
    augmented_features: Callable[[str], tuple[Tensor, Tensor]],
    generator: Generator,
    *,
    epochs: Repeats,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> nn.Module:
    """Replace the mean of the experts' logits with a weighted mean; the experts' shares are learned from the inputs of test.

    Zhang, Hooi, Hong and Feng, "Self-Supervised Aggregation of Diverse Experts for Test-Agnostic Long-Tailed Recognition",
    NeurIPS 2022 (SADE), section 4.3, as in the authors' code (github.com/Vanint/SADE-AgnosticLT). The shares are
    softmax(v), and all v start at 1/E. SGD maximises the mean cosine between the class probabilities for two augmented
    views of each test example. The descent ends after an epoch in which a share falls below 0.05. An expert that suits
    the classes of test predicts alike for both views, so it gets a larger share. The head reads no labels of test. But it
    reads the inputs, so it is fitted to one test set. The views have the augmentations of training.

    Args:
        epochs: the largest number of epochs; 5 in the authors' code.
        batch_size: the batch size; 128 in the authors' commands.
        lr: the learning rate; 0.1 in the authors' code.
        momentum: the momentum; 0.9 in the authors' commands.
        weight_decay: the weight decay of v; 0.0005 in the authors' commands.

    Raises:
        BadInput: the model has no experts, or the data set has no augmentations.
        Diverged: a share is not finite.
    """
    experts = getattr(head, "experts", 0)
    if not experts:
        raise BadInput(
            "config.head.name: 'test_time' weights the experts of a model; use config.model.name='experts', or head.name='none'"
        )
    with torch.no_grad():
        first, second = (expert_logits(head, view.to(head.weight), experts) for view in augmented_features("test"))
        first, second = at_least_float32(first), at_least_float32(second)
    raw_shares = first.new_full((experts,), 1 / experts).requires_grad_()
    optimizer = fused_sgd([{"params": [raw_shares], "lr": lr}], momentum, weight_decay)
    for _ in range(epochs):
        batches = shuffled(torch.arange(len(first)), generator).to(first.device).split(batch_size)
        minimise((-agreement(raw_shares, (first[rows], second[rows])) for rows in batches), optimizer)
        if raw_shares.softmax(0).min() < LEAST_SHARE:
            break
    shares = raw_shares.detach().softmax(0)
    if not shares.isfinite().all():
        raise Diverged("config.head.name: 'test_time' gave an expert a share of NaN; use a smaller config.head.lr")
    if shares.min() < LEAST_SHARE:
        listed = ", ".join(f"{share:.2f}" for share in shares.tolist())
        warnings.warn(
            f"config.head.name: 'test_time' gave the experts the shares {listed}, so it leaves one out; an expert that always "
            "predicts frequent classes is steady, too, so compare with head.name='none'",
            stacklevel=2,
        )
    factors = (experts * shares).repeat_interleave(head.in_features // experts)  # equal shares leave the layer as it is
    return linear(head.weight * factors.to(head.weight), head.bias)
