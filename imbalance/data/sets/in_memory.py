"""Data set in memory, passed to `imbalance.run(config, data=…)`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imbalance.data.population import SPLITS, population_problems
from imbalance.data.problems import raise_first
from imbalance.data.sets.arrays import channel_statistics
from imbalance.data.splits import Dataset, Split
from imbalance.data.tables.columns import group_name
from imbalance.errors import BadInput


def in_memory() -> Dataset:
    """Raise `BadInput`: data that a program passed to `imbalance.run(config, data=…)` cannot be loaded from a config.

    The config of such a run names the data set "in_memory", but does not contain the data.

    Raises:
        BadInput: always, because only the program can pass the data again.
    """
    raise BadInput(
        "config.data.name: 'in_memory' means data that a program passed to imbalance.run(config, data=…); run that program "
        "again"
    )


def as_dataset(
    data: Dataset | Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
) -> Dataset:
    """Turn tensors, arrays or torch data sets into a `Dataset`; torch data sets are read into memory.

    Args:
        data: a Dataset, which is returned unchanged; or a mapping with the keys "train", "val" and "test". Each value is
            a tuple (inputs, targets) or (inputs, targets, groups) of tensors or arrays, or a map-style torch data set
            whose examples are such tuples. A torch data set is read once, so its random transforms do not change from
            epoch to epoch. Inputs are floats, or uint8 images (N, C, H, W), which are normalised by the channel
            statistics of the training set. If a group has examples of several classes, the groups that you give are
            taken for the values of an attribute: the groups of the data set are the combinations of class and attribute.
            If you give no groups, the classes are the groups.
        class_names, group_names: the names, in the order of the labels. By default they are the labels as text; the
            attribute `classes` of a torch data set gives the class names.

    Raises:
        BadInput: a split is missing, or shapes, types or labels do not fit.
    """
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, Mapping) or set(data) != set(SPLITS):
        raise BadInput(
            f"data: {describe(data)} given; a Dataset, or a mapping with exactly the keys {', '.join(SPLITS)}, is needed"
        )
    examples = {name: read_split(name, data[name]) for name in SPLITS}
    shapes = {name: (tuple(inputs.shape[1:]), inputs.dtype) for name, (inputs, _, _) in examples.items()}
    for name in SPLITS[1:]:
        if shapes[name] != shapes["train"]:
            raise BadInput(
                f"data[{name!r}]: inputs have shape and type {shapes[name]}, and those of train {shapes['train']}; they must "
                "be equal"
            )
    class_names = class_names or getattr(data["train"], "classes", None)
    class_names = label_names([targets for _, targets, _ in examples.values()], class_names, "class_names")
    without_groups = [name for name, (_, _, groups) in examples.items() if groups is None]
    if without_groups and len(without_groups) < len(SPLITS):
        raise BadInput(
            f"data[{without_groups[0]!r}]: no groups given, but another split has groups; give groups for all splits, or for none"
        )
    if without_groups:
        group_names = class_names
    splits = {
        name: Split(inputs, targets, targets if groups is None else groups, torch.arange(len(targets)))
        for name, (inputs, targets, groups) in examples.items()
    }
    group_names = label_names([split.groups for split in splits.values()], group_names, "group_names")
    all_targets = torch.cat([split.targets for split in splits.values()]).numpy()
    all_groups = torch.cat([split.groups for split in splits.values()]).numpy()
    pairs, crossed = np.unique(np.stack([all_targets, all_groups], axis=1), axis=0, return_inverse=True)
    if len(pairs) > len(np.unique(all_groups)):  # a group holds several classes: cross the groups with the classes
        all_groups = crossed.reshape(-1).astype(np.int64)
        group_names = tuple(group_name((class_names[target], group_names[group])) for target, group in pairs.tolist())
        parts = np.split(all_groups, np.cumsum([len(split) for split in splits.values()])[:-1])
        splits = {name: replace(splits[name], groups=torch.from_numpy(part)) for name, part in zip(SPLITS, parts)}
    split_numbers = np.repeat(np.arange(3), [len(split) for split in splits.values()])
    raise_first(population_problems("data", all_targets, all_groups, split_numbers, class_names, group_names))
    mean, std = (), ()
    if (images := examples["train"][0]).dtype == torch.uint8:
        mean, std = channel_statistics(images, np.arange(len(images)))
    return Dataset(splits["train"], splits["val"], splits["test"], class_names, group_names, mean=mean, std=std)


def read_split(name: str, examples: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Check the examples of a split, and return their inputs, targets, and groups (None if there are no groups).

    Args:
        name: "train", "val" or "test", for messages.
        examples: a value of the mapping `data` of `as_dataset`.
    """
    if not isinstance(examples, tuple):
        if not hasattr(examples, "__getitem__") or not hasattr(examples, "__len__"):
            raise BadInput(
                f"data[{name!r}]: {describe(examples)} given; a tuple or a map-style torch data set is needed"
            )
        rows = [examples[i] for i in range(len(examples))]
        examples = tuple(torch.stack([torch.as_tensor(value) for value in column]) for column in zip(*rows))
    if len(examples) not in (2, 3):
        raise BadInput(
            f"data[{name!r}]: a tuple of {len(examples)} given; (inputs, targets) or (inputs, targets, groups) is needed"
        )
    inputs, *labels = (torch.as_tensor(values) for values in examples)
    if not (inputs.is_floating_point() or (inputs.dtype == torch.uint8 and inputs.dim() == 4)) or inputs.dim() < 2:
        dtype = str(inputs.dtype).removeprefix("torch.")
        raise BadInput(
            f"data[{name!r}]: inputs are {dtype} of shape {tuple(inputs.shape)}; floats (N, …), or uint8 images (N, C, H, W), "
            "are needed"
        )
    if inputs.is_floating_point() and not inputs.isfinite().all():
        raise BadInput(f"data[{name!r}]: inputs have values that are not finite; remove or replace them")
    for kind, values in zip(("targets", "groups"), labels):
        if values.shape != inputs.shape[:1] or values.is_floating_point() or (len(values) and values.min() < 0):
            raise BadInput(f"data[{name!r}]: {kind} must be {len(inputs):,} whole numbers from 0 on")
    targets, *groups = (values.long() for values in labels)
    return inputs, targets, groups[0] if groups else None


def label_names(labels: Sequence[Tensor], names: Sequence[str] | None, key: str) -> tuple[str, ...]:
    """Return `names` as text; if `names` is None, return "0", "1", … up to the largest label.

    Args:
        labels: the classes or groups of all splits.
        key: "class_names" or "group_names", for the message.
    """
    number = 1 + max((int(values.max()) for values in labels if len(values)), default=-1)
    names = tuple(str(i) for i in range(number)) if names is None else tuple(map(str, names))
    if len(names) < number:
        raise BadInput(f"{key}: {len(names)} names given; the data has labels up to {number - 1} and needs {number}")
    return names


def describe(value: Any) -> str:
    """Return the type of a value in words, for messages; for a mapping also its keys."""
    return f"a mapping with {', '.join(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
