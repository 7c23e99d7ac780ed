"""Inference of groups by name: the groups that methods see are those of the data, or inferred from a first run.

`groups(dataset, seed, first, *, …)` returns a `GroupAssignment`: the environment, 0 or 1, of each example of every
split. The group that methods then see is the class crossed with the environment. So every sampler, weighting, mixing,
loss, objective and head by group can use inferred groups. Metrics by group still use the groups of the data. A further
metric, `val/worst_inferred_group_accuracy`, selects an epoch without knowledge of any group.
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


def groups_of_data() -> None:
    """Use the groups of the data."""


def with_environments(dataset: Dataset, environments: Mapping[str, Tensor]) -> Dataset:
    """Return `dataset` with the classes crossed with `environments` as the groups that methods see.

    Args:
        environments: for each split, (N,) 0 or 1.

    Raises:
        BadInput: the data set evaluates classes that the first run has not learned.
    """
    if dataset.probe:
        raise BadInput(
            "config.groups.name: must be 'data' for config.data.name='new_classes', because the first run does not learn "
            "the classes that are evaluated"
        )
    names = tuple(f"{name}, environment {e}" for name in dataset.class_names for e in (0, 1))
    splits = {name: getattr(dataset, name) for name in SPLITS}
    divided = {name: replace(split, inferred=2 * split.targets + environments[name]) for name, split in splits.items()}
    notes = tuple(environment_counts(dataset, name, environments[name]) for name in ("train", "val"))
    return replace(dataset, **divided, inferred_names=names, notes=(*dataset.notes, *notes))


def environment_counts(dataset: Dataset, name: str, environments: Tensor) -> str:
    """Describe how many examples of each group of the data are in each environment."""
    groups = getattr(dataset, name).groups
    counts = [torch.bincount(groups[environments == e], minlength=dataset.num_groups).tolist() for e in (0, 1)]
    return f"inferred environments of {name}: 0 has {counts[0]} of each group, 1 has {counts[1]}"


GROUPS = {"data": groups_of_data, "eiil": eiil, "xrm": xrm}
