"""A batch, as methods see it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Inputs = Tensor | Mapping[str, Tensor]  # what a model takes: one tensor, or several by name, such as tokens and a mask
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits (B, K), targets (B,), groups (B,)) -> (B,)


class Partners(NamedTuple):
    """What each example is mixed with: (B,) targets and groups, and the share that the example's own loss has."""

    targets: Tensor
    groups: Tensor
    shares: Tensor


class Batch(NamedTuple):
    """B examples.

    views: the inputs of the model, augmented, normalised and mixed: one view, or as many as `Objective.views` asks for.
        Each view has augmentation draws of its own. Empty where only the labels are asked for.
    targets, groups, weights: (B,).
    rows: (B,) of the training split, by which a method can keep something of each example.
    partners: None without mixing.
    """

    views: tuple[Inputs, ...]
    targets: Tensor
    groups: Tensor
    weights: Tensor
    rows: Tensor
    partners: Partners | None = None

    @property
    def inputs(self) -> Inputs:
        """Return the first view."""
        return self.views[0]

    def losses(self, loss: Loss, logits: Tensor) -> Tensor:
        """(B,) `loss` of the examples; that of a mixture is mixed, too."""
        own = loss(logits, self.targets, self.groups)
        if self.partners is None:
            return own
        return torch.lerp(loss(logits, self.partners.targets, self.partners.groups), own, self.partners.shares)
