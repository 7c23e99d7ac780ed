"""Store of an encoded table: a folder of memory-mapped features that all runs and processes on a machine share.

A store is a folder `encoded-<key>` in the folder that `imbalance.data.stores.store_root` returns. The key is a hash of the
table's content, of everything in the config that the encoding depends on, and of `VERSION`. The files are those of
`imbalance.data.sets.features`. A store is built in a temporary folder and then renamed, so that an existing store is always
complete.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.data.population import SPLITS
from imbalance.data.sets.features import close_features, open_features, stored_splits
from imbalance.data.splits import Dataset
from imbalance.data.stores import CHECKED, build_once, store_root
from imbalance.data.tables.columns import Columns
from imbalance.data.tables.encoding import Features, count_features, transform_parts
from imbalance.errors import BadInput
from imbalance.utils.memory import check_fits
from imbalance.utils.read import hash_file, map_array, open_regular

VERSION = 2  # raise it if the same table is encoded to other features
REMEDY = "the next run builds it again"

# Columns, their encoding, rows in order → (N, D) float32
Encode = Callable[[Columns, Features, np.ndarray], np.ndarray]


def encode_in_memory(columns: Columns, features: Features, order: np.ndarray) -> np.ndarray:
    """Return the (N, D) float32 encoding of a table with its rows in the sequence `order`, a permutation of all rows."""
    shape = len(columns), count_features(features)
    check_fits(4 * shape[0] * shape[1], f"{columns.source}: {shape[0]:,} rows with {shape[1]:,} features")
    encoded, positions = np.empty(shape, dtype=np.float32), inverse(order)
    for rows, part in transform_parts(columns, features):
        encoded[positions[rows]] = part
    return encoded


def encode_on_disk(path: Path, columns: Columns, features: Features, order: np.ndarray) -> np.ndarray:
    """Write the result of `encode_in_memory` to the .npy file `path`, some rows at a time, and return a memory map of it."""
    width, positions = count_features(features), inverse(order)
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(columns), width)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for rows, part in transform_parts(columns, features):
            places = positions[rows]
            ascending = np.argsort(places)
            # The rows of a split are consecutive in the file, because the order within a split is that of the table.
            for run in np.split(ascending, np.flatnonzero(np.diff(places[ascending]) != 1) + 1):
                file.seek(start + 4 * width * int(places[run[0]]))
                file.write(part[run].astype("<f4", copy=False).data)
        file.flush()
        os.fsync(file.fileno())
    return map_array(path, "c")


def inverse(order: np.ndarray) -> np.ndarray:
    """Return the position of each row in `order`, a permutation of all rows."""
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    return positions


def stored_table(
    data_dir: str, file: Path, arguments: Mapping[str, Any], build: Callable[[Encode], Dataset]
) -> Dataset:
    """Return the data set of a table from its store; build the store first if it does not exist.

    Args:
        file: file of the table.
        arguments: everything that the data set depends on besides the content of the file, in types that JSON has.
        build: function from an encoder to the data set.

    Raises:
        BadInput: the file cannot be read, or the store is damaged or cannot be written.
    """
    directory = table_directory(data_dir, file, arguments)
    build_once(directory, lambda temporary: write_store(temporary, directory, file, build))
    stored = open_features(directory, REMEDY)
    about = stored.description
    train, val, test = stored_splits(stored, stored.features)
    return Dataset(
        train,
        val,
        test,
        tuple(about["classes"]),
        tuple(about["groups"]),
        preprocessing=about["made_of"]["preprocessing"],
        notes=tuple(about["made_of"]["notes"]),
    )


def table_directory(data_dir: str, file: Path, arguments: Mapping[str, Any]) -> Path:
    """Return the folder of the store of a table; the arguments are those of `stored_table`."""
    try:
        with open_regular(file) as content:
            digest = hash_file(content)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}; name an Arrow file that can be read") from None
    key = hashlib.sha256(json.dumps([VERSION, digest, arguments], sort_keys=True).encode())
    return store_root(data_dir) / f"encoded-{key.hexdigest()[:24]}"


def write_store(folder: Path, directory: Path, file: Path, build: Callable[[Encode], Dataset]) -> None:
    """Encode the table `file`, and write the files of its store to `folder`, which will become `directory`."""
    print(f"encoding {file} into {directory}", file=sys.stderr, flush=True)
    dataset = build(lambda *arguments: encode_on_disk(folder / "features.npy", *arguments))
    checksums = np.concatenate([getattr(dataset, name).checksums for name in SPLITS])
    made_of = {"preprocessing": dataset.preprocessing, "notes": dataset.notes}
    close_features(folder, dataset, made_of, checksums)


def forget_checks(data_dir: str) -> None:
    """Remove the records of earlier checks, so that the next opening of each encoded table checks all of its rows."""
    for path in store_root(data_dir).glob(f"encoded-*/{CHECKED}"):
        with suppress(OSError):  # a store that is read-only has no stamps, or those of a complete check
            path.unlink()
