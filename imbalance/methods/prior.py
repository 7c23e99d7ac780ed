"""Prior correction: convert class probabilities that assume the class shares of training to other class shares.

Training by cross-entropy makes the probabilities of a network right for a population with the class shares q, the
effective prior of training. Importance weights and samplers multiply the share π_j of a class in the data by the
weight w_j and by s_j, the number of times that an example of the class is drawn. A loss that adds ι_j to the logit of
class j divides q_j by exp ι_j:

    q_j ∝ π_j · w_j · s_j · exp(−ι_j).

For a population with the class shares t, add log t_j − log q_j to the logit of each class j. Only the class shares may
differ between the populations: the inputs of a class must be distributed as in training (label shift).

No such q exists for a loss whose minimiser is not the logarithm of class probabilities (`poly`, `ldam`, `focal`, …),
for an objective that is no mean of losses (`group_dro`, …), for mixed examples, or for weights or samplers that change
between epochs or treat examples of a class differently. Then the functions here return the reason instead of q. The
formula holds for the minimiser of the expected loss. A network that fits every training example may have ignored the
importance weights, so that q is wrong for it.
"""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import build, look_up, short_repr
from imbalance.config.tags import tags_of
from imbalance.errors import BadInput
from imbalance.methods.context import RunContext
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.methods.samplers import SAMPLERS
from imbalance.utils.arrays import as_array, as_floats, as_labels, as_probabilities

Array = np.ndarray
SUM_TOLERANCE = 0.01  # allowed difference of a sum of rounded class shares from 1
EQUAL = 1e-4  # relative difference up to which two weights or shares count as equal; weights are float32


def effective_prior(
    targets: Tensor, num_classes: int, loss: nn.Module, weights: Tensor | None = None, draws: Tensor | None = None
) -> Tensor | str:
    """Return the effective prior q of training, (K,) float64 class shares, or a text that says why there is none.

    Args:
        targets: (N,) class of each training example.
        loss: the loss module, such as an entry of `imbalance.methods.losses.LOSSES`.
        weights: (N,) importance weight of each example; None for equal weights.
        draws: (N,) expected number of times that an epoch draws each example, up to a common factor; None if equal.

    Raises:
        BadInput: the targets are not N whole numbers from 0 to `num_classes` − 1; or the weights or draws are not N finite
            numbers from 0 on, with a sum above 0.
    """
    log_prior_shift: Callable[[], Tensor | None] = getattr(loss, "log_prior_shift", lambda: None)
    if (shift := log_prior_shift()) is None:
        return "this loss is smallest at logits whose softmax is not the class probabilities"
    targets = torch.from_numpy(as_labels("targets", targets, len(targets), num_classes))
    mass = torch.ones(len(targets), dtype=torch.float64)
    for name, factor in (("weights", weights), ("draws", draws)):
        if factor is not None:
            values = torch.from_numpy(as_floats(name, factor, 1).astype(np.float64))
            if len(values) != len(mass) or (values < 0).any() or not values.sum() > 0:
                raise BadInput(
                    f"{name}: {len(mass):,} numbers from 0 on are needed, one for each target, with a sum above 0"
                )
            mass = mass * values
    largest = mass.new_zeros(num_classes).scatter_reduce(0, targets, mass, "amax")
    if (mass < (1 - EQUAL) * largest[targets]).any():
        return (
            "examples of one class count unequally in training, by group for example, which changes how the inputs of the class "
            "are distributed; to have a prior, train with weights and sampler by='class'"
        )
    prior = mass.new_zeros(num_classes).index_add(0, targets, mass) * shift.cpu().double().exp()
    return prior / prior.sum()


def training_prior(
    config: Experiment, context: RunContext, weights: Callable[[int], Tensor], loss: nn.Module
) -> Tensor | str:
    """Return the effective prior of a run's training, (K,) class shares, or a text that says why there is none.

    A head that the run fits afterwards is not taken into account.

    Args:
        context: the labels of the training set.
        weights: function from an epoch to the (N,) importance weights.
        loss: the loss module of the run.
    """
    if not tags_of(look_up(OBJECTIVES, config.objective.name)).averages:
        return f"config.objective.name={config.objective.name!r} is no weighted mean of the losses"
    if config.mix.name != "none":
        return f"config.mix.name={config.mix.name!r} trains on mixtures of examples"
    chance = tags_of(look_up(SAMPLERS, config.sampler.name)).chance
    if chance is None:
        return f"config.sampler.name={config.sampler.name!r} has no tag `chance`, see imbalance.config.tags"
    priors: list[Tensor] = []
    epochs = (0, config.trainer.epochs - 1)
    weights_on_cpu = torch.stack([weights(epoch) for epoch in epochs]).cpu()  # one wait for the device
    for epoch, weights_of_epoch in zip(epochs, weights_on_cpu):
        draws = build({config.sampler.name: chance}, config.sampler, epoch=epoch, **vars(context))
        prior = effective_prior(context.targets, context.num_classes, loss, weights_of_epoch, draws)
        if isinstance(prior, str):
            names = [config.loss.name, config.weights.name, config.sampler.name]
            return "config.loss.name={!r}, config.weights.name={!r}, config.sampler.name={!r}: ".format(*names) + prior
        priors.append(prior)
    if not priors[0].allclose(priors[1], rtol=EQUAL, atol=0):
        return (
            f"config.sampler.name={config.sampler.name!r} and config.weights.name={config.weights.name!r} together change "
            "the class shares from epoch to epoch"
        )
    return priors[-1]


