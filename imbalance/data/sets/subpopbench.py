"""Image sets of SubpopBench: MetaShift, ImageNet-9 with its backgrounds, NICO++, and Living17 of BREEDS.

Yang et al., "Change is Hard: A Closer Look at Subpopulation Shift", ICML 2023. SubpopBench takes the files of a folder in the
order of the file system, so its splits of MetaShift and NICO++ differ between machines. Here the files are sorted. To use the
splits of another machine, name the CSV file that SubpopBench wrote there in `metadata`.
"""

import json
import random
from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Natural
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.sets.published import (
    Labelled,
    PublishedSet,
    folder_images,
    middle,
    published_listing,
    subpopbench_images,
)
from imbalance.errors import BadInput
from imbalance.utils.read import read_bytes

SPLITS = ("0", "1", "2")  # the numbers of train, val and test in SubpopBench's CSV files

METASHIFT = PublishedSet(
    "metashift", "MetaShift (cats and dogs)", ("dog", "cat"), ("outdoor", "indoor"), (2276, 349, 874)
)
METASHIFT_FOLDERS = (
    ("train/cat/cat(indoor)", 1, 1, 0),
    ("train/dog/dog(outdoor)", 0, 0, 0),
    ("test/cat/cat(outdoor)", 1, 0, 0),
    ("test/dog/dog(indoor)", 0, 1, 0),
)
METASHIFT_LAYOUTS = tuple(f"{folder}MetaShift-Cat-Dog-indoor-outdoor" for folder in ("metashift/", ""))


def list_metashift(
    data_dir: str, *, metadata: str, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]
) -> Listing:
    """List photographs of cats and dogs, indoor and outdoor; the group is animal × place.

    The splits are random: the folders "train" and "test" of the archive are joined, as SubpopBench does it.

    Args:
        metadata: the CSV file of SubpopBench under data_dir with its splits; "" to draw the splits from the sorted files.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: SubpopBench uses none.
    """
    root = METASHIFT.find(data_dir, METASHIFT_LAYOUTS)
    if metadata:
        images = subpopbench_images(Path(data_dir) / metadata, root, SPLITS, 2, 2)
    else:
        images = folder_images(root, METASHIFT_FOLDERS)
        images = images._replace(splits=metashift_splits(len(images.paths)))
    return published_listing(METASHIFT, images, middle(size), check_counts, image_keys)


def metashift_splits(count: int) -> np.ndarray:
    """Return the (count,) splits, 0 to 2 for train, val and test, that SubpopBench draws for `count` images."""
    rng = np.random.RandomState(42)
    test = rng.choice(np.arange(count), size=int(count * 0.25), replace=False)
    val = rng.choice(np.setdiff1d(np.arange(count), test), size=int(count * 0.1), replace=False)
    splits = np.zeros(count, dtype=np.int64)
    splits[val], splits[test] = 1, 2
    return splits


IMAGENET_9 = PublishedSet(
    "imagenet_bg",
    "ImageNet-9",
    ("dog", "bird", "wheeled vehicle", "reptile", "carnivore", "insect", "musical instrument", "primate", "fish"),
    (),
    (183006, 7200, 4050),
)
Background = Literal["original", "mixed_rand", "no_fg", "only_fg"]


def list_imagenet_bg(
    data_dir: str, *, test: Background, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]
) -> Listing:
    """List the images of ImageNet-9, whose test images have other backgrounds; the groups are the classes.

    Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object Recognition", ICLR 2021.

    Args:
        test: the kind of test images: "original"; "mixed_rand" the object on a background of a random class, as in
            the tables of SubpopBench; "no_fg" the background alone; "only_fg" the object alone.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: SubpopBench uses none.
    """
    root = IMAGENET_9.find(data_dir, ("backgrounds_challenge",))
    parts = ("in9l/train", "in9l/val", f"bg_challenge/{test}/val")
    folders = [
        (f"{part}/0{label}_{name}", label, 0, split)
        for split, part in enumerate(parts)
        for label, name in enumerate(IMAGENET_9.classes)
    ]
    return published_listing(IMAGENET_9, folder_images(root, folders), middle(size), check_counts, image_keys)


NICO_ATTRIBUTES = ("autumn", "dim", "grass", "outdoor", "rock", "water")
NICO_COUNTS = (62657, 8726, 17483)
NICO_HELD_OUT = 75  # images of each group that are not in train


def list_nico_pp(
    data_dir: str, *, metadata: str, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]
) -> Listing:
    """List the images of NICO++ with 60 classes in six surroundings; the group is class × surroundings.

    Zhang et al., "NICO++: Towards Better Benchmarking for Domain Generalization", CVPR 2023. 75 images of each group are
    held out: 25 are val and 50 are test. A group with fewer images has none in train.

    Args:
        metadata: the CSV file of SubpopBench under data_dir with its splits; "" to draw the splits from the sorted files.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: SubpopBench uses none.
    """
    about = PublishedSet("nico_pp", "NICO++", (), NICO_ATTRIBUTES, NICO_COUNTS)
    file = about.find(data_dir, ("nicopp/dg_label_id_mapping.json",))
    try:
        numbers = json.loads(read_bytes(file))
    except ValueError:
        numbers = None
    if not isinstance(numbers, dict) or sorted(map(repr, numbers.values())) != sorted(map(repr, range(len(numbers)))):
        raise BadInput(f"{file}: not a JSON object from each class name to a number, 0, 1, 2 and so on; {about.hint}")
    about = about._replace(classes=tuple(sorted(numbers, key=numbers.__getitem__)))
    root = file.parent / "public_dg_0416"
    if metadata:
        images = subpopbench_images(Path(data_dir) / metadata, root, SPLITS, len(numbers), len(NICO_ATTRIBUTES))
    else:
        folders = [
            (f"train/{attribute}/{label}", number, i, 0)
            for i, attribute in enumerate(NICO_ATTRIBUTES)
            for label, number in numbers.items()
            if (root / "train" / attribute / label).is_dir()
        ]
        images = folder_images(root, folders)
        images = images._replace(splits=nico_splits(images))
    return published_listing(about, images, middle(size), check_counts, image_keys)


def nico_splits(images: Labelled) -> np.ndarray:
    """Return the (N,) splits, 0 to 2 for train, val and test, that SubpopBench draws for the N images."""
    groups = len(NICO_ATTRIBUTES) * images.targets + images.attributes
    splits, draw = np.zeros(len(groups), dtype=np.int64), random.Random(666)
    for group in dict.fromkeys(groups.tolist()):
        rows = np.flatnonzero(groups == group).tolist()
        draw.shuffle(rows)
        held = min(len(rows), NICO_HELD_OUT)
        splits[rows[: held // 3]], splits[rows[held // 3 : held]] = 1, 2
    return splits


metashift, imagenet_bg, nico_pp = map(image_dataset, (list_metashift, list_imagenet_bg, list_nico_pp))
