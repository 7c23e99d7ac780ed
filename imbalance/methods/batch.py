"""Batch: inputs and labels of several examples, as a method gets them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Inputs = Tensor | Mapping[str, Tensor]  # what a model takes: one tensor, or several by name, such as tokens and a mask
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits (B, K), targets (B,), groups (B,)) -> (B,)


class Partners(NamedTuple):
    """Labels of the second example of each mixture, and the share of the first example.

    targets, groups: (B,) class and group of the second example.
    shares: (B,) factor on the loss for the first example's target; one minus it is the factor on the loss for the
        second example's target.
    """

    targets: Tensor
    groups: Tensor
    shares: Tensor


class Batch(NamedTuple):
    """A batch of B examples.

    views: for each view, the inputs of the model after augmentation, normalisation and mixing. A view is an independent
        augmentation of the same examples; the number of views is `Objective.views`. () if only the labels are needed.
    targets, groups, weights: (B,) class, group and importance weight of each example.
    rows: (B,) positions of the examples in the training split, for methods that keep a value for each training example.
    partners: labels of the second example of each mixture; None without mixing.
    epoch: number of the epoch, counted from 0, for methods that change with it.
    """

    views: tuple[Inputs, ...]
    targets: Tensor
    groups: Tensor
    weights: Tensor
    rows: Tensor
    partners: Partners | None = None
    epoch: int = 0

    @property
    def inputs(self) -> Inputs:
        """Return the inputs of the first view."""
        return self.views[0]

    def losses(self, loss: Loss, logits: Tensor) -> Tensor:
        """Return the (B,) losses `loss(logits, targets, groups)`.

        The loss of a mixture is the mean of the losses for its two targets, weighted by `partners.shares`.
        """
        own = loss(logits, self.targets, self.groups)
        if self.partners is None:
            return own
        return torch.lerp(loss(logits, self.partners.targets, self.partners.groups), own, self.partners.shares)
