"""Data set of a user's own arrays or table, from a file: `.npz`, `.npy`, `.csv`, `.parquet`, `.arrow`."""

from pathlib import Path

import numpy as np
import torch

from imbalance.config.schema import Fraction, Name
from imbalance.data.population import SPLITS, population_problems
from imbalance.data.problems import Problem, raise_first
from imbalance.data.sets.encoded_table import Encode, encode_in_memory, stored_table
from imbalance.data.splits import Dataset, Split
from imbalance.data.tables.arrow import SUFFIXES
from imbalance.data.tables.columns import (
    Columns,
    Delimiter,
    as_array,
    assign_splits,
    check_input_columns,
    check_label_columns,
    number_groups,
    read_columns,
)
from imbalance.data.tables.encoding import (
    encoding_notes,
    fit_features,
    number_problems,
    parse_column,
    unfamiliar_values,
)
from imbalance.data.tables.input_columns import choose_inputs
from imbalance.data.tables.values import composed
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
    attributes: tuple[Name, ...],
    split: str,
    val_fraction: Fraction,
    test_fraction: Fraction,
) -> Dataset:
    """Return the data set of a file whose columns are inputs, classes, groups and splits.

    Numbers are standardised and categories are one-hot encoded, by the means, deviations and categories of the training
    set; see `imbalance.data.tables.encoding`.

    Args:
        file: the file under data_dir. `.csv`, `.csv.gz`, `.parquet` and `.arrow` have columns; an `.arrow` file may be
            larger than the memory. `.npz`, or a folder of `.npy` files, has arrays by name. A single `.npy` file must be
            a structured array. If the only input is a numeric array with more than two dimensions, this array goes to the
            model unchanged. If it is uint8, it holds images: (N, C, H, W), (N, H, W, C) or (N, H, W).
        delimiter: the character between the columns of a CSV file; in bash $'\\t' is a tab.
        numeric, categorical: the columns that are inputs of the model. If both are (), all columns but target,
            attributes and split are inputs. Then a column is numeric if all its values are numbers, or are named in
            `missing`. A column in which most values, but not all, are numbers is refused.
        missing: texts that mean a missing value, such as ("", "?"). "" makes nulls missing, too, and "nan" the
            floating-point number nan.
        target, classes: the column that holds the class, and its values as text, in the order of the classes.
        attributes: the columns that are crossed with the target: each combination of a class with values of these
            columns is a group. () if the classes are the groups.
        split: the column that says train, val or test; "" if there is none.
        val_fraction: the share of every group that becomes val, drawn by the run's seed; 0.0 if the file has val
            examples.
        test_fraction: the share of every group that becomes test, drawn by the run's seed; 0.0 if the file has
            test examples.
    """
    classes = tuple(map(composed, classes))
    check_label_columns(classes, target, attributes)
    path, values = Path(data_dir) / file, {}
    values |= dict(numeric=numeric, categorical=categorical, missing=missing, target=target, classes=classes)
    values |= dict(attributes=attributes, split=split, val_fraction=val_fraction, test_fraction=test_fraction)

    def build(encode: Encode) -> Dataset:
        columns = read_columns(path, delimiter, (target, *attributes, split, *categorical), missing)
        return columns_dataset(columns, seed, delimiter=delimiter, encode=encode, **values)

    if path.suffix not in SUFFIXES:
        return build(encode_in_memory)
    drawn_by = [seed] if val_fraction or test_fraction else []  # without draws, all seeds share the store
    return stored_table(data_dir, path, {**values, "seed": drawn_by, "delimiter": delimiter}, build)


