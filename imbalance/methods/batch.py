"""The batch of examples that a method gets."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Inputs = Tensor | Mapping[str, Tensor]  # what a model takes: one tensor, or several by name, such as tokens and a mask
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits (B, K), targets (B,), groups (B,)) -> (B,)


class Partners(NamedTuple):
    """The second example of each mixture: (B,) targets and groups, and the share of the first example's loss."""

    targets: Tensor
    groups: Tensor
    shares: Tensor


class Batch(NamedTuple):
    """A batch of B examples.

    views: the inputs of the model, augmented, normalised and mixed: one view, or as many as `Objective.views` asks for.
        Each view has augmentation draws of its own. Empty if only the labels are needed.
    targets, groups, weights: (B,).
    rows: (B,) rows in the training split; a method uses them to keep state for each example.
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
        """Return (B,) losses; the loss of a mixture is the mixture of its two losses."""
        own = loss(logits, self.targets, self.groups)
        if self.partners is None:
            return own
        return torch.lerp(loss(logits, self.partners.targets, self.partners.groups), own, self.partners.shares)
