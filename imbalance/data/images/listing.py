"""Build a data set from a list of image files with their labels; every data set of image files uses this module."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch

from imbalance.data.images.augment import AUGMENTATIONS, Augmentation
from imbalance.data.images.decode import Preparation, Recipe
from imbalance.data.images.store import open_files, open_store
from imbalance.data.population import name_problems, population_problems
from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput

# Channel statistics of ImageNet, which pretrained networks expect, as fractions of 255.
MEAN, STD = {"RGB": (0.485, 0.456, 0.406), "L": (0.449,)}, {"RGB": (0.229, 0.224, 0.225), "L": (0.226,)}

ImagesFrom = Literal["store", "files"]


class ImageKeys(TypedDict):
    """Keys of `config.data` that all data sets of image files have.

    Args:
        augment: names of random changes of training images, made in this order, such as ("pad_crop", "flip"); () for
            none. The page Data lists the names.
        images_from: "store" to decode all images once, into a store on disk that batches are read from; this is much faster,
            and takes 150 kB of disk for an image of 224×224. "files" to decode the image files of each batch in worker
            processes; random crops are then cut out of the original images, at their full resolution.
    """

    augment: tuple[Augmentation, ...]
    images_from: ImagesFrom


@dataclass(frozen=True)
class Listing:
    """A list of N image files with their labels, made without opening the images.

    name: the name of the data set, with which the name of its store of decoded images begins.
    file: the metadata file: the table that lists the images and their labels.
    folder: the folder that the N `paths` are relative to.
    recipe: the steps that decode an image.
    lines: (N,) the line of each image in the metadata file.
    targets, groups, splits: (N,) int64; splits are 0, 1, 2 for train, val, test.
    indices: (N,) int64, the row of each image in the metadata file, from 0.
    problems: the problems of the metadata file; its rows with a problem are not among the N images.
    notes: lines for the log on what the list leaves out.
    groups_may_lack: whether a group may have no example in a split; false for a user's data, where an empty group is a mistake.
    classes_may_lack: whether a class may have no example in val or test, as in a few published sets.
    augment, images_from: see `ImageKeys`.
    """

    name: str
    file: Path
    folder: Path
    recipe: Recipe
    paths: Sequence[str]
    lines: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    indices: np.ndarray
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    problems: list[Problem]
    notes: tuple[str, ...] = ()
    groups_may_lack: bool = False
    classes_may_lack: bool = False
    augment: tuple[Augmentation, ...] = field(kw_only=True)
    images_from: ImagesFrom = field(kw_only=True)

    def where(self, row: int) -> str:
        """Return the metadata file and the line that lists image number `row`, for messages."""
        return f"{self.file} line {self.lines[row]}"

    def split_problems(self) -> list[Problem]:
        """Return the problems of class names and group names, and of splits; see `imbalance.data.population`."""
        where, names = str(self.file), (self.class_names, self.group_names)
        checked, checked_names = (self.targets, names[0]) if self.groups_may_lack else (self.groups, names[1])
        gaps = population_problems(
            where, self.targets, checked, self.splits, names[0], checked_names, self.classes_may_lack
        )
        return name_problems(where, *names) + gaps


def image_dataset(list_images: Callable[..., Listing]) -> Callable[..., Dataset]:
    """Return a function that has the arguments of `list_images`, and builds the data set of the images that it lists."""

    @functools.wraps(list_images)
    def dataset(data_dir: str, *args: Any, **values: Any) -> Dataset:
        return build_image_dataset(list_images(data_dir, *args, **values), data_dir)

    return dataset


def with_preparation(listing: Listing, preparation: Preparation | None) -> Listing:
    """Return `listing`; if its `config.data.size` is 0, replace its resizing and cropping by those of `preparation`.

    Args:
        preparation: the preprocessing for the model's pretrained weights; None if the model has no such weights.

    Raises:
        BadInput: `config.data.size` is 0, but the model has no pretrained weights that state their image size.
    """
    if listing.recipe.shape[1]:
        return listing
    if not preparation:
        raise BadInput(
            "config.data.size: 0 given, which means the image size of the pretrained weights of config.model, but config.model "
            "has no such weights, or they state no size; give the size in pixels"
        )
    first = tuple(step for step in listing.recipe.steps if step[0] in ("reduce", "convert"))
    return replace(listing, recipe=Recipe(listing.recipe.mode, (*first, *preparation.steps)))


def original_crop(listing: Listing) -> float:
    """Return the least area of the random crops that are made of the original images; 0.0 if there are none.

    Raises:
        BadInput: images come from their files, and there are two random crops, or an augmentation other than "flip" comes
            first.
    """
    crops = [i for i, name in enumerate(listing.augment) if AUGMENTATIONS[name].least_area]
    if listing.images_from == "store" or not crops:
        return 0.0
    if len(crops) > 1 or set(listing.augment[: crops[0]]) - {"flip"}:  # a flip may be done after the crop as well
        raise BadInput(
            f"config.data.augment: {listing.augment} given; with config.data.images_from='files' a random crop is made of the "
            f"original image, so it must come first, and only once; put {listing.augment[crops[0]]!r} first, without another "
            "random crop, or use config.data.images_from='store'"
        )
    return AUGMENTATIONS[listing.augment[crops[0]]].least_area


def build_image_dataset(listing: Listing, data_dir: str, preparation: Preparation | None = None) -> Dataset:
    """Return the data set of a listing; build the store of decoded images first if it does not exist.

    Args:
        preparation: the preprocessing for the model's pretrained weights, whose mean and std normalise RGB images. None
            to normalise by the channel statistics of ImageNet.

    Raises:
        BadInput: the metadata, the splits or the images have a problem; the message names the first problem.
    """
    raise_first(listing.problems or listing.split_problems())
    listing = with_preparation(listing, preparation)
    least_area = original_crop(listing)
    open_images = open_store if listing.images_from == "store" else partial(open_files, least_area=least_area)
    images = open_images(data_dir, listing.name, listing.folder, listing.paths, listing.recipe, listing.where)

    def split(number: int) -> Split:
        rows = torch.from_numpy(np.flatnonzero(listing.splits == number))
        targets, groups, indices = (
            torch.from_numpy(array)[rows] for array in (listing.targets, listing.groups, listing.indices)
        )
        return Split(images.subset(rows), targets, groups, indices)

    mean, std = MEAN[listing.recipe.mode], STD[listing.recipe.mode]
    if preparation and listing.recipe.mode == "RGB":
        mean, std = preparation.mean, preparation.std
    return Dataset(
        split(0),
        split(1),
        split(2),
        listing.class_names,
        listing.group_names,
        mean=mean,
        std=std,
        augmentations=tuple(listing.augment),
        preprocessing={"kind": "images", "mode": listing.recipe.mode, "steps": listing.recipe.steps},
        notes=listing.notes,
    )
