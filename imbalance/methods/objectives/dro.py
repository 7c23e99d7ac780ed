"""Group DRO: group distributionally robust optimisation."""

import torch
from torch import Tensor

from imbalance.config.schema import NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.methods.losses import checked_counts
from imbalance.methods.objectives.base import Objective, group_means

NO_WEIGHT = -1e30  # the exponential of this logarithm is 0


@checked
class GroupDRO(Objective):
    """The sum Σ_g q_g · loss_g over groups, with group weights q_g that rise for groups with a high loss.

    Sagawa, Koh, Hashimoto and Liang, "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, algorithm 1
    and section 3.3. loss_g is the mean of the weighted losses w·ℓ of group g in the batch. Before each step q_g is
    multiplied by exp(step_size · (loss_g + C / √n_g)) for every group in the batch, and q is rescaled to sum to 1. At
    first q is uniform over the groups that have training examples. In algorithm 1 the q_g of a group that is absent from
    the batch changes only by the rescaling. The authors' code (github.com/kohpangwei/group_DRO) takes its loss for 0
    instead, and multiplies its q_g by exp(step_size · C / √n_g). The two differ only if C > 0.

    Args:
        group_counts: (G,) numbers n_g of training examples of each group.
        step_size: the step size η of the group weights.
        size_adjustment: C, which raises the weights of small groups, because a small group overfits more; 0 for none.
        adjust_absent: True to raise the weights of groups that are absent from the batch, too, as in the authors' code.
    """

    tags = Tags(batched=False)  # it has state
    adjustment: Tensor
    log_weights: Tensor

    def __init__(self, group_counts: Tensor, *, step_size: Positive, size_adjustment: NonNegative, adjust_absent: bool):
        super().__init__()
        self.step_size, self.adjust_absent = step_size, adjust_absent
        counts = checked_counts(group_counts, "group_counts")
        self.num_groups = len(counts)
        self.register_buffer("adjustment", size_adjustment / counts.clamp(min=1).sqrt())
        # The exponential of a loss of some hundreds overflows, so the state is the logarithm of q.
        # A non-finite state ends the run, so the logarithm for a group without examples is `NO_WEIGHT`, not −inf.
        start = torch.where(counts > 0, 0.0, NO_WEIGHT).double()
        self.register_buffer("log_weights", start.log_softmax(0))

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        means, present = group_means(weights * losses, groups, len(self.log_weights))
        if self.training:
            rise = self.step_size * (means.detach() + self.adjustment)
            rise = rise if self.adjust_absent else rise * present
            self.log_weights.copy_((self.log_weights + rise).log_softmax(0))
        return (self.log_weights.exp().to(losses) * means).sum()
