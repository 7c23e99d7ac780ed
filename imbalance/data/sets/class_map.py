"""Training on some classes, evaluating on others: data sets made of another one by giving its classes new labels."""

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
    """`source` with its classes relabelled, one way for train and another for val and test, under the same labels.

    With `train_map` (("cat", "animal"), ("truck", "vehicle")) and `eval_map` (("dog", "animal"), ("ship", "vehicle")) a
    model is evaluated on kinds of animals and vehicles that it never saw. Examples of other classes are left out. Groups
    are the source's classes (or its groups, where those are others), so that worst-group accuracy is that of the worst
    kind.

    Args:
        source: a data section of its own.
        train_map, eval_map: pairs of a class of the source and its label.
    """
    dataset = build_source(source, data_dir, seed)
    names = labels(dataset, train_map, "train_map")
    unseen = sorted(set(labels(dataset, eval_map, "eval_map")) - set(names))
    if unseen:
        raise BadInput(
            f"config.data.eval_map: label {unseen[0]!r} is none of config.data.train_map: {', '.join(names)}; "
            "config.data.name='new_classes' evaluates features on other labels"
        )
    return replace(
        dataset,
        train=relabelled(dataset, dataset.train, train_map, names),
        val=relabelled(dataset, dataset.val, eval_map, names),
        test=relabelled(dataset, dataset.test, eval_map, names),
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
    """Features learnt on the labels of `train_map`, evaluated on those of `eval_map`, which have none in common.

    At every evaluation the features stay as they are, and a new linear head is fitted on the source's training examples
    of the evaluation's classes (see `imbalance.methods.heads.probe.fit_head`).

    Args:
        source: a data section of its own.
        train_map: pairs of a class of the source and its label in train.
        eval_map: pairs of a class of the source and its label in val and test.
        head_strength: the inverse of that head's L2 penalty, scikit-learn's C.
    """
    dataset = build_source(source, data_dir, seed)
    names, others = labels(dataset, train_map, "train_map"), labels(dataset, eval_map, "eval_map")
    common = sorted(set(names) & set(others))
    if common:
        raise BadInput(
            f"config.data.eval_map: label {common[0]!r} is one of config.data.train_map too; config.data.name='class_map' "
            "evaluates the model's own head on it"
        )
    parts = {name: relabelled(dataset, getattr(dataset, name), eval_map, others) for name in ("train", "val", "test")}
    probe = replace(dataset, **parts, class_names=others)
    train = relabelled(dataset, dataset.train, train_map, names)
    return replace(dataset, train=train, class_names=names, probe=probe, probe_strength=head_strength)


def build_source(source: Mapping[str, Any], data_dir: str, seed: int) -> Dataset:
    """The data set that `config.data.source` names."""
    data_sets = registries()["data"]
    section = dict(source)
    check_call("data.source", section, data_sets)
    return build(data_sets, section, data_dir=data_dir, seed=seed)


def labels(dataset: Dataset, pairs: ClassMap, key: str) -> tuple[str, ...]:
    """The labels of a class map, in the order in which they first appear."""
    classes, names = [old for old, _ in pairs], tuple(dict.fromkeys(new for _, new in pairs))
    unknown = sorted(set(classes) - set(dataset.class_names))
    if unknown or len(set(classes)) != len(classes):
        problem = f"no class {unknown[0]!r} in config.data.source" if unknown else "a class is mapped twice"
        raise BadInput(f"config.data.{key}: {problem}; there are {', '.join(dataset.class_names)}")
    if len(names) < 2:
        raise BadInput(f"config.data.{key}: labels {names} given; at least two are needed")
    return names


def relabelled(dataset: Dataset, split: Split, pairs: ClassMap, names: tuple[str, ...]) -> Split:
    """The examples of `split` whose class `pairs` has a label for, under that label."""
    label_of = torch.full((dataset.num_classes,), -1)
    for old, new in pairs:
        label_of[dataset.class_names.index(old)] = names.index(new)
    kept = (label_of[split.targets] >= 0).nonzero().squeeze(1)
    return replace(split.subset(kept), targets=label_of[split.targets[kept]])
