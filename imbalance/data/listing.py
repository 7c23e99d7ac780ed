"""Image files and their labels, as a metadata file lists them: what Waterbirds, CelebA and a user's own table share."""

import csv
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbalance.data.augment import Augmentation
from imbalance.data.decode import Recipe
from imbalance.data.splits import Dataset, Split
from imbalance.data.store import Stored, image_problems, open_store, raise_first
from imbalance.errors import BadInput

SPLITS = ("train", "val", "test")
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
    problems: one line each. Rows that cannot be read are named there, and left out of the rest.
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
    problems: list[str]

    def where(self, row: int) -> str:
        """The file and line of an image, for messages."""
        return f"{self.file} line {self.lines[row]}"

    def all_problems(self) -> list[str]:
        """Everything that is wrong: metadata, splits and, opening every one, the images."""
        return self.problems + self.split_problems() + image_problems(self.folder, self.paths, self.recipe, self.where)

    def split_problems(self) -> list[str]:
        """Splits of fewer than two classes, and groups that a split has no example of."""
        return population_problems(
            str(self.file), self.targets, self.groups, self.splits, self.class_names, self.group_names
        )


def population_problems(
    where: str,
    targets: np.ndarray,
    groups: np.ndarray,
    splits: np.ndarray,
    class_names: Sequence[str],
    group_names: Sequence[str],
) -> list[str]:
    """One line for each split of `where` with fewer than two classes, else for each group that it has no example of."""
    problems = []
    for split, name in enumerate(SPLITS):
        classes = np.unique(targets[splits == split])
        counts = np.bincount(groups[splits == split], minlength=len(group_names))
        if len(classes) < 2:
            found = f"only class {class_names[classes[0]]!r}" if len(classes) else "no example"
            problems.append(f"{where}: the {name} split has {found}; it needs two classes or more")
        else:
            problems += [
                f"{where}: the {name} split has no example of group {group_names[g]!r}"
                for g in np.flatnonzero(counts == 0)
            ]
    return problems


def opened(list_images: Callable[..., Listing]) -> Callable[..., Dataset]:
    """The data set of what `list_images` lists; its signature, which is what a config must say, is the same."""

    @functools.wraps(list_images)
    def dataset(data_dir: str, *args: Any, **values: Any) -> Dataset:
        return dataset_of(list_images(data_dir, *args, **values), data_dir)

    return dataset


def dataset_of(listing: Listing, data_dir: str) -> Dataset:
    """The splits of `listing`, their images from its store, which is built if there is none.

    Raises:
        BadInput: with the first problem of the metadata, the splits or the images.
    """
    problems = listing.problems or listing.split_problems()
    if problems:
        raise_first(problems)
    images = open_store(data_dir, listing.name, listing.folder, listing.paths, listing.recipe, listing.where)

    def split(number: int) -> Split:
        rows = torch.from_numpy(np.flatnonzero(listing.splits == number))
        arrays = (torch.from_numpy(array)[rows] for array in (listing.targets, listing.groups, listing.indices))
        return Split(Stored(images, rows, torch.device("cpu"), torch.contiguous_format), *arrays)

    mean, std = MEAN[listing.recipe.mode], STD[listing.recipe.mode]
    names = listing.class_names, listing.group_names
    return Dataset(*map(split, range(3)), *names, mean, std, augmentations=tuple(listing.augment))


def find(data_dir: str, candidates: Sequence[str], name: str, hint: str) -> Path:
    """The first of `candidates` that is in `data_dir`."""
    for candidate in candidates:
        if (Path(data_dir) / candidate).exists():
            return Path(data_dir) / candidate
    raise BadInput(
        f"config.data_dir: {name} is not in {Path(data_dir).absolute()}; there should be {' or '.join(candidates)}; {hint}"
    )


def read_csv(file: Path, columns: Sequence[str]) -> tuple[list[str], list[list[str]], list[int], list[str]]:
    """A CSV file with a heading: the heading, the rows, the line of each, and what is wrong with the others.

    A byte-order mark and either kind of line end make no difference.

    Args:
        columns: those that must be there.
    """
    rows, lines, problems = [], [], []
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            heading = next(reader, [])
            check_columns(file, heading, columns)
            for row in reader:
                if len(row) == len(heading):
                    rows.append(row)
                    lines.append(reader.line_num)
                elif row:
                    problems.append(f"{file} line {reader.line_num}: {len(row)} fields, the heading has {len(heading)}")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not UTF-8 text ({error.reason})") from None
    except csv.Error as error:
        raise BadInput(f"{file} line {reader.line_num}: {error}") from None
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    return heading, rows, lines, problems


def check_columns(file: Path, heading: Sequence[str], columns: Sequence[str]) -> None:
    """Raise `BadInput` if one of `columns` is missing or there twice."""
    for column in columns:
        if heading.count(column) != 1:
            found = f"{heading.count(column)} columns" if column in heading else "no column"
            raise BadInput(f"{file} line 1: {found} {column!r}; there are {', '.join(heading) or 'none'}")