def class_shares(
    prior: str | Sequence[float] | Array | Tensor,
    natural: Sequence[float] | Array | Tensor,
    names: str = "'natural', 'uniform'",
) -> Tensor:
    """Return `prior` as (K,) float64 class shares.

    Args:
        prior: "natural" for the shares of the training set, "uniform" for equal shares, or K shares that sum to 1.
        natural: (K,) the class shares of the training set.
        names: the names that the caller accepts, for messages.

    Raises:
        BadInput: `prior` is an unknown name, or `prior` or `natural` is not K numbers that are at least 0 and sum to 1.
    """
    natural = checked_shares("natural", natural, None, "the class shares of training, such as counts / counts.sum()")
    if isinstance(prior, str):
        if prior not in ("natural", "uniform"):
            raise BadInput(f"prior: {prior!r} given; it must be {names} or {len(natural)} class shares")
        return natural.double() if prior == "natural" else torch.full((len(natural),), 1 / len(natural)).double()
    return checked_shares("prior", prior, len(natural), f"{names} or {len(natural)} class shares")


def checked_shares(key: str, values: Any, num_classes: int | None, needed: str) -> Tensor:
    """Return K class shares as a (K,) float64 tensor, divided by their sum.

    Args:
        key: name of the argument, for messages.
        values: K numbers.
        num_classes: K; None for any number of classes.
        needed: what the argument must be, for messages.

    Raises:
        BadInput: `values` are not K numbers that are at least 0 and sum to 1.
    """
    try:
        # torch reads a Series of pandas by its row labels, and warns of read-only arrays, so NumPy copies both.
        copied = values if isinstance(values, Tensor) else np.array(values, dtype=np.float64)
        shares = torch.as_tensor(copied, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):  # torch raises each of them for some other type
        raise BadInput(f"{key}: {short_repr(values)} given; it must be {needed}") from None
    if not shares.ndim or (num_classes is None and (shares.ndim > 1 or not len(shares))):
        raise BadInput(f"{key}: {short_repr(values)} given; it must be {needed}")
    if num_classes is not None and shares.ndim > 1:
        raise BadInput(
            f"{key}: shares of shape {tuple(shares.shape)} given; give shape ({num_classes},), a share for each class"
        )
    if num_classes is not None and shares.shape != (num_classes,):
        raise BadInput(f"{key}: {shares.numel()} class shares given; give {num_classes}, one for each class")
    if not (shares >= 0).all() or not abs(shares.sum().item() - 1) <= SUM_TOLERANCE:
        given = ", ".join(f"{share:g}" for share in shares.tolist())
        raise BadInput(
            f"{key}: {given} given; class shares must be at least 0 and sum to 1, as counts / counts.sum() does"
        )
    return shares / shares.sum()


def log_ratio(target: Tensor, prior: Tensor) -> Tensor:
    """Return the (K,) numbers log t_j − log q_j to add to the logits of a model with the prior q.

    The number is 0 for a class with the share 0 in both t and q, and −inf for a class with the share 0 in t only.

    Args:
        target: (K,) the class shares t of the population to predict for.
        prior: (K,) the prior q of the model's probabilities.

    Raises:
        BadInput: a class with a positive share in t has the share 0 in q: the model has never seen it; or t and q are not
            K shares from 0 on.
    """
    for name, shares in (("target", target), ("prior", prior)):
        if not isinstance(shares, Tensor):
            raise BadInput(
                f"{name}: {short_repr(shares)} given; a tensor (K,) is needed, such as torch.tensor([0.9, 0.1])"
            )
    if target.shape != prior.shape or target.ndim != 1 or not ((target >= 0) & (prior >= 0)).all():
        raise BadInput(
            f"target, prior: shares of shapes {tuple(target.shape)} and {tuple(prior.shape)} given; give two vectors with a share from "
            "0 on for each class"
        )
    if unseen := torch.nonzero((target > 0) & (prior == 0)).flatten().tolist():
        raise BadInput(
            f"prior: a share of {target[unseen[0]].item():g} given for class number {unseen[0]} (counted from 0); the model "
            "was trained on no example of this class, so the share must be 0"
        )
    return torch.where(target == prior, 0.0, target.log() - prior.log())


