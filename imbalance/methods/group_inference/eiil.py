"""EIIL: environment inference for invariant learning, which infers groups from the predictions of a first run."""

import torch
from torch import Generator, Tensor

from imbalance.config.schema import Positive, Repeats
from imbalance.config.tags import INFERRED_GROUP_METRICS, tagged
from imbalance.data import Dataset
from imbalance.methods.context import FirstRun, GroupAssignment, cross_entropy_baseline
from imbalance.methods.heads.descent import minimise
from imbalance.methods.losses import cross_entropy
from imbalance.methods.objectives.base import slopes as loss_slopes
from imbalance.utils.seeds import generator


def violation(shares: Tensor, slopes: Tensor) -> Tensor:
    """Return the penalty of IRM for fixed logits: the mean over two environments e of (1/N Σ_i q_i(e) s_i)².

    Args:
        shares: (N,) q_i(1), the share of example i in environment 1; q_i(0) = 1 − q_i(1).
        slopes: (N,) s_i, the derivative of the loss ℓ(w·z_i) by the factor w on the logits at w = 1.
    """
    return ((shares * slopes).mean() ** 2 + ((1 - shares) * slopes).mean() ** 2) / 2


def largest_violation(slopes: Tensor) -> Tensor:
    """Return the (N,) environments, 0 or 1, at which `violation` is largest: 1 where the slope is positive.

    `violation` is convex in Σ_i q_i(1) s_i, so it is largest at the largest or the smallest sum; both give the same value.

    Args:
        slopes: (N,) as for `violation`.
    """
    return (slopes > 0).long()


def infer_environments(slopes: Tensor, steps: int, lr: float, chooser: Generator) -> Tensor:
    """Return the (N,) environments, 0 or 1, that maximise `violation`.

    Adam starts at random shares and maximises `violation` over the shares in float64. At the end the shares are rounded
    to 0 or 1.

    Args:
        slopes: (N,) as for `violation`.
        steps: the number of steps of Adam.
        chooser: the random generator that draws the initial shares.
    """
    start = torch.randn(len(slopes), generator=chooser, dtype=torch.float64)
    assignment, slopes = start.requires_grad_(), slopes.double()
    optimizer = torch.optim.Adam([assignment], lr=lr, maximize=True)
    minimise((violation(assignment.sigmoid(), slopes) for _ in range(steps)), optimizer)
    return (assignment.detach() > 0).long()


@tagged(
    first_run=lambda config: cross_entropy_baseline(config, config.groups.first_epochs),
    measures=INFERRED_GROUP_METRICS,
)
def eiil(
    dataset: Dataset,
    seed: int,
    first: FirstRun,
    *,
    first_epochs: Repeats,
    ascent_steps: Repeats,
    ascent_lr: Positive,
) -> GroupAssignment:
    """Infer two environments that maximise the penalty of IRM for a reference model, and cross them with classes.

    Creager, Jacobsen and Zemel, "Environment Inference for Invariant Learning", ICML 2021. The environments are the
    assignment q that maximises the penalty of IRM for a reference model, Σ_e ‖∇_{w | w=1.0} 1/N Σ_i q_i(e) ℓ(w·z_i)‖².
    ℓ is cross-entropy, z_i are the logits of example i, and q_i(e) is its share in environment e. Adam maximises the
    penalty over these shares, which are rounded at the end, as in the authors' code (github.com/ecreager/eiil). The
    authors then train IRM with these environments, or group DRO on Waterbirds and CivilComments.

    The reference model is a first run of plain cross-entropy for `first_epochs` epochs. Choose a number at which the
    model does not fit the small groups yet. The penalty is convex in q, so its maximum is at a corner: one environment
    has all examples with s_i > 0, the other all with s_i < 0, where s_i is the derivative of ℓ(w·z_i) by w. With two
    classes these are the examples that the model predicts wrongly and those that it predicts rightly.

    Val and test are divided in the same way, each by itself, which the paper does not do. So an epoch can be selected
    without groups of the data, and a loss by group can be computed on test. The inference reads no groups.

    Args:
        first_epochs: the number of epochs of the reference model.
        ascent_steps: the number of steps of Adam; 10,000 in the authors' code.
        ascent_lr: the learning rate of Adam; 0.001 in the authors' code.
    """
    environments = {}
    for name in ("train", "val", "test"):
        targets = getattr(dataset, name).targets
        logits = first.logits(name, targets).double()
        slopes = loss_slopes(lambda z, targets=targets: cross_entropy(z, targets), logits)
        chooser = generator(seed, "environments" if name == "train" else f"environments of {name}")
        environments[name] = infer_environments(slopes, ascent_steps, ascent_lr, chooser)
    return GroupAssignment(environments)
