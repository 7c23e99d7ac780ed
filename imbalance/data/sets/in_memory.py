"""Data that a program hands to `imbalance.run(config, data=…)`, rather than a config that says where it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imbalance.data.population import SPLITS, population_problems
from imbalance.data.problems import raise_first
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput


def given() -> Dataset:
    """What stands in a config for data that a program gave: only that program can give it again."""
    raise BadInput(
        "config.data.name: 'given' is data that a program handed to imbalance.run(config, data=…); run that program again"
    )


def as_dataset(
    data: Dataset | Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
) -> Dataset:
    """A `Dataset` of tensors, arrays or torch data sets, which are read into memory.

    Args:
        data: a Dataset as it is, or a mapping with "train", "val" and "test", each a tuple (inputs, targets) or (inputs,
            targets, groups) of tensors or arrays, or a map-style torch data set of such examples. What a torch data set
            draws at random is drawn once. Inputs are floats, or uint8 images (N, C, H, W), which are normalised by the
            training set's channels.
        class_names, group_names: by default the numbers, or what a torch data set has as `classes`. Without groups the
            groups are the classes.

    Raises:
        BadInput: a split is missing, or shapes, types or labels do not fit.
    """
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, Mapping) or set(data) != set(SPLITS):
        raise BadInput(f"data: a Dataset, or a mapping with just {', '.join(SPLITS)} is needed; {kind_of(data)} given")
    splits = {name: read_split(name, data[name]) for name in SPLITS}
    shapes = {name: (tuple(split[0].shape[1:]), split[0].dtype) for name, split in splits.items()}
    for name in SPLITS[1:]:
        if shapes[name] != shapes["train"]:
            raise BadInput(f"data[{name!r}]: inputs are {shapes[name]}, those of train {shapes['train']}")
    class_names = class_names or getattr(data["train"], "classes", None)
    class_names = names_of([targets for _, targets, _ in splits.values()], class_names, "class_names")
    if all(groups is None for _, _, groups in splits.values()):
        splits = {name: (inputs, targets, targets) for name, (inputs, targets, _) in splits.items()}
        group_names = class_names
    lacking = [name for name, (_, _, groups) in splits.items() if groups is None]
    if lacking:
        raise BadInput(f"data[{lacking[0]!r}]: has no groups, and another split has; give (inputs, targets, groups)")
    group_names = names_of([groups for _, _, groups in splits.values()], group_names, "group_names")
    everything = [torch.cat([split[i] for split in splits.values()]).numpy() for i in (1, 2)]
    numbers = np.repeat(np.arange(3), [len(split[1]) for split in splits.values()])
    problems = population_problems("data", *everything, numbers, class_names, group_names)
    raise_first(problems)
    mean, std = (), ()
    if splits["train"][0].dtype == torch.uint8:
        from imbalance.data.sets.arrays import channel_statistics

        mean, std = channel_statistics(splits["train"][0], np.arange(len(splits["train"][1])))
    parts = (Split(*split, torch.arange(len(split[1]))) for split in splits.values())
    return Dataset(*parts, class_names, group_names, mean, std)


def read_split(name: str, examples: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs, targets and groups (None without) of one split."""
    if not isinstance(examples, tuple):
        if not hasattr(examples, "__getitem__") or not hasattr(examples, "__len__"):
            raise BadInput(
                f"data[{name!r}]: a tuple or a map-style torch data set is needed; {kind_of(examples)} given"
            )
        rows = [examples[i] for i in range(len(examples))]
        examples = tuple(torch.stack([torch.as_tensor(value) for value in column]) for column in zip(*rows))
    if len(examples) not in (2, 3):
        raise BadInput(
            f"data[{name!r}]: (inputs, targets) or (inputs, targets, groups) are needed; {len(examples)} given"
        )
    inputs, *labels = (torch.as_tensor(values) for values in examples)
    if not (inputs.is_floating_point() or (inputs.dtype == torch.uint8 and inputs.dim() == 4)) or inputs.dim() < 2:
        given = f"{str(inputs.dtype).removeprefix('torch.')} of shape {tuple(inputs.shape)}"
        raise BadInput(f"data[{name!r}]: inputs are {given}; floats (N, …), or uint8 images (N, C, H, W), are needed")
    if inputs.is_floating_point() and not inputs.isfinite().all():
        raise BadInput(f"data[{name!r}]: inputs have values that are not finite")
    for what, values in zip(("targets", "groups"), labels):
        if values.shape != inputs.shape[:1] or values.is_floating_point() or (len(values) and values.min() < 0):
            raise BadInput(f"data[{name!r}]: {what} must be {len(inputs):,} whole numbers from 0 on")
    targets, *groups = (values.long() for values in labels)
    return inputs, targets, groups[0] if groups else None


def names_of(labels: Sequence[Tensor], names: Sequence[str] | None, key: str) -> tuple[str, ...]:
    """The names that are given, or the numbers."""
    number = 1 + max((int(values.max()) for values in labels if len(values)), default=-1)
    names = tuple(str(i) for i in range(number)) if names is None else tuple(map(str, names))
    if len(names) < number:
        raise BadInput(f"{key}: {len(names)} names given; the data has labels up to {number - 1}")
    return names


def kind_of(value: Any) -> str:
    return f"a mapping with {', '.join(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