def em_prior(
    probabilities: Array, prior: Sequence[float] | Array, tolerance: float = 1e-8, most: int = 10_000
) -> Array:
    """Estimate the (K,) class shares of a population from a model's probabilities for unlabelled examples, by EM.

    Saerens, Latinne and Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori Probabilities", Neural
    Computation 2002, equation 2.9. The iteration converges to the shares with the largest likelihood. The probabilities
    must be calibrated, and the inputs of each class distributed as in training; otherwise the estimate is biased.

    Args:
        probabilities: (N, K) probabilities of the model for the examples.
        prior: (K,) the prior of these probabilities, see `effective_prior`.
        tolerance: the iteration ends when no share changes by more than this.
        most: the largest number of iterations.

    Raises:
        BadInput: there are no examples; an argument is not as described; or an example has the probability 0 for each
            class with a positive share in `prior`.
    """
    ratios = as_floats("probabilities", probabilities, 2).astype(np.float64)
    if not len(ratios):
        raise BadInput(
            "prior: 'estimated' given, and no examples; the shares are estimated from examples, so give one or more"
        )
    as_probabilities("probabilities", ratios)
    classes = ratios.shape[1]
    shares = checked_shares("prior", prior, classes, f"{classes} class shares").numpy()
    if not tolerance >= 0 or not isinstance(most, Integral) or most < 1:
        raise BadInput(
            f"tolerance, most: {tolerance!r} and {most!r} given; a number from 0 on and an integer from 1 on are needed"
        )
    if impossible := np.flatnonzero(ratios[:, shares > 0].sum(1) == 0).tolist():
        raise BadInput(
            f"probabilities: example {impossible[0]} has the probability 0 for each class with a positive share in prior; leave it "
            "out, or give the prior of these probabilities"
        )
    ratios = np.divide(ratios, shares, out=np.zeros_like(ratios), where=shares > 0)
    for _ in range(most):
        before, shares = shares, shares * (ratios.T @ (1 / (ratios @ shares))) / len(ratios)
        if np.abs(shares - before).max() <= tolerance:
            break
    return shares / shares.sum()


def bbse_prior(val_predictions: Array, val_targets: Array, predictions: Array) -> Array:
    """Estimate the (K,) class shares of a population from predictions for unlabelled examples, by BBSE.

    Lipton, Wang and Smola, "Detecting and Correcting for Label Shift with Black Box Predictors", ICML 2018. The ratios w
    of the class shares to those of val solve C w = μ. C_ij is the share of val examples that are predicted as i and are
    of class j; μ_i is the share of examples that are predicted as i. Negative solutions are set to 0, and the shares are
    scaled to the sum 1. The model may be uncalibrated, but each class needs enough examples in val.

    Args:
        val_predictions: predictions for N labelled val examples: (N,) class numbers, or (N, K) probabilities.
        val_targets: (N,) classes of the val examples.
        predictions: predictions for M unlabelled examples, (M,) or (M, K) like `val_predictions`.

    Raises:
        BadInput: the arrays do not fit together; or C cannot be inverted: val lacks a class, or the predictions do not tell
            two classes apart.
    """
    val_predictions = as_array("val_predictions", val_predictions, (1, 2))
    val_targets = as_array("val_targets", val_targets, 1)
    predictions = as_array("predictions", predictions, val_predictions.ndim)
    if not len(val_targets) == len(val_predictions) > 0 or not len(predictions):
        raise BadInput(
            f"BBSE: {len(val_predictions):,} val_predictions, {len(val_targets):,} val_targets and {len(predictions):,} "
            "predictions given; val_predictions and val_targets must be equally many, and every number at least 1"
        )
    if val_predictions.shape[1:] != predictions.shape[1:]:
        raise BadInput(
            f"BBSE: probabilities of {val_predictions.shape[1]} classes in val and {predictions.shape[1]} classes in "
            "predictions given; the numbers must be equal"
        )
    named = dict(val_predictions=val_predictions, val_targets=val_targets, predictions=predictions)
    for name, values in named.items():
        if values.ndim == 2:
            as_probabilities(name, values)
        elif not (values == np.floor(values)).all() or values.min() < 0:  # nan, too
            raise BadInput(f"{name}: class numbers are needed, whole numbers from 0 on")
    if val_predictions.ndim == 1:
        classes = np.arange(1 + max(int(labels.max()) for labels in (val_predictions, val_targets, predictions)))
        val_predictions, predictions = (labels[:, None] == classes for labels in (val_predictions, predictions))
    onehot = val_targets[:, None] == np.arange(val_predictions.shape[1])
    joint = val_predictions.T.astype(np.float64) @ onehot / len(val_targets)
    if np.linalg.matrix_rank(joint) < len(joint):
        raise BadInput(
            "BBSE: the confusion matrix on val cannot be inverted, because val lacks a class, or two classes are predicted "
            "alike; use em_prior, or more val examples"
        )
    ratios = np.linalg.solve(joint, predictions.mean(0)).clip(min=0)
    shares = ratios * onehot.mean(0)
    return shares / shares.sum()
