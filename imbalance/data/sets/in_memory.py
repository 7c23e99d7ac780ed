"""Data set in memory, passed to `imbalance.run(config, data=…)`."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imbalance.config.schema import keyword_annotations, suggestion
from imbalance.data.population import SPLITS, population_problems
from imbalance.data.problems import raise_first
from imbalance.data.sets.arrays import channel_statistics, unusable_row
from imbalance.data.sets.data_frame import frame_dataset
from imbalance.data.splits import Dataset, Split
from imbalance.data.tables.columns import (
    frame_columns,
    group_name,
    is_table,
    join_columns,
)
from imbalance.data.tables.encoding import (
    encoding_notes,
    fit_features,
    number_problems,
    parse_column,
    transform,
    unfamiliar_values,
)
from imbalance.data.tables.input_columns import choose_inputs
from imbalance.data.tables.values import Categories, as_categories, check_unmasked, label_order
from imbalance.errors import BadInput


def in_memory() -> Dataset:
    """Raise `BadInput`: data that a program passed to `imbalance.run(config, data=…)` cannot be loaded from a config.

    The config of such a run names the data set "in_memory", but does not contain the data.

    Raises:
        BadInput: always, because only the program can pass the data again.
    """
    raise BadInput(
        "config.data.name: 'in_memory' means data that a program passed to imbalance.run(config, data=…); run that program "
        "again"
    )


def given_dataset(data: Any, seed: int, table: Mapping[str, Any]) -> Dataset:
    """Return the data set that a program passed to `imbalance.run`.

    Args:
        data: see `as_dataset` and `frame_dataset`.
        seed: the run's seed.
        table: the keyword arguments of `frame_dataset`; empty if `data` is for `as_dataset`.
    """
    for value in data.values() if isinstance(data, Mapping) else (data,):
        refuse_stream(value)
    if not table:
        return as_dataset(data)
    valid = keyword_annotations(frame_dataset)
    for name in table:
        if name not in valid:
            raise BadInput(f"imbalance.run: unknown argument {name!r}{suggestion(name, valid)}")
    if not is_table(data):
        raise BadInput(f"data: {describe(data)} given with {', '.join(table)}; these arguments need a data frame")
    tables = [is_table(value) for value in data.values()] if isinstance(data, Mapping) else []
    if isinstance(data, Mapping) and tables and all(tables) and ("train" not in data or set(data) - set(SPLITS)):
        raise BadInput(
            f"data: {describe(data)} given; give each data frame under the name of its split: {', '.join(SPLITS)}; train is needed"
        )
    if isinstance(data, Mapping) and data and set(data) <= set(SPLITS) and not all(tables):
        other = next(value for value in data.values() if not is_table(value))
        raise BadInput(
            f"data: {describe(data)} given with {', '.join(table)}, which need a data frame for each split, not a "
            f"{describe(other)}; leave out {', '.join(table)} if each split is a tuple (inputs, targets)"
        )
    if "target" not in table:
        raise BadInput(f"target: not given, but needed with {', '.join(table)}; name the column of the classes")
    return frame_dataset(data, seed, **table)


def as_dataset(
    data: Dataset | Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
) -> Dataset:
    """Turn tensors, arrays or torch data sets into a `Dataset`; torch data sets are read into memory.

    Args:
        data: a Dataset, which is returned unchanged; or a mapping with the keys "train", "val" and "test". Each value is
            a tuple (inputs, targets) or (inputs, targets, groups) of tensors or arrays, or a map-style torch data set
            whose examples are such tuples. A torch data set is read once, so its random transforms do not change from
            epoch to epoch. Inputs are floats, or uint8 images (N, C, H, W), which are normalised by the channel
            statistics of the training set. If a group has examples of several classes, the groups that you give are
            taken for the values of an attribute: the groups of the data set are the combinations of class and attribute.
            If you give no groups, the classes are the groups. Targets that are whole numbers are positions in
            `class_names`, from 0. Without `class_names` every number from 0 to the largest must occur. Labels such as 1, 2,
            3 are refused, unless they are text. Groups that are whole numbers may be any, from 0.
        class_names, group_names: the names, in the order of the labels, each once. By default they are the labels as text;
            the attribute `classes` of a torch data set gives the class names.

    Raises:
        BadInput: a split is missing, or shapes, types or labels do not fit.
    """
    if isinstance(data, Dataset):
        return data
    for value in data.values() if isinstance(data, Mapping) else (data,):
        refuse_stream(value)
    if not isinstance(data, Mapping) or set(data) != set(SPLITS):
        hint = "; of a data frame, name the column of the classes too: target=…" if is_table(data) else ""
        raise BadInput(
            f"data: {describe(data)} given; a Dataset, or a mapping with exactly the keys {', '.join(SPLITS)}, is needed{hint}"
        )
    raw = {name: as_tuple(name, data[name]) for name in SPLITS}
    preprocessing, notes = {}, ()
    if any(is_table(examples[0]) for examples in raw.values()):
        raw, preprocessing, notes = encode_frames(raw)
    class_names = class_names or getattr(data["train"], "classes", None)
    for key, names in (("class_names", class_names), ("group_names", group_names)):
        check_distinct(key, names)
    raw, class_names = number_labels(raw, 1, class_names, "class_names")
    raw, group_names = number_labels(raw, 2, group_names, "group_names")
    examples = {name: read_split(name, raw[name]) for name in SPLITS}
    shapes = {name: (tuple(inputs.shape[1:]), inputs.dtype) for name, (inputs, _, _) in examples.items()}
    for name in SPLITS[1:]:
        if shapes[name] != shapes["train"]:
            raise BadInput(
                f"data[{name!r}]: inputs have shape and type {shapes[name]}, and those of train {shapes['train']}; they must "
                "be equal"
            )
    all_targets = torch.cat([targets for _, targets, _ in examples.values()])
    class_names = label_names(all_targets, class_names, "class_names")
    without_groups = [name for name, (_, _, groups) in examples.items() if groups is None]
    if without_groups and len(without_groups) < len(SPLITS):
        raise BadInput(
            f"data[{without_groups[0]!r}]: no groups given, but another split has groups; give groups for all splits, or for none"
        )
    if without_groups:
        group_names = class_names
    splits = {
        name: Split(inputs, targets, targets if groups is None else groups, torch.arange(len(targets)))
        for name, (inputs, targets, groups) in examples.items()
    }
    all_targets, all_groups = all_targets.numpy(), torch.cat([split.groups for split in splits.values()])
    if group_names is None:
        present, all_groups = torch.unique(all_groups, return_inverse=True)
        group_names = tuple(map(str, present.tolist()))
        splits = with_groups(splits, all_groups)
    group_names, all_groups = label_names(all_groups, group_names, "group_names"), all_groups.numpy()
    pairs, crossed = np.unique(np.stack([all_targets, all_groups], axis=1), axis=0, return_inverse=True)
    if len(pairs) > len(np.unique(all_groups)):  # a group holds several classes: cross the groups with the classes
        all_groups = crossed.reshape(-1).astype(np.int64)
        group_names = tuple(group_name((class_names[target], group_names[group])) for target, group in pairs.tolist())
        splits = with_groups(splits, torch.from_numpy(all_groups))
    split_numbers = np.repeat(np.arange(3), [len(split) for split in splits.values()])
    raise_first(population_problems("data", all_targets, all_groups, split_numbers, class_names, group_names))
    mean, std = (), ()
    if (images := examples["train"][0]).dtype == torch.uint8:
        mean, std = channel_statistics(images, np.arange(len(images)))
    return Dataset(
        splits["train"],
        splits["val"],
        splits["test"],
        class_names,
        group_names,
        mean=mean,
        std=std,
        preprocessing=preprocessing,
        notes=notes,
    )


def with_groups(splits: Mapping[str, Split], groups: Tensor) -> dict[str, Split]:
    """Return the splits with other groups.

    Args:
        splits: train, val and test by name.
        groups: (N,) the groups of the examples of all three splits, one split after another.
    """
    parts = groups.split([len(split) for split in splits.values()])
    return {name: replace(split, groups=part.clone()) for (name, split), part in zip(splits.items(), parts)}


def check_distinct(key: str, names: Sequence[str] | None) -> None:
    """Raise `BadInput` if a name of `names` is given twice.

    Args:
        key: "class_names" or "group_names", for the message.
    """
    for name, count in Counter(map(str, () if names is None else names)).items():
        if count > 1:
            raise BadInput(f"{key}: {name!r} is given {count} times; give each label a name of its own")


def refuse_stream(data: Any) -> None:
    """Raise `BadInput` if `data` can only be read from its first example to its last.

    Such data are a generator, a DataLoader, a streamed data set of Hugging Face, or an `IterableDataset` of torch.
    """
    is_stream = isinstance(data, Iterator | torch.utils.data.IterableDataset) or (
        hasattr(data, "__iter__") and not hasattr(data, "__getitem__") and not isinstance(data, Collection)
    )
    if is_stream or isinstance(data, torch.utils.data.DataLoader):
        raise BadInput(
            f"data: {describe(data)} given, which is read from its first example to its last, but a sampler draws examples by "
            "their number; give a map-style data set, or write the examples to a file rows.arrow in data_dir and use "
            "config.data.name='arrays' or 'text' with config.data.file=rows.arrow, which may be larger than the memory"
        )


def encode_frames(
    raw: Mapping[str, tuple[Any, ...]],
) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any], tuple[str, ...]]:
    """Encode inputs that are data frames as arrays; the encoding is fitted on train.

    Args:
        raw: the tuple (inputs, targets) or (inputs, targets, groups) of each split.

    Returns:
        The tuples with encoded inputs, and the `preprocessing` and `notes` of the `Dataset`.
    """
    for name, (inputs, *_) in raw.items():
        if not is_table(inputs):
            raise BadInput(f"data[{name!r}]: inputs are {describe(inputs)}; if a split has a data frame, all need one")
    parts, missing = [frame_columns(raw[name][0]) for name in SPLITS], ("", "nan")
    columns = join_columns(parts)
    chosen = choose_inputs(columns, list(columns.values), missing)
    problems = list(chosen.problems)
    for name in chosen.numeric:
        problems += number_problems(columns, name, parse_column(columns, name, missing)[1])
    if problems:
        raise BadInput(f"data: {problems[0]}".partition("; ")[0] + "; write numbers, and None for missing values")
    if not (chosen.numeric or chosen.categorical):
        raise BadInput(f"data: the frames have no column that can be an input{''.join(f'; {n}' for n in chosen.notes)}")
    train = np.arange(len(parts[0]))
    features = fit_features(columns, train, chosen.numeric, chosen.categorical, missing)
    inputs = np.split(transform(columns, features), np.cumsum([len(part) for part in parts])[:-1])
    notes = (*chosen.notes, *encoding_notes(columns, train, features, inputs[0].shape[1]))
    notes = (*notes, *unfamiliar_values(columns, features))
    encoded = {name: (array, *raw[name][1:]) for name, array in zip(SPLITS, inputs)}
    return encoded, {"kind": "columns", "delimiter": ",", "features": features}, notes


def number_labels(
    raw: Mapping[str, tuple[Any, ...]], place: int, names: Sequence[str] | None, key: str
) -> tuple[dict[str, tuple[Any, ...]], Sequence[str] | None]:
    """Assign numbers to labels that are texts or bools; return `raw` with these numbers, and the names of the labels.

    Args:
        raw: the tuple (inputs, targets) or (inputs, targets, groups) of each split.
        place: 1 for targets, 2 for groups.
        names: the texts in the order of their numbers; None for the order of `label_order`.
        key: "class_names" or "group_names", for messages.
    """
    kind = {1: "targets", 2: "groups"}[place]
    labels = {name: as_labels(parts[place]) for name, parts in raw.items() if len(parts) > place}
    columns = {name: label for name, label in labels.items() if isinstance(label, Categories)}
    if not columns:
        return {name: replaced(raw[name], place, labels.get(name)) for name in raw}, names
    if len(columns) < len(raw):
        raise BadInput(f"data[{next(iter(columns))!r}]: {kind} are texts, but those of another split are not")
    for name, column in columns.items():
        if "" in column.values:
            row = int(np.flatnonzero(column.codes == column.values.index(""))[0])
            raise BadInput(f"data[{name!r}]: {kind} have no value in row {row}; leave out rows without a label")
    present = {value for column in columns.values() for value in column.values}
    order = label_order(list(present)) if names is None else tuple(map(str, names))
    if present - set(order):
        raise BadInput(f"{key}: {order} given; the {kind} also have {sorted(present - set(order))[0]!r}")
    return {name: replaced(raw[name], place, column.sorted(order).codes) for name, column in columns.items()}, order


def replaced(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    """Return `values` with `value` in place of the entry at position `place`; unchanged if `value` is None."""
    return values if value is None else (*values[:place], value, *values[place + 1 :])


def as_labels(values: Any) -> Any:
    """Prepare labels: texts and bools become `Categories`, sequences become arrays, and tensors stay unchanged."""
    array = values if isinstance(values, Tensor) else np.asarray(values)
    if isinstance(array, Tensor) or array.ndim != 1 or array.dtype.kind not in "bOUS":
        return array
    if array.dtype.kind == "O" and all(isinstance(value, int) and not isinstance(value, bool) for value in array):
        return array.astype(np.int64)  # such as a column of pandas that could have missing values
    return as_categories(array.astype(str) if array.dtype.kind == "S" else array, "labels")


def as_tuple(name: str, examples: Any) -> tuple[Any, ...]:
    """Return the examples of a split as (inputs, targets) or (inputs, targets, groups).

    Args:
        name: "train", "val" or "test", for messages.
        examples: a value of the mapping `data` of `as_dataset`.
    """
    if is_table(examples):
        raise BadInput(
            f"data[{name!r}]: {describe(examples)} given; give (inputs, targets), or name the column of the classes: "
            "imbalance.run(…, data=…, target=…)"
        )
    if not isinstance(examples, tuple):
        if not hasattr(examples, "__getitem__") or not hasattr(examples, "__len__"):
            raise BadInput(
                f"data[{name!r}]: {describe(examples)} given; a tuple or a map-style torch data set is needed"
            )
        try:
            rows = [examples[i] for i in range(len(examples))]
            for values in (value for row in rows for value in row):
                check_unmasked(values)
            examples = tuple(torch.stack([torch.as_tensor(value) for value in column]) for column in zip(*rows))
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(
                f"data[{name!r}]: {describe(examples)} given, whose examples cannot be joined ({reason}); each must be "
                "(input, target) or (input, target, group), with inputs of one shape"
            ) from None
    if len(examples) not in (2, 3):
        raise BadInput(
            f"data[{name!r}]: a tuple of {len(examples)} given; (inputs, targets) or (inputs, targets, groups) is needed"
        )
    for kind, values in zip(("inputs", "targets", "groups"), examples):
        check_unmasked(values, f"data[{name!r}]: {kind}: ")
    return examples


def as_tensor(name: str, values: Any) -> Tensor:
    """Return an array of a split as a tensor.

    A read-only array is not copied, because training never writes to its inputs.

    Args:
        name: "train", "val" or "test", for messages.
        values: inputs, targets or groups of the split.
    """
    try:
        if hasattr(values, "to_numpy"):  # torch reads a Series by its row labels
            values = values.to_numpy()
        if not isinstance(values, np.ndarray):
            return dense(name, torch.as_tensor(values))
        values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # not writable: training never writes to its inputs
            return torch.from_numpy(values)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else describe(values)
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"data[{name!r}]: {kind} given, which torch cannot take ({reason}); give float32") from None


def dense(name: str, values: Tensor) -> Tensor:
    """Return a tensor of a split on the CPU, without its gradient.

    Args:
        name: "train", "val" or "test", for messages.

    Raises:
        BadInput: the tensor is sparse or nested, or is on the device meta, so that NumPy cannot read it.
    """
    if values.is_meta or values.is_nested or values.layout != torch.strided:
        kind = "meta" if values.is_meta else "nested" if values.is_nested else "sparse"
        raise BadInput(
            f"data[{name!r}]: a {kind} tensor given; give a dense tensor with values, such as tensor.to_dense() of a sparse tensor"
        )
    return values.detach().cpu()


def read_split(name: str, examples: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Check the examples of a split, and return their inputs, targets, and groups (None if there are no groups).

    Args:
        name: "train", "val" or "test", for messages.
        examples: a value of the mapping `data` of `as_dataset`.
    """
    inputs, *labels = (as_tensor(name, values) for values in examples)
    if not (inputs.is_floating_point() or (inputs.dtype == torch.uint8 and inputs.dim() == 4)) or inputs.dim() < 2:
        dtype = str(inputs.dtype).removeprefix("torch.")
        raise BadInput(
            f"data[{name!r}]: inputs are {dtype} of shape {tuple(inputs.shape)}; floats (N, …), or uint8 images (N, C, H, W), "
            "are needed"
        )
    if inputs.dtype == torch.uint8 and inputs.shape[1] not in (1, 3) and inputs.shape[3] in (1, 3):
        raise BadInput(
            f"data[{name!r}]: inputs have shape {tuple(inputs.shape)}, whose last axis seems to be the channels; give uint8 images "
            "as (N, C, H, W), such as x.transpose(0, 3, 1, 2) of a NumPy array x"
        )
    if 0 in inputs.shape[1:]:
        raise BadInput(
            f"data[{name!r}]: inputs have shape {tuple(inputs.shape)}; each example needs at least one value"
        )
    if inputs.is_floating_point() and inputs.dtype not in (torch.float16, torch.float32, torch.float64):
        inputs = inputs.float()  # NumPy has no bfloat16
    if inputs.is_floating_point() and (row := unusable_row(inputs)) is not None:
        raise BadInput(
            f"data[{name!r}]: row {row} of the inputs has a value that is not finite, or too large for float32; remove or "
            "replace it"
        )
    for i, (kind, values) in enumerate(zip(("targets", "groups"), labels)):
        is_whole = not (values.is_floating_point() or values.is_complex())
        labels[i] = values.long() if is_whole else values  # torch cannot compare uint16, uint32 and uint64
        if values.shape != inputs.shape[:1] or not is_whole or (len(values) and labels[i].min() < 0):
            raise BadInput(f"data[{name!r}]: {kind} must be {len(inputs):,} whole numbers from 0 on")
    targets, *groups = labels
    return inputs, targets, groups[0] if groups else None


def label_names(labels: Tensor, names: Sequence[str] | None, key: str) -> tuple[str, ...]:
    """Return the names of all labels: `names` as text or, if `names` is None, "0", "1", … up to the largest label.

    Args:
        labels: the classes or groups of all splits.
        key: "class_names" or "group_names", for the message.

    Raises:
        BadInput: a label has no name; or `names` is None, and a number below the largest label does not occur.
    """
    present = torch.unique(labels).tolist()
    largest, rule = max(present, default=-1), f"whole numbers are positions in {key}, from 0"
    text = "give the labels as text to keep them as names, as labels.astype(str) of an array"
    if names is None:
        if largest >= len(present):
            shown = ", ".join(map(str, present[:5])) + ", …" * (len(present) > 5)
            raise BadInput(f"data: the targets are {shown}, but {rule}, and each must occur; {text}")
        return tuple(map(str, present))
    if len(names) <= largest:
        raise BadInput(f"{key}: {len(names)} names given, and the data has the label {largest}; {rule}; {text}")
    return tuple(map(str, names))


def describe(value: Any) -> str:
    """Return the type of a value in words, for messages; for a mapping also its keys."""
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, value))}" if value else "an empty mapping"
    return type(value).__name__