def columns_dataset(
    columns: Columns,
    seed: int,
    *,
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    missing: tuple[str, ...],
    target: str,
    classes: tuple[str, ...],
    attributes: tuple[str, ...],
    split: str,
    val_fraction: float,
    test_fraction: float,
    delimiter: str,
    encode: Encode = encode_in_memory,
) -> Dataset:
    """Return the data set of a table, some of whose columns are inputs, classes, groups and splits.

    Args:
        seed: seed of the draws of val and test.
        numeric, categorical, missing, target, classes, attributes, split, val_fraction, test_fraction, delimiter: as in
            `arrays`.
        encode: function that encodes the table, in memory or on the disk.

    Raises:
        BadInput: the table has a problem; one error reports all cells that cannot be read, see `raise_first`.
    """
    targets, problems = value_numbers(columns, target, classes)
    group_numbers, group_names = number_groups(
        columns.categories(target), classes, [columns.categories(name) for name in attributes]
    )
    split_numbers = np.zeros(len(columns), dtype=np.int64)
    if split:
        split_numbers, split_problems = value_numbers(columns, split, SPLITS)
        problems += split_problems
    chosen, notes = None, ()
    if not (numeric or categorical):
        chosen = choose_inputs(columns, [n for n in columns.values if n not in (target, split, *attributes)], missing)
        numeric, categorical, notes = chosen.numeric, chosen.categorical, chosen.notes
        problems += chosen.problems
    is_array = not categorical and len(numeric) == 1 and as_array(columns[numeric[0]]).ndim > 2
    for name in () if is_array else numeric:
        problems += number_problems(columns, name, parse_column(columns, name, missing)[1])
    raise_first(problems)
    split_numbers = assign_splits(split_numbers, group_numbers, val_fraction, test_fraction, seed, columns.source)
    raise_first(population_problems(columns.source, targets, group_numbers, split_numbers, classes, group_names))
    if chosen:
        check_no_splits(columns, chosen.categorical)
    if not (numeric or categorical):
        raise BadInput(
            f"config.data.numeric, categorical: {columns.source} has no column besides target, attributes and split that can "
            f"be an input{''.join(f'; {note}' for note in notes)}; a model needs at least one input column"
        )
    roles = {split: "the split", target: "the target"}
    check_input_columns("numeric, categorical", (*numeric, *categorical), roles)
    train, mean, std, preprocessing = split_numbers == 0, (), (), {}
    order = np.argsort(split_numbers, kind="stable")  # each split becomes a slice, which needs no memory of its own
    if is_array:
        inputs = input_array(columns, numeric[0])
        if inputs.dtype == torch.uint8:
            mean, std = channel_statistics(inputs, np.flatnonzero(train))
        inputs = inputs[torch.from_numpy(order)]
    else:
        features = fit_features(columns, train, numeric, categorical, missing)
        inputs = torch.from_numpy(encode(columns, features, order))
        preprocessing = {"kind": "columns", "delimiter": delimiter, "features": features}
        notes = (*notes, *encoding_notes(columns, train, features, inputs.shape[1]))
        notes = (*notes, *unfamiliar_values(columns, features))
    ends = np.searchsorted(split_numbers[order], np.arange(4))

    def make_split(number: int) -> Split:
        part = slice(ends[number], ends[number + 1])
        rows = torch.from_numpy(order[part])
        return Split(inputs[part], torch.from_numpy(targets)[rows], torch.from_numpy(group_numbers)[rows], rows)

    return Dataset(
        make_split(0),
        make_split(1),
        make_split(2),
        classes,
        group_names,
        mean=mean,
        std=std,
        preprocessing=preprocessing,
        notes=notes,
    )


MOST_NAMED = 8  # values of a column that a message lists


def value_numbers(columns: Columns, name: str, valid: tuple[str, ...]) -> tuple[np.ndarray, list[Problem]]:
    """Return the (N,) int64 index in `valid` of each value of the column `name`, and a list of problems.

    A value that is not in `valid` has the index -1, and a problem. If these are classes, the problem lists all values of
    the column, unless they are many.
    """
    column, position = columns.categories(name), {value: i for i, value in enumerate(valid)}
    numbers = column.each(lambda value: position.get(value, -1)).astype(np.int64)
    hint = ""
    if valid is not SPLITS and len(values := sorted(set(column.texts().tolist()))) <= MOST_NAMED:
        hint = f"; all values of the column are {','.join(values)}: list in `classes` those that are classes"
    problems = [
        Problem(columns.where(row), f"{name} is {column[row]!r}, not one of {', '.join(valid)}{hint}")
        for row in np.flatnonzero(numbers < 0).tolist()
    ]
    return numbers, problems


def check_no_splits(columns: Columns, names: tuple[str, ...]) -> None:
    """Raise `BadInput` if every value of a column in `names` is the name of a split, such as "train".

    Such a column must not be an input of the model, but be named in `config.data.split`.

    Args:
        names: the columns that are inputs of the model.
    """
    for name in names:
        if set(columns.categories(name).values) <= set(SPLITS):
            raise BadInput(
                f"{columns.source}: column {name!r} holds the splits of a data set and would be an input of the model; set "
                f"config.data.split={name}, or name the inputs in config.data.numeric, categorical"
            )


def input_array(columns: Columns, name: str) -> torch.Tensor:
    """Return a numeric column as an (N, …) tensor of floats, or, if it is uint8, as images (N, C, H, W)."""
    array = as_array(columns[name])
    if array.dtype == np.uint8:
        array = array[:, None] if array.ndim == 3 else array
        if array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
        if array.ndim != 4 or array.shape[1] not in (1, 3):
            raise BadInput(
                f"{columns.source}: {name} has shape {array.shape}; uint8 arrays must be grey or RGB images, (N, H, W), "
                "(N, C, H, W) or (N, H, W, C)"
            )
    elif array.dtype.kind != "f":
        raise BadInput(f"{columns.source}: {name} is {array.dtype}; convert it to floats, or to uint8 for images")
    inputs = torch.from_numpy(np.ascontiguousarray(array))
    if inputs.is_floating_point() and (row := unusable_row(inputs)) is not None:
        raise BadInput(
            f"{columns.where(row)}: {name} has a value that is not finite, or too large for float32; remove or replace it"
        )
    return inputs


def unusable_row(inputs: torch.Tensor) -> int | None:
    """Return the position of the first row with a value that is nan, infinite or too large for float32, or else None."""
    # float32's largest value is inf in float16
    largest = min(torch.finfo(torch.float32).max, torch.finfo(inputs.dtype).max)
    if not inputs.numel() or all(-largest <= end <= largest for end in inputs.aminmax()):
        return None
    return int((~(inputs.abs() <= largest)).flatten(1).any(1).nonzero()[0])


def channel_statistics(images: torch.Tensor, train: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel over the training images, as fractions of 255.

    Both are computed from the counts of the 256 values, so both are exact for any number of images.

    Args:
        images: (N, C, H, W) uint8.
        train: the rows of the training images.
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
