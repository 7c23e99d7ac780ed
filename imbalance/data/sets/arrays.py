"""A user's own arrays and columns of numbers and categories: `.npz`, `.npy`, `.csv`, `.parquet`."""

from pathlib import Path

import numpy as np
import torch

from imbalance.config.schema import Fraction, Name
from imbalance.data.population import SPLITS, population_problems
from imbalance.data.problems import raise_first
from imbalance.data.splits import Dataset, Split
from imbalance.data.tables.columns import (
    Columns,
    Delimiter,
    assign_splits,
    check_classes,
    composed,
    number_groups,
    read_columns,
)
from imbalance.data.tables.encoding import described, fit_features, is_numeric, transform
from imbalance.errors import BadInput


def arrays(
    data_dir: str,
    seed: int,
    *,
    file: Name,
    delimiter: Delimiter,
    numeric: tuple[Name, ...],
    categorical: tuple[Name, ...],
    missing: tuple[str, ...],
    target: Name,
    classes: tuple[Name, ...],
    groups: tuple[Name, ...],
    split: str,
    val_fraction: Fraction,
    test_fraction: Fraction,
) -> Dataset:
    """Columns of a file, standardised and one-hot encoded as `imbalance.data.tables.encoding` says, on what train has.

    Args:
        file: under data_dir: `.csv` (or `.csv.gz`) and `.parquet` have columns; `.npz` has arrays by name, and so
            has a folder of `.npy` files; a single `.npy` file must be a structured array. An array of more
            dimensions than two, as a single numeric column, goes to the model as it is; if it is uint8, as images,
            (N, C, H, W), (N, H, W, C) or (N, H, W).
        delimiter: the character between the columns of a CSV file.
        numeric, categorical: the columns that the model sees. Both () for all that are not target, group or split,
            each numeric if all of its values are numbers; where most are, the others must be named in `missing`.
        missing: texts that mean a missing value, such as ("", "?"): "" is also a null, "nan" also not a number.
        target, classes: the column of the classes, and its values as text, in the order of the classes.
        groups: the columns whose combinations are the groups, the target's among them if meant; () for the classes.
        split: the column that says train, val or test; "" for none.
        val_fraction: the share of every group that becomes val, drawn by the run's seed; 0.0 for a split that the
            file has.
        test_fraction: the share of every group that becomes test, drawn by the run's seed; 0.0 for a split that the
            file has.
    """
    classes = tuple(map(composed, classes))
    check_classes(classes, groups)
    columns = read_columns(Path(data_dir) / file, delimiter)
    targets = numbered(columns, target, classes)
    grouping = groups or (target,)
    orders = [classes if name == target else None for name in grouping]
    of_groups, group_names = number_groups([columns.text(name) for name in grouping], orders)
    splits = numbered(columns, split, SPLITS) if split else np.zeros(len(columns), dtype=np.int64)
    splits = assign_splits(splits, of_groups, val_fraction, test_fraction, seed, columns.source)
    problems = population_problems(columns.source, targets, of_groups, splits, classes, group_names)
    raise_first(problems)
    train = splits == 0
    if not (numeric or categorical):
        seen = [name for name in columns.values if name not in (target, split, *groups)]
        numeric = tuple(name for name in seen if is_numeric(columns, name, missing))
        categorical = tuple(name for name in seen if name not in numeric)
        check_no_splits(columns, categorical)
    if not (numeric or categorical):
        raise BadInput(
            f"config.data.numeric, categorical: {columns.source} has no columns beside target, groups, split"
        )
    check_columns_differ(numeric, categorical, target, split)
    mean, std, preprocessing, notes = (), (), {}, ()
    if not categorical and len(numeric) == 1 and columns[numeric[0]].ndim > 2:
        inputs = whole_array(columns, numeric[0])
        if inputs.dtype == torch.uint8:
            mean, std = channel_statistics(inputs, np.flatnonzero(train))
    else:
        features = fit_features(columns, train, numeric, categorical, missing)
        inputs = torch.from_numpy(transform(columns, features))
        preprocessing = {"kind": "columns", "delimiter": delimiter, "features": features}
        notes = described(columns, train, features, inputs.shape[1])

    def of(number: int) -> Split:
        rows = torch.from_numpy(np.flatnonzero(splits == number))
        labels = (torch.from_numpy(array)[rows] for array in (targets, of_groups))
        return Split(inputs[rows], *labels, rows)

    names = tuple(classes), group_names
    return Dataset(*map(of, range(3)), *names, mean, std, preprocessing=preprocessing, notes=notes)


def numbered(columns: Columns, name: str, valid: tuple[str, ...]) -> np.ndarray:
    """(N,) int64, the place of each row's value of a column in `valid`."""
    number, text = {value: i for i, value in enumerate(valid)}, columns.text(name)
    for row, value in enumerate(text):
        if value not in number:
            raise BadInput(f"{columns.where(row)}: {name} is {value!r}, not one of {', '.join(valid)}")
    return np.array([number[value] for value in text], dtype=np.int64)


def check_no_splits(columns: Columns, names: tuple[str, ...]) -> None:
    """Raise `BadInput` for a column that says train, val or test, which nobody meant the model to see."""
    for name in names:
        if set(columns.text(name)) <= set(SPLITS):
            raise BadInput(
                f"{columns.source}: column {name!r} has the splits of a data set, which would be a feature; say "
                f"config.data.split={name}, or name the features in config.data.numeric, categorical"
            )


def check_columns_differ(numeric: tuple[str, ...], categorical: tuple[str, ...], target: str, split: str) -> None:
    """Raise `BadInput` where the model would see a column twice, or the label itself."""
    seen = (*numeric, *categorical)
    twice = [name for i, name in enumerate(seen) if name in seen[:i]]
    if twice:
        raise BadInput(f"config.data.numeric, categorical: {twice[0]!r} is there twice")
    for name, what in ((target, "the target"), (split, "the split")):
        if name in seen:
            raise BadInput(f"config.data.numeric, categorical: {name!r} is {what}, which the model must not see")


def whole_array(columns: Columns, name: str) -> torch.Tensor:
    """(N, …) floats as they are, or uint8 images with the channels first."""
    array = columns[name]
    if array.dtype == np.uint8:
        array = array[:, None] if array.ndim == 3 else array
        if array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
        if array.ndim != 4 or array.shape[1] not in (1, 3):
            raise BadInput(f"{columns.source}: {name} of shape {array.shape} is no array of grey or RGB images")
    elif array.dtype.kind != "f":
        raise BadInput(f"{columns.source}: {name} is {array.dtype}; floats, or uint8 for images, are needed")
    elif not np.isfinite(array).all():
        raise BadInput(f"{columns.source}: {name} has values that are not finite")
    return torch.from_numpy(np.ascontiguousarray(array))


def channel_statistics(images: torch.Tensor, train: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of the images `train`, as fractions of 255.

    From counts of the 256 values, so that they are exact however many images there are.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[torch.from_numpy(train), channel].flatten(), minlength=256).double()
        shares = counts / counts.sum()
        mean = (shares * values).sum()
        means.append(mean.item())
        stds.append((shares * (values - mean).square()).sum().sqrt().clamp(min=1 / 255).item())
    return tuple(means), tuple(stds)
