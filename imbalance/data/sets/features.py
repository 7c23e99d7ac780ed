"""Data set of features that a network computed: `imbalance features` writes them, `data.name="features"` reads them.

The folder has `store.json`, which describes the features, their classes and their groups, and a .npy file for each of these
arrays. Each array has the N examples of train, then those of val, then those of test.

- `features` (N, D): the features, memory-mapped, so that all runs and processes on a machine share one copy;
- `targets`, `groups`, `splits` (N,): the class, group and split of each example; the splits are text;
- `rows` (N,): the row of each example in the data from which the features were computed;
- `checksums` (N,): the CRC-32 of the features of each example;
- `members` (N, E): the evaluation groups of each example, as booleans; missing if the data have no evaluation groups.

While the features are computed, the folder has another name, so that an incomplete folder is never read.
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
from imbalance.data.stores import StoreCheck, damaged_rows
from imbalance.errors import BadInput, Damaged
from imbalance.utils.files import write_atomic
from imbalance.utils.memory import check_fits
from imbalance.utils.read import map_array, read_json, seal

VERSION = 2  # the first format with evaluation groups
TABLES = ("targets", "groups", "splits", "rows", "checksums")  # the arrays that every folder has beside the features
SEED = "{seed}"  # stands for the run's seed in the name of a folder
CHUNK_NUMBERS = 2**22  # numbers that are standardised at a time


@tagged(seeded=lambda section: SEED in section.folder)
def features(data_dir: str, seed: int, *, folder: Name, standardise: bool) -> Dataset:
    """Return the features that `imbalance features` wrote, with the splits, classes and groups of their data.

    For your own features in a .npz, .npy or Parquet file, use `arrays`.

    Args:
        folder: the folder that `imbalance features` has written, relative to data_dir. `{seed}` in the name is
            replaced with the run's seed, for data or networks that depend on the seed.
        standardise: scale each feature to mean 0 and standard deviation 1 on train; every process then holds a copy of
            all features in memory. False leaves the features as the network computed them.
    """
    stored = open_features(Path(data_dir) / folder.replace(SEED, str(seed)))
    about, inputs = stored.description, stored.features
    mean, std = np.zeros(inputs.shape[1]), np.ones(inputs.shape[1])
    if standardise:
        check_fits(inputs.nbytes, f"config.data.standardise: {stored.folder}")
        mean, std = column_statistics(inputs[: about["examples"]["train"]])
        inputs = standardised(inputs, mean, std)
    train, val, test = stored_splits(stored, inputs)
    return Dataset(
        train,
        val,
        test,
        tuple(about["classes"]),
        tuple(about["groups"]),
        evaluation_names=tuple(about["evaluation_groups"]),
        preprocessing=feature_encoding(mean, std),
        notes=(f"features of {describe_section(about['made_of']['model'])}, weights {about['made_of']['weights']}",),
    )


def feature_encoding(mean: np.ndarray, std: np.ndarray) -> dict[str, Any]:
    """Return `Dataset.preprocessing` of features that are scaled by these means and standard deviations.

    The features count as a table with one wide column, so that a trained model can predict from other such folders.

    Args:
        mean, std: (D,) values by which each feature is scaled.
    """
    column = {"column": "features", "mean": mean.tolist(), "std": std.tolist(), "gaps": [False] * len(mean)}
    return {"kind": "columns", "delimiter": ",", "features": {"missing": [], "numeric": [column], "categorical": []}}


def stored_splits(stored: "StoredFeatures", inputs: np.ndarray) -> list[Split]:
    """Return train, val and test of a folder of features.

    Args:
        inputs: (N, D) the features themselves, or an encoding of the features.
    """
    tables, examples = stored.tables, stored.description["examples"]
    tensor, ends = torch.from_numpy(inputs), np.cumsum([examples[name] for name in SPLITS]).tolist()

    def make_split(name: str, end: int) -> Split:
        rows = slice(end - examples[name], end)
        targets, groups, indices = (torch.from_numpy(tables[key][rows]) for key in ("targets", "groups", "rows"))
        mask = torch.from_numpy(tables["members"][rows]) if "members" in tables else None
        return Split(
            tensor[rows], targets, groups, indices, known_checksums=tables["checksums"][rows], eval_group_mask=mask
        )

    return list(map(make_split, SPLITS, ends))


def describe_section(section: Mapping[str, Any]) -> str:
    """Describe a config section in words: its name and values, as in `resnet50 (pretrained imagenet, frozen False)`."""
    values = ", ".join(f"{key} {value}" for key, value in section.items() if key != "name" and value != "")
    return f"{section['name']} ({values})" if values else section["name"]


@dataclass(frozen=True)
class StoredFeatures:
    """The content of a folder that `imbalance features` has written.

    features: (N, D), memory-mapped.
    tables: the (N,) arrays that `TABLES` names, by name, and `members` (N, E) if there are evaluation groups.
    description: the content of store.json: `made_of` (the model, weights, inputs and data that the features were computed
        from), `classes`, `groups`, `evaluation_groups`, and the number of `examples` of each split.
    """

    folder: Path
    features: np.ndarray
    tables: Mapping[str, np.ndarray]
    description: Mapping[str, Any]


def open_features(folder: Path, remedy: str = "write it again with imbalance features") -> StoredFeatures:
    """Open a folder of features, memory-mapped; check its arrays, and the checksums of some examples.

    Args:
        remedy: what to do after the folder is removed, for messages.

    Raises:
        BadInput: the folder has no features, has features in another format, or is damaged.
    """
    if not (folder / "store.json").exists():
        unfinished = partial_folder(folder).is_dir()
        hint = "repeat the command that was writing it" if unfinished else "write it with imbalance features"
        raise BadInput(f"{folder}: no features, because there is no store.json; {hint}")
    try:
        check = StoreCheck(folder, ["features.npy"])
        description = read_json(folder / "store.json")
        if description["version"] != VERSION:
            raise BadInput(
                f"{folder}: features of format {description['version']}, but this version reads format {VERSION}; write them again "
                "with imbalance features"
            )
        names = (*TABLES, *(["members"] if description["evaluation_groups"] else []))
        # torch needs writable arrays, so the mode is "c", copy on write: nothing reaches the files.
        tables = {name: map_array(folder / f"{name}.npy", "c") for name in names}
        values = map_array(folder / "features.npy", "c")
        rows = sum(description["examples"].values())
        wrong = [name for name in names if crc(tables[name]) != description["crc"][name] or len(tables[name]) != rows]
    except Damaged as error:
        raise BadInput(damage_message(folder, remedy, f"{Path(error.args[0]).name}: {error.reason}")) from None
    except OSError as error:
        name = Path(error.filename or folder).name
        raise BadInput(damage_message(folder, remedy, f"{name}: {error.strerror or error}")) from None
    except (KeyError, TypeError, AttributeError) as error:  # a description that was edited by hand
        raise BadInput(damage_message(folder, remedy, f"store.json: an entry is missing or wrong: {error}")) from None
    wrong += ["features"] if values.ndim != 2 or len(values) != rows or values.dtype.kind != "f" else []
    if wrong:
        raise BadInput(damage_message(folder, remedy, f"{wrong[0]}.npy does not match store.json"))
    sample = check.is_recent
    for row in damaged_rows(values, tables["checksums"], sample):
        raise BadInput(damage_message(folder, remedy, f"row {row} of features.npy fails its checksum"))
    if not sample:
        check.remember()
    return StoredFeatures(folder, values, tables, description)


def damage_message(folder: Path, remedy: str, cause: str) -> str:
    """Return the error message about damaged features in `folder`.

    Args:
        remedy: what to do after the folder is removed.
        cause: what is wrong with the features.
    """
    return f"{folder}: damaged: {cause}; remove {folder} and {remedy}"


def partial_folder(folder: Path) -> Path:
    """Return the temporary folder into which features are written; when it is complete, it is renamed to `folder`."""
    return folder.with_name(f"{folder.name}.partial")


def crc(array: np.ndarray) -> int:
    """Return the CRC-32 of the bytes of an array."""
    return zlib.crc32(np.ascontiguousarray(array).data)


def close_features(partial: Path, dataset: Dataset, made_of: Mapping[str, Any], checksums: np.ndarray) -> None:
    """Write the last files into `partial`, the temporary folder of features: labels, checksums, and store.json.

    Args:
        partial: the folder, which has all features.
        dataset: the data from which the features were computed.
        made_of: see `StoredFeatures.description`.
        checksums: (N,) the CRC-32 of the features of each example.
    """
    splits: dict[str, Split] = {name: getattr(dataset, name) for name in SPLITS}
    joined = {
        name: np.concatenate([getattr(split, field).numpy() for split in splits.values()])
        for name, field in (("targets", "targets"), ("groups", "groups"), ("rows", "indices"))
    }
    if dataset.evaluation_names:
        joined["members"] = np.concatenate([split.on_cpu["eval_group_mask"].numpy() for split in splits.values()])
    examples = {name: len(split) for name, split in splits.items()}
    tables = joined | {"splits": np.repeat(list(examples), list(examples.values())), "checksums": checksums}
    for name, table in tables.items():
        content = io.BytesIO()
        np.save(content, table)
        write_atomic(partial / f"{name}.npy", content.getbuffer())
    description = {
        "version": VERSION,
        "made_of": made_of,
        "classes": dataset.class_names,
        "groups": dataset.group_names,
        "evaluation_groups": dataset.evaluation_names,
        "examples": examples,
        "crc": {name: crc(tables[name]) for name in tables},
    }
    write_atomic(partial / "store.json", json.dumps(seal(description), indent=2).encode() + b"\n")
    StoreCheck(partial, ["features.npy"]).remember()


def column_statistics(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each column, (D,) float64 each.

    The standard deviation of a constant column is given as 1, so that one can divide by it.
    """
    total = np.zeros(inputs.shape[1])
    for chunk in row_chunks(inputs):
        total += chunk.sum(0, dtype=np.float64)
    mean = total / len(inputs)
    squares = np.zeros(inputs.shape[1])
    for chunk in row_chunks(inputs):
        squares += np.square(chunk - mean).sum(0)
    variance = squares / len(inputs)
    # As in scikit-learn's StandardScaler, a variance within the rounding error counts as 0.
    rounding = len(inputs) * np.finfo(np.float64).eps
    constant = variance <= rounding * variance + np.square(rounding * mean)
    return mean, np.sqrt(np.where(constant, 1.0, variance))


def standardised(inputs: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return (inputs − mean) / std, computed in float64 like `imbalance.data.tables.encoding.transform`."""
    copy = np.empty(inputs.shape, inputs.dtype)
    start = 0
    for chunk in row_chunks(inputs):
        copy[start : start + len(chunk)] = (chunk - mean) / std
        start += len(chunk)
    return copy


def row_chunks(inputs: np.ndarray) -> list[np.ndarray]:
    """Return the rows of `inputs` in chunks, views of about `CHUNK_NUMBERS` numbers each."""
    size = max(1, CHUNK_NUMBERS // max(1, inputs.shape[1]))
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]
