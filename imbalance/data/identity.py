"""Which data a run is on, in a few hundred bytes: how they differ from others, and which examples are there twice.

It goes by content, not by names and dates, so that a folder can be moved, copied or unpacked anew: of images the pixels
as they were decoded, whose checksums their store has, of what is in memory the rows themselves.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from imbalance.data.population import SPLITS
from imbalance.data.splits import Dataset, Split

PARTS = ("inputs", "targets", "groups", "rows", "evaluation groups")


def digest(dataset: Dataset) -> dict[str, Any]:
    """Of each split how many examples it has, and a hash each of its inputs, targets, groups and rows in the source; and
    one of the names. JSON can hold it. `dataset` is as it was loaded, on the CPU.
    """
    found: dict[str, Any] = {name: of_split(getattr(dataset, name)) for name in SPLITS}
    names = [
        dataset.class_names,
        dataset.group_names,
        *([dataset.evaluation_names] if dataset.evaluation_names else []),
    ]
    found["names"] = {"classes and groups": short_hash(json.dumps(names).encode())}
    if dataset.probe:
        found |= {f"new classes: {key}": value for key, value in digest(dataset.probe).items()}
    return found


def of_split(split: Split) -> dict[str, Any]:
    arrays = [split.checksums, *(tensor.numpy() for tensor in (split.targets, split.groups, split.indices))]
    arrays += [] if split.eval_group_mask is None else [split.eval_group_mask.numpy()]
    return {"examples": len(split)} | {
        part: short_hash(np.ascontiguousarray(array)) for part, array in zip(PARTS, arrays)
    }


def short_hash(content: bytes | np.ndarray) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what is not the same in two digests."""
    found = []
    for part in dict.fromkeys([*before, *now]):
        ours, theirs = now.get(part, {}), before.get(part, {})
        other = [key for key in dict.fromkeys([*theirs, *ours]) if theirs.get(key) != ours.get(key)]
        if "examples" in other:
            found.append(f"{part}: {ours.get('examples', 0):,} examples, then {theirs.get('examples', 0):,}")
        elif other:
            found.append(f"{part}: other {', '.join(other)}")
    return found


def copies_in(dataset: Dataset) -> list[str]:
    """In words, which examples of the splits are copies of others; see `copies`."""
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

    numbers = np.repeat(np.arange(3), [len(split) for split in splits.values()])
    labels = np.stack([joined("targets"), joined("groups")], 1)
    return copies(joined("checksums"), numbers, labels, equal, place)


def copies(
    checksums: np.ndarray,
    splits: np.ndarray,
    labels: np.ndarray,
    equal: Callable[[int, int], bool],
    place: Callable[[int], str],
) -> list[str]:
    """In words, how many of N examples are equal to others of another split, and of another class or group.

    Args:
        checksums: (N,) of each. Of a hundred thousand, a few of 32 bits are equal by chance: `equal` then looks.
        splits: (N,) 0, 1 or 2; labels: (N, 2), class and group.
        place: what to call an example.
    """
    _, inverse, counts = np.unique(checksums, return_inverse=True, return_counts=True)
    first_of: dict[int, int] = {}
    across: dict[str, list[str]] = {}
    relabelled: list[str] = []
    for i in np.flatnonzero(counts[inverse] > 1).tolist():
        first = first_of.setdefault(int(inverse[i]), i)
        if first == i or not equal(first, i):
            continue
        pair = f"{place(i)} is a copy of {place(first)}"
        if splits[i] != splits[first]:
            across.setdefault(f"in {SPLITS[splits[first]]} and {SPLITS[splits[i]]}", []).append(pair)
        if (labels[i] != labels[first]).any():
            relabelled.append(pair)
    found = across | ({"with different classes or groups": relabelled} if relabelled else {})
    return [
        f"equal examples {what}: {len(pairs):,}; {pairs[0]}{', and so on' if pairs[1:] else ''}"
        for what, pairs in found.items()
    ]
