"""Prior correction as a head: shift the logits from the effective prior of training to other class shares."""

from typing import Literal

from torch import Tensor, nn

from imbalance.config.schema import Positive, Section
from imbalance.config.tags import tagged
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.prior import class_shares, log_ratio


def target_prior(training_prior: Tensor, natural: Tensor, section: Section) -> Tensor:
    """Return the (K,) class shares to which `config.head.target` corrects.

    Args:
        training_prior: unused; an argument because all functions for the tag `prior` have it.
        natural: (K,) the class shares of the training set.
        section: the section `config.head`.
    """
    return class_shares(section.target, natural)


@tagged(prior=target_prior)
def prior(
    head: nn.Linear,
    class_counts: Tensor,
    training_prior: Tensor,
    *,
    target: Literal["natural", "uniform"] | tuple[Positive, ...],
) -> nn.Module:
    """Add log t_j − log q_j to the logit of each class j, for a population with the class shares t in place of q.

    q is the effective prior of training: the class shares of the training set, times the importance weights, times the
    draws of the sampler, times the shift of the loss. A run whose training has no effective prior is refused before it
    trains. `imbalance.methods.prior` has the formula, its assumptions and these runs.

    Args:
        target: t: "natural" for the class shares of the training set, "uniform" for equal shares, or a share for each
            class.
    """
    natural = class_counts.double() / class_counts.sum()
    shift = log_ratio(class_shares(target, natural.cpu()), training_prior)
    return linear(head.weight, head.bias + shift.to(head.bias))
