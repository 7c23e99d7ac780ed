"""Data set of a user's own images, with a folder for each class, as in torchvision's ImageFolder."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Count, Fraction, Natural
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.problems import Problem
from imbalance.data.sets.image_table import image_recipe
from imbalance.data.tables.columns import assign_splits
from imbalance.errors import BadInput
from imbalance.utils.output import counted

SPLIT_FOLDERS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
# Endings of images that are not read, so that a folder with such images is not taken for a smaller one without a word
UNREAD = (".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".jxr", ".dng", ".ico", ".svg")


def list_folder(
    data_dir: str,
    seed: int,
    *,
    folder: str,
    val_fraction: Fraction,
    test_fraction: Fraction,
    mode: Literal["RGB", "L"],
    convert: bool,
    reduce: bool,
    resize: Count,
    size: Natural,
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the images of a folder that has a subfolder for each class, or folders train, val and test with such subfolders.

    The classes are the names of the subfolders, in alphabetical order as in ImageFolder; the groups are the classes.
    Images in deeper subfolders count, too. Hidden files and folders, and files that are not images, are left out. A note says
    how many images of other formats, such as .heic, are left out. A link to an image that does not exist (git-annex, DVC) is
    a problem of the data, and not left out.

    Args:
        folder: the folder under data_dir; "" for data_dir itself.
        val_fraction: the share of every class that becomes val, drawn by the run's seed; 0.0 if there is a
            folder for val.
        test_fraction: the share of every class that becomes test, drawn by the run's seed; 0.0 if there is a
            folder for test.
        mode: the mode of the images: "RGB" or "L" (grey).
        convert: True to convert images of other modes (grey, palette, transparency, CMYK, 16 bits); False to refuse
            them. Transparency is dropped, and 16 bits are scaled to 8.
        reduce: True to decode a JPEG at 1/2, 1/4 or 1/8 of its size if no side becomes shorter than `resize`. Photographs
            of 12 megapixels are then decoded four times as fast, but the pixels differ a little. False to decode all
            pixels, as torchvision does.
        resize: the length in pixels to which the shorter side is resized; it has no effect if size is 0.
        size: the side in pixels of the square in the middle that is kept; 0 to resize and crop as the pretrained
            weights of config.model need.
    """
    root = Path(data_dir) / folder
    parts = {path: SPLIT_FOLDERS[path.name] for path in folders(root) if path.name in SPLIT_FOLDERS}
    if parts and len(parts) < len(folders(root)):
        other = next(path for path in folders(root) if path not in parts)
        raise BadInput(
            f"{root}: folders of splits ({', '.join(p.name for p in parts)}) beside another folder, {other.name}; move "
            f"{other.name} out of {root}, or rename the folders of splits"
        )
    parts = parts or {root: 0}
    classes = sorted({path.name for part in parts for path in folders(part)})
    if len(classes) < 2:
        present = f"only the folder {classes[0]}" if classes else "no folder"
        raise BadInput(f"config.data.folder: {present} in {root.absolute()}; at least two class folders are needed")
    problems, examples, unread = [], [], []
    for part, split in parts.items():
        for name in classes:
            images = images_in(part / name, unread) if (part / name).is_dir() else []
            if not images and (part / name).is_dir():
                cause = f"no image; the names of images end in {', '.join(IMAGES)}"
                problems.append(Problem(str(part / name), cause))
            examples += [(str(path.relative_to(root)), classes.index(name), split) for path in images]
    paths = [path for path, _, _ in examples]
    targets = np.array([target for _, target, _ in examples], dtype=np.int64)
    splits = np.array([split for _, _, split in examples], dtype=np.int64)
    rows = np.arange(len(paths))
    return FolderListing(
        root.name or "folder",
        root,
        root,
        image_recipe(mode, convert, reduce, resize, size),
        paths,
        rows,
        targets,
        targets,
        assign_splits(splits, targets, val_fraction, test_fraction, seed, str(root)),
        rows,
        tuple(classes),
        tuple(classes),
        problems,
        notes=(
            *(note for part in dict.fromkeys((root, *parts)) for note in loose_images(part)),
            *unread_note(root, unread),
        ),
        **image_keys,
    )


def loose_images(folder: Path) -> list[str]:
    """Return a list with a note on the images that lie directly in `folder` and so have no class; [] if none do."""
    images = (
        sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGES and path.name[0] != "." and not path.is_dir()
        )
        if folder.is_dir()
        else []
    )
    if not images:
        return []
    return [
        f"{folder}: {counted(len(images), 'image')} not in a class folder, so left out, such as {images[0].name}; move "
        "them into the folder of their class"
    ]


def unread_note(folder: Path, unread: list[Path]) -> list[str]:
    """Return a list with a note on the images `unread` in `folder`, whose formats are not read; [] if there are none."""
    if not unread:
        return []
    return [
        f"{folder}: {counted(len(unread), 'image')} left out, because images that end in {unread[0].suffix} are not read, such as "
        f"{min(unread).relative_to(folder)}; convert them to one of {', '.join(IMAGES)}"
    ]


class FolderListing(Listing):
    """A `Listing` of the image files in a folder; there is no metadata file."""

    def where(self, row: int) -> str:
        """Return the folder as the place of each image in messages, because there is no line of a metadata file."""
        return str(self.folder)


def folders(path: Path) -> list[Path]:
    """Return the folders in `path` that are not hidden, sorted by name.

    Raises:
        BadInput: `path` cannot be read, or has a link that leads nowhere and may have been a folder.
    """
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise BadInput(
            f"config.data.folder: {path.absolute()}: {error.strerror}; name a folder that can be read"
        ) from None
    for entry in entries:
        if entry.is_symlink() and not entry.exists():
            raise BadInput(
                f"config.data.folder: {entry.absolute()} is a link to {entry.readlink()}, which does not exist; fetch what "
                "it links to (git annex get, dvc pull), or remove the link"
            )
    return [entry for entry in entries if entry.is_dir()]


def images_in(path: Path, unread: list[Path] | None = None) -> list[Path]:
    """Return the image files in `path` and its subfolders, sorted; hidden files and folders are left out.

    A link to a missing file is in the result too, so that the missing image is reported and not left out.

    Args:
        unread: a list to which images of formats that are not read are added; None to leave them out.

    Raises:
        BadInput: a folder cannot be read, or a link leads to a folder that contains the link.
    """
    images: list[Path] = []

    def add(folder: Path, around: frozenset[tuple[int, int]]) -> None:
        status = folder.stat()
        here = status.st_dev, status.st_ino
        if here in around:
            raise BadInput(f"{folder}: a link to a folder that contains the link; remove the link")
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    add(path, around | {here})
                elif path.suffix.lower() in IMAGES:
                    images.append(path)
                elif unread is not None and path.suffix.lower() in UNREAD:
                    unread.append(path)

    try:
        add(path, frozenset())
    except OSError as error:
        raise BadInput(f"{error.filename or path}: {error.strerror}; make it readable") from None
    return sorted(images)


folder = image_dataset(list_folder)
