"""Data sets that relabel the classes of another data set, to train on some classes and evaluate on others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from imbalance.config.registries import registries
from imbalance.config.schema import Name, Positive, build, check_call
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput

ClassMap = tuple[tuple[Name, Name], ...]


def class_map(
    data_dir: str, seed: int, *, source: Mapping[str, Any], train_map: ClassMap, eval_map: ClassMap
) -> Dataset:
    """Relabel the classes of `source`, with one map for train and another map, to the same labels, for val and test.

    With `train_map` (("cat", "animal"), ("truck", "vehicle")) and `eval_map` (("dog", "animal"), ("ship", "vehicle")), a
    model is evaluated on kinds of animals and vehicles that it was not trained on. Examples of other classes are left
    out. The groups stay those of the source, which are often its classes; worst-group accuracy is then that of the worst
    kind.

    Args:
        source: the data section of the source, with a name of its own.
        train_map, eval_map: pairs of a class of the source and its new label.
    """
    dataset = build_source(source, data_dir, seed)
    names = new_labels(dataset, train_map, "train_map")
    unknown = sorted(set(new_labels(dataset, eval_map, "eval_map")) - set(names))
    if unknown:
        raise BadInput(
            f"config.data.eval_map: label {unknown[0]!r} given, which is not a label of config.data.train_map: "
            f"{', '.join(names)}; set config.data.name='new_classes' to evaluate features on other labels"
        )
    return replace(
        dataset,
        train=relabel(dataset, dataset.train, train_map, names),
        val=relabel(dataset, dataset.val, eval_map, names),
        test=relabel(dataset, dataset.test, eval_map, names),
        class_names=names,
    )


def new_classes(
    data_dir: str,
    seed: int,
    *,
    source: Mapping[str, Any],
    train_map: ClassMap,
    eval_map: ClassMap,
    head_strength: Positive,
) -> Dataset:
    """Train features on the labels of `train_map`, and evaluate the features on the labels of `eval_map`.

    The two maps have no label in common. At each evaluation the features are frozen, and a new linear head is fitted on
    the source's training examples of the classes of `eval_map` (see `imbalance.methods.heads.probe.fit_head`).

    Args:
        source: the data section of the source, with a name of its own.
        train_map: pairs of a class of the source and its label in train.
        eval_map: pairs of a class of the source and its label in val and test.
        head_strength: the inverse of the L2 penalty of that head, scikit-learn's C.
    """
    dataset = build_source(source, data_dir, seed)
    names, eval_names = new_labels(dataset, train_map, "train_map"), new_labels(dataset, eval_map, "eval_map")
    common = sorted(set(names) & set(eval_names))
    if common:
        raise BadInput(
            f"config.data.eval_map: label {common[0]!r} given, which is a label of config.data.train_map, too; set "
            "config.data.name='class_map' to evaluate the model's own head on it"
        )
    parts = {name: relabel(dataset, getattr(dataset, name), eval_map, eval_names) for name in ("train", "val", "test")}
    probe = replace(dataset, **parts, class_names=eval_names)
    train = relabel(dataset, dataset.train, train_map, names)
    return replace(dataset, train=train, class_names=names, probe=probe, probe_strength=head_strength)


def build_source(source: Mapping[str, Any], data_dir: str, seed: int) -> Dataset:
    """Build the data set that `config.data.source` names."""
    data_sets = registries()["data"]
    section = dict(source)
    check_call("data.source", section, data_sets)
    return build(data_sets, section, data_dir=data_dir, seed=seed)


def new_labels(dataset: Dataset, pairs: ClassMap, key: str) -> tuple[str, ...]:
    """Return the new labels of a class map in the order of first appearance, and check the map."""
    classes, names = [old for old, _ in pairs], tuple(dict.fromkeys(new for _, new in pairs))
    unknown = sorted(set(classes) - set(dataset.class_names))
    if unknown or len(set(classes)) != len(classes):
        problem = f"no class {unknown[0]!r} in config.data.source" if unknown else "a class is mapped twice"
        raise BadInput(f"config.data.{key}: {problem}; map each of {', '.join(dataset.class_names)} once at most")
    if len(names) < 2:
        raise BadInput(f"config.data.{key}: labels {names} given; at least two are needed")
    return names


def relabel(dataset: Dataset, split: Split, pairs: ClassMap, names: tuple[str, ...]) -> Split:
    """Return the examples of `split` whose class is in the map, with their new labels."""
    label_of = torch.full((dataset.num_classes,), -1)
    for old, new in pairs:
        label_of[dataset.class_names.index(old)] = names.index(new)
    kept = (label_of[split.targets] >= 0).nonzero().squeeze(1)
    return replace(split.subset(kept), targets=label_of[split.targets[kept]])
