"""Cuts: one file with all examples that a config uses, to carry to a machine without the files of the data set.

`imbalance data cut` writes a cut to a folder. A run whose `config.data_dir` is this folder reads only the cut. It needs
neither the files of the data set nor the package that decodes them. The data set is the same to the bit, and so has the
same digest.
"""

import functools
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbalance.config.resolve import defining_values
from imbalance.data.files import load_array
from imbalance.data.identity import digest
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput
from imbalance.utils.files import write_atomic

FORMAT = 1
SPLITS = ("train", "val", "test", "held_out")


def cut_path(section: Mapping[str, Any], data_dir: str | Path, seed: int | None) -> Path:
    """Return the path of the cut (a file with the examples that a config uses) for a data set; it need not exist.

    Args:
        section: `config.data`; the path does not depend on whether it allows a download.
        data_dir: folder of the cut.
        seed: seed that the data set was drawn with; None if the data set is the same at every seed.
    """
    values = defining_values({"data": _without_download(section)})
    key = json.dumps({**values, "seed": seed}, sort_keys=True)
    name = re.sub(r"\W+", "_", Path(section["name"]).stem)
    return Path(data_dir) / f"cut-{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"


def _without_download(value: Any) -> Any:
    """Return `value` with all sections in it as dictionaries that lack the key "download"."""
    if not isinstance(value, Mapping):
        return value
    return {key: _without_download(item) for key, item in value.items() if key != "download"}


def write_cut(dataset: Dataset, path: Path) -> None:
    """Write a data set in memory to the file `path`, as a cut.

    Raises:
        BadInput: the inputs are read from a store on disk, or the file cannot be written.
    """
    arrays, about = _parts(dataset)
    about |= {"format": FORMAT, "digest": digest(dataset)}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    try:
        write_atomic(path, content.getbuffer())
    except OSError as error:
        raise BadInput(f"--output: {path}: {error.strerror or error}; name a folder that can be written") from None


def find_cut(section: Mapping[str, Any], data_dir: str, seed: int) -> Dataset | None:
    """Return the data set of a config's cut in `data_dir`, or None if the folder has no such cut.

    Raises:
        BadInput: the file is damaged, or another version wrote it.
    """
    for key in (None, seed):
        path = cut_path(section, data_dir, key)
        if path.exists():
            arrays, about = _read(path, path.stat().st_mtime_ns)
            return _dataset(arrays, about)
    return None


@functools.lru_cache(maxsize=1)  # each further run of a sweep needs no time to unpack and check the file
def _read(path: Path, changed: int) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the description in a cut; raise `BadInput` if they do not have the recorded digest.

    Args:
        changed: time of the last change of the file. It makes the cache of this function read a changed file again.
    """
    remedy = "write it again by imbalance data cut"
    try:
        arrays = load_array(path)
        about = json.loads(arrays["about"].item())
        if about["format"] != FORMAT:
            raise BadInput(f"{path}: format {about['format']}, but this version reads {FORMAT}; {remedy}")
        intact = digest(_dataset(arrays, about)) == about["digest"]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise BadInput(f"{path}: not a cut ({type(error).__name__}: {error}); {remedy}") from None
    if not intact:
        raise BadInput(f"{path}: its content differs from its digest; {remedy}")
    return arrays, about


def _parts(dataset: Dataset, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a tuple: the arrays of a data set by name, and its other fields as types that JSON has.

    Args:
        prefix: text with which the names of the arrays start.
    """
    arrays, about = {}, {}
    for split_name, split in dataset.splits.items():
        if not isinstance(split.inputs, torch.Tensor):
            raise BadInput(
                "config.data: only data in memory can be cut, and this data set keeps images or texts in a store on disk; "
                "copy the folder config.data_dir instead"
            )
        values = {field.name: getattr(split, field.name) for field in fields(Split)}
        arrays |= {
            f"{prefix}{split_name}/{name}": np.asarray(value) for name, value in values.items() if value is not None
        }
    for field in fields(Dataset):
        value = getattr(dataset, field.name)
        if field.name == "probe" and value:
            probe_arrays, about["probe"] = _parts(value, f"{prefix}probe/")
            arrays |= probe_arrays
        elif field.name not in SPLITS:
            about[field.name] = dict(value) if isinstance(value, Mapping) else value
    return arrays, about


def _dataset(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], prefix: str = "") -> Dataset:
    """Return the data set for which `_parts` returned these arrays and this description.

    Args:
        prefix: text with which the names of the arrays start.
    """
    splits: dict[str, Any] = {}
    for split_name in SPLITS:
        start = f"{prefix}{split_name}/"
        values = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        if values:
            tensors: dict[str, Any] = {
                name: array if name == "known_checksums" else torch.from_numpy(array) for name, array in values.items()
            }
            splits[split_name] = Split(**tensors)
    others: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in about.items()
        if key not in ("format", "digest", "probe")
    }
    probe = _dataset(arrays, about["probe"], f"{prefix}probe/") if about.get("probe") else None
    return Dataset(**splits, **others, probe=probe)
