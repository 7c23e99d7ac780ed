"""Environment inference: groups found in what a first model gets right for the wrong reasons, for group DRO."""

import torch
from ml_collections import ConfigDict
from torch import Generator, Tensor

from imbalance.methods.dro import GroupDRO
from imbalance.methods.losses import cross_entropy
from imbalance.methods.method import slopes
from imbalance.methods.provided import FirstRun, shortened
from imbalance.methods.tags import Tags
from imbalance.schema import Count, NonNegative, Positive, checked
from imbalance.seeds import generator


def violation(shares: Tensor, of_each: Tensor) -> Tensor:
    """The mean over two environments of (1/N Σ_i q_i(e) s_i)², IRM's penalty of a model whose logits are fixed.

    Args:
        shares: (N,) q_i(1), how much example i belongs to environment 1; q_i(0) is the rest.
        of_each: (N,) s_i, the derivative of each example's loss by a factor on its logits, at 1.
    """
    return ((shares * of_each).mean() ** 2 + ((1 - shares) * of_each).mean() ** 2) / 2


def infer_environments(of_each: Tensor, steps: int, lr: float, chooser: Generator) -> Tensor:
    """(N,) 0 or 1: the environments that ascent on `violation` ends in, from random shares, by Adam in float64."""
    start = torch.randn(len(of_each), generator=chooser, dtype=torch.float64)
    assignment, of_each = start.requires_grad_(), of_each.double()
    optimizer = torch.optim.Adam([assignment], lr=lr, maximize=True)
    for _ in range(steps):
        optimizer.zero_grad()
        violation(assignment.sigmoid(), of_each).backward()
        optimizer.step()
    return (assignment.detach() > 0).long()


def reference(config: ConfigDict) -> ConfigDict:
    """The run whose predictions are divided: the same by plain averages, and shorter."""
    first = shortened(config, config.objective.first_epochs)
    first.objective = ConfigDict({"name": "average"})
    first.head = ConfigDict({"name": "none"})
    return first


@checked
class EnvironmentInference(GroupDRO):
    """Group DRO over classes × environments, which are inferred from a first run's predictions on train.

    Creager, Jacobsen and Zemel, "Environment Inference for Invariant Learning", ICML 2021: the environments are the assignment q that maximises IRM's penalty of a reference model, Σ_e ‖∇_{w | w=1.0} 1/N Σ_i q_i(e) ℓ(w·z_i)‖² by gradient ascent on soft assignments that are rounded at the end, here by Adam, as in their code
    (github.com/ecreager/eiil). ℓ is cross-entropy. With them they train IRM, or group DRO on Waterbirds and
    CivilComments; here it is group DRO. The reference model is the same run by plain averages, `first_epochs` long, and
    must not yet fit the small groups: the maximum is convex in q, and lies where one environment has all s_i > 0 and the
    other all s_i < 0, which of two classes are those that the model gets wrong and right. Uses no groups: those of train
    only enter the log, to show what the environments are made of. They are a buffer, and so in every checkpoint.

    Args:
        first_epochs: of the reference model.
        ascent_steps, ascent_lr: of the ascent; 10,000 and 0.001 in their code.
        step_size, size_adjustment: see `GroupDRO`.
    """

    tags = Tags(batched=False, first_run=reference)
    columns = ("rows",)

    def __init__(
        self,
        targets: Tensor,
        groups: Tensor,
        num_groups: int,
        seed: int,
        first: FirstRun,
        *,
        first_epochs: Count,
        ascent_steps: Count,
        ascent_lr: Positive,
        step_size: Positive,
        size_adjustment: NonNegative,
    ):
        of_each = slopes(lambda logits: cross_entropy(logits, targets), first.logits.double())
        environments = infer_environments(of_each, ascent_steps, ascent_lr, generator(seed, "environments"))
        # Only those that have examples: a first run that predicts one class leaves two of four empty.
        _, inferred, counts = (2 * targets + environments).unique(return_inverse=True, return_counts=True)
        super().__init__(counts, step_size=step_size, size_adjustment=size_adjustment)
        self.register_buffer("environments", environments)
        self.register_buffer("inferred", inferred, persistent=False)
        made_of = [torch.bincount(groups[environments == e], minlength=num_groups).tolist() for e in (0, 1)]
        self.notes = (
            f"inferred environments: 0 has {made_of[0]} of each group, 1 has {made_of[1]}; "
            f"{first.errors.sum()} of {len(targets)} errors of the first run, "
            f"{first.errors[environments == 1].sum()} of them in 1",
        )

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, *, rows: Tensor) -> Tensor:
        return super().forward(losses, weights, self.inferred[rows])
