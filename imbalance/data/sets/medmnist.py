"""Data sets of MedMNIST (Yang et al., "MedMNIST v2", Scientific Data 2023): small medical images, naturally imbalanced."""

from pathlib import Path

import numpy as np

from imbalance.config.schema import Name
from imbalance.data.images.augment import Augmentation
from imbalance.data.population import SPLITS, population_problems
from imbalance.data.problems import raise_first
from imbalance.data.sets.long_tailed import array_split, channels_first
from imbalance.data.splits import Dataset
from imbalance.errors import BadInput, Damaged
from imbalance.utils.read import read_npz

# The class names of three data sets; the class names of the other data sets are numbers.
CLASSES = {
    "pneumoniamnist": ("normal", "pneumonia"),
    "dermamnist": (
        "actinic keratoses", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma",
        "melanocytic nevi", "vascular lesions",
    ),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
}  # fmt: skip


def medmnist(data_dir: str, *, flag: Name, augment: tuple[Augmentation, ...]) -> Dataset:
    """Return the published splits of `<data_dir>/<flag>.npz`.

    Args:
        flag: the name of the data set, such as pneumoniamnist (2 classes, 1:2.9), dermamnist (7 classes) or
            bloodmnist (8 classes). A data set with several labels for an image is refused.
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
    """
    path = Path(data_dir) / f"{flag}.npz"
    arrays = read(path)
    num_classes = 1 + max(int(arrays[f"{split}_labels"].max()) for split in SPLITS)
    names = CLASSES.get(flag, tuple(str(label) for label in range(num_classes)))
    labels = {}
    for split in SPLITS:
        labels[split] = arrays[f"{split}_labels"].ravel().astype(np.int64)
        outside = np.flatnonzero((labels[split] < 0) | (labels[split] >= len(names)))
        if len(outside):
            row = outside[0]
            raise BadInput(
                f"{path}: {split}_labels row {row}: label {labels[split][row]}; the {len(names)} classes have labels 0 to "
                f"{len(names) - 1}"
            )
    all_labels = np.concatenate(list(labels.values()))
    split_numbers = np.repeat(np.arange(3), [len(labels[split]) for split in SPLITS])
    raise_first(population_problems(str(path), all_labels, all_labels, split_numbers, names, names))
    images = {split: channels_first(arrays[f"{split}_images"]) for split in SPLITS}
    train, val, test = (array_split(images[split], labels[split], np.arange(len(labels[split]))) for split in SPLITS)
    half = (0.5,) * images["train"].shape[1]
    return Dataset(train, val, test, names, names, mean=half, std=half, augmentations=tuple(augment))


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the images and labels of the three splits by name, and check their types and shapes.

    Raises:
        BadInput: the file is missing or damaged, holds pickled objects, or its arrays have other types or shapes.
    """
    hint = f"imbalance data download {path.stem} downloads the file"
    try:
        saved = read_npz(path)
        arrays = {key: saved[key] for key in (f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))}
    except FileNotFoundError:
        raise BadInput(f"config.data_dir: no file {path.absolute()}; {hint}") from None
    except KeyError as error:
        raise BadInput(f"{path}: {error.args[0]} is not a file in the archive; {hint}") from None
    except Damaged as error:
        raise Damaged(path, error.reason, hint) from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; {hint}") from None
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or (images.ndim == 4 and images.shape[3] not in (1, 3))
        ):
            raise BadInput(f"{path}: {split}_images: {images.dtype} of shape {images.shape}, not uint8 images; {hint}")
        if labels.shape not in ((len(images), 1), (len(images),)) or labels.dtype.kind not in "iu" or not len(labels):
            raise BadInput(
                f"{path}: {split}_labels: {labels.dtype} of shape {labels.shape}, not one whole number for each of {len(images)} "
                "images; only sets with one label for each image can be used"
            )
        if images.shape[1:] != arrays["train_images"].shape[1:]:
            raise BadInput(
                f"{path}: {split}_images: of shape {images.shape}, but train_images has {arrays['train_images'].shape}; all images must have one size"
            )
    return arrays
