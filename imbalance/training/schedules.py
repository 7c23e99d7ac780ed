"""Learning-rate schedules.

A schedule is a function of `epoch`, the number of epochs done, which may be a fraction, and of `epochs`, their total. It
returns the factor on the learning rate. It is stateless, so a resumed run has nothing to restore.
"""

import bisect
import math

from imbalance.config.schema import Fraction, Natural, NonNegative


def warm_up(epoch: float, warmup_epochs: float) -> float:
    """Return a factor that rises linearly from 0 to 1 over the first `warmup_epochs` epochs, and then stays 1."""
    return min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0


def constant(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """Return a factor on the learning rate that is 1 after warm-up.

    Args:
        warmup_epochs: the number of epochs, which may be a fraction, in which the learning rate rises from 0 to its
            full value; 0 for no warm-up.
    """
    return warm_up(epoch, warmup_epochs)


def cosine(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """Return a factor on the learning rate that falls from 1 to 0 along half a cosine after warm-up.

    The factor is 0 at the end of training (Loshchilov and Hutter, ICLR 2017).

    Args:
        warmup_epochs: the number of epochs, which may be a fraction, in which the learning rate rises from 0 to its
            full value; 0 for no warm-up.
    """
    if epoch < warmup_epochs:
        return warm_up(epoch, warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / max(epochs - warmup_epochs, math.ulp(1.0))))


def linear(epoch: float, epochs: int, *, warmup_epochs: NonNegative) -> float:
    """Return a factor on the learning rate that falls linearly from 1 to 0 after warm-up, as in fine-tuning BERT.

    The factor is 0 at the end of training.

    Args:
        warmup_epochs: the number of epochs, which may be a fraction, in which the learning rate rises from 0 to its
            full value; 0 for no warm-up.
    """
    if epoch < warmup_epochs:
        return warm_up(epoch, warmup_epochs)
    return max(0.0, (epochs - epoch) / max(epochs - warmup_epochs, math.ulp(1.0)))


def step(
    epoch: float, epochs: int, *, warmup_epochs: NonNegative, milestones: tuple[Natural, ...], factor: Fraction
) -> float:
    """Return a factor on the learning rate that is 1 after warm-up, and is multiplied by `factor` at each milestone.

    Args:
        warmup_epochs: the number of epochs, which may be a fraction, in which the learning rate rises from 0 to its
            full value; 0 for no warm-up.
        milestones: the epochs at which the learning rate is multiplied, in ascending order.
        factor: the number by which the learning rate is multiplied at each milestone.
    """
    return warm_up(epoch, warmup_epochs) * factor ** bisect.bisect_right(milestones, epoch)


SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear, "step": step}
