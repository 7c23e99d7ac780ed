"""Choose which columns of a table are inputs of a model, and which of these are numeric."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from imbalance.data.population import SPLITS
from imbalance.data.problems import Problem
from imbalance.data.tables.columns import FRAME, Columns
from imbalance.data.tables.encoding import category_values, parse_column
from imbalance.data.tables.values import CODE, FORMATTED, Categories, number

# Names of the row numbers that pandas and pyarrow write beside the columns of a data frame.
INDEX_NAMES = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")

# Dates, months, times of the day and durations, as pandas and polars write them; more may follow a date
DATE_OR_TIME = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])(-([0-2]\d|3[01])([ T].*)?)?|(-?\d+ days?,? ?)?\d{1,2}:\d\d(:\d\d(\.\d+)?)?|-?\d+ days"
)
TIMES = "to use dates or times as numbers, write these in their place, such as the days since a fixed day"
FEW = 20  # categories that are never too many


@dataclass(frozen=True)
class InputColumns:
    """The columns that are inputs of a model.

    notes: lines for the log about columns that are left out, or have very many categories.
    problems: one for each column that holds numbers in a notation that is not read, such as "1,234".
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def choose_inputs(columns: Columns, candidates: Sequence[str], missing: Collection[str]) -> InputColumns:
    """Choose the inputs among the columns `candidates`, for a config that names no input.

    A column is numeric if all its values are numbers or missing, and also if more than half of them are numbers. In the second
    case the other values most likely stand for missing values, and the error asks the user to name them. All other columns are
    categorical, and so are columns whose type says that they hold categories. A column without a name, such as the index of a
    data frame, is left out. So is a column of text whose values are all different, such as an identifier.
    """
    numeric, categorical, notes, problems = [], [], [], []
    keep = "name all inputs in config.data.numeric and config.data.categorical"
    leave_out = keep.replace("inputs", "inputs but this one")
    if columns.source == FRAME:
        keep = "give the column a type of categories, as frame[name].astype('category') does in pandas"
        leave_out = "leave it out"
    use = f"to use it, {keep}"
    for name in candidates:
        if INDEX_NAMES.fullmatch(name):
            notes.append(f"column {name!r} is left out, as the row numbers of a data frame; {use}")
            continue
        if name not in columns.categorical and is_numeric(columns, name, missing):
            numeric.append(name)
            if code := columns.codes.get(name) or first_code(columns, name):
                notes.append(
                    f"column {name!r} has codes such as {code}, which are read as numbers; to keep the codes, {keep}"
                )
            continue
        column = category_values(columns, name, missing)
        values, counts = column.values, column.counts()
        rows = int(sum(count for value, count in zip(values, counts.tolist()) if value))
        distinct = sum(1 for value in values if value)
        has_times = distinct > 0 and all(DATE_OR_TIME.fullmatch(value) for value in values if value)
        is_declared = name in columns.categorical
        formatted = distinct and not is_declared and all(FORMATTED.fullmatch(value) for value in values if value)
        if formatted:
            row = int(np.flatnonzero(np.isnan(column.each(number)) & column.each(bool))[0])
            problems.append(
                Problem(
                    columns.where(row),
                    f"{name} is {column[row]!r}, a number in a form that is not read; write the column as in "
                    f"1234.5, without thousands separators and signs such as %, or name all inputs, and {name!r} among "
                    "config.data.categorical if these are categories",
                )
            )
        elif distinct == rows > 1 and not is_declared and not set(values) & set(SPLITS):
            way = TIMES if has_times else use
            notes.append(f"column {name!r} is left out: each of its {rows:,} values is different; {way}")
            continue
        elif has_times:
            notes.append(f"column {name!r} has {distinct:,} dates or times, each of which is a category; {TIMES}")
        elif 2 * distinct > rows and distinct > FEW:
            notes.append(
                f"column {name!r} has {distinct:,} categories in {rows:,} rows and becomes as many features; if it identifies "
                f"the rows, {leave_out}"
            )
        categorical.append(name)
    return InputColumns(tuple(numeric), tuple(categorical), tuple(notes), tuple(problems))


def is_numeric(columns: Columns, name: str, missing: Collection[str]) -> bool:
    """Return True if more than half of the values of the column `name` are numbers, or if all non-missing ones are.

    Args:
        missing: texts that stand for a missing value.
    """
    numbers, invalid = parse_column(columns, name, missing)
    is_number, values = np.isfinite(numbers).any(axis=1), columns[name]
    typed = not isinstance(values, Categories) and values.dtype.kind in "iufb"
    return bool(is_number.any() and (typed or not len(invalid) or 2 * is_number.sum() > len(columns)))


def first_code(columns: Columns, name: str) -> str:
    """Return the first text of the column `name` that `CODE` describes; "" if there is none, or the column has numbers."""
    values = columns[name]
    if not isinstance(values, Categories) and values.dtype.kind not in "OU":
        return ""
    return next((text for text in columns.categories(name).values if CODE.match(text)), "")
