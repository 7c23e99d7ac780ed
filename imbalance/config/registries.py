"""Registries: for each config section that names a function, a table from names to functions.

The tables are defined beside their functions, in packages that import this one. So `ENTRY_POINTS` has only the name of
each table, and `registries` imports the table at its first use, which avoids a circular import.
"""

import functools
import re
from collections.abc import Mapping
from pkgutil import resolve_name

from imbalance.config.schema import Table
from imbalance.utils.package import ROOT
from imbalance.utils.read import read_bytes

ENTRY_POINTS = {
    "data": "imbalance.data:DATASETS",
    "groups": "imbalance.methods.group_inference.registry:GROUPS",
    "sampler": "imbalance.methods.samplers:SAMPLERS",
    "weights": "imbalance.methods.weights:WEIGHTS",
    "mix": "imbalance.methods.mixing:MIXINGS",
    "loss": "imbalance.methods.losses:LOSSES",
    "objective": "imbalance.methods.objectives.registry:OBJECTIVES",
    "model": "imbalance.models:MODELS",
    "adapter": "imbalance.models.adapters:ADAPTERS",
    "head": "imbalance.methods.heads.registry:HEADS",
    "optim.schedule": "imbalance.training.schedules:SCHEDULES",
    "optim": "imbalance.training.optim:OPTIMIZERS",
}


@functools.cache
def registries() -> dict[str, Table]:
    """Return the table of functions of each section, by the path of the section, such as "optim.schedule"."""
    return {section: resolve_name(name) for section, name in ENTRY_POINTS.items()}


def is_annotated(name: str) -> bool:
    """Return whether the code beside the registries annotates `name`, as it annotates each argument of their functions.

    So a misspelt key is known by reading the source; the import of the registries takes seconds.
    """
    annotation = f" {name}: ".encode(errors="replace")
    folders = {ROOT.joinpath(*re.split("[.:]", table)[:2]) for table in ENTRY_POINTS.values()}
    return any(annotation in read_bytes(file) for folder in folders for file in folder.rglob("*.py"))


@functools.cache
def available_arguments() -> Mapping[str, set[str]]:
    """Return, by section path, the names of the arguments that the program can pass to the functions of the section."""
    return resolve_name("imbalance.methods.context:AVAILABLE_ARGUMENTS")
