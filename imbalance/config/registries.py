"""Registries: the tables whose entries a config names, and what the program passes to these entries.

A table lies in the room of its entries, above this one. So it is named here and resolved when it is first needed, as an
entry point of a package is; no import runs up.
"""

import functools
from collections.abc import Mapping
from pkgutil import resolve_name

from imbalance.config.schema import Table

TABLES = {
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
    """Return the table of every section: what the `name` of the section can be."""
    return {section: resolve_name(name) for section, name in TABLES.items()}


def provided() -> Mapping[str, set[str]]:
    """Return, for every section, the names of the arguments that the program passes to its functions."""
    return resolve_name("imbalance.methods.context:PROVIDED")
