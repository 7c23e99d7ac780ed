"""SELF: a head that is trained on held-out examples on which an early model and the trained model disagree."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Count, Fraction, Positive, Repeats, Share
from imbalance.config.tags import tagged
from imbalance.data import Dataset
from imbalance.methods.context import FirstRun, shortened_config
from imbalance.methods.heads.descent import minimise
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import cross_entropy
from imbalance.methods.samplers import cycled, rows_by_label


@tagged(held_out=lambda section: section.fraction, prior=lambda training_prior, natural, section: training_prior)
def hold_out(head: nn.Linear, *, fraction: Fraction) -> nn.Module:
    """Return the trained last layer unchanged; a run with this head trains without a `fraction` of each class of train.

    The data set is divided before training. The first run of `disagreement` has this head, so that both runs train on the same
    examples.

    Args:
        fraction: the share of each class of train that is held out from training.
    """
    return head


def self_first_run(config: Experiment) -> dict[str, Any]:
    """Return the config of the first run of `disagreement` as a dictionary: `config` with fewer epochs.

    The first run has the seed and the training examples of the full run. If the learning rate is constant, the steps of
    the first run are also the first steps of the full run.
    """
    head = {"name": "hold_out", "fraction": config.head.fraction}
    return shortened_config(config, config.head.first_epochs) | {"head": head}


def divergence(early: Tensor, late: Tensor) -> Tensor:
    """Return the (N,) divergences KL(softmax(early) ‖ softmax(late)) of (N, K) logits of two models."""
    early, late = early.log_softmax(1), late.log_softmax(1)
    return (early.exp() * (early - late)).sum(1)


@tagged(held_out=lambda section: section.fraction, first_run=self_first_run)
def disagreement(
    head: nn.Linear,
    dataset: Dataset,
    features: Callable[[str], Tensor],
    first: FirstRun,
    generator: Generator,
    *,
    fraction: Fraction,
    first_epochs: Repeats,
    share: Share,
    steps: Repeats,
    batch_size: Count,
    lr: Positive,
) -> nn.Module:
    """Train the last layer further, on class-balanced batches of held-out examples on which two models differ most.

    LaBonte, Muthukumar and Kumar, "Towards Last-layer Retraining for Group Robustness with Fewer Annotations", NeurIPS
    2023, SELF, early-stop disagreement. The early model, after `first_epochs` epochs, does not fit the small groups
    yet; the trained model does. The layer is trained on the examples with the largest KL(early ‖ trained) of the class
    probabilities, as in the authors' code (github.com/tmlabonte/last-layer-retraining). SGD without momentum minimises
    cross-entropy at a constant learning rate, starting from the trained layer. There are two differences. Here batches
    draw from all classes in turn; the authors' code draws classes at random. Here the held-out examples are a share of
    train; the authors hold out half of val. The head reads no groups.

    Args:
        fraction: the share of each class of train that is held out from training.
        first_epochs: the number of epochs of the early model; the paper tries 10, 20 and 50 % of all epochs.
        share: the share of the held-out examples that the layer is trained on; the paper tries 20, 100 and 500
            examples.
        steps: the number of steps; 250 for images in the paper.
        batch_size: the batch size; 32 in the paper.
        lr: the learning rate; the paper tries 0.0001, 0.001 and 0.01.
    """
    assert dataset.held_out is not None  # the tag `held_out` makes the run hold examples out
    inputs, targets = features("held_out"), dataset.held_out.targets
    with torch.no_grad():
        late = nn.functional.linear(inputs, head.weight.to(inputs), head.bias.to(inputs))
    divergences = divergence(first.logits("held_out", targets.cpu()).to(late), late)
    chosen = divergences.topk(max(1, round(share * len(divergences)))).indices
    inputs, targets = inputs[chosen], targets[chosen].cpu()
    counts = torch.bincount(targets, minlength=dataset.num_classes)
    layer = [parameter.detach().to(inputs).clone().requires_grad_() for parameter in (head.weight, head.bias)]
    size = math.ceil(steps * batch_size / int((counts > 0).sum()))
    drawn = torch.stack([cycled(rows, size, generator) for rows in rows_by_label(targets, counts)], dim=1).flatten()

    def loss(rows: Tensor) -> Tensor:
        logits = nn.functional.linear(inputs[rows.to(inputs.device)], *layer)
        return cross_entropy(logits, targets[rows].to(inputs.device)).mean()

    minimise(map(loss, drawn[: steps * batch_size].split(batch_size)), torch.optim.SGD(layer, lr=lr))
    return linear(*layer)
