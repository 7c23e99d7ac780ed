"""Data set Fashion-MNIST (Xiao et al., 2017), imbalanced or whole, from torchvision's or Debian's files; MIT licence."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from imbalance.config.schema import AtLeastOne, Fraction, Natural
from imbalance.data.files import find_path
from imbalance.data.images.augment import Augmentation
from imbalance.data.sets.long_tailed import ValFrom, channels_first, long_tailed
from imbalance.data.splits import Dataset, Profile, check_class_choice
from imbalance.errors import BadInput
from imbalance.utils.read import open_regular

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
# The folders of torchvision, of the downloaded archives, and of `apt-get install dataset-fashion-mnist`.
FOLDERS = ("FashionMNIST/raw", "fashion-mnist", "/usr/share/datasets/fashion-mnist")
MAX_BYTES = 2**27  # the limit on the content read from one file; the largest file has 47 MB unpacked
PER_CLASS = {"train": 6000, "t10k": 1000}


def fashion(
    data_dir: str,
    seed: int,
    *,
    classes: tuple[str, ...],
    imbalance: Profile,
    imbalance_ratio: AtLeastOne,
    total: Natural,
    val_from: ValFrom,
    val_fraction: Fraction,
    augment: tuple[Augmentation, ...],
) -> Dataset:
    """Return 28×28 grey images of ten kinds of clothing, or of some of them.

    The published data have 6,000 training and 1,000 test images of each class.

    Args:
        classes: names of the classes, the largest first.
        imbalance: "none" keeps all examples; with "exp", class counts fall geometrically from the first class to
            the last; with "step", each class of the first half is imbalance_ratio times as
            large as each class of the second half.
        imbalance_ratio: the count of the largest class divided by that of the smallest.
        total: the number of examples of all classes together; 0 to keep as many as the imbalance allows.
            Class counts are rounded to this sum, so small counts have another ratio than imbalance_ratio.
            They include val if val_from is "train".
        val_from: "test" moves a share of the test set to val; "train" moves a share of the imbalanced training
            set to val.
        val_fraction: the share that moves to val.
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
    """
    check_class_choice(classes, CLASSES)
    hint = "run imbalance data download fashion, or apt-get install dataset-fashion-mnist"
    folder = find_path(data_dir, FOLDERS, "Fashion-MNIST", hint)
    label_of = np.full(len(CLASSES), -1)
    label_of[[CLASSES.index(name) for name in classes]] = np.arange(len(classes))
    train, test = ((images, label_of[labels]) for images, labels in (read(folder, part) for part in PER_CLASS))
    mean, std = (0.286,), (0.353,)
    return long_tailed(
        train, test, classes, mean, std, seed, imbalance, imbalance_ratio, total, val_from, val_fraction, augment
    )


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the (N, 1, 28, 28) images and (N,) labels of one of the two published sets, and check their counts.

    Args:
        part: the beginning of the file names: "train" for the training set, "t10k" for the test set.
    """
    images = read_idx(folder / f"{part}-images-idx3-ubyte", dims=3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte", dims=1).astype(np.int64)
    counts = np.bincount(labels, minlength=10)
    if images.shape != (len(labels), 28, 28) or (counts != PER_CLASS[part]).any():
        raise BadInput(
            f"{folder}: not Fashion-MNIST: {part} has images of shape {images.shape} and {counts.tolist()} of each class, "
            f"not {PER_CLASS[part]:,} of 28×28; download it again"
        )
    return channels_first(images), labels


def read_idx(path: Path, dims: int) -> np.ndarray:
    """Return the uint8 array, of `dims` dimensions, in an IDX file, which may be gzipped.

    Its bytes are: two zeros, the type (8), the number of dimensions, the sizes as big-endian int32, and the data.
    """
    zipped = path.with_name(path.name + ".gz")
    try:
        with (
            open_regular(path if path.exists() else zipped) as file,
            file if path.exists() else gzip.open(file) as data,
        ):
            content = data.read(MAX_BYTES)  # limits the memory, because a damaged archive may unpack to far more
    except (OSError, EOFError, zlib.error) as error:  # missing, cut short, or a wrong checksum
        raise BadInput(f"{zipped}: {getattr(error, 'strerror', None) or error}; download it again") from None
    header, data = content[: 4 + 4 * dims], content[4 + 4 * dims :]
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, len(header), 4))
    if header[:4] != bytes((0, 0, 8, dims)) or len(shape) != dims or len(data) != np.prod(shape, dtype=np.int64):
        raise BadInput(f"{path}: not an IDX file of {dims} dimensions, or damaged; download it again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
