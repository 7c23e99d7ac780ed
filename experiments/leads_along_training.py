"""Compare the poly loss with cross-entropy at equal shares of training after interpolation, on all pairs of CIFAR-10.

    imbalance reproduce leads_along_training --seeds=5 --config.data_dir=data
    imbalance reproduce leads_along_training --no-train       # the table from results/leads.csv.gz only

Data, network and batch size are those of `experiments.pairs`, with importance weights to the power 1 and 1.5. The runs are three
times as long, 240 epochs, and every loss has three learning rates.

A run reaches a share s of training after interpolation at the first evaluated epoch of which at least the share s of the epochs
so far came after the first epoch that predicted the whole training set correctly. There the two losses are compared. For each
pair and loss, val chooses the learning rate: the best mean over seeds of balanced accuracy at that epoch, among the
learning rates at which every seed reaches the share. So the choice reads neither test nor any other pair.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.data.sets.cifar10 import CLASSES
from imbalance.experiments.pairs import EQUIVALENCE, IDENTITY, LOSSES
from imbalance.metrics.clusters import ahead_and_behind, contrast
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, check_common_overrides, make_run, run_and_keep

STUDY = "leads"
EXPONENTS = (1.0, 1.5)
RATES = {"ce": (0.001, 0.003, 0.01), "poly": (0.0003, 0.001, 0.003)}
EPOCHS = 240
SHARES = (0.5, 0.65, 0.8)


def batches(common: Mapping[str, Any], seeds: int, work_dir: str) -> Iterable[list[Run]]:
    """Yield lists of runs, each to be trained as one stacked model: the runs of a loss on a pair of classes."""
    for pair in itertools.combinations(CLASSES, 2):
        for loss in LOSSES:
            yield [
                make_run(f"cifar_pair_{loss}", {**common, "data.classes": pair, "weights.exponent": exponent, "optim.lr": rate,
                                                "trainer.epochs": EPOCHS, "trainer.eval_splits": ("val", "test")}, seed, work_dir)
                for seed, exponent, rate in itertools.product(range(seeds), EXPONENTS, RATES[loss])
            ]  # fmt: skip


# The epoch of a run at which it is compared


def path(row: Row, split: str) -> dict[int, float]:
    """Return the balanced accuracy on a split at every evaluated epoch, by epoch; {} if the run diverged."""
    if row["status"] != "done":
        return {}
    return dict(zip(map(int, row["path: epochs"].split("|")), map(float, row[f"path: {split} balanced"].split("|"))))


def epoch_of_share(row: Row, share: float) -> int | None:
    """Return the first evaluated epoch with at least `share` of training after interpolation; None if the run has none."""
    if not row["interpolation epoch"]:
        return None
    first = int(row["interpolation epoch"])
    return next((epoch for epoch in path(row, "test") if (epoch - first + 1) / epoch >= share), None)


def early_stopped(row: Row) -> int | None:
    """Return the evaluated epoch with the best balanced accuracy on val; None if the run diverged."""
    val = path(row, "val")
    return max(val, key=lambda epoch: val[epoch], default=None)


# The table


def chosen(rows: Sequence[Row], epoch_of: Callable[[Row], int | None]) -> np.ndarray | None:
    """Return the (S,) test accuracies of a loss on a pair, at the learning rate with the best mean on val.

    Args:
        rows: the runs of all learning rates and seeds.
        epoch_of: returns the epoch at which a run is compared, or None if it does not reach this epoch; a learning rate counts
            only if all its runs reach theirs.

    Returns:
        The accuracies in the order of the seeds, or None if no learning rate counts.
    """
    best, accuracies = -np.inf, None
    for _, runs in itertools.groupby(sorted(rows, key=lambda r: (float(r["lr"]), int(r["seed"]))), lambda r: r["lr"]):
        at_epoch = [(row, epoch_of(row)) for row in runs]
        reached = [(row, epoch) for row, epoch in at_epoch if epoch is not None]
        if len(reached) < len(at_epoch):
            continue
        val = float(np.mean([path(row, "val")[epoch] for row, epoch in reached]))
        if val > best:
            best, accuracies = val, np.array([path(row, "test")[epoch] for row, epoch in reached])
    return accuracies


def differences(
    rows: Iterable[Row], exponent: float, epoch_of: Callable[[Row], int | None]
) -> dict[tuple[str, ...], np.ndarray]:
    """Return poly minus cross-entropy, one value for each seed, by pair of classes.

    A pair is left out if a loss has no learning rate that counts.

    Args:
        epoch_of: see `chosen`.
    """
    runs: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in rows:
        if float(row["exponent"]) == exponent:
            by_loss = runs.setdefault(tuple(row["classes"].split("+")), {loss: [] for loss in LOSSES})
            by_loss[row["name"].removeprefix("cifar_pair_")].append(row)
    leads = {}
    for pair, by_loss in runs.items():
        poly, cross_entropy = (chosen(by_loss[loss], epoch_of) for loss in ("poly", "ce"))
        if poly is not None and cross_entropy is not None:
            leads[pair] = poly - cross_entropy
    return leads


def leads_table(folder: Path) -> str:
    """Return a table of the lead of poly over cross-entropy, at each share of training after interpolation and early-stopped."""
    rows = kept_results.read(STUDY, folder)
    heads = ["weights", "compared at", "pairs", "seeds", "poly minus cross-entropy, points", "pairs ahead", "behind"]
    epochs: dict[str, Callable[[Row], int | None]] = {
        **{f"{share:.0%} of training after interpolation": lambda row, s=share: epoch_of_share(row, s) for share in SHARES},
        "the best epoch on val (early-stopped)": early_stopped,
    }  # fmt: skip
    table = []
    for exponent, (name, epoch_of) in itertools.product(EXPONENTS, epochs.items()):
        leads = differences(rows, exponent, epoch_of)
        if len(leads) < 2:
            continue
        values = np.stack(list(leads.values()))  # (pairs, seeds)
        result = contrast(values, [(CLASSES.index(a), CLASSES.index(b)) for a, b in leads])
        level = " (level)" if result.level(EQUIVALENCE) else ""
        table.append([f"IW^{exponent:g}", name, str(len(leads)), str(values.shape[1]), result.points() + level,
                      *map(str, ahead_and_behind(values))])  # fmt: skip
    return markdown(heads, table) if table else "No two pairs have finished yet.\n"


def leads_along_training(
    *, train: bool, overrides: Mapping[str, Any], seeds: int, work_dir: str, jobs: int, results: str
) -> None:
    """Train the runs that have no row in results/leads.csv.gz, and print the table.

    Args:
        train: False to train nothing.
        overrides: config values by key, for all runs.
        results: folder that holds the tables of results, such as results/.
    """
    if train:
        runs = batches(check_common_overrides(overrides), seeds, work_dir)
        run_and_keep(runs, jobs, STUDY, Path(results), IDENTITY)
    print(leads_table(Path(results)))
