"""Tags: properties that a function in a registry declares about itself, as scikit-learn's estimators do.

Other code reads the tags of a data set, sampler, objective or head, and need not know the names in the registry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
INFERRED_GROUP_METRIC = "val/worst_inferred_group_accuracy"  # exists for every split, in a run with inferred groups


@dataclass(frozen=True)
class Tags:
    """Properties of an entry of a registry.

    Args:
        balances: the entry evens out classes or groups. A sampler and weights that both do so would correct the
            imbalance twice, so the config is refused.
        batched: runs that differ only in seed, learning rate and importance weights can train as one stacked model. A
            sampler must then draw equally many examples at every seed. A model must have no dropout and no running
            statistics, and an objective no state.
        chance: for a sampler that keeps each example with some probability. The call `chance(labels, epoch, epochs,
            **section)` returns the (N,) probabilities.
        unmixed: for an objective that compares examples by class, so that a config with mixing is refused.
        measures: names of metrics that this entry adds to a run, such as "train/flip_rate".
        first_run: function from the config to the config of a run that is trained first. The predictions of that run
            are passed to the entry as the argument `first`.
        held_out: for a head: function from its section to the fraction of each class of train that no step trains on.
            Then `features("held_out")` are the features of these examples, and `dataset.held_out` has their labels.
        seeded: for a data set: function from its section to whether another seed gives other data. None means that
            another seed gives other data exactly if the data set takes the argument `seed`.
        preparation: for a model: function from its section to the `imbalance.data.images.decode.Preparation` of the
            images on which its pretrained weights were trained; None if the model has no such weights.
        module: for a head whose new last layer is not linear. The call `module(head, section)` takes the trained last
            layer and the section, and returns a module like the new layer, with any weights. A saved state is loaded
            into that module.
    """

    balances: bool = False
    unmixed: bool = False
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
    """Return the tags of an entry of a registry; if it has none, the defaults of `Tags`."""
    return getattr(entry, "tags", Tags())
