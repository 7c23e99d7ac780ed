"""Group distributionally robust optimisation."""

import torch
from torch import Tensor

from imbalance.config.schema import NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.methods.objectives.base import Objective, group_means

NO_WEIGHT = -1e30  # a logarithm whose exponential is 0


@checked
class GroupDRO(Objective):
    """Σ_g q_g · (mean of w·ℓ over group g), where q follows the groups that fare worst by exponentiated ascent.

    Sagawa, Koh, Hashimoto and Liang, "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020,
    algorithm 1 and section 3.3: before each step q_g is multiplied by exp(step_size · (loss_g + C / √n_g)) for the
    groups of the batch, the others are left as they are, and q is rescaled to sum to 1. It starts uniform over the
    groups that have training examples.

    Args:
        group_counts: (G,) training examples of each group.
        step_size: the step size η of the ascent.
        size_adjustment: C: how much worse a small group is presumed to be on new data than in training.
    """

    tags = Tags(batched=False)  # for its memory

    def __init__(self, group_counts: Tensor, *, step_size: Positive, size_adjustment: NonNegative):
        super().__init__()
        self.step_size = step_size
        self.register_buffer("adjustment", size_adjustment / group_counts.double().clamp(min=1).sqrt())
        # Logarithms, as a loss of some hundreds would overflow the exponential.
        # Finite where a group has no examples, too: a state that is not finite ends the run.
        start = torch.where(group_counts > 0, 0.0, NO_WEIGHT).double()
        self.register_buffer("log_weights", start.log_softmax(0))

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        means, seen = group_means(weights * losses, groups, len(self.log_weights))
        if self.training:
            rise = self.step_size * (means.detach() + self.adjustment)
            self.log_weights.copy_((self.log_weights + rise * seen).log_softmax(0))
        return (self.log_weights.exp().to(losses) * means).sum()
