"""Read the files of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in the version for Python, and compare their checksums.

The files are pickles. They are read without torchvision, whose import takes longer than the reading, and by an unpickler
that builds nothing but NumPy arrays and plain values.
"""

import functools
import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.data.download import download as download_files
from imbalance.errors import BadInput
from imbalance.utils.read import read_bytes


@dataclass(frozen=True)
class Files:
    """Names, MD5 checksums and keys of the files of a data set.

    folder: folder of the files.
    source: name of the data set for `imbalance data download`.
    train, test: checksum of each file of images, by name.
    meta: checksum of the file of class names, by name.
    labels, classes: keys of the labels and of the class names.
    """

    folder: str
    source: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    meta: Mapping[str, str]
    labels: str
    classes: str


FILES = {
    "CIFAR10": Files(
        "cifar-10-batches-py",
        "cifar10",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        {"test_batch": "40351d587109b95175f43aff81a1287e"},
        {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        "labels",
        "label_names",
    ),
    "CIFAR100": Files(
        "cifar-100-python",
        "cifar100",
        {"train": "16019d7e3df5f24257cddd939b257f8d"},
        {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        {"meta": "7973b15100ade9c7d40fb424638fde48"},
        "fine_labels",
        "fine_label_names",
    ),
}


class Published(NamedTuple):
    """A published training or test set.

    data: (N, 32, 32, 3) images in uint8.
    targets: label of each image.
    classes: names of the classes.
    """

    data: np.ndarray
    targets: list[int]
    classes: list[str]


@functools.lru_cache(maxsize=1)  # saves reading and checking for each further run of a sweep
def published(name: str, data_dir: str, download: bool) -> tuple[Published, Published]:
    """Return the published training set, and the published test set.

    Args:
        name: "CIFAR10" or "CIFAR100".
        download: download the files if their folder is missing.

    Raises:
        BadInput: a file is missing or damaged, or the download fails.
    """
    files = FILES[name]
    folder = Path(data_dir) / files.folder
    if download and not folder.exists():
        download_files(files.source, data_dir)
    try:
        classes = read_checked(folder, files.meta)[0][files.classes]
        parts = [read_checked(folder, checksums) for checksums in (files.train, files.test)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"config.data_dir: CIFAR-{name[5:]} is missing in {folder.absolute()}, or damaged ({reason}); unpack its Python "
            f"version there, type imbalance data download {files.source}, or set config.data.download=True"
        ) from None

    def joined(batches: list[dict[str, Any]]) -> Published:
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        return Published(
            images.transpose(0, 2, 3, 1), [label for batch in batches for label in batch[files.labels]], classes
        )

    train, test = map(joined, parts)
    return train, test


def read_checked(folder: Path, checksums: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the content of each file in `checksums`.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file has another checksum.
    """
    contents = []
    for name, checksum in checksums.items():
        data = read_bytes(folder / name)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != checksum:
            raise ValueError(f"the checksum of {name} is not the published one")
        contents.append(ArrayUnpickler(io.BytesIO(data), encoding="latin1").load())
    return contents


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler that builds NumPy arrays and plain values, and refuses all other objects."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the function or class that a pickle names.

        Raises:
            UnpicklingError: the pickle names anything that NumPy arrays do not need.
        """
        if global_name == "_reconstruct" and module_name in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if (module_name, global_name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, global_name)
        if (module_name, global_name) == ("_codecs", "encode"):  # newer pickles write the bytes of an array so
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is refused")
