"""Data sets that relabel the classes of another data set, to train on some classes and evaluate on others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from imbalance.config.registries import registries
from imbalance.config.schema import Name, Positive, build, check_call
from imbalance.data.cut import find_cut
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput

ClassMap = tuple[tuple[Name, Name], ...]


def class_map(
    data_dir: str, seed: int, *, source: Mapping[str, Any], train_map: ClassMap, eval_map: ClassMap
) -> Dataset:
    """Relabel the classes of another data set, by `train_map` in train and by `eval_map` in val and test.

    Every label of `eval_map` must be a label of `train_map`, because the trained head can predict no other label.

    With `train_map` (("cat", "animal"), ("truck", "vehicle")) and `eval_map` (("dog", "animal"), ("ship", "vehicle")), a
    model is evaluated on kinds of animals and vehicles that it was not trained on. Examples of other classes are left
    out. The groups stay those of the other data set. If these groups are the old classes, worst-group accuracy is the
    accuracy on the worst old class.

    Args:
        source: the config section of the other data set: its name and arguments.
        train_map, eval_map: pairs of an old class and its new label.
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

    The two maps must have no label in common. Each evaluation freezes the features, and fits a new linear head on the
    training examples of the old classes in `eval_map`; see `imbalance.methods.heads.probe.fit_head`. The trained model,
    which `imbalance.load` and `imbalance predict` use, predicts the labels of `train_map`.

    Args:
        source: the config section of the other data set: its name and arguments.
        train_map: pairs of an old class and its label in train.
        eval_map: pairs of an old class and its label in val and test.
        head_strength: the inverse of the L2 penalty of the new head, scikit-learn's C.
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
    """Return the data set that `source`, the section `config.data.source`, names; read its cut if `data_dir` has one."""
    data_sets = registries()["data"]
    section = dict(source)
    check_call("data.source", section, data_sets)
    if dataset := find_cut(section, data_dir, seed):
        return dataset
    return build(data_sets, section, data_dir=data_dir, seed=seed)


def new_labels(dataset: Dataset, pairs: ClassMap, key: str) -> tuple[str, ...]:
    """Check the map `pairs` from old classes to new labels, and return its distinct labels by first appearance.

    Args:
        dataset: the data set with the old classes.
        key: the key of the map, "train_map" or "eval_map", for messages.
    """
    classes, names = [old for old, _ in pairs], tuple(dict.fromkeys(new for _, new in pairs))
    unknown = sorted(set(classes) - set(dataset.class_names))
    if unknown or len(set(classes)) != len(classes):
        problem = f"no class {unknown[0]!r} in config.data.source" if unknown else "a class is mapped twice"
        raise BadInput(f"config.data.{key}: {problem}; map each of {', '.join(dataset.class_names)} at most once")
    if len(names) < 2:
        raise BadInput(f"config.data.{key}: labels {names} given; at least two are needed")
    return names


def relabel(dataset: Dataset, split: Split, pairs: ClassMap, names: tuple[str, ...]) -> Split:
    """Return the examples of `split` whose old class is in the map `pairs`, with the new labels as targets.

    Args:
        dataset: the data set with the old classes.
        pairs: pairs of an old class and its new label.
        names: the new labels; the target of an example is the position of its label.
    """
    label_of = torch.full((dataset.num_classes,), -1)
    for old, new in pairs:
        label_of[dataset.class_names.index(old)] = names.index(new)
    kept = (label_of[split.targets] >= 0).nonzero().squeeze(1)
    return replace(split.subset(kept), targets=label_of[split.targets[kept]])
