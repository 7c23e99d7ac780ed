"""Tags: properties that an entry of a registry states about itself, as scikit-learn's estimator tags do.

Other code reads the tags of a data set, sampler, objective or head instead of testing for its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
INFERRED_GROUP_METRIC = "val/worst_inferred_group_accuracy"  # every split of a run with inferred groups has it


@dataclass(frozen=True)
class Tags:
    """Properties of an entry of a registry.

    balances: the entry evens out classes or groups. A sampler and weights that both balance would do so twice.
    batched: runs that differ in seed, learning rate and weights can train as one stacked model. Such an entry draws as
        often at every seed, has no random numbers or statistics in the model, and no memory in the objective.
    chance: function of a sampler that keeps each example with a probability:
        `chance(labels, epoch, epochs, **section) -> (N,)`.
    measures: names of metrics that only runs with this entry have, such as "train/flip_rate".
    first_run: function from the config to the config of a run to be made first. Its predictions are passed to the entry
        as `first`.
    held_out: function of a head, from its section to the fraction of each class of train that no step trains on. Then
        `features("held_out")` are the features of these examples, and `dataset.held_out` has their labels.
    seeded: function of a data set, from its section to whether another seed gives other data. None where every data set
        that takes the seed does so.
    preparation: function of a model, from its section to the `imbalance.data.images.decode.Preparation` that its weights
        were trained with; None where the weights say nothing about images.
    module: function of a head that returns no linear layer: `module(head, section)`, from the trained layer and the
        section to a module of the same form with any weights, which a saved state is loaded into.
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
    """Return a decorator that sets the tags of a function or class."""

    def set_tags(function: T) -> T:
        setattr(function, "tags", Tags(**tags))  # noqa: B010 (a type of any kind declares no attribute `tags`)
        return function

    return set_tags


def tags_of(entry: Any) -> Tags:
    """Return the tags of an entry of a registry; the defaults if it has none."""
    return getattr(entry, "tags", Tags())
