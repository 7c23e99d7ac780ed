"""Environment inference: groups found in what a first model gets right for the wrong reasons."""

import torch
from torch import Generator, Tensor

from imbalance.config.schema import Positive, Repeats
from imbalance.config.tags import INFERRED_GROUP_METRIC, tagged
from imbalance.data import Dataset
from imbalance.methods.context import FirstRun, GroupAssignment, plain
from imbalance.methods.heads.descent import minimise
from imbalance.methods.losses import cross_entropy
from imbalance.methods.objectives.base import slopes
from imbalance.utils.seeds import generator


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
    minimise((violation(assignment.sigmoid(), of_each) for _ in range(steps)), optimizer)
    return (assignment.detach() > 0).long()


@tagged(first_run=lambda config: plain(config, config.groups.first_epochs), measures=(INFERRED_GROUP_METRIC,))
def eiil(
    dataset: Dataset,
    seed: int,
    first: FirstRun,
    *,
    first_epochs: Repeats,
    ascent_steps: Repeats,
    ascent_lr: Positive,
) -> GroupAssignment:
    """The two environments in which a first model is least invariant, times the classes.

    Creager, Jacobsen and Zemel, "Environment Inference for Invariant Learning", ICML 2021: the environments are the
    assignment q that maximises IRM's penalty of a reference model, Σ_e ‖∇_{w | w=1.0} 1/N Σ_i q_i(e) ℓ(w·z_i)‖² by gradient
    ascent on soft assignments that are rounded at the end, here by Adam, as in their code (github.com/ecreager/eiil). ℓ is
    cross-entropy. With them they train IRM, or group DRO on Waterbirds and CivilComments. The reference model is the
    same run by plain averages, `first_epochs` long, and must not yet fit the small groups: the maximum is convex in q,
    and lies where one environment has all s_i > 0 and the other all s_i < 0, which of two classes are those that the
    model gets wrong and right. Val and test are divided in the same way, each for itself, which is not in the paper: so
    an epoch can be selected without groups, and a loss by group has a value on test. Uses no groups.

    Args:
        first_epochs: the number of epochs of the reference model.
        ascent_steps: the number of steps of the ascent; 10,000 in the authors' code.
        ascent_lr: the learning rate of the ascent; 0.001 in the authors' code.
    """
    found = {}
    for name in ("train", "val", "test"):
        targets = getattr(dataset, name).targets
        of_each = slopes(lambda z, targets=targets: cross_entropy(z, targets), first.logits(name, targets).double())
        chooser = generator(seed, "environments" if name == "train" else f"environments of {name}")
        found[name] = infer_environments(of_each, ascent_steps, ascent_lr, chooser)
    return GroupAssignment(found)
