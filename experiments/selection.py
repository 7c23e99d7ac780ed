"""Which epoch would another rule have chosen? From saved logits, without training again.

    python -m experiments.selection --configs=colored_digits_erm,colored_digits_poly --seeds=10

Trains what is missing of these configs, keeping the logits; without --configs it reads all runs under --work_dir that
kept theirs. For every config, test accuracy of the worst group, of groups on average, of classes on average and over all
examples at the epoch that each rule chooses, the mean over seeds, and the labels that the rule reads. All rules are
applied to the same runs, so that their differences are paired. The oracle reads test: what the others leave to be had.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags

from experiments.collect import collect
from experiments.intervals import mean
from experiments.runs import AT_ONCE, CONFIGS, JOBS, SEEDS, WORK_DIR, configured, exit_status, run_all
from imbalance.errors import BadInput

SHARE = flags.DEFINE_float("share", 0.1, "Of val whose groups the rule for few labels reads.", 0, 1)

KEPT = {"callbacks.keep_logits": True, "trainer.eval_splits": ("val", "test")}  # what a run must say to be read here


class Judged(NamedTuple):
    """A split at every evaluated epoch."""

    right: np.ndarray  # (epochs, N) bool
    targets: np.ndarray  # (N,)
    groups: np.ndarray  # (N,)


def over(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(epochs, labels present) accuracy on the examples with each label."""
    return np.stack([right[:, labels == label].mean(1) for label in np.unique(labels)], axis=1)


def average(split: Judged) -> np.ndarray:
    return split.right.mean(1)


def balanced(split: Judged) -> np.ndarray:
    return over(split.right, split.targets).mean(1)


def worst(split: Judged) -> np.ndarray:
    return over(split.right, split.groups).min(1)


def group_average(split: Judged) -> np.ndarray:
    return over(split.right, split.groups).mean(1)


def few(split: Judged, share: float, seed: int) -> Judged:
    """A random `share` of the split, of at least one example a group."""
    rng = np.random.default_rng(seed)
    size = max(1, round(share * len(split.targets)))
    first = [rng.choice(np.flatnonzero(split.groups == group)) for group in np.unique(split.groups)]
    rest = rng.permutation(np.setdiff1d(np.arange(len(split.targets)), first))
    rows = np.concatenate([first, rest[: max(0, size - len(first))]])
    return Judged(split.right[:, rows], split.targets[rows], split.groups[rows])


Rule = Callable[[Judged, Judged, float, int], int]
# What a rule is called, the labels it reads, and the evaluation that it chooses from val, test, the share and the seed.
RULES: tuple[tuple[str, str, Rule], ...] = (
    ("last", "none", lambda val, test, share, seed: len(val.right) - 1),
    ("best average", "val classes", lambda val, test, share, seed: int(average(val).argmax())),
    ("best balanced", "val classes", lambda val, test, share, seed: int(balanced(val).argmax())),
    ("best group average", "val groups", lambda val, test, share, seed: int(group_average(val).argmax())),
    ("best worst group", "val groups", lambda val, test, share, seed: int(worst(val).argmax())),
    ("best worst group, few labels", "a share of val groups",
     lambda val, test, share, seed: int(worst(few(val, share, seed)).argmax())),
    ("oracle", "test groups", lambda val, test, share, seed: int(worst(test).argmax())),
)  # fmt: skip


def judged(directory: Path, split: str) -> tuple[list[int], Judged]:
    """The epochs whose logits of the split a run kept, and how right they were."""
    files = {int(path.stem.rpartition("-")[2]): path for path in (directory / "evaluations").glob(f"{split}-*.npy")}
    with np.load(directory / "predictions" / f"{split}.npz") as saved:
        targets, groups = saved["targets"], saved["groups"]
    right = np.array([np.load(files[epoch]).argmax(1) == targets for epoch in sorted(files)])
    return sorted(files), Judged(right, targets, groups)


# Of what test metric a table has a column.
METRICS = {"worst group": worst, "group average": group_average, "balanced": balanced, "average": average}


def compare() -> None:
    work_dir = Path(WORK_DIR.value)
    if CONFIGS.value:
        runs = [configured(c, KEPT, s, WORK_DIR.value) for c in CONFIGS.value for s in range(SEEDS.value)]
        run_all(runs, JOBS.value, AT_ONCE.value)
        wanted = {str(run.directory.relative_to(work_dir)) for run in runs}
    found = {}
    for row in collect(work_dir):
        directory = work_dir / row["run"]
        if (CONFIGS.value and row["run"] not in wanted) or row["status"] != "done":
            continue
        if all(any(directory.glob(f"evaluations/{split}-*.npy")) for split in ("val", "test")):
            (epochs, val), (_, test) = judged(directory, "val"), judged(directory, "test")
            metrics = [metric(test) for metric in METRICS.values()]
            for name, _, rule in RULES:
                chosen = rule(val, test, SHARE.value, row["seed"])
                values = (epochs[chosen], *(metric[chosen] for metric in metrics))
                found.setdefault((row["name"], row["overrides"]), {}).setdefault(name, []).append(values)
    if not found:
        raise BadInput(f"--work_dir={work_dir}: no finished run there kept its logits of val and test; see --configs")
    print(f"Test, %: mean ± 95 % t-interval over n seeds; few labels are {SHARE.value:.0%} of val.\n")
    heads = ("config", "rule", "labels it reads", "epoch", *METRICS, "n")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for (name, overrides), by_rule in found.items():
        others = [part for part in overrides.split(",") if part.partition("=")[0] not in KEPT]
        for rule, labels, _ in RULES:
            epochs, *metrics = zip(*by_rule[rule])
            cells = [",".join([name, *others]), rule, labels, f"{np.mean(epochs):.0f}"]
            print("| " + " | ".join([*cells, *(mean(m).percent() for m in metrics), str(len(epochs))]) + " |")


def main(argv: list[str]) -> int:
    return exit_status(compare, argv)


if __name__ == "__main__":
    app.run(main)
