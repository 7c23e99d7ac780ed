"""Tags: properties that a function in a registry declares about itself, as scikit-learn's estimators do.

A registry is a table of the functions that a config section can name; see `imbalance.config.registries`.

Other code reads the tags of a data set, sampler, objective or head, so that it needs no list of function names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
# Metrics of a run with inferred groups. Metrics of the same names exist for train and test.
INFERRED_GROUP_METRICS = ("val/worst_inferred_group_accuracy", "val/inferred_group_balanced_accuracy")


@dataclass(frozen=True)
class Tags:
    """Properties of a function or class that a config section can name (an entry of a registry).

    Args:
        balances: true for a sampler or weights that make classes or groups count equally, and for a loss or a head that
            corrects the class shares by itself. A balancing sampler and balancing weights would correct the imbalance
            twice, so a config with both is refused. A run in which a balancing loss or head meets another of these warns.
        batched: true if runs that differ only in seed, learning rate, importance weights and head can train as one stacked
            model. A sampler must then draw equally many examples at every seed. A model must have no dropout and no
            running statistics, and an objective no state.
        chance: for a sampler: a function that returns the (N,) expected numbers of draws of the examples in an epoch,
            up to a common factor. The function gets the values of the sampler's section as keyword arguments. It also gets
            `epoch` and fields of `imbalance.methods.context.RunContext`, each if the function's signature names it.
        full_batch: true for an optimiser that takes each step on all training examples, and has no learning rate.
        averages: true for an objective that trains the last layer to minimise the weighted mean of the losses; its other
            terms, if any, act on earlier layers only.
        prior: for a head: a function that returns the prior of the new layer's probabilities as (K,) class shares, or
            None if that prior is unknown; see `imbalance.methods.prior`. The function is called as
            `prior(training_prior, natural, section)` with the prior of the trained last layer and the class shares of the
            training set.
        unmixed: true for an objective that compares examples by class; a config with mixing is then refused.
        measures: names of the metrics that the tagged function adds to the standard metrics, such as "train/flip_rate".
        first_run: for a two-stage method: a function that takes the config and returns the config of another run, which
            is trained first. The method gets the predictions of the other run as its argument `first`.
        held_out: for a head: a function that takes the head's section and returns a fraction. This fraction of each
            training class is not trained on, but kept for the head: `features("held_out")` returns the features of
            these examples, and `dataset.held_out` has their labels.
        reads_val: true for a head that is fitted to the val examples.
        seeded: for a data set: a function that takes its section and returns whether the data depend on the seed. None:
            the data depend on the seed exactly if the data set takes the argument `seed`.
        passes: for an optimiser: the number of forward and backward passes in a step.
        splits: true for an optimiser that treats the losses of different classes differently; a config with an
            objective other than "average", or with mixing, is then refused.
        data: for an objective: a function that returns the data set to train on in place of the loaded one. It is called as
            `data(dataset, section, seed)` with the loaded data set and the objective's section.
        preparation: for a model: a function that takes its section and returns the image preprocessing of the
            model's pretrained weights, an `imbalance.data.images.decode.Preparation`; None if the model has no such weights.
        module: for a head whose new last layer is not linear: a function that builds such a layer with any weights, to
            load a saved state into it. It is called as `module(head, section)` with the trained last layer.
    """

    balances: bool = False
    unmixed: bool = False
    batched: bool = False
    chance: Callable[..., Any] | None = None
    full_batch: bool = False
    averages: bool = False
    prior: Callable[..., Any] | None = None
    measures: tuple[str, ...] = ()
    first_run: Callable[[Any], Any] | None = None
    held_out: Callable[[Any], float] | None = None
    reads_val: bool = False
    seeded: Callable[[Any], bool] | None = None
    passes: int = 1
    splits: bool = False
    data: Callable[[Any, Any, int], Any] | None = None
    preparation: Callable[[Any], Any] | None = None
    module: Callable[[Any, Any], Any] | None = None


def tagged(**tags: Any) -> Callable[[T], T]:
    """Return a decorator that sets the tags of a function or class."""

    def set_tags(function: T) -> T:
        setattr(function, "tags", Tags(**tags))  # noqa: B010 (a type of any kind declares no attribute `tags`)
        return function

    return set_tags


def tags_of(entry: Any) -> Tags:
    """Return the tags of a function or class of a registry; if it has no tags, return the defaults of `Tags`."""
    return getattr(entry, "tags", Tags())
