"""A user's own texts: a CSV or Parquet file of texts, classes, attributes and splits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imbalance.config.schema import Count, Fraction, Name
from imbalance.data.population import SPLITS
from imbalance.data.problems import Problem
from imbalance.data.tables.columns import (
    Columns,
    Delimiter,
    assign_splits,
    check_classes,
    composed,
    number_groups,
    read_columns,
)
from imbalance.data.texts.corpus import Corpus, overlapping, tokenised
from imbalance.errors import BadInput
from imbalance.utils.seeds import derived_seed


def list_text(
    data_dir: str,
    seed: int,
    *,
    file: Name,
    delimiter: Delimiter,
    text: tuple[Name, ...],
    target: Name,
    classes: tuple[Name, ...],
    groups: tuple[Name, ...],
    evaluated_by: tuple[Name, ...],
    split: str,
    val_fraction: Fraction,
    test_fraction: Fraction,
    train_per_group: tuple[Count, ...],
) -> Corpus:
    """Texts of a file.

    Args:
        file: under data_dir, of any kind that has columns: `.csv`, `.csv.gz`, `.parquet`.
        delimiter: the character between the columns of a CSV file.
        text: the column of the texts; two for pairs.
        target, classes: the column of the classes, and its values as text, in the order of the classes.
        groups: the columns whose combinations are the groups, the target's among them if meant; () for the classes.
        evaluated_by: columns of numbers, of which 0.5 or more says that a text belongs. Each of them in each class
            is then an evaluation group, and a text can be in several, or none; () to evaluate by the groups.
        split: the column that says train, val or test; "" for none.
        val_fraction: the share of every group that becomes val, drawn by the run's seed; 0.0 for a split that the
            file has.
        test_fraction: the share of every group that becomes test, drawn by the run's seed; 0.0 for a split that the
            file has.
        train_per_group: how many training texts of each group, in the order of the groups, are kept, drawn from the
            run's seed: an imbalance of one's own making. () for all.
        tokenizer: "words" or "pieces" (byte pairs), learnt on the training texts; or the name or folder of
            pretrained weights, for their tokenizer.
        vocabulary: the number of tokens that are learnt; 0 for a tokenizer of pretrained weights.
        max_tokens: the largest number of tokens of a text; longer texts are cut off.
        bucket: the number of batches whose texts are sorted by length together, so that batches have less padding;
            0 for no sorting.
    """
    classes = tuple(map(composed, classes))
    check_classes(classes, groups)
    if len(text) not in (1, 2):
        raise BadInput(f"config.data.text: {text} given; one column of texts, or two for pairs")
    columns = read_columns(Path(data_dir) / file, delimiter)
    labels = {name: columns.text(name) for name in dict.fromkeys((target, *groups, *([split] if split else [])))}
    valid = {target: classes} | ({split: SPLITS} if split else {})
    good, problems = np.ones(len(columns), dtype=bool), []
    for name, values in labels.items():
        for row, value in enumerate(values):
            if name in valid and value not in valid[name]:
                cause = f"{name} is {value!r}, not one of {', '.join(valid[name])}"
            elif not value or value != value.strip():
                cause = f"{name} is {value!r}: empty, or with a space at an end"
            else:
                continue
            good[row] = False
            problems.append(Problem(columns.where(row), cause))
    kept = np.flatnonzero(good)

    def numbered(name: str) -> np.ndarray:
        number = {value: i for i, value in enumerate(valid[name])}
        return np.array([number[value] for value in labels[name][kept]], dtype=np.int64)

    grouping = groups or (target,)
    orders = [classes if name == target else None for name in grouping]
    of_groups, group_names = number_groups([labels[name][kept] for name in grouping], orders)
    splits = numbered(split) if split else np.zeros(len(kept), dtype=np.int64)
    splits = assign_splits(splits, of_groups, val_fraction, test_fraction, seed, columns.source)
    if train_per_group:
        rng = np.random.default_rng(derived_seed(seed, "train per group"))
        left = np.flatnonzero((splits != 0) | drawn(of_groups, splits == 0, train_per_group, group_names, rng))
        kept, of_groups, splits = kept[left], of_groups[left], splits[left]
    targets, members, member_names = numbered(target), None, ()
    if evaluated_by:
        belongs = np.stack([belonging(columns, name) for name in evaluated_by], axis=1)[kept]
        members, member_names = overlapping(belongs, evaluated_by, targets, classes)
    texts = [as_texts(columns, name)[kept] for name in text]
    return Corpus(
        Path(columns.source),
        text,
        texts[0].tolist() if len(text) == 1 else list(zip(*texts)),
        targets,
        of_groups,
        splits,
        kept,
        columns.lines[kept] if len(columns.lines) else kept,
        classes,
        group_names,
        members,
        member_names,
        problems,
        {"delimiter": delimiter},
    )


def drawn(
    groups: np.ndarray, train: np.ndarray, counts: Sequence[int], names: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """(N,) bool, random rows of train, as many of each group as `counts` says."""
    if len(counts) != len(names):
        raise BadInput(
            f"config.data.train_per_group: {len(counts)} numbers given, for {len(names)} groups: {'; '.join(names)}"
        )
    keep = np.zeros(len(groups), dtype=bool)
    for group, (count, name) in enumerate(zip(counts, names)):
        rows = np.flatnonzero(train & (groups == group))
        if count > len(rows):
            raise BadInput(f"config.data.train_per_group: {count:,} of group {name!r} given; train has {len(rows):,}")
        keep[rng.permutation(rows)[:count]] = True
    return keep


def as_texts(columns: Columns, name: str) -> np.ndarray:
    """(N,) a column's values as texts."""
    values = columns[name]
    if values.dtype.kind in "iufb":
        raise BadInput(f"{columns.source}: column {name!r} holds numbers, not texts")
    return columns.text(name)


def belonging(columns: Columns, name: str) -> np.ndarray:
    """(N,) bool, whether a column's number is 0.5 or more."""
    try:
        return columns[name].astype(np.float64) >= 0.5
    except (TypeError, ValueError):
        raise BadInput(f"config.data.evaluated_by: {columns.source}: column {name!r} does not hold numbers") from None


text = tokenised(list_text)
