"""Data set "drawn": from another data set, each seed draws a given number of examples of every group."""

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field

from imbalance.config.schema import Natural
from imbalance.data.sets.class_map import build_source
from imbalance.data.sets.features import column_statistics, feature_encoding, standardised
from imbalance.data.splits import Dataset, Split, joined
from imbalance.errors import BadInput

GroupCounts = Annotated[tuple[Natural, ...], Field(min_length=1)]
SOURCE_SEED = 0  # the other data set is the same at every seed of a run


def drawn(
    data_dir: str,
    seed: int,
    *,
    source: Mapping[str, Any],
    groups: Literal["source", "conflicting"],
    train_counts: GroupCounts,
    val_counts: GroupCounts,
    test_counts: GroupCounts,
    test_from: Literal["test", "all"],
    standardise: bool,
) -> Dataset:
    """Draw examples of another data set anew with each seed, a given number of every group, without replacement.

    Train and val are drawn from the train and val splits of the other data set, and test from its test split. No example
    is in two splits. This makes long tails and rare groups of any size, also from features that were extracted once.

    Args:
        source: the config section of the other data set: its name and arguments. If it depends on a seed, that seed is 0.
        groups: "source" keeps the groups of the other data set. "conflicting" makes two groups of each class: the group
            of the class that is largest in train, which is called aligned, and all other groups, which are called
            conflicting.
        train_counts, val_counts, test_counts: the number of examples of each group, in the order of the groups. A
            shorter list is repeated, so (475, 25) means 475 examples of every first and 25 of every second of two groups.
        test_from: "test" draws test from the test split; "all" draws all three splits from all examples together.
        standardise: scale each feature to mean 0 and standard deviation 1 on the drawn training examples; only for a
            source with the name "features" and standardise=False.

    Raises:
        BadInput: a group has too few examples, or the number of groups is no multiple of the length of a list.
    """
    dataset, pool = pooled(json.dumps(source, default=dict), data_dir, groups, test_from)
    rng = np.random.default_rng(seed)
    if test_from == "all":
        counts = {"test": test_counts, "val": val_counts, "train": train_counts}
        test, val, train = draw_parts(pool, dataset, counts, rng)
    else:
        (test,) = draw_parts(dataset.test, dataset, {"test": test_counts}, rng)
        val, train = draw_parts(pool, dataset, {"val": val_counts, "train": train_counts}, rng)
    dataset = replace(dataset, train=train, val=val, test=test)
    return standardise_on_train(dataset, source) if standardise else dataset


@functools.lru_cache(maxsize=1)  # all seeds of a sweep draw from the same examples
def pooled(source: str, data_dir: str, groups: str, test_from: str) -> tuple[Dataset, Split]:
    """Return the data set to draw from, and the split from which train and val are drawn.

    Args:
        source: the config section of the data set, as JSON.
        groups, test_from: as in `drawn`.
    """
    dataset = build_source(_with_tuples(json.loads(source)), data_dir, SOURCE_SEED)
    if groups == "conflicting":
        dataset = with_conflicting_groups(dataset)
    pool = joined(dataset.train, dataset.val)
    return dataset, joined(pool, dataset.test) if test_from == "all" else pool


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def with_conflicting_groups(dataset: Dataset) -> Dataset:
    """Return the data set with two groups for each class: that of the class's largest group in train, and all others.

    Raises:
        BadInput: a group has examples of several classes, or a class has only one group.
    """
    groups, targets = (
        torch.cat([getattr(split, name) for split in dataset.splits.values()]) for name in ("groups", "targets")
    )
    class_of_group = torch.zeros(dataset.num_groups, dtype=targets.dtype).scatter(0, groups, targets)
    counts = dataset.group_counts(dataset.train)
    if not class_of_group[groups].equal(targets) or int(class_of_group.bincount().min()) < 2:
        raise BadInput(
            "config.data.groups: 'conflicting' given, but the groups of config.data.source are not classes × attributes; "
            "set 'source'"
        )
    new = 2 * class_of_group + 1
    for label in range(dataset.num_classes):
        new[torch.where(class_of_group == label, counts, -1).argmax()] = 2 * label
    names = tuple(f"{label}, {kind}" for label in dataset.class_names for kind in ("aligned", "conflicting"))
    parts = {
        name: replace(split, groups=new[split.groups], eval_group_mask=None) for name, split in dataset.splits.items()
    }
    return replace(dataset, **parts, group_names=names, evaluation_names=())


def draw_parts(
    split: Split, dataset: Dataset, counts: Mapping[str, GroupCounts], rng: np.random.Generator
) -> list[Split]:
    """Return disjoint parts of a split, each with a given number of examples of every group.

    Args:
        dataset: the data set of the split, which names the groups.
        counts: by name of a part, the numbers of examples, as in `drawn`.
    """
    total = dataset.num_groups
    for name, numbers in counts.items():
        if not numbers or total % len(numbers):
            raise BadInput(
                f"config.data.{name}_counts: {len(numbers)} numbers given for {total} groups; give one number for each "
                "group, or a shorter list that is repeated for all groups"
            )
    per_group = {name: np.resize(numbers, total) for name, numbers in counts.items()}
    chosen: dict[str, list[np.ndarray]] = {name: [] for name in counts}
    for group in range(total):
        rows = rng.permutation(np.flatnonzero(split.groups.numpy() == group))
        needed = sum(int(numbers[group]) for numbers in per_group.values())
        if needed > len(rows):
            raise BadInput(
                f"config.data.{', '.join(f'{name}_counts' for name in counts)}: {needed:,} examples of the group "
                f"{dataset.group_names[group]!r} wanted, but config.data.source has {len(rows):,} to draw from; "
                "give smaller numbers"
            )
        for name, numbers in per_group.items():
            part, rows = np.split(rows, [int(numbers[group])])
            chosen[name].append(part)
    return [split.subset(torch.from_numpy(np.sort(np.concatenate(parts)))) for parts in chosen.values()]


def standardise_on_train(dataset: Dataset, source: Mapping[str, Any]) -> Dataset:
    """Return a data set of features, each feature scaled to mean 0 and standard deviation 1 on train.

    Args:
        source: the config section of the data set; it must be raw features.
    """
    if source["name"] != "features" or source["standardise"]:
        raise BadInput(
            "config.data.standardise: True given, which needs config.data.source.name='features' with standardise=False; "
            "set config.data.standardise=False"
        )
    inputs = {name: cast(torch.Tensor, split.inputs).numpy() for name, split in dataset.splits.items()}
    mean, std = column_statistics(inputs["train"])
    parts = {
        name: replace(split, inputs=torch.from_numpy(standardised(inputs[name], mean, std)))
        for name, split in dataset.splits.items()
    }
    return replace(dataset, **parts, preprocessing=feature_encoding(mean, std))
