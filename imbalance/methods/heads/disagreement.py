"""SELF: the last layer refitted to the held-out examples on which an early model and the trained one disagree."""

import math
from collections.abc import Callable

import torch
from ml_collections import ConfigDict
from torch import Generator, Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Count, Fraction, Positive, Repeats, Share
from imbalance.config.tags import tagged
from imbalance.data import Dataset
from imbalance.methods.context import FirstRun, shortened
from imbalance.methods.heads.descent import minimise
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.losses import cross_entropy
from imbalance.methods.samplers import cycled, rows_of_each


@tagged(held_out=lambda section: section.fraction)
def hold_out(head: nn.Linear, *, fraction: Fraction) -> nn.Module:
    """The layer as it was trained, on all of train but a `fraction` of each class: the first run of `disagreement`.

    Args:
        fraction: the share of each class of train that is held out.
    """
    return head


def early_stopped(config: Experiment) -> ConfigDict:
    """The beginning of `config`'s own run: the same seed, examples and steps, as long as the schedule is constant."""
    first = shortened(config, config.head.first_epochs)
    first.head = ConfigDict({"name": "hold_out", "fraction": config.head.fraction})
    return first


def divergence(early: Tensor, late: Tensor) -> Tensor:
    """(N,) KL(softmax(early) ‖ softmax(late))."""
    early, late = early.log_softmax(1), late.log_softmax(1)
    return (early.exp() * (early - late)).sum(1)


@tagged(held_out=lambda section: section.fraction, first_run=early_stopped)
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
    """The last layer, trained further on class-balanced draws of the held-out examples that two models differ on most.

    LaBonte, Muthukumar and Kumar, "Towards Last-layer Retraining for Group Robustness with Fewer Annotations", NeurIPS
    2023, SELF, early-stop disagreement: the model after `first_epochs` epochs has not yet fitted the small groups, and
    the trained one has. The examples are those with the largest KL(early ‖ trained) of the class probabilities, as in
    their code (github.com/tmlabonte/last-layer-retraining). From the trained layer, by SGD without momentum and at a
    constant rate, on cross-entropy; every batch has all classes in turn, where their code draws classes at random. Uses
    no groups. Their held-out examples are half of val; these are of train, so that val only selects.

    Args:
        fraction: the share of each class of train that is held out.
        first_epochs: the number of epochs of the early model; the paper tries 1, 2 and 5 tenths of training.
        share: the share of the held-out examples that the layer is trained on; the paper tries 20, 100 and 500
            examples.
        steps: 250 for images in the paper; batch_size: 32; lr: 0.0001, 0.001 and 0.01 tried in the paper.
        batch_size: the batch size; 32 in the paper.
        lr: the learning rate; the paper tries 0.0001, 0.001 and 0.01.
    """
    inputs, targets = features("held_out"), dataset.held_out.targets
    with torch.no_grad():
        late = nn.functional.linear(inputs, head.weight.to(inputs), head.bias.to(inputs))
    differ = divergence(first.logits("held_out", targets.cpu()).to(late), late)
    chosen = differ.topk(max(1, round(share * len(differ)))).indices
    inputs, targets = inputs[chosen], targets[chosen].cpu()
    counts = torch.bincount(targets, minlength=dataset.num_classes)
    layer = [parameter.detach().to(inputs).clone().requires_grad_() for parameter in (head.weight, head.bias)]
    size = math.ceil(steps * batch_size / int((counts > 0).sum()))
    drawn = torch.stack([cycled(rows, size, generator) for rows in rows_of_each(targets, counts)], dim=1).flatten()

    def loss(rows: Tensor) -> Tensor:
        logits = nn.functional.linear(inputs[rows.to(inputs.device)], *layer)
        return cross_entropy(logits, targets[rows].to(inputs.device)).mean()

    minimise(map(loss, drawn[: steps * batch_size].split(batch_size)), torch.optim.SGD(layer, lr=lr))
    return linear(*layer)
