"""Select an epoch of a finished run by different rules, from the logits that the run saved at each evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imbalance.config.run_directory import read_logits, read_predictions
from imbalance.errors import Damaged
from imbalance.metrics.scores import saved_group_mask

# The config values that a run must have, so that this module finds its logits.
KEPT = {
    "callbacks.keep_logits": True,
    "trainer.eval_splits": ("val", "test"),
}


class Evaluations(NamedTuple):
    """The predictions on a split at each evaluated epoch.

    right: (epochs, N) bool, True for a right prediction.
    targets: (N,) the class of each example.
    group_mask: (N, G) bool, the evaluation groups of each example, or its group if there are no evaluation groups.
    inferred: (N,) the inferred group of each example; None if the run inferred no groups.
    """

    right: np.ndarray
    targets: np.ndarray
    group_mask: np.ndarray
    inferred: np.ndarray | None = None


Rule = Callable[[Evaluations, Evaluations, float, int], int]  # (val, test, share, seed) -> index of an evaluation


def label_accuracies(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return, at each epoch, the accuracy on the examples of each label that occurs, as an array (epochs, labels).

    Args:
        right: (epochs, N) bool, True for a right prediction.
        labels: (N,) the label of each example.
    """
    return np.stack([right[:, labels == label].mean(1) for label in np.unique(labels)], axis=1)


def group_accuracies(split: Evaluations) -> np.ndarray:
    """Return, at each epoch, the accuracy on each group that has examples, as an array (epochs, groups)."""
    mask = split.group_mask[:, split.group_mask.any(0)]
    return split.right @ mask.astype(np.float64) / mask.sum(0)


def average(split: Evaluations) -> np.ndarray:
    """Return the accuracy over all examples at each epoch."""
    return split.right.mean(1)


def balanced(split: Evaluations) -> np.ndarray:
    """Return the mean recall of the classes at each epoch."""
    return label_accuracies(split.right, split.targets).mean(1)


def worst_class(split: Evaluations) -> np.ndarray:
    """Return the recall of the worst class at each epoch."""
    return label_accuracies(split.right, split.targets).min(1)


def worst(split: Evaluations) -> np.ndarray:
    """Return the accuracy of the worst group at each epoch."""
    return group_accuracies(split).min(1)


def worst_inferred(split: Evaluations) -> np.ndarray:
    """Return the accuracy of the worst inferred group at each epoch; the run must have inferred groups."""
    assert split.inferred is not None
    return label_accuracies(split.right, split.inferred).min(1)


def group_average(split: Evaluations) -> np.ndarray:
    """Return the mean accuracy of the groups at each epoch."""
    return group_accuracies(split).mean(1)


def sample(split: Evaluations, share: float, seed: int) -> Evaluations:
    """Draw a random `share` of the examples of a split, with at least one example of each group."""
    rng = np.random.default_rng(seed)
    size = max(1, round(share * len(split.targets)))
    first = np.unique([rng.choice(np.flatnonzero(in_group)) for in_group in split.group_mask.T if in_group.any()])
    rest = rng.permutation(np.delete(np.arange(len(split.targets)), first))
    rows = np.concatenate([first, rest[: max(0, size - len(first))]])
    return Evaluations(split.right[:, rows], split.targets[rows], split.group_mask[rows])


# The name of each rule, the labels that it reads, and its function.
RULES: tuple[tuple[str, str, Rule], ...] = (
    ("last", "none", lambda val, test, share, seed: len(val.right) - 1),
    ("best average", "val classes", lambda val, test, share, seed: int(average(val).argmax())),
    ("best balanced", "val classes", lambda val, test, share, seed: int(balanced(val).argmax())),
    ("best worst class", "val classes", lambda val, test, share, seed: int(worst_class(val).argmax())),
    ("best worst inferred group", "val classes", lambda val, test, share, seed: int(worst_inferred(val).argmax())),
    ("best group average", "val groups", lambda val, test, share, seed: int(group_average(val).argmax())),
    ("best worst group", "val groups", lambda val, test, share, seed: int(worst(val).argmax())),
    ("best worst group, few labels", "a share of val groups",
     lambda val, test, share, seed: int(worst(sample(val, share, seed)).argmax())),
    ("oracle", "test groups", lambda val, test, share, seed: int(worst(test).argmax())),
)  # fmt: skip


def evaluations(directory: Path, split: str) -> tuple[list[int], Evaluations]:
    """Return the epochs at which a run saved the logits of a split, and the predictions at these epochs.

    Args:
        directory: the run directory.
        split: "val" or "test".
    """
    saved, logits = read_predictions(directory, split), read_logits(directory, split)
    targets = saved["targets"]
    for epoch, array in logits.items():
        if array.ndim != 2 or len(array) != len(targets):
            raise Damaged(
                directory / "evaluations" / f"{split}-{epoch}.npy", f"not the logits of {len(targets):,} examples"
            )
    right = np.array([array.argmax(1) == targets for array in logits.values()])
    return list(logits), Evaluations(right, targets, saved_group_mask(saved), saved.get("inferred"))


# The metrics of the selected epoch on test, which tables of selection rules show.
METRICS = {"worst group": worst, "group average": group_average, "balanced": balanced, "average": average}
