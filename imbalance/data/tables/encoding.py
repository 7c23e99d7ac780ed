"""Encode columns as inputs of a model; the encoding is fitted on the training set and saved with the model as JSON.

A numeric column is standardised, and its missing values become the mean. If it has missing values in the training set,
a further column marks missing values by 1. A categorical column becomes several columns, one for each of its values in the
training set, with 1 for this value and 0 for all others. A missing value of a categorical column counts as a value of its
own. A value that is not in the training set is 0 in all these columns.
"""

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from imbalance.data.problems import Problem, raise_first
from imbalance.data.tables.columns import Columns
from imbalance.data.tables.values import FORMATTED, Categories, number
from imbalance.errors import BadInput
from imbalance.utils.memory import check_fits

LARGE = 1e9  # values below this have means with rounding errors below 1e-6
FITTED_CELLS = 1_000_000  # numbers that are standardised at a time

ENCODED_ROWS = 65_536  # rows of a table that are encoded at a time

Features = Mapping[str, Any]  # "numeric", "categorical": lists with a dictionary for each column; "missing": texts


def fit_features(
    columns: Columns, train: np.ndarray, numeric: Sequence[str], categorical: Sequence[str], missing: Sequence[str]
) -> Features:
    """Fit the encoding of columns as model inputs on the training rows: standardised numbers, and one-hot categories.

    The means, deviations and categories are those of scikit-learn's StandardScaler and OneHotEncoder.

    Args:
        train: the training rows, as a mask (N,) or as row numbers.
        numeric, categorical: the names of the columns of each kind.
        missing: texts that stand for a missing value. "" also stands for nulls, and "nan" for the floating-point
            number nan.

    Returns:
        The encoding in types that JSON has, for the argument `features` of `transform`.

    Raises:
        BadInput: a numeric column has a value that is neither a number nor in `missing`, or has only missing values in
            the training set.
    """
    numeric_features: list[dict[str, Any]] = []
    categorical_features: list[dict[str, Any]] = []
    at_a_time = max(1, FITTED_CELLS // max(1, len(columns)))
    for first in range(0, len(numeric), at_a_time):
        names = numeric[first : first + at_a_time]
        arrays = [numeric_values(columns, name, missing)[train] for name in names]
        for name, values, (mean, std) in zip(names, arrays, means_and_deviations(arrays)):
            gaps = np.isnan(values)
            if gaps.all(axis=0).any():
                raise BadInput(
                    f"{columns.source}: column {name!r} has no value in train; leave it out of config.data.numeric"
                )
            if not np.isfinite([*mean, *std]).all():
                row = np.unravel_index(np.nanargmax(np.abs(values)), values.shape)[0]
                raise too_large(columns, name, int(np.arange(len(columns))[train][row]))
            numeric_features.append({"column": name, "mean": mean, "std": std, "gaps": gaps.any(axis=0).tolist()})
    for name in categorical:
        column = category_values(columns, name, missing)
        in_train = np.unique(column.codes[train])
        categorical_features.append({"column": name, "values": sorted(column.values[int(code)] for code in in_train)})
    return {"missing": list(missing), "numeric": numeric_features, "categorical": categorical_features}


def means_and_deviations(arrays: Sequence[np.ndarray]) -> list[tuple[list[float], list[float]]]:
    """Return, for each (N, D) array, the means and the standard deviations of its columns.

    nan is ignored, and a constant column has the deviation 1. A column whose values differ in their last digits only has
    its own deviation; scikit-learn takes such a column for a constant.
    """
    from sklearn.preprocessing import StandardScaler

    if len(arrays) > 1 and any(array.shape[1] > 1 for array in arrays):
        return [means_and_deviations([array])[0] for array in arrays]
    # One column after another in memory gives the same bits as one column alone; one call for each would take 0.3 ms.
    joined = arrays[0] if len(arrays) == 1 else np.asfortranarray(np.concatenate(arrays, axis=1))
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # for a column without a value
        scaler = StandardScaler().fit(joined)
    mean, std = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
    # scikit-learn does not divide a column whose deviation is near the rounding error of its mean, so the differences
    # between its values, or that error, would become large inputs.
    var = np.asarray(scaler.var_)
    for i in np.flatnonzero((std == 1) & (var != 1) & np.isfinite(var)):
        values = joined[:, i][~np.isnan(joined[:, i])]
        if len(values) and (values != values[0]).any():
            from_first = values - values[0]  # exact, because the values are so close to each other
            unit = np.abs(from_first).max()  # squares of tiny numbers would be 0
            mean[i], std[i] = values[0] + from_first.mean(), (from_first / unit).std() * unit or 1.0
        elif len(values) and abs(mean[i]) > LARGE:
            mean[i] = values[0]
    mean, std = mean.tolist(), std.tolist()
    return [(mean, std)] if len(arrays) == 1 else [([m], [s]) for m, s in zip(mean, std)]


def count_features(features: Features) -> int:
    """Return the number of features into which `transform` encodes a row."""
    width = sum(len(column["mean"]) + sum(column["gaps"]) for column in features["numeric"])
    return width + sum(len(column["values"]) for column in features["categorical"])


def transform_parts(columns: Columns, features: Features) -> Iterator[tuple[slice, np.ndarray]]:
    """Encode some rows at a time; yield the slice of these rows, and the result of `transform` for them."""
    for start in range(0, len(columns), ENCODED_ROWS):
        rows = slice(start, min(start + ENCODED_ROWS, len(columns)))
        yield rows, transform(columns.part(rows.start, rows.stop), features)


def transform(columns: Columns, features: Features, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Encode rows of the columns as (M, D) float32, by `features`, the result of `fit_features`.

    First come the numeric columns: for each of them the standardised values and, if training values were missing, a 0/1
    mark of missing values. Then come the categorical columns: for each of them a 0/1 column for each of its values.

    Args:
        features: the result of `fit_features`.
        rows: (M,) the row numbers, in the order of the result; by default all rows.
    """
    check_table(columns, features)
    width = count_features(features)
    length = len(np.arange(len(columns))[rows])
    check_fits(4 * length * width, f"{columns.source}: {length:,} rows with {width:,} features")
    encoded, start = np.zeros((length, width), dtype=np.float32), 0
    for column in features["numeric"]:
        values = numeric_values(columns, column["column"], features["missing"])[rows]
        if values.shape[1] != len(column["mean"]):
            raise BadInput(
                f"{columns.source}: column {column['column']!r} has {values.shape[1]} values a row, but the training set had "
                f"{len(column['mean'])}; both must be equal"
            )
        gaps, marked = np.isnan(values), np.flatnonzero(column["gaps"])
        middle, end = start + values.shape[1], start + values.shape[1] + len(marked)
        with np.errstate(over="ignore"):
            values = values - column["mean"]
            values /= column["std"]  # in place, because a column of many rows takes much memory
            values[gaps] = 0.0
            encoded[:, start:middle] = values
        if not np.isfinite(encoded[:, start:middle]).all():
            row = np.flatnonzero(~np.isfinite(encoded[:, start:middle]).all(axis=1))[0]
            raise too_large(columns, column["column"], int(np.arange(len(columns))[rows][row]))
        encoded[:, middle:end] = gaps[:, marked]
        start = end
    for column in features["categorical"]:
        codes = known_codes(columns, column, features["missing"])[rows]
        known = np.flatnonzero(codes >= 0)
        encoded[known, start + codes[known]] = 1
        start += len(column["values"])
    return encoded


def decode_row(inputs: Sequence[float], features: Features) -> dict[str, str]:
    """Return the values of one encoded row as texts by column, the inverse of `transform` up to rounding.

    A missing number becomes "missing" if the encoding marks missing values of its column, and else the mean of train. A
    category that is not in train becomes "not in train".

    Args:
        inputs: (D,) one row of the result of `transform`.
        features: the result of `fit_features`.
    """
    texts, start = {}, 0
    for column in features["numeric"]:
        width, marked = len(column["mean"]), np.flatnonzero(column["gaps"])
        values = np.asarray(inputs[start : start + width], np.float64) * column["std"] + column["mean"]
        # float32 has lost the digits below this place, so that 0 would be shown as 4.9e-05. The sum turns -0 into 0.
        places = 5 - np.floor(np.log10(column["std"])).astype(int)
        cells = [f"{round(value, place) + 0.0:.6g}" for value, place in zip(values.tolist(), places.tolist())]
        for place, mark in zip(marked, inputs[start + width : start + width + len(marked)]):
            cells[place] = "missing" if mark else cells[place]
        texts[column["column"]] = ", ".join(cells)
        start += width + len(marked)
    for column in features["categorical"]:
        flags = np.flatnonzero(np.asarray(inputs[start : start + len(column["values"])]))
        texts[column["column"]] = (column["values"][flags[0]] or "missing") if len(flags) else "not in train"
        start += len(column["values"])
    return texts


def too_large(columns: Columns, name: str, row: int) -> BadInput:
    """Return the `BadInput` for a value of the numeric column `name` that is too large for float32.

    The value itself may fit float32, and only its standardised value be too large.
    """
    return BadInput(
        f"{columns.where(row)}: column {name!r} has a value that is too large for float32; remove or replace it, or divide the "
        "column by a constant"
    )


def check_table(columns: Columns, features: Features) -> None:
    """Raise `BadInput` if a table lacks columns that `features` needs, or a numeric column has a value that is not a number.

    The message names the missing columns, or gives the number of rows with a value that is not a number.
    """
    used = [column["column"] for column in (*features["numeric"], *features["categorical"])]
    absent = [name for name in used if name not in columns.values]
    if absent:
        one = len(absent) == 1
        raise BadInput(
            f"{columns.source}: no column{'' if one else 's'} {', '.join(map(repr, absent[:10]))}"
            f"{f' and {len(absent) - 10:,} more' if absent[10:] else ''}, which {'is' if one else 'are'} needed; "
            f"{columns.names_text()}"
        )
    bad, first = np.zeros(len(columns), dtype=bool), ""
    for column in features["numeric"]:
        _, invalid = parse_column(columns, column["column"], features["missing"])
        bad[invalid] = True
        if len(invalid) and not first:
            first = str(next(number_problems(columns, column["column"], invalid[:1]))).partition("; ")[0]
    if first:
        listed = ", ".join(map(repr, features["missing"])) or "none"
        raise BadInput(
            f"{first}; {bad.sum():,} of {len(columns):,} rows have a value that is no finite number; write numbers, or the texts that "
            f"the training data had for missing values: {listed}"
        )


def known_codes(columns: Columns, column: Mapping[str, Any], missing: Collection[str]) -> np.ndarray:
    """Return the (N,) position of each value of a categorical column among its training values; -1 for new values.

    Args:
        column: entry of the encoding for this column; its key "values" has the training values.
        missing: texts that stand for a missing value.
    """
    position = {value: i for i, value in enumerate(column["values"])}
    values = category_values(columns, column["column"], missing)
    return np.array([position.get(value, -1) for value in values.values], dtype=np.int64)[values.codes]


def numeric_values(columns: Columns, name: str, missing: Collection[str]) -> np.ndarray:
    """Return the values of the numeric column `name`, (N, D) float64 for D values a row, with nan for missing values.

    Args:
        missing: texts that stand for a missing value.

    Raises:
        BadInput: a value is neither a number nor missing.
    """
    numbers, invalid = parse_column(columns, name, missing)
    if len(invalid):
        raise_first(list(number_problems(columns, name, invalid)))
    return numbers


def parse_column(columns: Columns, name: str, missing: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return a tuple: the values of a numeric column, nan if missing, and the row numbers of wrong values.

    The values are (N, D) float64 for D values a row. A wrong value is neither a finite number nor missing.
    """
    values = columns[name]
    if not isinstance(values, Categories) and values.dtype.kind in "iufb":
        numbers = values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float64, copy=False)
        valid = np.isfinite(numbers)
        if columns.nan_is_missing or {"", "nan"} & set(missing):
            valid |= np.isnan(numbers)
        marks = [float(text) for text in missing if text in ("inf", "-inf") or np.isfinite(number(text))]
        if marks:  # such as -999
            is_mark = np.isin(numbers, marks)
            numbers, valid = np.where(is_mark, np.nan, numbers), valid | is_mark
        return numbers, np.flatnonzero(~valid.all(axis=1))
    texts = columns.categories(name)
    if "nan" in missing and not isinstance(values, Categories):  # the number nan, as an object, has the text ""
        missing = (*missing, "")
    absent = texts.each(lambda text: text in missing).astype(bool)
    numbers = np.where(absent, np.nan, texts.each(number).astype(np.float64))
    return numbers[:, None], np.flatnonzero(~absent & ~np.isfinite(numbers))


def number_problems(columns: Columns, name: str, rows: np.ndarray) -> Iterator[Problem]:
    """Yield one problem for each of `rows`: the rows at which the numeric column `name` holds something other than a number."""
    values = columns[name]
    for row in rows.tolist():
        cell: Any = values[row]
        cell = cell.tolist() if isinstance(cell, np.ndarray | np.generic) else cell
        if isinstance(cell, list):
            bad = np.flatnonzero(~np.isfinite(np.ravel(cell)))[0]
            cell, place = np.ravel(cell)[bad].item(), f" at position {bad}"
        else:
            place = ""
        if FORMATTED.fullmatch(str(cell)):
            rule = "write numbers as in 1234.5, without thousands separators and signs such as %"
        else:
            rule = f"add {str(cell)!r} to config.data.missing if the value is missing"
        yield Problem(
            columns.where(row),
            f"{name} is {cell!r}{place}, not a number; {rule}, or name the column in config.data.categorical if it holds "
            "categories",
        )


def category_values(columns: Columns, name: str, missing: Collection[str]) -> Categories:
    """Return the categorical column `name`, one text for each row, with "" for missing values.

    Args:
        missing: texts that stand for a missing value.
    """
    column = columns.categories(name)
    return column.replaced(lambda text: "" if text in missing else text) if missing else column


def encoding_notes(columns: Columns, train: np.ndarray, features: Features, width: int) -> tuple[str, ...]:
    """Return lines for the log: the numbers of columns and features, and of missing training values by column, in one line.

    A further line warns of each column whose integers were rounded.

    Args:
        train: (N,) bool, the training rows.
        width: the number of encoded features.
    """
    gaps, rounded = {}, []
    for column in features["numeric"]:
        values = numeric_values(columns, column["column"], features["missing"])
        gaps[column["column"]] = int(np.isnan(values[train]).sum())
        rounded += [column["column"]] if has_rounded_integers(values) else []
    for column in features["categorical"]:
        values = category_values(columns, column["column"], features["missing"]).replaced(lambda text: text and "x")
        gaps[column["column"]] = int((values.texts()[train] == "").sum()) if features["missing"] else 0
        rounded += [column["column"]] if has_rounded_integers(columns[column["column"]]) else []
    counts = f"{len(features['numeric'])} numeric and {len(features['categorical'])} categorical columns"
    missing = ", ".join(f"{name} {count:,}" for name, count in gaps.items() if count) or "none"
    lines = (
        f"column {name!r} has integers above 2**53, which are rounded, so different ones can become equal; if they are categories, "
        "make the column text, or in a CSV file name it in config.data.categorical; if they identify the rows, leave it out"
        for name in rounded
    )
    return f"inputs: {counts} → {width} features; missing values in train: {missing}", *lines


def has_rounded_integers(values: np.ndarray | Categories) -> bool:
    """Return whether a column has floats that were 64-bit integers, to judge by their values, and too large to be exact.

    Integers become floats in numeric columns, and in columns with missing values.
    """
    if isinstance(values, Categories) or values.dtype.kind != "f":
        return False
    largest = np.fmax.reduce(np.abs(values), axis=None, initial=0.0)
    return bool(2**53 <= largest <= 2**64 and (values[np.isfinite(values)] % 1 == 0).all())


def unfamiliar_values(columns: Columns, features: Features) -> list[str]:
    """Return a warning for each column with values that have no feature in `features`, and so have no effect on predictions.

    Such values are categories that are not in the training set, and missing values of a numeric column without missing
    values in the training set.
    """
    check_table(columns, features)
    lines = []
    for column in features["categorical"]:
        unknown = np.flatnonzero(known_codes(columns, column, features["missing"]) < 0)
        if len(unknown):
            values = category_values(columns, column["column"], features["missing"])
            first = values[int(unknown[0])]
            lines.append(
                f"{column['column']}: {len(unknown):,} of {len(columns):,} rows have a category that train has not, such as {first!r} "
                f"({columns.where(int(unknown[0]))}); it is encoded as no category"
            )
    for column in features["numeric"]:
        gaps = np.isnan(numeric_values(columns, column["column"], features["missing"])) & ~np.array(column["gaps"])
        rows = np.flatnonzero(gaps.any(axis=1))
        if len(rows):
            lines.append(
                f"{column['column']}: {len(rows):,} of {len(columns):,} rows have no value ({columns.where(int(rows[0]))} is the first), "
                "which no row of train lacks; the mean of train stands for it"
            )
    return lines
