"""Registries: one table for each config section that is a call, from names to functions.

A table lies in the room of its entries, above this one. So `ENTRY_POINTS` names the table, and `registries` imports it
when it is first needed; no import runs up.
"""

import functools
from collections.abc import Mapping
from pkgutil import resolve_name

from imbalance.config.schema import Table

ENTRY_POINTS = {
    "data": "imbalance.data:DATASETS",
    "groups": "imbalance.methods.group_inference.registry:GROUPS",
    "sampler": "imbalance.methods.samplers:SAMPLERS",
    "weights": "imbalance.methods.weights:WEIGHTS",
    "mix": "imbalance.methods.mixing:MIXINGS",
    "loss": "imbalance.methods.losses:LOSSES",
    "objective": "imbalance.methods.objectives.registry:OBJECTIVES",
    "model": "imbalance.models:MODELS",
    "head": "imbalance.methods.heads.registry:HEADS",
    "optim.schedule": "imbalance.training.optim:SCHEDULES",
    "optim": "imbalance.training.optim:OPTIMIZERS",
}


@functools.cache
def registries() -> dict[str, Table]:
    """Return the table of every section: which functions the `name` of the section can mean."""
    return {section: resolve_name(name) for section, name in ENTRY_POINTS.items()}


def available_arguments() -> Mapping[str, set[str]]:
    """Return, for every section, the names of the arguments that the program passes to its functions."""
    return resolve_name("imbalance.methods.context:AVAILABLE_ARGUMENTS")
