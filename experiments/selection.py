"""Which epoch would another rule have chosen? From saved logits, without training again.

    imbalance select --config=colored_digits_erm,colored_digits_poly --seeds=10

Trains what is missing of these configs, keeping the logits; without --config it reads all runs under --work_dir that
kept theirs. For every config, test accuracy of the worst group, of groups on average, of classes on average and over all
examples at the epoch that each rule chooses, the mean over seeds, and the labels that the rule reads. All rules are
applied to the same runs, so that their differences are paired. The oracle reads test: what the others leave to be had.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.errors import BadInput
from imbalance.judge.scores import members_of

from .collect import collect
from .intervals import mean
from .runs import configured, evaluated_over, not_of_seeds, run_all
from .tables import markdown

KEPT = {"callbacks.keep_logits": True, "trainer.eval_splits": ("val", "test")}  # what a run must say to be read here


class Evaluations(NamedTuple):
    """A split at every evaluated epoch."""

    right: np.ndarray  # (epochs, N) bool
    targets: np.ndarray  # (N,)
    members: np.ndarray  # (N, G) bool: each example's group, or its evaluation groups
    inferred: np.ndarray | None = None  # (N,), where the run's methods saw inferred groups


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


Rule = Callable[[Evaluations, Evaluations, float, int], int]
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


def select(
    *,
    config: Sequence[str],
    overrides: Mapping[str, Any],
    share: float,
    seeds: int,
    work_dir: str,
    jobs: int,
    at_once: int,
) -> None:
    """Train what is missing of the configs, if any are named, and print a row for every rule.

    Args:
        overrides: of all of them.
        share: of val whose groups the rule for few labels reads.
    """
    folder, wanted = Path(work_dir), None
    if config:
        common = {**not_of_seeds(overrides), **KEPT}
        runs = [configured(c, common, s, work_dir) for c in config for s in range(seeds)]
        run_all(runs, jobs, at_once)
        wanted = {str(run.directory.relative_to(folder)) for run in runs}
    elif overrides:
        raise BadInput("--config.<key>=<value>: is for configs that --config names")
    found, read = {}, []
    for row in collect(folder):
        directory = folder / row["run"]
        if (wanted is not None and row["run"] not in wanted) or row["status"] != "done":
            continue
        if all(any(directory.glob(f"evaluations/{split}-*.npy")) for split in ("val", "test")):
            (epochs, val), (_, test) = evaluations(directory, "val"), evaluations(directory, "test")
            read.append(row)
            metrics = [metric(test) for metric in METRICS.values()]
            for name, _, rule in RULES:
                if "inferred" in name and val.inferred is None:
                    continue
                chosen = rule(val, test, share, row["seed"])
                values = (epochs[chosen], *(metric[chosen] for metric in metrics))
                found.setdefault((row["name"], row["overrides"]), {}).setdefault(name, []).append(values)
    if not found:
        raise BadInput(f"--work_dir={work_dir}: no finished run there kept its logits of val and test; see --config")
    print(f"Test, %: mean ± 95 % t-interval over n seeds; few labels are {share:.0%} of val.")
    if groups := evaluated_over(read, "test"):
        print(f"Groups are {groups}.")
    print()
    rows = []
    for (name, overrides), by_rule in found.items():
        others = [part for part in overrides.split(",") if part.partition("=")[0] not in KEPT]
        for rule, labels, _ in RULES:
            if rule not in by_rule:
                continue
            epochs, *metrics = zip(*by_rule[rule])
            cells = [",".join([name, *others]), rule, labels, f"{np.mean(epochs):.0f}"]
            rows.append([*cells, *(mean(m, 0, 1).percent() for m in metrics), len(epochs)])
    print(markdown(["config", "rule", "labels it reads", "epoch", *METRICS, "n"], rows), end="")
