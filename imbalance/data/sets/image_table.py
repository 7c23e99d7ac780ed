"""Data set of a user's own images that a CSV or Parquet file lists."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Count, Fraction, Name, Natural
from imbalance.data.files import check_columns, read_csv, read_parquet_table
from imbalance.data.images.decode import Recipe
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.population import SPLITS
from imbalance.data.problems import Problem
from imbalance.data.tables.columns import Delimiter, assign_splits, check_label_columns, number_groups
from imbalance.data.tables.values import composed
from imbalance.errors import BadInput


def list_table(
    data_dir: str,
    seed: int,
    *,
    file: Name,
    delimiter: Delimiter,
    folder: str,
    path: Name,
    target: Name,
    classes: tuple[Name, ...],
    attributes: tuple[Name, ...],
    split: str,
    val_fraction: Fraction,
    test_fraction: Fraction,
    mode: Literal["RGB", "L"],
    convert: bool,
    reduce: bool,
    resize: Count,
    size: Natural,
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the images that a table names, with their classes and groups.

    Args:
        file: the table under data_dir: `.csv` or `.csv.gz` in UTF-8, or `.parquet`.
        delimiter: the character between the columns of a CSV file; in bash $'\\t' is a tab.
        folder: the folder under data_dir that the paths are relative to; "" for data_dir itself.
        path, target: the columns that hold the path and the class of each image.
        classes: the values of the column target, in the order of the classes.
        attributes: the columns that are crossed with the target: each combination of a class with values of these
            columns is a group. () if the classes are the groups.
        split: the column that says train, val or test; "" if there is none.
        val_fraction: the share of every group that becomes val, drawn by the run's seed; 0.0 if the table
            has val images.
        test_fraction: the share of every group that becomes test, drawn by the run's seed; 0.0 if the table has
            test images.
        mode: the mode of the images: "RGB" or "L" (grey).
        convert: True to convert images of other modes (grey, palette, transparency, CMYK, 16 bits); False to refuse
            them. Transparency is dropped, and 16 bits are scaled to 8.
        reduce: True to decode a JPEG at 1/2, 1/4 or 1/8 of its size if no side becomes shorter than `resize`. Photographs
            of 12 megapixels are then decoded four times as fast, but the pixels differ a little. False to decode all
            pixels, as torchvision does.
        resize, size: resize the shorter side to `resize` pixels, and keep the `size`×`size` pixels in the middle.
            A size of 0 resizes and crops as the pretrained weights of config.model need.
    """
    classes = tuple(map(composed, classes))
    check_label_columns(classes, target, attributes)
    table_file = Path(data_dir) / file
    needed: tuple[str, ...] = tuple(dict.fromkeys([path, target, *attributes, *([split] if split else [])]))
    if table_file.suffix == ".parquet":
        heading, rows, lines, problems = read_parquet(table_file, needed)
    else:
        heading, rows, lines, problems = read_csv(table_file, needed, delimiter)
    columns = {name: heading.index(name) for name in needed}
    labels = {name: i for name, i in columns.items() if name != path}
    valid = {target: classes} | ({split: SPLITS} if split else {})
    good, first_line = [], {}
    for row, line in zip(rows, lines):
        wrong = []
        for name, i in labels.items():
            row[i] = composed(row[i])
            if name in valid and row[i] not in valid[name]:
                wrong.append(f"{name} is {row[i]!r}, not one of {', '.join(valid[name])}")
            elif not row[i] or row[i] != row[i].strip():  # its group would have a name that looks like another name
                wrong.append(f"{name} is {row[i]!r}; it must not be empty, or begin or end with a space")
        image = os.path.normpath(row[columns[path]])
        if not row[columns[path]]:
            wrong.append(f"{path} is empty; type the path of an image, or remove the line")
        elif image in first_line:  # the second could be in test while the first is in train
            wrong.append(f"{row[columns[path]]!r} is on line {first_line[image]} already; list each image once")
        first_line.setdefault(image, line)
        problems += [Problem(f"{table_file} line {line}", cause) for cause in wrong]
        good.append(not wrong)
    kept = np.flatnonzero(np.array(good, dtype=bool))

    def column(name: str) -> list[str]:
        return [rows[row][columns[name]] for row in kept]

    group_numbers, group_names = number_groups(column(target), classes, [column(name) for name in attributes])
    split_names = column(split) if split else ["train"] * len(kept)
    splits = np.array([SPLITS.index(name) for name in split_names], dtype=np.int64)
    return Listing(
        table_file.name.partition(".")[0],
        table_file,
        Path(data_dir) / folder,
        image_recipe(mode, convert, reduce, resize, size),
        column(path),
        np.array(lines, dtype=np.int64)[kept],
        np.array([classes.index(name) for name in column(target)], dtype=np.int64),
        group_numbers,
        assign_splits(splits, group_numbers, val_fraction, test_fraction, seed, str(table_file)),
        kept,
        classes,
        group_names,
        problems,
        **image_keys,
    )


def image_recipe(mode: str, convert: bool, reduce: bool, resize: int, size: int) -> Recipe:
    """Return the steps that resize the shorter side to `resize` pixels, and keep the `size`×`size` pixels in the middle.

    Args:
        mode: the mode of the images, "RGB" or "L" (grey).
        convert: convert images of other modes instead of refusing them; see `imbalance.data.images.decode.converted`.
        reduce: decode large JPEGs at a part of their size; see `imbalance.data.images.decode.Recipe`.
    """
    if size > resize:
        raise BadInput(f"config.data.size: {size} given; it must be at most config.data.resize={resize}")
    first = (*((("reduce", 0),) if reduce else ()), *((("convert", 0),) if convert else ()))
    return Recipe(mode, (*first, ("shorter", resize), ("crop", size)))


table = image_dataset(list_table)


def read_parquet(file: Path, columns: tuple[str, ...]) -> tuple[list[str], list[list[str]], list[int], list[Problem]]:
    """Read a Parquet file like `read_csv` reads a CSV file.

    All values become text, and missing values become "".

    Returns:
        The names of all columns; the rows; the number of each row, from 1; and problems, of which there are none.
    """
    content = read_parquet_table(file)
    heading = content.column_names
    check_columns(file, heading, columns)
    rows = [
        ["" if value is None or value != value else str(value) for value in row.values()] for row in content.to_pylist()
    ]
    return heading, rows, list(range(1, len(rows) + 1)), []
