"""Groups: those that methods see, whether the data say them or a first run has found them.

`groups(dataset, seed, first, *, …)` returns a `GroupAssignment`: of every split the environment, 0 or 1, of each example. What
methods then see as its group is its class and that. So whatever has found them, any sampler, weighting, mixing, loss, objective
and head by group can use them. Metrics by group keep to the groups of the data; beside them the worst of the inferred
ones is measured, `val/worst_inferred_group_accuracy`, by which an epoch can be selected without knowing any group.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.group_inference.eiil import eiil
from imbalance.methods.group_inference.xrm import xrm

SPLITS = ("train", "val", "test")


def of_data() -> None:
    """The groups that the data say."""


def with_environments(dataset: Dataset, environments: Mapping[str, Tensor]) -> Dataset:
    """`dataset`, of whose groups methods see classes × `environments`, the (N,) of each split."""
    if dataset.probe:
        raise BadInput(
            "config.groups.name: 'data' is what config.data.name='new_classes' takes: of the classes that it evaluates "
            "the first run has learned nothing"
        )
    names = tuple(f"{name}, environment {e}" for name in dataset.class_names for e in (0, 1))
    splits = {name: getattr(dataset, name) for name in SPLITS}
    divided = {name: replace(split, inferred=2 * split.targets + environments[name]) for name, split in splits.items()}
    notes = tuple(made_of(dataset, name, environments[name]) for name in ("train", "val"))
    return replace(dataset, **divided, inferred_names=names, notes=(*dataset.notes, *notes))


def made_of(dataset: Dataset, name: str, environments: Tensor) -> str:
    """In words, how many of each group of the data are in each environment."""
    groups = getattr(dataset, name).groups
    counts = [torch.bincount(groups[environments == e], minlength=dataset.num_groups).tolist() for e in (0, 1)]
    return f"inferred environments of {name}: 0 has {counts[0]} of each group, 1 has {counts[1]}"


GROUPS = {"data": of_data, "eiil": eiil, "xrm": xrm}
