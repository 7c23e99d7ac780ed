"""A user's own images: a CSV or Parquet file that lists them, beside a folder."""

from pathlib import Path
from typing import Literal

import numpy as np

from imbalance.data.augment import Augmentation
from imbalance.data.decode import Recipe
from imbalance.data.listing import SPLITS, Listing, check_columns, opened, read_csv
from imbalance.data.splits import stratified_split
from imbalance.errors import BadInput
from imbalance.schema import Count, Fraction, Name


def list_table(
    data_dir: str,
    seed: int,
    *,
    file: Name,
    folder: str,
    classes: tuple[Name, ...],
    groups: tuple[Name, ...],
    val_fraction: Fraction,
    test_fraction: Fraction,
    mode: Literal["RGB", "L"],
    resize: Count,
    size: Count,
    augment: tuple[Augmentation, ...],
) -> Listing:
    """Images that a table lists in columns `path` and `target`, and as many others as there are groups to tell apart.

    Args:
        file: the table, `.csv` (UTF-8) or `.parquet`, under data_dir.
        folder: what its paths are relative to, under data_dir; "" for data_dir itself.
        classes: the values of `target`, in the order of the classes.
        groups: the columns whose combinations are the groups: ("target",) for the classes, ("target", "place") for
            each class in each place, ("group",) for a column of groups.
        val_fraction, test_fraction: of every group, drawn from the run's seed; 0.0 where a column `split` says train,
            val or test.
        mode: of the images, "RGB" or "L" (grey).
        resize, size: the shorter side is resized to `resize` pixels, and the `size`×`size` in the middle are kept.
        augment: see `imbalance.data.augment`.
    """
    check_values(classes, groups, val_fraction + test_fraction, resize, size)
    path = Path(data_dir) / file
    read = read_parquet if path.suffix == ".parquet" else read_csv
    heading, rows, lines, problems = read(path, ("path", "target", *(name for name in groups if name != "target")))
    has_split = "split" in heading
    if has_split == bool(val_fraction or test_fraction):
        said = f"{val_fraction}, {test_fraction} given"
        need = "must be 0.0: the table has a column split" if has_split else "are needed: the table has no column split"
        raise BadInput(f"config.data.val_fraction, test_fraction: {said}; they {need} ({path})")
    columns = {name: heading.index(name) for name in ("path", "target", *groups, *(["split"] if has_split else []))}
    good, first_line = [], {}
    for row, line in zip(rows, lines):
        wrong = [
            f"{path} line {line}: {name} is {row[columns[name]]!r}, not one of {', '.join(valid)}"
            for name, valid in (("target", classes), ("split", SPLITS))
            if name in columns and row[columns[name]] not in valid
        ]
        image = row[columns["path"]]
        if image in first_line:  # the same image in two splits would be a test on the training set
            wrong.append(f"{path} line {line}: {image} is on line {first_line[image]} already")
        first_line.setdefault(image, line)
        problems += wrong
        good.append(not wrong)
    kept = np.flatnonzero(np.array(good, dtype=bool))

    def column(name: str) -> list[str]:
        return [rows[row][columns[name]] for row in kept]

    combinations = list(zip(*(column(name) for name in groups)))
    order = [dict(zip(classes, range(len(classes)))) if name == "target" else None for name in groups]
    group_values = sorted(
        set(combinations), key=lambda values: [rank[v] if rank else v for rank, v in zip(order, values)]
    )
    group_of = {values: number for number, values in enumerate(group_values)}
    group_numbers = np.array([group_of[values] for values in combinations], dtype=np.int64)
    if has_split:
        splits = np.array([SPLITS.index(name) for name in column("split")], dtype=np.int64)
    else:
        splits = draw_splits(group_numbers, val_fraction, test_fraction, seed)
    return Listing(
        path.stem,
        path,
        Path(data_dir) / folder,
        Recipe(mode, (("shorter", resize), ("crop", size))),
        augment,
        column("path"),
        np.array(lines, dtype=np.int64)[kept],
        np.array([classes.index(name) for name in column("target")], dtype=np.int64),
        group_numbers,
        splits,
        kept,
        classes,
        tuple(", ".join(values) for values in group_values),
        problems,
    )


table = opened(list_table)


def check_values(classes: tuple[str, ...], groups: tuple[str, ...], held_out: float, resize: int, size: int) -> None:
    """What the schema cannot say of this section."""
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise BadInput(f"config.data.classes: {classes} given; at least two different ones are needed")
    if not groups or len(set(groups)) != len(groups):
        raise BadInput(f"config.data.groups: {groups} given; it takes one column or more, such as ('target',)")
    if held_out >= 1:
        raise BadInput(f"config.data.val_fraction, test_fraction: they leave no training set; their sum is {held_out}")
    if size > resize:
        raise BadInput(f"config.data.size: {size} given; images of config.data.resize={resize} are cropped to it")


def draw_splits(groups: np.ndarray, val_fraction: float, test_fraction: float, seed: int) -> np.ndarray:
    """0, 1 or 2 for each row: the same fractions of every group."""
    rng = np.random.default_rng(seed)
    splits = np.zeros(len(groups), dtype=np.int64)
    if not len(groups):
        return splits
    rest, test = stratified_split(groups, test_fraction, rng)
    splits[test] = 2
    splits[rest[stratified_split(groups[rest], val_fraction / (1 - test_fraction), rng)[1]]] = 1
    return splits


def read_parquet(file: Path, columns: tuple[str, ...]) -> tuple[list[str], list[list[str]], list[int], list[str]]:
    """As `read_csv`; values that are not text are written as text, a line is the row counted from 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(
            f"{file}: reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
        ) from None
    try:
        content = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{file}: {str(error).splitlines()[0]}") from None
    heading = content.column_names
    check_columns(file, heading, columns)
    rows = [["" if value is None else str(value) for value in row.values()] for row in content.to_pylist()]
    return heading, rows, list(range(1, len(rows) + 1)), []
