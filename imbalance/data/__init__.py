"""Data sets: load the training, validation and test examples that a config names.

To add a data set, write a function `name(data_dir, seed, *, …) -> Dataset` in `imbalance/data/sets/`, and enter the function
in `DATASETS`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imbalance.config.schema import build
from imbalance.data.cut import find_cut
from imbalance.data.images.decode import Preparation
from imbalance.data.images.listing import build_image_dataset
from imbalance.data.images.normalise import normaliser
from imbalance.data.population import check_population
from imbalance.data.sets.arrays import arrays
from imbalance.data.sets.biased import colored_fashion, corrupted_cifar10
from imbalance.data.sets.breeds import breeds, list_breeds
from imbalance.data.sets.celeba import celeba, list_celeba
from imbalance.data.sets.chest import (
    chexpert,
    cxr_multisite,
    list_chexpert,
    list_cxr_multisite,
    list_mimic_cxr,
    mimic_cxr,
)
from imbalance.data.sets.cifar10 import cifar10
from imbalance.data.sets.civilcomments import civilcomments, list_civilcomments
from imbalance.data.sets.class_map import class_map, new_classes
from imbalance.data.sets.colored_digits import colored_digits
from imbalance.data.sets.colored_mnist import colored_mnist
from imbalance.data.sets.data_frame import frame_dataset
from imbalance.data.sets.digits import digits
from imbalance.data.sets.dominoes import dominoes
from imbalance.data.sets.drawn import drawn
from imbalance.data.sets.fairness import fairness
from imbalance.data.sets.fashion import fashion
from imbalance.data.sets.features import features
from imbalance.data.sets.gaussian import gaussian
from imbalance.data.sets.image_folder import folder, list_folder
from imbalance.data.sets.image_table import list_table, table
from imbalance.data.sets.in_memory import as_dataset, given_dataset, in_memory, refuse_stream
from imbalance.data.sets.keel import keel
from imbalance.data.sets.long_tailed import cifar10lt, cifar100lt
from imbalance.data.sets.long_tailed_lists import (
    imagenet_lt,
    inaturalist2018,
    list_imagenet_lt,
    list_inaturalist2018,
    list_places_lt,
    places_lt,
)
from imbalance.data.sets.medmnist import medmnist
from imbalance.data.sets.mimic_notes import mimic_notes
from imbalance.data.sets.multinli import list_multinli, multinli
from imbalance.data.sets.spurious import (
    camelyon17,
    iwildcam,
    list_camelyon17,
    list_iwildcam,
    list_spuco,
    list_urbancars,
    spuco,
    urbancars,
)
from imbalance.data.sets.subpopbench import (
    imagenet_bg,
    list_imagenet_bg,
    list_metashift,
    list_nico_pp,
    metashift,
    nico_pp,
)
from imbalance.data.sets.text import list_text, text
from imbalance.data.sets.waterbirds import list_waterbirds, waterbirds
from imbalance.data.splits import Dataset, Labels, Split
from imbalance.errors import BadInput

DATASETS = {
    "gaussian": gaussian,
    "digits": digits,
    "colored_digits": colored_digits,
    "cifar10": cifar10,
    "cifar10lt": cifar10lt,
    "cifar100lt": cifar100lt,
    "corrupted_cifar10": corrupted_cifar10,
    "dominoes": dominoes,
    "fashion": fashion,
    "colored_fashion": colored_fashion,
    "colored_mnist": colored_mnist,
    "medmnist": medmnist,
    "waterbirds": waterbirds,
    "celeba": celeba,
    "metashift": metashift,
    "imagenet_bg": imagenet_bg,
    "nico_pp": nico_pp,
    "breeds": breeds,
    "chexpert": chexpert,
    "mimic_cxr": mimic_cxr,
    "cxr_multisite": cxr_multisite,
    "mimic_notes": mimic_notes,
    "imagenet_lt": imagenet_lt,
    "places_lt": places_lt,
    "inaturalist2018": inaturalist2018,
    "urbancars": urbancars,
    "spuco": spuco,
    "camelyon17": camelyon17,
    "iwildcam": iwildcam,
    "table": table,
    "folder": folder,
    "arrays": arrays,
    "fairness": fairness,
    "keel": keel,
    "features": features,
    "text": text,
    "civilcomments": civilcomments,
    "multinli": multinli,
    "in_memory": in_memory,
    "class_map": class_map,
    "drawn": drawn,
    "new_classes": new_classes,
}
# The functions that list the image files of a data set without decoding them. `imbalance data verify` checks such a listing
# and reports every problem, while loading stops at the first problem.
LISTINGS = {
    "waterbirds": list_waterbirds,
    "celeba": list_celeba,
    "metashift": list_metashift,
    "imagenet_bg": list_imagenet_bg,
    "nico_pp": list_nico_pp,
    "breeds": list_breeds,
    "chexpert": list_chexpert,
    "mimic_cxr": list_mimic_cxr,
    "cxr_multisite": list_cxr_multisite,
    "imagenet_lt": list_imagenet_lt,
    "places_lt": list_places_lt,
    "inaturalist2018": list_inaturalist2018,
    "urbancars": list_urbancars,
    "spuco": list_spuco,
    "camelyon17": list_camelyon17,
    "iwildcam": list_iwildcam,
    "table": list_table,
    "folder": list_folder,
}
# The functions that list the texts of a data set without tokenising them, for the same purpose.
CORPORA = {"text": list_text, "civilcomments": list_civilcomments, "multinli": list_multinli}


def load(section: Mapping[str, Any], data_dir: str, seed: int, preparation: Preparation | None = None) -> Dataset:
    """Load a data set, check it, and return it on the CPU.

    Args:
        section: `config.data`, the name of the data set and its arguments.
        data_dir: the folder of the data files, or of a cut of the data set; see `imbalance.data.cut`.
        seed: the run's seed.
        preparation: the resizing and normalisation of images that the model's pretrained weights need; None if the model
            starts from random weights. Images that are not decoded from files keep their size.

    Raises:
        BadInput: the data is missing, damaged, or cannot be trained on; see `imbalance.data.population`.
    """
    arguments = dict(data_dir=data_dir, seed=seed)
    if cut := find_cut(section, data_dir, seed):
        return check_population(cut)
    if section["name"] in LISTINGS:
        return check_population(build_image_dataset(build(LISTINGS, section, **arguments), data_dir, preparation))
    dataset = build(DATASETS, section, **arguments)
    if not isinstance(dataset, Dataset):
        refuse_stream(dataset)
        raise BadInput(
            f"config.data.name: {section['name']!r} returns {'None' if dataset is None else type(dataset).__name__}; it must return a Dataset, such as "
            "`imbalance.data.as_dataset` makes"
        )
    return check_population(normalised_for(preparation, dataset))


def normalised_for(preparation: Preparation | None, dataset: Dataset) -> Dataset:
    """Return `dataset` with the normalisation that pretrained weights need; its images keep their size.

    A data set without images stays as it is. Grey images stay as they are, too, unless the weights need the same
    normalisation for all channels.

    Args:
        preparation: the preprocessing for the model's pretrained weights; None if the model has no such weights.
    """
    channels = len(dataset.mean)
    if not preparation or not channels:
        return dataset
    mean, std = preparation.mean, preparation.std
    if channels != len(mean) and len(set(mean) | set(std)) > len({mean[0], std[0]}):
        return dataset
    return replace(dataset, mean=mean[:channels], std=std[:channels])


__all__ = [
    "CORPORA",
    "DATASETS",
    "LISTINGS",
    "Dataset",
    "Labels",
    "Split",
    "as_dataset",
    "frame_dataset",
    "given_dataset",
    "load",
    "normaliser",
]
