"""Check that a data set can be trained on and evaluated: valid names, and examples of each class and group.

A gap is a class or group without an example in a split. In data files every gap is refused, because it is most likely a
mistake of the person who made the splits. A config may ask for a gap, such as a group without training examples; then the
gap is accepted, and the log names it. Two gaps are always refused: a class without a training example, because it cannot
be learnt, and a split with fewer than two classes, because its metrics mean nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset

SPLITS = ("train", "val", "test")
MANY_GROUPS = 100  # above, a group without an example most likely means an attribute of very many values


class Gap(NamedTuple):
    """A class or group without examples in a split, or a split with fewer than two classes.

    kind: "class" or "group" for a class or group without examples; "split" for a split with fewer than two classes.
    split: the name of the split.
    text: a sentence for messages.
    """

    kind: Literal["split", "class", "group"]
    split: str
    text: str

    def problem(self, where: str, rule: str) -> Problem:
        """Return the problem to report; `rule` ends the message on a class or group without examples."""
        return Problem(where, self.text if self.kind == "split" else f"{self.text}; {rule}")


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
    gaps: list[Gap] = []
    for split, name in enumerate(SPLITS):
        class_counts = np.bincount(targets[splits == split], minlength=len(class_names))
        group_counts = np.bincount(groups[splits == split], minlength=len(group_names))
        if not (classes_may_lack and name != "train" and np.count_nonzero(class_counts) > 1):
            gaps += gaps_in_counts(name, class_counts, group_counts, class_names, group_names)
    problems: list[Problem] = []
    if gaps and len(group_names) > MANY_GROUPS and tuple(class_names) != tuple(group_names):
        rows = f"{len(targets):,} rows make {len(group_names):,} groups, the combinations of class and attributes"
        few = "these are too many groups; take attributes with few values, or join values, such as ages to decades"
        problems = [Problem(where, f"{rows}, and each split needs examples of each group; {few}")]
        gaps = [gap for gap in gaps if gap.kind != "group"]
    return problems + [gap.problem(where, "each split needs examples of each class and group") for gap in gaps]


def gaps_in_counts(
    split: str,
    class_counts: np.ndarray,
    group_counts: np.ndarray,
    class_names: Sequence[str],
    group_names: Sequence[str],
) -> list[Gap]:
    """Return the gaps of one split. If it has fewer than two classes, a single gap says so.

    Args:
        split: the name of the split.
        class_counts, group_counts: the number of examples of each class and of each group in this split.
    """
    present = np.flatnonzero(class_counts).tolist()
    if len(present) < 2:
        what = f"only class {class_names[present[0]]!r}" if present else "no example"
        return [Gap("split", split, f"the {split} split has {what}; it needs two classes or more")]

    def gaps(kind: Literal["class", "group"], counts: np.ndarray, names: Sequence[str]) -> list[Gap]:
        text = f"the {split} split has no example of {kind}"
        return [Gap(kind, split, f"{text} {names[i]!r}") for i in np.flatnonzero(counts == 0).tolist()]

    groups_differ = tuple(class_names) != tuple(group_names)
    return gaps("class", class_counts, class_names) + (
        gaps("group", group_counts, group_names) if groups_differ else []
    )


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


def check_population(dataset: Dataset, where: str = "config.data") -> Dataset:
    """Return `dataset` if it can be trained on and evaluated.

    Args:
        where: the config section or the argument that has the data, for messages.

    Raises:
        BadInput: a name is not valid, a class has no training example, or a split has fewer than two classes.
    """
    problems: list[Problem] = []
    for checked in {id(each): each for each in (dataset, dataset.eval_dataset)}.values():
        problems += name_problems(where, checked.class_names, checked.group_names)
    rule = "each class needs a training example"
    problems += [
        gap.problem(where, rule)
        for gap in gaps_of(dataset)
        if gap.kind == "split" or (gap.kind == "class" and gap.split == "train")
    ]
    raise_first(problems)
    return dataset


def missing_examples(dataset: Dataset) -> list[str]:
    """Return a line for each class and group without examples in a split of `dataset`, once for each such split."""
    return [gap.text for gap in gaps_of(dataset)]


def gaps_of(dataset: Dataset) -> list[Gap]:
    """Return the gaps of all splits of `dataset`; val and test are those of the data set that it is evaluated on."""
    gaps: list[Gap] = []
    for name, source in (("train", dataset), ("val", dataset.eval_dataset), ("test", dataset.eval_dataset)):
        split = getattr(source, name)
        counts = (source.class_counts(split).numpy(), source.group_counts(split).numpy())
        gaps += gaps_in_counts(name, *counts, source.class_names, source.group_names)
    return gaps
