"""Image files and their labels, as a metadata file lists them: what Waterbirds, CelebA and a user's own table share."""

import csv
import functools
import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbalance.data.images.augment import Augmentation
from imbalance.data.images.decode import Preparation, Recipe
from imbalance.data.images.store import open_store
from imbalance.data.population import name_problems, population_problems
from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput
from imbalance.utils.files import check_regular

# Of ImageNet, which pretrained networks expect: fractions of 255, per channel.
MEAN, STD = {"RGB": (0.485, 0.456, 0.406), "L": (0.449,)}, {"RGB": (0.229, 0.224, 0.225), "L": (0.226,)}


@dataclass(frozen=True)
class Listing:
    """N images that a config asks for, none of them opened yet, and what is wrong with their metadata.

    name: of the data set, and so of its store.
    file: the metadata, `lines` (N,) the line of each image in it.
    folder: what `paths` (N) are relative to.
    augment: what becomes of them in training.
    targets, groups, splits: (N,) int64; splits are 0, 1, 2 for train, val, test.
    indices: (N,) int64, rows of the metadata, from 0.
    problems: of the metadata. Rows that cannot be read are named there, and left out of the rest.
    """

    name: str
    file: Path
    folder: Path
    recipe: Recipe
    augment: tuple[Augmentation, ...]
    paths: Sequence[str]
    lines: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    indices: np.ndarray
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    problems: list[Problem]

    def where(self, row: int) -> str:
        """The file and line of an image, for messages."""
        return f"{self.file} line {self.lines[row]}"

    def split_problems(self) -> list[Problem]:
        """Names that are none, splits of fewer than two classes, and classes and groups that a split has no example of."""
        names = self.class_names, self.group_names
        return name_problems(str(self.file), *names) + population_problems(
            str(self.file), self.targets, self.groups, self.splits, *names
        )


def opened(list_images: Callable[..., Listing]) -> Callable[..., Dataset]:
    """The data set of what `list_images` lists; its signature, which is what a config must say, is the same."""

    @functools.wraps(list_images)
    def dataset(data_dir: str, *args: Any, **values: Any) -> Dataset:
        return dataset_of(list_images(data_dir, *args, **values), data_dir)

    return dataset


def prepared(listing: Listing, preparation: Preparation | None) -> Listing:
    """`listing`, its images resized and cropped as for the model's weights where `config.data.size` is 0.

    Raises:
        BadInput: it is, and the weights say nothing.
    """
    if listing.recipe.shape[1]:
        return listing
    if not preparation:
        raise BadInput(
            "config.data.size: 0 given, which takes the size that the weights of config.model were trained with; it has "
            "none that say so"
        )
    first = tuple(step for step in listing.recipe.steps if step[0] == "convert")
    return replace(listing, recipe=Recipe(listing.recipe.mode, (*first, *preparation.steps)))


def dataset_of(listing: Listing, data_dir: str, preparation: Preparation | None = None) -> Dataset:
    """The splits of `listing`, their images from its store, which is built if there is none.

    Args:
        preparation: of the model's weights, whose normalisation they get; without it that of ImageNet.

    Raises:
        BadInput: with the first problem of the metadata, the splits or the images.
    """
    raise_first(listing.problems or listing.split_problems())
    listing = prepared(listing, preparation)
    images = open_store(data_dir, listing.name, listing.folder, listing.paths, listing.recipe, listing.where)

    def split(number: int) -> Split:
        rows = torch.from_numpy(np.flatnonzero(listing.splits == number))
        arrays = (torch.from_numpy(array)[rows] for array in (listing.targets, listing.groups, listing.indices))
        return Split(images.subset(rows), *arrays)

    mean, std = MEAN[listing.recipe.mode], STD[listing.recipe.mode]
    if preparation and listing.recipe.mode == "RGB":
        mean, std = preparation.mean, preparation.std
    names = listing.class_names, listing.group_names
    files = {"kind": "images", "mode": listing.recipe.mode, "steps": listing.recipe.steps}
    return Dataset(*map(split, range(3)), *names, mean, std, augmentations=tuple(listing.augment), preprocessing=files)


def find(data_dir: str, candidates: Sequence[str], name: str, hint: str) -> Path:
    """The first of `candidates` that is in `data_dir`."""
    for candidate in candidates:
        if (Path(data_dir) / candidate).exists():
            return Path(data_dir) / candidate
    raise BadInput(
        f"config.data_dir: {name} is not in {Path(data_dir).absolute()}; there should be {' or '.join(candidates)}; {hint}"
    )


def read_csv(
    file: Path, columns: Sequence[str], delimiter: str = ","
) -> tuple[list[str], list[list[str]], list[int], list[Problem]]:
    """A CSV file with a heading: the heading, the rows, the line of each, and what is wrong with the others.

    A byte-order mark and either kind of line end make no difference; `.gz` at the end of its name says gzip.

    Args:
        columns: those that must be there.
    """
    rows, lines, problems = [], [], []
    try:
        check_regular(file)
        open_text = gzip.open if file.suffix == ".gz" else open
        with open_text(file, "rt", encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            heading = next(reader, [])
            check_columns(file, heading, columns)
            for row in reader:
                if len(row) == len(heading):
                    rows.append(row)
                    lines.append(reader.line_num)
                elif row:
                    wrong = f"{len(row)} fields, the heading has {len(heading)}"
                    problems.append(Problem(f"{file} line {reader.line_num}", wrong))
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not UTF-8 text ({error.reason})") from None
    except csv.Error as error:
        raise BadInput(f"{file} line {reader.line_num}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    return heading, rows, lines, problems


def check_columns(file: Path, heading: Sequence[str], columns: Sequence[str]) -> None:
    """Raise `BadInput` if one of `columns` is missing or there twice."""
    for column in columns:
        if heading.count(column) != 1:
            found = f"{heading.count(column)} columns" if column in heading else "no column"
            raise BadInput(f"{file} line 1: {found} {column!r}; there are {', '.join(heading) or 'none'}")
