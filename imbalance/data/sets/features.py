"""What a network made of every example of a data set: written once by `imbalance features`, read by `data.name="features"`.

A folder with an array in each .npy file, a row an example, those of train, val and test one after another: `features`
(N, D), `targets`, `groups`, `splits` (text), `rows`, the example's row in its source, and `checksums`, the CRC-32 of its
features; and, where the data are evaluated by others than their groups, `members` (N, E), which of those each example is
in. `store.json` says how it was made, and which classes and groups there are. It appears whole or not at all. The
features are memory-mapped, so that all runs and processes on a machine share one copy.
"""

import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbalance.config.schema import Name
from imbalance.config.tags import tagged
from imbalance.data.population import SPLITS
from imbalance.data.splits import Dataset, Split
from imbalance.data.tables.columns import load_array
from imbalance.errors import BadInput
from imbalance.utils.files import write_whole
from imbalance.utils.memory import check_fits

VERSION = 2  # with evaluation groups
TABLES = ("targets", "groups", "splits", "rows", "checksums")  # beside the features
SEED = "{seed}"  # in the name of a folder
SAMPLED = 64  # rows whose checksums are compared on every opening
AT_ONCE = 2**22  # numbers that are standardised at a time


@tagged(seeded=lambda section: SEED in section.folder)
def features(data_dir: str, seed: int, *, folder: Name, standardise: bool) -> Dataset:
    """The features that `imbalance features` wrote, with the splits, classes and groups of the data that they are of.

    One's own features in a .npz, .npy or Parquet file are for `arrays`.

    Args:
        folder: what its --output named; relative to data_dir. `{seed}` in it stands for the run's seed: for features of data
            that every seed draws anew, or of a network that every seed trained anew.
        standardise: bring each feature to mean 0 and deviation 1 on train, which takes the features' size in memory in
            every process. Otherwise they are what the network made.
    """
    stored = open_features(Path(data_dir) / folder.replace(SEED, str(seed)))
    about, inputs = stored.description, stored.features
    mean, std = np.zeros(inputs.shape[1]), np.ones(inputs.shape[1])
    if standardise:
        check_fits(inputs.nbytes, f"config.data.standardise: {stored.folder}")
        mean, std = column_statistics(inputs[: about["examples"]["train"]])
        inputs = standardised(inputs, mean, std)
    inputs, ends = torch.from_numpy(inputs), np.cumsum([about["examples"][name] for name in SPLITS])
    places = [slice(end - about["examples"][name], end) for name, end in zip(SPLITS, ends)]

    def of(rows: slice) -> Split:
        labels = (torch.from_numpy(stored.tables[name][rows]) for name in ("targets", "groups", "rows"))
        members = torch.from_numpy(stored.tables["members"][rows]) if "members" in stored.tables else None
        return Split(inputs[rows], *labels, stored.tables["checksums"][rows], eval_group_mask=members)

    # As of a table with one wide column, so that what is trained on them predicts from other folders of features.
    column = {"column": "features", "mean": mean.tolist(), "std": std.tolist(), "gaps": [False] * len(mean)}
    encoding = {"missing": [], "numeric": [column], "categorical": []}
    names = tuple(about["classes"]), tuple(about["groups"])
    return Dataset(
        *map(of, places),
        *names,
        evaluation_names=tuple(about["evaluation_groups"]),
        preprocessing={"kind": "columns", "delimiter": ",", "features": encoding},
        notes=(f"features of {in_words(about['made_of']['model'])}, weights {about['made_of']['weights']}",),
    )


def in_words(section: Mapping[str, Any]) -> str:
    """`resnet50 (pretrained imagenet, frozen False)`."""
    values = ", ".join(f"{key} {value}" for key, value in section.items() if key != "name" and value != "")
    return f"{section['name']} ({values})" if values else section["name"]


@dataclass(frozen=True)
class StoredFeatures:
    """A whole folder of features.

    features: (N, D), memory-mapped.
    tables: (N,) each of `TABLES`, and `members` (N, E) where there are evaluation groups.
    description: what store.json says: `made_of`, `classes`, `groups`, `evaluation_groups`, how many `examples` there are of each split.
    """

    folder: Path
    features: np.ndarray
    tables: Mapping[str, np.ndarray]
    description: Mapping[str, Any]


