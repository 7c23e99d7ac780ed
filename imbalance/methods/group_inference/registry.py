"""Group inference by name: methods use the groups of the data, or groups that are inferred from a first run.

A group inference `function(dataset, seed, first, *, …)` returns a `GroupAssignment`: the environment, numbered from 0, of
each example of every split. The groups that methods then use are the combinations of class and environment. So every
sampler, weighting, mixing, loss, objective and head that reads groups reads the inferred ones. Metrics by group still
use the groups of the data. The metrics `val/worst_inferred_group_accuracy` and `val/inferred_group_balanced_accuracy` use the
inferred groups, so they can select an epoch without groups of the data.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.group_inference.eiil import eiil
from imbalance.methods.group_inference.george import george
from imbalance.methods.group_inference.predictions import predictions
from imbalance.methods.group_inference.spare import spare
from imbalance.methods.group_inference.ssa import ssa
from imbalance.methods.group_inference.xrm import xrm

SPLITS = ("train", "val", "test")


def groups_of_data() -> None:
    """Use the groups of the data, and infer none."""


def with_environments(dataset: Dataset, environments: Mapping[str, Tensor]) -> Dataset:
    """Return a copy of `dataset` whose groups for methods are the combinations of class and environment.

    Args:
        environments: for each split, the (N,) environments of its examples, numbered from 0. At least two environments
            are counted, even if no example is in the second.

    Raises:
        BadInput: the evaluated classes of the data set are not those of training, so a first run does not predict them.
    """
    if dataset.probe:
        raise BadInput(
            "config.groups.name: groups cannot be inferred for config.data.name='new_classes', because the first run "
            "does not learn the classes that are evaluated; use config.groups.name='data'"
        )
    count = max(2, *(int(environments[name].max()) + 1 for name in SPLITS))
    names = tuple(f"{name}, environment {e}" for name in dataset.class_names for e in range(count))
    splits = {name: getattr(dataset, name) for name in SPLITS}
    divided = {
        name: replace(split, inferred=count * split.targets + environments[name]) for name, split in splits.items()
    }
    notes = tuple(environment_counts(dataset, name, environments[name], count) for name in ("train", "val"))
    return replace(dataset, **divided, inferred_names=names, notes=(*dataset.notes, *notes))


def environment_counts(dataset: Dataset, name: str, environments: Tensor, count: int) -> str:
    """Return a sentence with the number of examples of each group of the data in each environment of the split `name`.

    Args:
        environments: (N,) the environments of the examples of the split.
        count: the number of environments.
    """
    groups = getattr(dataset, name).groups
    counts = (
        f"environment {e} {torch.bincount(groups[environments == e], minlength=dataset.num_groups).tolist()}"
        for e in range(count)
    )
    return f"inferred environments of {name}, with the number of examples of each group: {', '.join(counts)}"


GROUPS = {
    "data": groups_of_data,
    "eiil": eiil,
    "george": george,
    "predictions": predictions,
    "spare": spare,
    "ssa": ssa,
    "xrm": xrm,
}
