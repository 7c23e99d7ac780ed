"""Identify a data set by a short digest, compare two digests, and find duplicate examples.

A digest depends on content alone, not on file names or dates, so that a folder can be moved, copied or unpacked again.
The inputs enter a digest as one checksum for each example. The checksum of an image on disk is that of its decoded pixels,
which the store of decoded images keeps.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from imbalance.data.population import SPLITS
from imbalance.data.splits import Dataset, Split
from imbalance.utils.read import short_hash

PARTS = ("inputs", "targets", "groups", "rows", "evaluation groups")  # the arrays of a split that are hashed
COLUMNS = "input columns"  # part of the names in a digest; digests of older versions lack it


def digest(dataset: Dataset) -> dict[str, Any]:
    """Return the digest of a data set in types that JSON can hold; the data set must be on the CPU.

    For each split, the digest has the number of examples and a hash of each array that `PARTS` names. It also has one hash of
    the class and group names, and for a table one of the names of its input columns. The array "rows" is `Split.indices`: the
    row of each example in its file or array.
    """
    parts: dict[str, Any] = {name: split_digest(getattr(dataset, name)) for name in SPLITS}
    names = [
        dataset.class_names,
        dataset.group_names,
        *([dataset.evaluation_names] if dataset.evaluation_names else []),
    ]
    parts["names"] = {"classes and groups": short_hash(json.dumps(names).encode())}
    if features := dataset.preprocessing.get("features"):
        columns = [column["column"] for kind in ("numeric", "categorical") for column in features[kind]]
        parts["names"][COLUMNS] = short_hash(json.dumps(columns).encode())
    if dataset.probe:
        parts |= {f"new classes: {key}": value for key, value in digest(dataset.probe).items()}
    return parts


def split_digest(split: Split) -> dict[str, Any]:
    """Return the number of examples of a split, and a hash of each array that `PARTS` names."""
    arrays = [split.checksums, *(tensor.numpy() for tensor in (split.targets, split.groups, split.indices))]
    arrays += [] if split.eval_group_mask is None else [split.eval_group_mask.numpy()]
    return {"examples": len(split)} | {
        part: short_hash(np.ascontiguousarray(array).data) for part, array in zip(PARTS, arrays)
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compare two digests: return a line of text for each split that differs, and one if names differ.

    Args:
        before, now: results of `digest`.
    """
    lines = []
    for part in dict.fromkeys([*before, *now]):
        part_now, part_before = now.get(part, {}), before.get(part, {})
        keys = [key for key in dict.fromkeys([*part_before, *part_now]) if key != COLUMNS or key in part_before]
        changed = [key for key in keys if part_before.get(key) != part_now.get(key)]
        if "examples" in changed:
            count_now, count_before = part_now.get("examples", 0), part_before.get("examples", 0)
            lines.append(f"{part}: now {count_now:,} examples, before {count_before:,}")
        elif changed:
            lines.append(f"{part}: other {', '.join(changed)}")
    return lines


def dataset_duplicates(dataset: Dataset) -> list[str]:
    """Find duplicate examples in a data set, and describe them in lines of text; see `duplicates`."""
    evaluated = dataset.eval_dataset
    splits = {"train": dataset.train, "val": evaluated.val, "test": evaluated.test}
    places = [(name, row) for name, split in splits.items() for row in range(len(split))]

    def content(i: int) -> list[torch.Tensor]:
        name, row = places[i]
        inputs = splits[name].inputs[row : row + 1]
        return [inputs] if isinstance(inputs, torch.Tensor) else list(inputs.values())

    def equal(i: int, j: int) -> bool:
        return all(map(torch.equal, content(i), content(j)))

    def place(i: int) -> str:
        name, row = places[i]
        return f"row {splits[name].indices[row]} of {name}"

    def joined(part: str) -> np.ndarray:
        return np.concatenate([getattr(split, part) for split in splits.values()])

    split_numbers = np.repeat(np.arange(3), [len(split) for split in splits.values()])
    labels = np.stack([joined("targets"), joined("groups")], 1)
    return duplicates(joined("checksums"), split_numbers, labels, equal, place)


def duplicates(
    checksums: np.ndarray,
    splits: np.ndarray,
    labels: np.ndarray,
    equal: Callable[[int, int], bool],
    place: Callable[[int], str],
) -> list[str]:
    """Find duplicate examples, and describe them in lines of text.

    There is a line for each pair of splits that share an example, and one line for all duplicates whose classes or
    groups differ. Duplicates in one split with equal classes and groups are not reported.

    Args:
        checksums: (N,) the 32-bit checksum of each example. A few different examples have equal checksums by chance, so
            `equal` compares the examples themselves.
        splits: (N,) the split of each example: 0, 1 or 2 for train, val or test.
        labels: (N, 2) the class and the group of each example.
        equal: a function that takes two positions from 0 to N − 1, and returns whether the inputs of these two examples
            are equal.
        place: a function that takes a position from 0 to N − 1, and returns the place of this example as text, such as
            "row 5 of val".
    """
    _, inverse, counts = np.unique(checksums, return_inverse=True, return_counts=True)
    first_with_checksum: dict[int, int] = {}
    across: dict[str, list[str]] = {}
    relabelled: list[str] = []
    for i in np.flatnonzero(counts[inverse] > 1).tolist():
        first = first_with_checksum.setdefault(int(inverse[i]), i)
        if first == i or not equal(first, i):
            continue
        pair = f"{place(i)} is a copy of {place(first)}"
        if splits[i] != splits[first]:
            across.setdefault(f"in {SPLITS[splits[first]]} and {SPLITS[splits[i]]}", []).append(pair)
        if (labels[i] != labels[first]).any():
            relabelled.append(pair)
    pairs_by_kind = across | ({"with different classes or groups": relabelled} if relabelled else {})
    return [
        f"equal examples {kind}: {len(pairs):,}; {pairs[0]}{', and so on' if pairs[1:] else ''}"
        for kind, pairs in pairs_by_kind.items()
    ]
