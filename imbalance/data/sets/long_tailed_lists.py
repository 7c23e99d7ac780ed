"""The long-tailed sets of large images: ImageNet-LT, Places-LT and iNaturalist 2018, from their published list files.

Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019; Van Horn et al., "The iNaturalist Species
Classification and Detection Dataset", CVPR 2018. A line of a list file is the path of an image, a space, and its label.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Name, Natural
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.problems import Problem
from imbalance.data.sets.published import Labelled, PublishedSet, middle, published_listing
from imbalance.errors import BadInput
from imbalance.utils.read import read_bytes

# The endings of the names of the list files of train, val and test.
PARTS = ("train", "val", "test")


def list_imagenet_lt(
    data_dir: str, *, folder: Name, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]
) -> Listing:
    """List the images of ImageNet-LT: 1000 classes with 1280 down to 5 training images each; the groups are the classes.

    Of each class, val has 20 images from ImageNet's train folder, and test has the 50 images from ImageNet's val folder.

    Args:
        folder: the folder of ImageNet under data_dir, with train/<wnid>/ and val/<wnid>/.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: published runs use inception_crop, flip and color_jitter.
    """
    about = PublishedSet("imagenet_lt", "ImageNet-LT", (), (), (115846, 20000, 50000))
    folders = ("ImageNet_LT", "imagenet_lt", "data/ImageNet_LT", "data_txt/ImageNet_LT")
    files = [about.find(data_dir, [f"{f}/ImageNet_LT_{part}.txt" for f in folders]) for part in PARTS]
    return listed(about, files, Path(data_dir) / folder, 1000, size, check_counts, image_keys)


def list_places_lt(
    data_dir: str, *, folder: Name, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]
) -> Listing:
    """List the images of Places-LT: 365 classes with 4980 down to 5 training images each; the groups are the classes.

    Val has 20 images of each class, and test has 100.

    Args:
        folder: the folder under data_dir that the paths in the list files are relative to.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: published runs use inception_crop, flip and color_jitter.
    """
    about = PublishedSet("places_lt", "Places-LT", (), (), (62500, 7300, 36500))
    folders = ("Places_LT", "places_lt", "Places_LT_v2", "data/Places_LT", "data_txt/Places_LT_v2")
    files = [about.find(data_dir, [f"{f}/Places_LT_{part}.txt" for f in folders]) for part in PARTS]
    return listed(about, files, Path(data_dir) / folder, 365, size, check_counts, image_keys)


def list_inaturalist2018(
    data_dir: str, *, folder: Name, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]
) -> Listing:
    """List the images of iNaturalist 2018: 8142 species with 1000 down to 2 training images each; the groups are the species.

    The published protocol tests on the three val images of each species, and has no other val. Here the first of the three
    is val, and the other two are test.

    Args:
        folder: the folder under data_dir that contains train_val2018/.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: published runs use inception_crop and flip.
    """
    about = PublishedSet("inaturalist2018", "iNaturalist 2018", (), (), (437513, 8142, 16284))
    folders = ("iNaturalist18", "inaturalist2018", "iNaturalist2018", "data/iNaturalist18", "data_txt/iNaturalist18")
    files = [about.find(data_dir, [f"{f}/iNaturalist18_{part}.txt" for f in folders]) for part in PARTS[:2]]
    return listed(about, files, Path(data_dir) / folder, 8142, size, check_counts, image_keys, first_is_val)


def first_is_val(targets: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Return `splits` after all images of split 1 except the first of each class have moved to split 2.

    Args:
        targets: (N,) the class of each image.
    """
    rows = np.flatnonzero(splits == 1)
    result = np.where(splits == 1, 2, splits)
    result[rows[np.unique(targets[rows], return_index=True)[1]]] = 1
    return result


def listed(
    about: PublishedSet,
    files: list[Path],
    root: Path,
    num_classes: int,
    size: int,
    check_counts: bool,
    image_keys: ImageKeys,
    resplit: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Listing:
    """Return the list of the images that list files name.

    Args:
        about: the data set; its class names are taken from the paths.
        files: the list file of each split, in the order of `PARTS`.
        root: the folder that the paths in these files are relative to.
        num_classes: the number of classes; a label must be below it.
        resplit: a function from (N,) classes and splits to other splits; None to keep them.
    """
    if not root.is_dir():
        raise BadInput(f"config.data.folder: no folder {root.absolute()}; name the folder of the images; {about.hint}")
    paths, labels, problems = [], [], []
    for split, file in enumerate(files):
        try:
            lines = read_bytes(file).decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(
                f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}; {about.hint}"
            ) from None
        for number, line in enumerate(lines, 1):
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.isdecimal() or int(label) >= num_classes:
                problems.append(
                    Problem(
                        f"{file} line {number}",
                        f"the line is not a path, a space and a label from 0 to {num_classes - 1}",
                    )
                )
            else:
                paths.append(path)
                labels.append((int(label), split))
    targets, splits = np.array(labels, dtype=np.int64).reshape(-1, 2).T
    about = about._replace(classes=class_names(paths, targets, num_classes))
    splits = resplit(targets, splits) if resplit else splits
    images = Labelled(files[0].parent, root, paths, targets, np.zeros_like(targets), splits, problems=problems)
    return published_listing(about, images, middle(size), check_counts, image_keys)


def class_names(paths: list[str], targets: np.ndarray, num_classes: int) -> tuple[str, ...]:
    """Return the names of the classes: for each the folder of its first image, without the first folder of its path.

    For example, "train/n01440764/1.JPEG" gives "n01440764", and "data_256/a/airfield/1.jpg" gives "a airfield". A class
    without images has its number as its name.
    """
    labels, first = np.unique(targets, return_index=True)
    names = {label: " ".join(Path(paths[row]).parts[1:-1]) for label, row in zip(labels.tolist(), first.tolist())}
    return tuple(names.get(label) or str(label) for label in range(num_classes))


imagenet_lt, places_lt = image_dataset(list_imagenet_lt), image_dataset(list_places_lt)
inaturalist2018 = image_dataset(list_inaturalist2018)