def open_features(folder: Path) -> StoredFeatures:
    """What `imbalance features` left.

    Raises:
        BadInput: it is not there, or is damaged.
    """
    if not (folder / "store.json").is_file():
        unfinished = partial_folder(folder).is_dir()
        hint = "the command that was making it goes on" if unfinished else "imbalance features makes one"
        raise BadInput(f"{folder}: no features: there is no store.json; {hint}")
    try:
        description = json.loads((folder / "store.json").read_text())
        if description["version"] != VERSION:
            raise BadInput(f"{folder}: of format {description['version']}; this version reads {VERSION}")
        names = (*TABLES, *(["members"] if description["evaluation_groups"] else []))
        tables = {name: load_array(folder / f"{name}.npy") for name in names}
        # "c": torch takes no read-only array; what were written would not reach the file.
        found = np.load(folder / "features.npy", mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise BadInput(damaged(folder, f"{getattr(error, 'strerror', None) or error}")) from None
    rows = sum(description["examples"].values())
    wrong = [name for name in names if crc(tables[name]) != description["crc"][name]]
    wrong += ["features"] if found.ndim != 2 or len(found) != rows else []
    if wrong:
        raise BadInput(damaged(folder, f"{wrong[0]}.npy is not what store.json says"))
    for row in np.unique(np.linspace(0, rows - 1, min(rows, SAMPLED)).astype(np.int64)).tolist():
        if crc(found[row]) != tables["checksums"][row]:
            raise BadInput(damaged(folder, f"row {row} of features.npy fails its checksum"))
    return StoredFeatures(folder, found, tables, description)


def damaged(folder: Path, cause: str) -> str:
    return f"{folder}: damaged: {cause}; remove the folder, and `imbalance features` makes it anew"


def partial_folder(folder: Path) -> Path:
    """Where features are until there are all."""
    return folder.with_name(f"{folder.name}.partial")


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array))


def close_features(partial: Path, dataset: Dataset, made_of: Mapping[str, Any], checksums: np.ndarray) -> None:
    """Write all that belongs to features which are there, store.json last."""
    splits = {name: getattr(dataset, name) for name in SPLITS}
    joined = {
        name: np.concatenate([getattr(split, of).numpy() for split in splits.values()])
        for name, of in (("targets", "targets"), ("groups", "groups"), ("rows", "indices"))
    }
    if dataset.evaluation_names:
        joined["members"] = np.concatenate([split.eval_group_mask.numpy() for split in splits.values()])
    examples = {name: len(split) for name, split in splits.items()}
    tables = joined | {"splits": np.repeat(list(examples), list(examples.values())), "checksums": checksums}
    for name, table in tables.items():
        content = io.BytesIO()
        np.save(content, table)
        write_whole(partial / f"{name}.npy", content.getbuffer())
    description = {
        "version": VERSION,
        "made_of": made_of,
        "classes": dataset.class_names,
        "groups": dataset.group_names,
        "evaluation_groups": dataset.evaluation_names,
        "examples": examples,
        "crc": {name: crc(tables[name]) for name in tables},
    }
    write_whole(partial / "store.json", (json.dumps(description, indent=2) + "\n").encode())


def column_statistics(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) float64 mean and deviation of each column; 1 as the deviation of one that is always the same."""
    total = sum(part.sum(0, dtype=np.float64) for part in in_parts(inputs))
    mean = total / len(inputs)
    variance = sum(np.square(part - mean).sum(0) for part in in_parts(inputs)) / len(inputs)
    # As scikit-learn's StandardScaler: what rounding makes of a constant is no deviation.
    rounding = len(inputs) * np.finfo(np.float64).eps
    constant = variance <= rounding * variance + np.square(rounding * mean)
    return mean, np.sqrt(np.where(constant, 1.0, variance))


def standardised(inputs: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """A copy, computed in float64 as `imbalance.data.tables.encoding.transform` does."""
    found = np.empty(inputs.shape, inputs.dtype)
    start = 0
    for part in in_parts(inputs):
        found[start : start + len(part)] = (part - mean) / std
        start += len(part)
    return found


def in_parts(inputs: np.ndarray) -> list[np.ndarray]:
    """Some rows at a time."""
    size = max(1, AT_ONCE // max(1, inputs.shape[1]))
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]
