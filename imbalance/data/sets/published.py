"""Read published sets of images with a class and an attribute: from folders, or from the CSV that SubpopBench writes.

A `PublishedSet` has the names and the published counts of a set. The function of a set, such as `list_breeds`, finds the
files, makes `Labelled` images of them with `folder_images` or `csv_images`, and returns the result of `published_listing`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imbalance.data.files import find_path, read_csv
from imbalance.data.images.decode import Recipe
from imbalance.data.images.listing import ImageKeys, Listing
from imbalance.data.problems import Problem
from imbalance.data.sets.image_folder import FolderListing, images_in

LEFT_OUT = -1  # split of an image that is in no split


class PublishedSet(NamedTuple):
    """The names and the published counts of a set of images.

    name: the name in `config.data.name`.
    title: the name of the set, for messages.
    classes: the names of the classes.
    attributes: the names of the values of the attribute; () if the groups are the classes.
    counts: for each of train, val and test the published number of its images, or a tuple with the number of images of
        each group; None for a split without published numbers.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    counts: Sequence[int | Sequence[int] | None]

    @property
    def hint(self) -> str:
        """The end of a message, which says how a user can get the set."""
        return f"`imbalance data download {self.name}` gets it, or says how"

    def find(self, data_dir: str, candidates: Sequence[str]) -> Path:
        """Return the first path of `candidates` that exists under `data_dir`; raise `BadInput` if none exists."""
        return find_path(data_dir, candidates, self.title, self.hint)


class Labelled(NamedTuple):
    """N images with their labels.

    file: the CSV file that lists the images, or the folder that contains them.
    folder: the folder that `paths` are relative to.
    targets, attributes, splits: (N,) int64; images of the split `LEFT_OUT` are not used.
    lines: (N,) the line of each image in `file`; None if `file` is a folder.
    problems: the problems of the lines or folders that could not be used.
    """

    file: Path
    folder: Path
    paths: list[str]
    targets: np.ndarray
    attributes: np.ndarray
    splits: np.ndarray
    lines: np.ndarray | None = None
    problems: Sequence[Problem] = ()


def folder_images(root: Path, folders: Iterable[tuple[str, int, int, int]]) -> Labelled:
    """Return the images in `folders`, sorted by name in each folder.

    Args:
        folders: for each folder its path in `root`, and the class, the attribute and the split of its images. A folder
            that is missing or has no image is a problem.
    """
    paths, labels, problems = [], [], []
    for name, *numbers in folders:
        images = images_in(root / name) if (root / name).is_dir() else []
        if not images:
            problems.append(Problem(str(root / name), "no such folder, or no image in it"))
        paths += [str(image.relative_to(root)) for image in images]
        labels += [numbers] * len(images)
    targets, attributes, splits = np.array(labels, dtype=np.int64).reshape(-1, 3).T
    return Labelled(root, root, paths, targets, attributes, splits, problems=problems)


def csv_images(
    file: Path,
    folder: Path,
    columns: Sequence[str],
    labels: Callable[[dict[str, str]], tuple[str, int, int, int] | str | None],
) -> Labelled:
    """Return the images that a CSV file lists.

    Args:
        file: the CSV file, which may be gzipped.
        folder: the folder that the paths are relative to.
        columns: the names of the columns that `labels` reads.
        labels: a function from the values of a line by column to the image's path, class, attribute and split; to None
            for a line that is left out; or to a text that says what is wrong with the line.
    """
    heading, rows, numbers, problems = read_csv(file, columns)
    positions = {name: heading.index(name) for name in columns}
    paths, kept, lines = [], [], []
    for row, line in zip(rows, numbers):
        result = labels({name: row[i] for name, i in positions.items()})
        if isinstance(result, str):
            problems.append(Problem(f"{file} line {line}", result))
        elif result is not None:
            paths.append(result[0])
            kept.append(result[1:])
            lines.append(line)
    targets, attributes, splits = np.array(kept, dtype=np.int64).reshape(-1, 3).T
    return Labelled(file, folder, paths, targets, attributes, splits, np.array(lines, dtype=np.int64), problems)


