"""Whether a data set can be trained and evaluated on: distinct names of classes and groups, examples of each of them.

What the files of a data set lack is refused: a split that somebody made by hand has been made wrongly. What a config
asks for in so many words (a group without training examples, kinds of which there are only test examples) is accepted
with a remark, but for what cannot be learnt or measured at all: a class without a training example, a split of fewer
than two classes.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset

SPLITS = ("train", "val", "test")


def population_problems(
    where: str,
    targets: np.ndarray,
    groups: np.ndarray,
    splits: np.ndarray,
    class_names: Sequence[str],
    group_names: Sequence[str],
) -> list[Problem]:
    """One for each split of `where` with fewer than two classes, else for each class and group that it has not."""
    problems = []
    for split, name in enumerate(SPLITS):
        of_classes = np.bincount(targets[splits == split], minlength=len(class_names))
        of_groups = np.bincount(groups[splits == split], minlength=len(group_names))
        problems += lacking(where, name, of_classes, of_groups, class_names, group_names)
    return problems


def lacking(
    where: str,
    split: str,
    of_classes: np.ndarray,
    of_groups: np.ndarray,
    class_names: Sequence[str],
    group_names: Sequence[str],
) -> list[Problem]:
    """What a split has no example of, given how many it has of each class and each group."""
    found = np.flatnonzero(of_classes)
    if len(found) < 2:
        what = f"only class {class_names[found[0]]!r}" if len(found) else "no example"
        return [Problem(where, f"the {split} split has {what}; it needs two classes or more")]
    missing = [f"class {class_names[k]!r}" for k in np.flatnonzero(of_classes == 0)]
    if tuple(class_names) != tuple(group_names):
        missing += [f"group {group_names[g]!r}" for g in np.flatnonzero(of_groups == 0)]
    return [Problem(where, f"the {split} split has no example of {what}") for what in missing]


def name_problems(where: str, class_names: Sequence[str], group_names: Sequence[str]) -> list[Problem]:
    """Names under which metrics and counts would be lost, or that a terminal or a table would not show as they are."""
    problems = []
    for kind, names in (("class", class_names), ("group", group_names)):
        problems += [Problem(where, f"{kind} {name!r} is there twice") for name, n in Counter(names).items() if n > 1]
        for name in names:
            if not name.isprintable():
                problems.append(Problem(where, f"{kind} {name!r} has a character that cannot be printed"))
            if not name or name != name.strip():
                problems.append(Problem(where, f"{kind} {name!r} is empty, or begins or ends with a space"))
    return problems


def check_population(dataset: Dataset) -> Dataset:
    """`dataset`, if it can be trained and evaluated on.

    Raises:
        BadInput: with the first thing that is wrong with it.
    """
    evaluated, problems = dataset.eval_dataset, []
    for of in {id(of): of for of in (dataset, evaluated)}.values():
        problems += name_problems("config.data", of.class_names, of.group_names)
    problems += [
        problem
        for name, of in (("train", dataset), ("val", evaluated), ("test", evaluated))
        for problem in gaps(of, name)
        if "needs two classes" in problem.cause or (name == "train" and "example of class" in problem.cause)
    ]
    raise_first(problems)
    return dataset


def remarks(dataset: Dataset) -> list[str]:
    """What a checked data set lacks all the same, a line each."""
    evaluated = dataset.eval_dataset
    return [
        problem.cause
        for name, of in (("train", dataset), ("val", evaluated), ("test", evaluated))
        for problem in gaps(of, name)
    ]


def gaps(dataset: Dataset, name: str) -> list[Problem]:
    """See `lacking`."""
    split = getattr(dataset, name)
    counts = (dataset.class_counts(split).numpy(), dataset.group_counts(split).numpy())
    return lacking("config.data", name, *counts, dataset.class_names, dataset.group_names)
