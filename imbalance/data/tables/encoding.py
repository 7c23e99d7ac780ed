"""From columns to the inputs of a model: what is fitted on the training set, kept with the trained model as plain JSON.

A numeric column is standardised, and where values are missing they become the mean, beside a column that says so. A
categorical column becomes a column of 0 and 1 for each of its values in the training set; a missing value is one of
them, and a value that training did not have is 0 everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imbalance.data.tables.columns import Columns, as_text
from imbalance.errors import BadInput

Features = Mapping[str, Any]  # numeric, categorical: a list of dictionaries, a column each; missing


def fit_features(
    columns: Columns, train: np.ndarray, numeric: Sequence[str], categorical: Sequence[str], missing: Sequence[str]
) -> Features:
    """What `transform` needs, fitted by scikit-learn on the rows `train`.

    Args:
        missing: texts that stand for a missing value; "" is an empty cell or a null, "nan" not a number.

    Raises:
        BadInput: a numeric column has a value that is neither a number nor in `missing`, or none at all in training.
    """
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    fitted = {"missing": list(missing), "numeric": [], "categorical": []}
    for name in numeric:
        values = numbers(columns, name, missing)[train]
        absent = np.isnan(values).all(axis=0)
        if absent.any():
            raise BadInput(f"{columns.source}: column {name!r} has no value in train; leave it out of the features")
        scaler = StandardScaler().fit(values)  # passes over nan, and divides a constant by 1
        gaps = np.isnan(values).any(axis=0)
        scale = dict(mean=scaler.mean_.tolist(), std=scaler.scale_.tolist(), gaps=gaps.tolist())
        fitted["numeric"].append({"column": name, **scale})
    for name in categorical:
        encoder = OneHotEncoder().fit(categories(columns, name, missing)[train][:, None])
        fitted["categorical"].append({"column": name, "values": encoder.categories_[0].tolist()})
    return fitted


def transform(columns: Columns, features: Features) -> np.ndarray:
    """(N, D) float32: the standardised numbers, where train had gaps whether there is one, the values of categories."""
    parts = []
    for column in features["numeric"]:
        values = numbers(columns, column["column"], features["missing"])
        if values.shape[1] != len(column["mean"]):
            raise BadInput(
                f"{columns.source}: column {column['column']!r} has {values.shape[1]} values a row, not {len(column['mean'])}"
            )
        gaps = np.isnan(values)
        parts.append(np.where(gaps, 0.0, (values - column["mean"]) / column["std"]))
        parts.append(gaps[:, np.flatnonzero(column["gaps"])])
    for column in features["categorical"]:
        found = categories(columns, column["column"], features["missing"])
        parts.append(found[:, None] == np.array(column["values"], dtype=object)[None])
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def numbers(columns: Columns, name: str, missing: Sequence[str]) -> np.ndarray:
    """(N, D) float64 of a numeric column, nan where a value is missing."""
    values = columns[name]
    if values.dtype.kind in "iufb":
        found = values.reshape(len(values), -1).astype(np.float64)
        known = np.isfinite(found).all(axis=1) | (np.isnan(found).any(axis=1) & bool({"", "nan"} & set(missing)))
    else:
        text = columns.text(name)
        gone = np.isin(text.astype(str), list(missing)) if missing else np.zeros(len(text), dtype=bool)
        found = np.array([np.nan if g else number(t) for t, g in zip(text, gone)], dtype=np.float64)[:, None]
        known = gone | np.isfinite(found[:, 0])
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        given = values[row].tolist() if hasattr(values[row], "tolist") else values[row]
        raise BadInput(
            f"{columns.where(row)}: {name} is {given!r}, not a number; if that means that it is missing, say so in "
            "config.data.missing, and if it is a category, name the column in config.data.categorical"
        )
    return found


def categories(columns: Columns, name: str, missing: Sequence[str]) -> np.ndarray:
    """(N,) text of a categorical column, "" where a value is missing."""
    text = as_text(columns[name], f"{columns.source}: column {name!r}")
    if not missing:
        return text
    return np.where(np.isin(text.astype(str), list(missing)), "", text).astype(object)


def number(text: str) -> float:
    """The number that a text is, nan where it is none."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def is_numeric(columns: Columns, name: str, missing: Sequence[str]) -> bool:
    """Whether every value of a column that is not missing is a number.

    Raises:
        BadInput: more than half of them are, and another is not: how a missing value is written, most likely.
    """
    try:
        return not np.isnan(numbers(columns, name, missing)).all()
    except BadInput:
        if np.mean([not np.isnan(number(text)) for text in columns.text(name)]) > 0.5:
            raise
        return False


def described(columns: Columns, train: np.ndarray, features: Features, width: int) -> tuple[str, ...]:
    """What becomes of the columns, and how many values were missing in training, for the log."""
    gaps = {}
    for column in features["numeric"]:
        gaps[column["column"]] = int(np.isnan(numbers(columns, column["column"], features["missing"])[train]).sum())
    for column in features["categorical"]:
        found = categories(columns, column["column"], features["missing"])[train]
        gaps[column["column"]] = int((found == "").sum()) if features["missing"] else 0
    counts = f"{len(features['numeric'])} numeric and {len(features['categorical'])} categorical columns"
    missing = ", ".join(f"{name} {count:,}" for name, count in gaps.items() if count) or "none"
    return (f"inputs: {counts} → {width} features; missing values in train: {missing}",)
