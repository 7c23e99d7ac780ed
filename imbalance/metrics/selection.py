"""Selection rules: the epoch that a rule chooses from the logits of every evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imbalance.metrics.scores import members_of

KEPT = {"callbacks.keep_logits": True, "trainer.eval_splits": ("val", "test")}  # what a run must say to be read here


class Evaluations(NamedTuple):
    """A split at every evaluated epoch."""

    right: np.ndarray  # (epochs, N) bool
    targets: np.ndarray  # (N,)
    members: np.ndarray  # (N, G) bool: each example's group, or its evaluation groups
    inferred: np.ndarray | None = None  # (N,), where the run's methods saw inferred groups


Rule = Callable[[Evaluations, Evaluations, float, int], int]  # (val, test, share, seed) -> index of an evaluation


def over(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(epochs, labels present) accuracy on the examples with each label."""
    return np.stack([right[:, labels == label].mean(1) for label in np.unique(labels)], axis=1)


def over_groups(split: Evaluations) -> np.ndarray:
    """(epochs, groups present) accuracy on the members of each group."""
    members = split.members[:, split.members.any(0)]
    return split.right @ members.astype(np.float64) / members.sum(0)


def average(split: Evaluations) -> np.ndarray:
    return split.right.mean(1)


def balanced(split: Evaluations) -> np.ndarray:
    return over(split.right, split.targets).mean(1)


def worst_class(split: Evaluations) -> np.ndarray:
    return over(split.right, split.targets).min(1)


def worst(split: Evaluations) -> np.ndarray:
    return over_groups(split).min(1)


def worst_inferred(split: Evaluations) -> np.ndarray:
    return over(split.right, split.inferred).min(1)


def group_average(split: Evaluations) -> np.ndarray:
    return over_groups(split).mean(1)


def few(split: Evaluations, share: float, seed: int) -> Evaluations:
    """A random `share` of the split, of at least one example a group."""
    rng = np.random.default_rng(seed)
    size = max(1, round(share * len(split.targets)))
    first = np.unique([rng.choice(np.flatnonzero(members)) for members in split.members.T if members.any()])
    rest = rng.permutation(np.setdiff1d(np.arange(len(split.targets)), first))
    rows = np.concatenate([first, rest[: max(0, size - len(first))]])
    return Evaluations(split.right[:, rows], split.targets[rows], split.members[rows])


# What a rule is called, the labels it reads, and the evaluation that it chooses from val, test, the share and the seed.
RULES: tuple[tuple[str, str, Rule], ...] = (
    ("last", "none", lambda val, test, share, seed: len(val.right) - 1),
    ("best average", "val classes", lambda val, test, share, seed: int(average(val).argmax())),
    ("best balanced", "val classes", lambda val, test, share, seed: int(balanced(val).argmax())),
    ("best worst class", "val classes", lambda val, test, share, seed: int(worst_class(val).argmax())),
    ("best worst inferred group", "val classes", lambda val, test, share, seed: int(worst_inferred(val).argmax())),
    ("best group average", "val groups", lambda val, test, share, seed: int(group_average(val).argmax())),
    ("best worst group", "val groups", lambda val, test, share, seed: int(worst(val).argmax())),
    ("best worst group, few labels", "a share of val groups",
     lambda val, test, share, seed: int(worst(few(val, share, seed)).argmax())),
    ("oracle", "test groups", lambda val, test, share, seed: int(worst(test).argmax())),
)  # fmt: skip


def evaluations(directory: Path, split: str) -> tuple[list[int], Evaluations]:
    """The epochs whose logits of the split a run kept, and how right they were."""
    files = {int(path.stem.rpartition("-")[2]): path for path in (directory / "evaluations").glob(f"{split}-*.npy")}
    with np.load(directory / "predictions" / f"{split}.npz") as saved:
        targets, members, inferred = saved["targets"], members_of(saved), saved.get("inferred")
    right = np.array([np.load(files[epoch]).argmax(1) == targets for epoch in sorted(files)])
    return sorted(files), Evaluations(right, targets, members, inferred)


# Of what test metric a table has a column.
METRICS = {"worst group": worst, "group average": group_average, "balanced": balanced, "average": average}