def subpopbench_images(file: Path, root: Path, splits: tuple[str, str, str], classes: int, attributes: int) -> Labelled:
    """Return the images that a CSV file of SubpopBench lists, with the columns filename, split, y and a.

    SubpopBench writes absolute paths. Only the part of a path after the name of the folder `root` is used, so the images may be
    in another place now.

    Args:
        root: the folder of the images.
        splits: the values of the column split that mean train, val and test. Lines with other values are left out.
        classes, attributes: the numbers of classes and of values of the attribute; y and a must be below them.
    """

    def labels(row: dict[str, str]) -> tuple[str, int, int, int] | str | None:
        if row["split"] not in splits:
            return None
        for name, count in (("y", classes), ("a", attributes)):
            if not row[name].isdecimal() or int(row[name]) >= count:
                return f"{name} is {row[name]!r}, not a number from 0 to {count - 1}"
        _, mark, path = row["filename"].rpartition(f"/{root.name}/")
        if not mark:
            return f"filename is {row['filename']!r}, a path without the folder {root.name}"
        return path, int(row["y"]), int(row["a"]), splits.index(row["split"])

    return csv_images(file, root, ("filename", "split", "y", "a"), labels)


def published_listing(
    about: PublishedSet,
    images: Labelled,
    steps: tuple[tuple[str, int], ...],
    check_counts: bool,
    image_keys: ImageKeys,
    classes_may_lack: bool = False,
) -> Listing:
    """Return the `Listing` of a published set; the group is class × attribute, or the class without attributes.

    If the counts are not the published ones, the `Listing` has a problem that says so.

    Args:
        images: all images, also those whose split is `LEFT_OUT`.
        steps: the steps that resize and crop an image; see `Recipe`.
        check_counts: `config.data.check_counts`; False accepts other counts.
        classes_may_lack: whether val and test may lack classes.
    """
    kept = np.flatnonzero(images.splits != LEFT_OUT)
    targets, attributes, splits = (array[kept] for array in (images.targets, images.attributes, images.splits))
    groups = len(about.attributes) * targets + attributes if about.attributes else targets
    problems = list(images.problems)
    if check_counts and not problems:
        problems += count_problems(about, images.file, groups, splits)
    names = tuple(f"{label}, {value}" for label in about.classes for value in about.attributes) or about.classes
    return (Listing if images.lines is not None else FolderListing)(
        about.name,
        images.file,
        images.folder,
        Recipe("RGB", (("convert", 0), *steps)),
        [images.paths[row] for row in kept.tolist()],
        (images.lines if images.lines is not None else np.arange(len(images.paths)))[kept],
        targets,
        groups,
        splits,
        kept,
        about.classes,
        names,
        problems,
        groups_may_lack=True,  # the counts are compared, and published data lack some groups
        classes_may_lack=classes_may_lack,
        **image_keys,
    )


def count_problems(about: PublishedSet, file: Path, groups: np.ndarray, splits: np.ndarray) -> list[Problem]:
    """Return a list with one problem if the counts of the splits, or of the groups in the splits, are not the published ones.

    Args:
        file: the file or folder with the data, for the message.
    """
    number = max(1, len(about.attributes)) * len(about.classes)
    actual = tuple(
        None
        if counts is None
        else len(groups[splits == split])
        if isinstance(counts, int)
        else tuple(np.bincount(groups[splits == split], minlength=number).tolist())
        for split, counts in enumerate(about.counts)
    )
    if actual == tuple(about.counts):
        return []
    what = "images" if all(isinstance(counts, int | None) for counts in about.counts) else "images of the groups"
    cause = (
        f"not the published {about.title}: train, val and test have {actual} {what}, not {tuple(about.counts)}; "
        f"{about.hint}; set config.data.check_counts=False to use it all the same"
    )
    return [Problem(str(file), cause)]


def middle(size: int) -> tuple[tuple[str, int], ...]:
    """Return the usual steps of a `Recipe`: resize the shorter side to 8/7 of `size` (256 for 224), then keep the middle size × size."""
    return ("shorter", round(size * 8 / 7)), ("crop", size)


def draw_stratified(labels: np.ndarray, val_fraction: float, test_fraction: float) -> np.ndarray:
    """Return (N,) splits drawn by scikit-learn with seed 42, as SubpopBench draws them: first test, then val.

    Args:
        labels: (N,) the labels whose shares are kept.
        val_fraction, test_fraction: the shares of the N examples that become val and test.
    """
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(np.arange(len(labels)), test_size=test_fraction, random_state=42, stratify=labels)
    share = val_fraction / (1 - test_fraction)
    _, val = train_test_split(rest, test_size=share, random_state=42, stratify=labels[rest])
    splits = np.zeros(len(labels), dtype=np.int64)
    splits[val], splits[test] = 1, 2
    return splits
