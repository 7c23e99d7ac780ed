"""Check that a data set can be trained on and evaluated: valid names, and examples of each class and group.

A gap is a class or group without an example in a split. In data files every gap is refused, because it is most likely a
mistake of the person who made the splits. A config may ask for a gap, such as a group without training examples; then the
gap is accepted, and the log names it. Two gaps are always refused: a class without a training example, because it cannot
be learnt, and a split with fewer than two classes, because its metrics mean nothing.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset

SPLITS = ("train", "val", "test")
MANY_GROUPS = 100  # above, a group without an example most likely means an attribute of very many values


def population_problems(
    where: str,
    targets: np.ndarray,
    groups: np.ndarray,
    splits: np.ndarray,
    class_names: Sequence[str],
    group_names: Sequence[str],
    classes_may_lack: bool = False,
) -> list[Problem]:
    """Return a list of problems: for each split, one for each class and one for each group without examples in it.

    A split with examples of fewer than two classes gives a single problem that says so. If there are more than
    `MANY_GROUPS` groups, one problem stands for all groups without examples.

    Args:
        where: the file or argument with the data, at the start of each problem.
        targets, groups, splits: (N,) int64; splits are 0, 1, 2 for train, val, test.
        classes_may_lack: whether val and test may lack classes and groups, if they have two classes or more.
    """
    problems = []
    for split, name in enumerate(SPLITS):
        class_counts = np.bincount(targets[splits == split], minlength=len(class_names))
        group_counts = np.bincount(groups[splits == split], minlength=len(group_names))
        if not (classes_may_lack and name != "train" and np.count_nonzero(class_counts) > 1):
            problems += gaps_in_counts(where, name, class_counts, group_counts, class_names, group_names)
    if problems and len(group_names) > MANY_GROUPS and tuple(class_names) != tuple(group_names):
        rows = f"{len(targets):,} rows make {len(group_names):,} groups, the combinations of class and attributes"
        few = "these are too many groups; take attributes with few values, or join values, such as ages to decades"
        return [
            Problem(where, f"{rows}, and each split needs examples of each group; {few}"),
            *(problem for problem in problems if "no example of group" not in problem.cause),
        ]
    rule = "; each split needs examples of each class and group"
    return [
        problem._replace(cause=problem.cause + rule) if "no example of" in problem.cause else problem
        for problem in problems
    ]


def gaps_in_counts(
    where: str,
    split: str,
    class_counts: np.ndarray,
    group_counts: np.ndarray,
    class_names: Sequence[str],
    group_names: Sequence[str],
) -> list[Problem]:
    """Return a list of problems: one for each class, and one for each group, without examples in one split.

    Args:
        where: the file or argument with the data, at the start of each problem.
        split: the name of the split.
        class_counts, group_counts: the number of examples of each class and of each group in this split.
    """
    present = np.flatnonzero(class_counts).tolist()
    if len(present) < 2:
        what = f"only class {class_names[present[0]]!r}" if present else "no example"
        return [Problem(where, f"the {split} split has {what}; it needs two classes or more")]
    missing = [f"class {class_names[k]!r}" for k in np.flatnonzero(class_counts == 0).tolist()]
    if tuple(class_names) != tuple(group_names):
        missing += [f"group {group_names[g]!r}" for g in np.flatnonzero(group_counts == 0).tolist()]
    return [Problem(where, f"the {split} split has no example of {what}") for what in missing]


def name_problems(where: str, class_names: Sequence[str], group_names: Sequence[str]) -> list[Problem]:
    """Return a problem for each class or group name that is a duplicate, empty, unprintable or padded with spaces.

    Names of metrics contain the names of classes and groups. Two metrics with the same name would overwrite each other,
    and with spaces or unprintable characters two different names would look the same.

    Args:
        where: the file or argument with the data, at the start of each problem.
    """
    problems = []
    for kind, names in (("class", class_names), ("group", group_names)):
        problems += [
            Problem(where, f"{kind} {name!r} appears {n} times; each {kind} needs a name of its own")
            for name, n in Counter(names).items()
            if n > 1
        ]
        for name in names:
            if not name.isprintable():
                problems.append(Problem(where, f"{kind} {name!r} has a character that cannot be printed; rename it"))
            if not name or name != name.strip():
                problems.append(Problem(where, f"{kind} {name!r} is empty, or begins or ends with a space; rename it"))
    return problems


def check_population(dataset: Dataset) -> Dataset:
    """Return `dataset` if it can be trained on and evaluated.

    Raises:
        BadInput: a name is not valid, a class has no training example, or a split has fewer than two classes.
    """
    evaluated, problems = dataset.eval_dataset, []
    for checked in {id(each): each for each in (dataset, evaluated)}.values():
        problems += name_problems("config.data", checked.class_names, checked.group_names)
    problems += [
        problem
        for name, source in (("train", dataset), ("val", evaluated), ("test", evaluated))
        for problem in split_gaps(source, name)
        if "needs two classes" in problem.cause or (name == "train" and "example of class" in problem.cause)
    ]
    rule = "; each class needs a training example"
    raise_first(
        [
            problem._replace(cause=problem.cause + rule) if "no example of" in problem.cause else problem
            for problem in problems
        ]
    )
    return dataset


def missing_examples(dataset: Dataset) -> list[str]:
    """Return a line for each class and group without examples in a split of `dataset`, once for each such split."""
    evaluated = dataset.eval_dataset
    return [
        problem.cause
        for name, source in (("train", dataset), ("val", evaluated), ("test", evaluated))
        for problem in split_gaps(source, name)
    ]


def split_gaps(dataset: Dataset, name: str) -> list[Problem]:
    """Return a list of problems: one for each class, and one for each group, without examples in the split `name`."""
    split = getattr(dataset, name)
    counts = (dataset.class_counts(split).numpy(), dataset.group_counts(split).numpy())
    return gaps_in_counts("config.data", name, *counts, dataset.class_names, dataset.group_names)
