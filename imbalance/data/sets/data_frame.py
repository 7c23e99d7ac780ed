"""Data set in a data frame, passed to `imbalance.run(config, data=frame, target=…)`."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from imbalance.config.schema import short_repr
from imbalance.data.population import SPLITS
from imbalance.data.sets.arrays import columns_dataset
from imbalance.data.splits import Dataset
from imbalance.data.tables.columns import check_label_columns, frame_columns, is_table, join_columns
from imbalance.data.tables.values import label_order
from imbalance.errors import BadInput


def frame_dataset(
    frame: Any,
    seed: int,
    *,
    target: str,
    classes: Sequence[str] = (),
    attributes: str | Sequence[str] = (),
    split: str = "",
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    missing: Sequence[str] = ("", "nan"),
) -> Dataset:
    """Return the data set of a data frame, as `imbalance.data.sets.arrays.arrays` does of a file.

    Args:
        frame: a data frame of pandas, polars or pyarrow, or a mapping from names to columns; or a mapping with such a
            table for each of "train", "val" and "test". A split that the mapping lacks is drawn from the rows of train.
        seed: the seed of the draws of val and test.
        classes: the values of the column `target`, in the order of the classes; by default all values, in alphabetical
            order or, if all are numbers, in numerical order.
        val_fraction, test_fraction: the shares of all examples to draw for val and test; by default 0.1 and 0.2, and
            0.0 for a split that the data already have.
        target, attributes, split, numeric, categorical, missing: the keys of the same names of `arrays`.

    Raises:
        BadInput: an argument does not fit the frame, or the frame has a problem.
    """
    target, split = column_name("target", target), column_name("split", split or "")
    attributes, numeric, categorical, missing = (
        texts(name, values)
        for name, values in (
            ("attributes", attributes),
            ("numeric", numeric),
            ("categorical", categorical),
            ("missing", missing),
        )
    )
    if isinstance(classes, str):
        raise BadInput(f"classes: {classes!r} given; give the classes as a tuple of texts, such as ('low', 'high')")
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if fraction is not None and (not is_number(fraction) or not 0 <= fraction < 1):
            raise BadInput(f"{name}: {short_repr(fraction)} given; give a number from 0 on and below 1")
    if isinstance(frame, Mapping) and frame and all(map(is_table, frame.values())):
        if split:
            raise BadInput(f"split: {split!r} given; leave it out, because data has a table for each split")
        present = [name for name in SPLITS if name in frame]
        parts = [frame_columns(frame[name]) for name in present]
        columns, split = join_columns(parts), "split"
        while split in columns.values:
            split += "_"
        names = np.repeat(np.array(present, dtype=object), [len(part) for part in parts])
        columns = replace(columns, values={**columns.values, split: names})
    else:
        columns = frame_columns(frame)
    labels = columns.categories(target)
    unlabelled = np.flatnonzero(labels.each(lambda label: label in ("", "nan")).astype(bool))
    if len(unlabelled):
        raise BadInput(
            f"{columns.where(int(unlabelled[0]))}: {target} has no value in {len(unlabelled):,} of {len(columns):,} rows; leave out "
            "rows without a class"
        )
    for attribute in attributes:
        empty = columns.categories(attribute).each(lambda value: value in ("", "nan")).astype(bool)
        if empty.any():
            raise BadInput(
                f"{columns.where(int(empty.argmax()))}: {attribute} has no value in {empty.sum():,} of {len(columns):,} rows; give "
                "these rows a value of their own, such as 'unknown', or leave them out"
            )
    classes = texts("classes", classes) or label_order(labels.values)
    existing = set(columns.categories(split).values) if split else set()
    fractions: dict[str, Any] = {
        name: (0.0 if part in existing else default) if fraction is None else fraction
        for name, part, default, fraction in (
            ("val_fraction", "val", 0.1, val_fraction),
            ("test_fraction", "test", 0.2, test_fraction),
        )
    }
    try:
        check_label_columns(classes, target, attributes)
        return columns_dataset(
            columns,
            seed,
            numeric=numeric,
            categorical=categorical,
            missing=missing,
            target=target,
            classes=classes,
            attributes=attributes,
            split=split,
            delimiter=",",
            **fractions,
        )
    except BadInput as error:  # the arguments of this function are keys of a config elsewhere
        raise BadInput(str(error).replace("config.data.", "")) from None


def column_name(argument: str, name: Any) -> str:
    """Return the name of a column as text; raise `BadInput`, which names the argument, unless it is a single value."""
    if not isinstance(name, Hashable) or name is None:
        raise BadInput(f"{argument}: {short_repr(name)} given; give the name of one column")
    return str(name)


def texts(argument: str, values: Any) -> tuple[str, ...]:
    """Return the texts that a program gives for an argument; a single text or number counts as a tuple of one.

    A number, such as -999 for a missing value, becomes its text.

    Raises:
        BadInput: `values` is something else; the message names the argument.
    """
    values = (values,) if isinstance(values, str) or is_number(values) else values
    items = tuple(values) if isinstance(values, Iterable) and not isinstance(values, bytes | Mapping) else (None,)
    if not all(isinstance(item, str | bool | np.bool_ | tuple) or is_number(item) for item in items):
        raise BadInput(f"{argument}: {short_repr(values)} given; give a tuple of texts")
    return tuple(map(str, items))


def is_number(value: Any) -> bool:
    """Return whether `value` is a number of Python or NumPy, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)
