"""Encode columns as inputs of a model; the encoding is fitted on the training set and saved with the model as JSON.

A numeric column is standardised, and its missing values become the mean. If it has missing values in the training set,
a further column marks missing values by 1. A categorical column becomes several columns, one for each of its values in the
training set, with 1 for this value and 0 for all others. A missing value of a categorical column counts as a value of its
own. A value that is not in the training set is 0 in all these columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imbalance.data.tables.columns import Columns, as_text
from imbalance.errors import BadInput

Features = Mapping[str, Any]  # "numeric", "categorical": lists with a dictionary for each column; "missing": texts


def fit_features(
    columns: Columns, train: np.ndarray, numeric: Sequence[str], categorical: Sequence[str], missing: Sequence[str]
) -> Features:
    """Fit the encoding of the columns on the training rows with scikit-learn.

    Args:
        train: (N,) bool, the training rows.
        numeric, categorical: the names of the columns of each kind.
        missing: texts that stand for a missing value. If "" is among them, nulls count as missing; if "nan" is, the
            floating-point number nan does.

    Returns:
        The argument `features` of `transform`.

    Raises:
        BadInput: a numeric column has a value that is neither a number nor in `missing`, or has only missing values in
            the training set.
    """
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric_features: list[dict[str, Any]] = []
    categorical_features: list[dict[str, Any]] = []
    for name in numeric:
        values = numeric_values(columns, name, missing)[train]
        absent = np.isnan(values).all(axis=0)
        if absent.any():
            raise BadInput(
                f"{columns.source}: column {name!r} has no value in train; leave it out of config.data.numeric"
            )
        scaler = StandardScaler().fit(values)  # ignores nan, and divides a constant by 1
        gaps = np.isnan(values).any(axis=0)
        mean, std = np.asarray(scaler.mean_).tolist(), np.asarray(scaler.scale_).tolist()
        numeric_features.append({"column": name, "mean": mean, "std": std, "gaps": gaps.tolist()})
    for name in categorical:
        encoder = OneHotEncoder().fit(category_values(columns, name, missing)[train][:, None])
        categorical_features.append({"column": name, "values": encoder.categories_[0].tolist()})
    return {"missing": list(missing), "numeric": numeric_features, "categorical": categorical_features}


def transform(columns: Columns, features: Features) -> np.ndarray:
    """Encode the columns as (N, D) float32.

    First come the numeric columns: each one's standardised values, then, if it has one, its marks of missing values. Then
    come the categorical columns: for each of them, one column for each of its values.

    Args:
        features: the result of `fit_features`.
    """
    parts = []
    for column in features["numeric"]:
        values = numeric_values(columns, column["column"], features["missing"])
        if values.shape[1] != len(column["mean"]):
            raise BadInput(
                f"{columns.source}: column {column['column']!r} has {values.shape[1]} values a row, but the training set had "
                f"{len(column['mean'])}; both must be equal"
            )
        gaps = np.isnan(values)
        parts.append(np.where(gaps, 0.0, (values - column["mean"]) / column["std"]))
        parts.append(gaps[:, np.flatnonzero(column["gaps"])])
    for column in features["categorical"]:
        values = category_values(columns, column["column"], features["missing"])
        parts.append(values[:, None] == np.array(column["values"], dtype=object)[None])
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def numeric_values(columns: Columns, name: str, missing: Sequence[str]) -> np.ndarray:
    """Return the values of the numeric column `name` as (N, D) float64, with nan for missing values.

    Args:
        missing: texts that stand for a missing value.
    """
    values = columns[name]
    if values.dtype.kind in "iufb":
        numbers = values.reshape(len(values), -1).astype(np.float64)
        valid = np.isfinite(numbers).all(axis=1) | (np.isnan(numbers).any(axis=1) & bool({"", "nan"} & set(missing)))
    else:
        text = columns.text(name)
        is_missing = np.isin(text.astype(str), list(missing)) if missing else np.zeros(len(text), dtype=bool)
        numbers = np.array([np.nan if m else number(t) for t, m in zip(text, is_missing)], dtype=np.float64)[:, None]
        valid = is_missing | np.isfinite(numbers[:, 0])
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        value = values[row].tolist() if hasattr(values[row], "tolist") else values[row]
        raise BadInput(
            f"{columns.where(row)}: {name} is {value!r}, not a number; add {str(value)!r} to config.data.missing if the value "
            "is missing, or name the column in config.data.categorical if it holds categories"
        )
    return numbers


def category_values(columns: Columns, name: str, missing: Sequence[str]) -> np.ndarray:
    """Return the values of the categorical column `name` as (N,) texts, with "" for missing values.

    Args:
        missing: texts that stand for a missing value.
    """
    text = as_text(columns[name], f"{columns.source}: column {name!r}")
    if not missing:
        return text
    return np.where(np.isin(text.astype(str), list(missing)), "", text).astype(object)


def number(text: str) -> float:
    """Return the number that `text` stands for, or nan if it is no number."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def is_numeric(columns: Columns, name: str, missing: Sequence[str]) -> bool:
    """Return whether every value of the column `name` is a number or in `missing`, and at least one is a number.

    Raises:
        BadInput: more than half of the values are numbers, and some are neither numbers nor in `missing`. The latter most
            likely stand for missing values, so the user must add them to `missing`.
    """
    try:
        return not np.isnan(numeric_values(columns, name, missing)).all()
    except BadInput:
        if np.mean([not np.isnan(number(text)) for text in columns.text(name)]) > 0.5:
            raise
        return False


def encoding_notes(columns: Columns, train: np.ndarray, features: Features, width: int) -> tuple[str, ...]:
    """Return a line for the log, in a tuple: the numbers of columns, of encoded features, and of missing training values.

    Args:
        width: the number of encoded features.
    """
    gaps = {}
    for column in features["numeric"]:
        values = numeric_values(columns, column["column"], features["missing"])[train]
        gaps[column["column"]] = int(np.isnan(values).sum())
    for column in features["categorical"]:
        values = category_values(columns, column["column"], features["missing"])[train]
        gaps[column["column"]] = int((values == "").sum()) if features["missing"] else 0
    counts = f"{len(features['numeric'])} numeric and {len(features['categorical'])} categorical columns"
    missing = ", ".join(f"{name} {count:,}" for name, count in gaps.items() if count) or "none"
    return (f"inputs: {counts} → {width} features; missing values in train: {missing}",)
