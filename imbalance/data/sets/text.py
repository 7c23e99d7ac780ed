"""Data set of a user's own texts: a CSV, Parquet or Arrow file with texts, classes, attributes and splits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Count, Fraction, Name
from imbalance.data.population import SPLITS
from imbalance.data.problems import Problem
from imbalance.data.tables.arrow import ArrowTable, ArrowTexts, is_text
from imbalance.data.tables.columns import (
    Columns,
    Delimiter,
    assign_splits,
    check_input_columns,
    check_label_columns,
    number_groups,
    read_columns,
)
from imbalance.data.tables.encoding import parse_column
from imbalance.data.tables.values import Categories, composed
from imbalance.data.texts.corpus import Corpus, TokenKeys, identity_class_groups, text_dataset
from imbalance.data.texts.tokens import Texts
from imbalance.errors import BadInput
from imbalance.utils.seeds import derived_seed


def list_text(
    data_dir: str,
    seed: int,
    *,
    file: Name,
    delimiter: Delimiter,
    text: tuple[Name, ...],
    skip_empty: bool,
    target: Name,
    classes: tuple[Name, ...],
    attributes: tuple[Name, ...],
    evaluated_by: tuple[Name, ...],
    split: str,
    val_fraction: Fraction,
    test_fraction: Fraction,
    train_per_group: tuple[Count, ...],
    **token_keys: Unpack[TokenKeys],
) -> Corpus:
    """List the texts of a file, with their classes, groups and splits.

    Args:
        file: the file under data_dir: `.csv`, `.csv.gz`, `.parquet`, or `.arrow`, which may be larger than the
            memory.
        delimiter: the character between the columns of a CSV file; in bash $'\\t' is a tab.
        text: the column of the texts; two columns for pairs.
        skip_empty: True to leave out the rows with an empty text, and log their number; False to refuse them.
        target, classes: the column that holds the class, and its values as text, in the order of the classes.
        attributes: the columns that are crossed with the target: each combination of a class with values of these
            columns is a group. () if the classes are the groups.
        evaluated_by: columns of numbers, one for each identity that a text can mention; a number of 0.5 or more means
            that the text mentions it. Each identity in each class is an evaluation group, and a text can be in several
            evaluation groups or in none. () to evaluate by the groups.
        split: the column that says train, val or test; "" if there is none.
        val_fraction: the share of every group that becomes val, drawn by the run's seed; 0.0 if the file has val
            examples.
        test_fraction: the share of every group that becomes test, drawn by the run's seed; 0.0 if the file has
            test examples.
        train_per_group: the number of training texts to use of each group, in the order of the groups, drawn by the
            run's seed; () for all. Use it to make an imbalance.
    """
    classes = tuple(map(composed, classes))
    check_label_columns(classes, target, attributes)
    if len(text) not in (1, 2):
        raise BadInput(f"config.data.text: {text} given; name one column of texts, or two for pairs")
    roles = {split: "the split"} | dict.fromkeys(attributes, "an attribute") | {target: "the target"}
    check_input_columns("text", text, roles)
    label_columns: dict[str, None] = dict.fromkeys([target, *attributes, *([split] if split else [])])
    columns = read_columns(Path(data_dir) / file, delimiter, (*text, *label_columns))
    labels = {name: columns.categories(name) for name in label_columns}
    valid = {target: classes} | ({split: SPLITS} if split else {})
    good, problems = np.ones(len(columns), dtype=bool), []
    for name, column in labels.items():
        causes = {value: label_cause(name, value, valid.get(name)) for value in column.values}
        bad = column.each(lambda value, causes=causes: causes[value] != "").astype(bool)
        good &= ~bad
        problems += [Problem(columns.where(row), causes[column[row]]) for row in np.flatnonzero(bad).tolist()]
    notes = ()
    texts: Any = text_columns(columns, text)
    if skip_empty:
        empty = np.fromiter((is_blank(example) for example in texts), bool, len(columns))
        if empty.any():
            first = columns.where(int(np.flatnonzero(empty)[0]))
            notes = (
                f"{empty.sum():,} of {len(columns):,} rows have an empty text and are left out; the first is {first}",
            )
        good &= ~empty
    kept = np.flatnonzero(good)

    def value_numbers(name: str) -> np.ndarray:
        # The digest of a data set depends on the type, so another one would refuse to resume older runs.
        return labels[name].sorted(valid[name]).codes[kept].astype(np.int64)

    group_numbers, group_names = number_groups(
        labels[target].rows(kept), classes, [labels[name].rows(kept) for name in attributes]
    )
    splits = value_numbers(split) if split else np.zeros(len(kept), dtype=np.int64)
    splits = assign_splits(splits, group_numbers, val_fraction, test_fraction, seed, columns.source)
    if train_per_group:
        rng = np.random.default_rng(derived_seed(seed, "train per group"))
        drawn = draw_train_rows(group_numbers, splits == 0, train_per_group, group_names, rng)
        left = np.flatnonzero((splits != 0) | drawn)
        kept, group_numbers, splits = kept[left], group_numbers[left], splits[left]
    targets, mask, mask_names = value_numbers(target), None, ()
    if evaluated_by:
        has_identity = np.stack([identity_column(columns, name) for name in evaluated_by], axis=1)[kept]
        mask, mask_names = identity_class_groups(has_identity, evaluated_by, targets, classes)
    return Corpus(
        Path(columns.source),
        text,
        texts.at(kept) if isinstance(texts, ArrowTexts) else [texts[row] for row in kept.tolist()],
        targets,
        group_numbers,
        splits,
        kept,
        lambda row: columns.where(int(kept[row])),
        classes,
        group_names,
        mask,
        mask_names,
        problems,
        {"delimiter": delimiter},
        notes=notes,
        token_keys=token_keys,
    )


def label_cause(name: str, value: str, valid: Sequence[str] | None) -> str:
    """Return a text that says what is wrong with the label `value` of the column `name`; "" if nothing is wrong.

    Args:
        valid: the values that are allowed; None to allow every value that is not empty.
    """
    if valid is not None and value not in valid:
        return f"{name} is {value!r}, not one of {', '.join(valid)}"
    if not value or value != value.strip():
        return f"{name} is {value!r}; it must not be empty, or begin or end with a space"
    return ""


def draw_train_rows(
    groups: np.ndarray, train: np.ndarray, counts: Sequence[int], names: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """Return an (N,) mask of the training rows to use: `counts[g]` random rows of each group g.

    Args:
        groups: (N,) group numbers.
        train: (N,) bool, the training rows.
        names: the names of the groups, for messages.
    """
    if len(counts) != len(names):
        raise BadInput(
            f"config.data.train_per_group: {len(counts)} numbers given; it needs one for each of {len(names)} groups: "
            f"{'; '.join(names)}"
        )
    keep = np.zeros(len(groups), dtype=bool)
    for group, (count, name) in enumerate(zip(counts, names)):
        rows = np.flatnonzero(train & (groups == group))
        if count > len(rows):
            raise BadInput(
                f"config.data.train_per_group: {count:,} of group {name!r} given; train has {len(rows):,}, so give that many "
                "at most"
            )
        keep[rng.permutation(rows)[:count]] = True
    return keep


def text_columns(columns: Columns, names: Sequence[str], any_type: bool = False) -> Texts:
    """Return the N texts, or pairs of texts, in the columns `names`; those of an Arrow file are read when they are used.

    Args:
        any_type: True to read a column of numbers as text.

    Raises:
        BadInput: a column is missing, or holds numbers although `any_type` is False.
    """
    table, rows = columns.values, np.arange(len(columns))
    if isinstance(table, ArrowTable) and all(
        name in table and is_text(table.table.schema.field(name).type) for name in names
    ):
        return ArrowTexts(table, names, rows)
    for name in () if any_type else names:
        values = columns[name]
        if not isinstance(values, Categories) and values.dtype.kind in "iufb":
            raise BadInput(
                f"{columns.source}: column {name!r} holds numbers, not texts; name a column of texts in config.data.text"
            )
    texts = [columns.text(name).tolist() for name in names]
    return texts[0] if len(texts) == 1 else list(zip(*texts))


def is_blank(example: str | tuple[str, str]) -> bool:
    """Return whether a text, or either text of a pair, is empty or only white space."""
    return any(not text.strip() for text in ((example,) if isinstance(example, str) else example))


def identity_column(columns: Columns, name: str) -> np.ndarray:
    """Return an (N,) mask, true for the rows whose number in the column `name` is 0.5 or more."""
    numbers, invalid = parse_column(columns, name, ())
    if len(invalid):
        raise BadInput(
            f"config.data.evaluated_by: {columns.where(int(invalid[0]))}: the value of {name!r} is not a number; "
            "name columns of numbers"
        )
    return numbers[:, 0] >= 0.5


text = text_dataset(list_text)
