"""A user's own images: a CSV or Parquet file that lists them, beside a folder."""

import os
from pathlib import Path
from typing import Literal

import numpy as np

from imbalance.config.schema import Count, Fraction, Name, Natural
from imbalance.data.images.augment import Augmentation
from imbalance.data.images.decode import Recipe
from imbalance.data.images.listing import Listing, check_columns, opened, read_csv
from imbalance.data.population import SPLITS
from imbalance.data.problems import Problem
from imbalance.data.tables.columns import (
    Delimiter,
    assign_splits,
    check_classes,
    composed,
    number_groups,
    read_parquet_table,
)
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
    groups: tuple[Name, ...],
    split: str,
    val_fraction: Fraction,
    test_fraction: Fraction,
    mode: Literal["RGB", "L"],
    convert: bool,
    resize: Count,
    size: Natural,
    augment: tuple[Augmentation, ...],
) -> Listing:
    """Images that a table lists, with their classes, and where there are any the attributes that make groups of them.

    Args:
        file: the table, `.csv` (UTF-8, also as `.csv.gz`) or `.parquet`, under data_dir.
        delimiter: the character between the columns of a CSV file.
        folder: what its paths are relative to, under data_dir; "" for data_dir itself.
        path, target: the columns of the paths and of the classes.
        classes: the values of the target, in the order of the classes.
        groups: the columns whose combinations are the groups: () for the classes, ("target", "place") for each
            class in each place, where "target" is the target's column, ("group",) for a column of groups.
        split: the column that says train, val or test; "" for none.
        val_fraction: the share of every group that becomes val, drawn by the run's seed; 0.0 for a split that the
            table has.
        test_fraction: the share of every group that becomes test, drawn by the run's seed; 0.0 for a split that the
            table has.
        mode: the mode of the images: "RGB" or "L" (grey).
        convert: images of other modes (grey, palette, with transparency), instead of refusing them.
        resize, size: the shorter side is resized to `resize` pixels, and the `size`×`size` in the middle are kept.
            A size of 0 does both as the weights of config.model were trained.
        augment: random changes of training images: "flip" mirrors an image with probability 1/2, "pad_crop" shifts
            it by at most 4 pixels, "random_resized_crop" crops 70 to 100 % of its area; () for none.
    """
    classes = tuple(map(composed, classes))
    check_classes(classes, groups)
    table_file = Path(data_dir) / file
    needed = tuple(dict.fromkeys((path, target, *groups, *([split] if split else []))))
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
            elif not row[i] or row[i] != row[i].strip():  # a group of its own, under what looks like another's name
                wrong.append(f"{name} is {row[i]!r}: empty, or with a space at an end")
        image = os.path.normpath(row[columns[path]])
        if image in first_line:  # the same image in two splits would be a test on the training set
            wrong.append(f"{row[columns[path]]!r} is on line {first_line[image]} already")
        first_line.setdefault(image, line)
        problems += [Problem(f"{table_file} line {line}", cause) for cause in wrong]
        good.append(not wrong)
    kept = np.flatnonzero(np.array(good, dtype=bool))

    def column(name: str) -> list[str]:
        return [rows[row][columns[name]] for row in kept]

    grouping = groups or (target,)
    orders = [classes if name == target else None for name in grouping]
    group_numbers, group_names = number_groups([column(name) for name in grouping], orders)
    splits = [SPLITS.index(name) for name in column(split)] if split else [0] * len(kept)
    splits = np.array(splits, dtype=np.int64)
    return Listing(
        table_file.name.partition(".")[0],
        table_file,
        Path(data_dir) / folder,
        image_recipe(mode, convert, resize, size),
        augment,
        column(path),
        np.array(lines, dtype=np.int64)[kept],
        np.array([classes.index(name) for name in column(target)], dtype=np.int64),
        group_numbers,
        assign_splits(splits, group_numbers, val_fraction, test_fraction, seed, str(table_file)),
        kept,
        classes,
        group_names,
        problems,
    )


def image_recipe(mode: str, convert: bool, resize: int, size: int) -> Recipe:
    """The shorter side to `resize` pixels, and the `size`×`size` in the middle of that."""
    if size > resize:
        raise BadInput(f"config.data.size: {size} given; images of config.data.resize={resize} are cropped to it")
    first = (("convert", 0),) if convert else ()
    return Recipe(mode, (*first, ("shorter", resize), ("crop", size)))


table = opened(list_table)


def read_parquet(file: Path, columns: tuple[str, ...]) -> tuple[list[str], list[list[str]], list[int], list[Problem]]:
    """As `read_csv`; values that are not text are written as text, missing ones as "", a line is the row from 1."""
    content = read_parquet_table(file)
    heading = content.column_names
    check_columns(file, heading, columns)
    rows = [
        ["" if value is None or value != value else str(value) for value in row.values()] for row in content.to_pylist()
    ]
    return heading, rows, list(range(1, len(rows) + 1)), []
