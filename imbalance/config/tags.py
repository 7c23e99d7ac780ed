"""What a data set, a way to find groups, a sampler, a weighting, an objective, a head, a model and so on is, said by itself.

As scikit-learn's estimator tags: what other code must know of an entry of a table stands on the entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
INFERRED = "val/worst_inferred_group_accuracy"  # the metric that runs on groups that were found have, on every split


@dataclass(frozen=True)
class Tags:
    """What a method is.

    balances: it evens out classes or groups. A sampler and weights that both do would do so twice.
    batched: runs that differ in seed, learning rate and weights can be trained as one stacked model. That takes as many
        draws at every seed, no random numbers or statistics in the model, and no memory in the objective.
    chance: of a sampler that keeps each example at random: `chance(labels, epoch, epochs, **section) -> (N,)`.
    measures: metrics that runs with it have and others have not, such as "train/flip_rate".
    first_run: from the config, that of a run to be made beforehand; its predictions are given as `first`.
    preparation: of a model, from its section: what its weights were trained on (`imbalance.data.images.decode.Preparation`),
        None where they say nothing of images.
    seeded: of data that take the seed, from their section: whether they are others at every seed; None where they are.
    held_out: of a head, from its section: the fraction of each class of train that no step sees; `features("held_out")`
        are then what the model makes of it, `dataset.held_out` its labels.
    module: of a head that leaves no linear layer: `module(head, section)`, from the trained layer and its section such a
        module as it returns, of any weights, to load a saved state into.
    """

    balances: bool = False
    batched: bool = False
    chance: Callable[..., Any] | None = None
    measures: tuple[str, ...] = ()
    first_run: Callable[[Any], Any] | None = None
    held_out: Callable[[Any], float] | None = None
    seeded: Callable[[Any], bool] | None = None
    preparation: Callable[[Any], Any] | None = None
    module: Callable[[Any, Any], Any] | None = None


def tagged(**tags: Any) -> Callable[[T], T]:
    """A decorator that writes tags on a function."""

    def write(function: T) -> T:
        function.tags = Tags(**tags)
        return function

    return write


def tags_of(entry: Any) -> Tags:
    """The tags of an entry of a table, or those of one that has none."""
    return getattr(entry, "tags", Tags())
