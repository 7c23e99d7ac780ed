"""Compare the poly loss with cross-entropy at equal shares of training after interpolation, on all pairs of ten classes.

    imbalance reproduce leads_along_training --data=cifar,fashion --roles=as_listed --seeds=5 --config.data_dir=data
    imbalance reproduce leads_along_training --no-train       # the table from results/leads.csv.gz only

Data, network and batch size are those of `experiments.pairs`, with importance weights to the power 1 and 1.5. The runs have 240
epochs, and every loss has three learning rates. With the roles `as_listed` the first class of a pair has 250 training images
and the second has 25; with the roles `swapped` the second class has 250 and the first has 25.

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

from imbalance.experiments.pairs import CLASSES, EQUIVALENCE, IDENTITY, LOSSES, TITLES
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
ROLES = ("as_listed", "swapped")  # which class of a pair has more training images: the first, the second


def batches(common: Mapping[str, Any], data: str, roles: str, seeds: int, work_dir: str) -> Iterable[list[Run]]:
    """Yield lists of runs, each to be trained as one stacked model: the runs of a loss on a pair of classes.

    Args:
        common: overrides of all runs.
        data: a key of `pairs.CLASSES`.
        roles: one of ROLES.
    """
    for pair in itertools.combinations(CLASSES[data], 2):
        classes = pair if roles == "as_listed" else pair[::-1]
        for loss in LOSSES:
            yield [
                make_run(f"{data}_pair_{loss}", {**common, "data.classes": classes, "weights.exponent": exponent, "optim.lr": rate,
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


Pair = tuple[str, str]


def differences(rows: Iterable[Row], exponent: float, epoch_of: Callable[[Row], int | None]) -> dict[Pair, np.ndarray]:
    """Return poly minus cross-entropy, one value for each seed, by pair of classes: the one with more images comes first.

    A pair is left out if a loss has no learning rate that counts.

    Args:
        rows: the rows of one data set, all with the same seeds.
        epoch_of: see `chosen`.
    """
    runs: dict[Pair, dict[str, list[Row]]] = {}
    for row in rows:
        if float(row["exponent"]) == exponent:
            first, second = row["classes"].split("+")
            runs.setdefault((first, second), {loss: [] for loss in LOSSES})[row["name"].rpartition("_")[2]].append(row)
    leads = {}
    for pair, by_loss in runs.items():
        poly, cross_entropy = (chosen(by_loss[loss], epoch_of) for loss in ("poly", "ce"))
        if poly is not None and cross_entropy is not None:
            leads[pair] = poly - cross_entropy
    return leads


def with_whole_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return the rows whose seed every setting has; a setting is a loss, a pair of classes, an exponent and a learning rate."""
    settings: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        setting = tuple(row[column] for column in ("name", "classes", "exponent", "lr"))
        settings.setdefault(setting, {})[row["seed"]] = row
    seeds = set.intersection(*(set(by_seed) for by_seed in settings.values())) if settings else set()
    return [by_seed[seed] for by_seed in settings.values() for seed in sorted(seeds, key=int)]


def leads_by_roles(
    rows: Iterable[Row], data: str, exponent: float, epoch_of: Callable[[Row], int | None]
) -> dict[str, tuple[list[tuple[int, int]], np.ndarray]]:
    """Return the leads of poly on a data set for each of ROLES, and for "both" of them on the same pairs and seeds.

    Args:
        data: a key of `pairs.CLASSES`.
        epoch_of: see `chosen`.

    Returns:
        The numbers of the two classes of each of P pairs, and the leads: (P, S), and (P, 2, S) for "both". Roles with fewer
        than two pairs are left out.
    """
    classes = CLASSES[data]

    def role(row: Row) -> str:
        first, second = row["classes"].split("+")
        return ROLES[int(classes.index(first) > classes.index(second))]

    by_role: dict[str, list[Row]] = {name: [] for name in ROLES}
    for row in rows:
        if row["name"].rpartition("_pair_")[0] == data:
            by_role[role(row)].append(row)
    leads = {
        name: differences(with_whole_seeds(of_role), exponent, epoch_of) for name, of_role in by_role.items() if of_role
    }
    result = {name: (list(pairs), list(pairs.values())) for name, pairs in leads.items()}
    if len(leads) == len(ROLES):
        joint = differences(with_whole_seeds(by_role["as_listed"] + by_role["swapped"]), exponent, epoch_of)
        shared = [(a, b) for a, b in joint if classes.index(a) < classes.index(b) and (b, a) in joint]
        result["both"] = shared, [np.stack([joint[a, b], joint[b, a]]) for a, b in shared]
    return {
        name: ([(classes.index(a), classes.index(b)) for a, b in pairs], np.stack(values))
        for name, (pairs, values) in result.items() if len(pairs) > 1
    }  # fmt: skip


def leads_table(folder: Path) -> str:
    """Return a table of the lead of poly over cross-entropy, at each share of training after interpolation and early-stopped."""
    rows = kept_results.read(STUDY, folder)
    heads = [
        "data",
        "more images",
        "weights",
        "compared at",
        "pairs",
        "seeds",
        "poly minus cross-entropy, points",
        "pairs ahead",
        "behind",
    ]
    names = {"as_listed": "first class", "swapped": "second class", "both": "both, averaged"}
    epochs: dict[str, Callable[[Row], int | None]] = {
        **{f"{share:.0%} of training after interpolation": lambda row, s=share: epoch_of_share(row, s) for share in SHARES},
        "the best epoch on val (early-stopped)": early_stopped,
    }  # fmt: skip
    table = []
    for data, exponent, (epoch, epoch_of) in itertools.product(CLASSES, EXPONENTS, epochs.items()):
        for roles, (pairs, leads) in leads_by_roles(rows, data, exponent, epoch_of).items():
            result = contrast(leads, pairs)
            level = " (level)" if result.level(EQUIVALENCE) else ""
            table.append([TITLES[data], names[roles], f"IW^{exponent:g}", epoch, str(len(pairs)), str(leads.shape[-1]),
                          result.points() + level, *map(str, ahead_and_behind(leads))])  # fmt: skip
    return markdown(heads, table) if table else "No two pairs have finished yet.\n"


def leads_along_training(
    *,
    data: Sequence[str],
    roles: Sequence[str],
    train: bool,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    results: str,
) -> None:
    """Train the runs that have no row in results/leads.csv.gz, and print the table.

    Args:
        data: keys of `pairs.CLASSES`.
        roles: some of ROLES.
        train: False to train nothing.
        overrides: config values by key, for all runs.
        results: folder that holds the tables of results, such as results/.
    """
    if train:
        common = check_common_overrides(overrides)
        for name, order in itertools.product(data, roles):
            run_and_keep(batches(common, name, order, seeds, work_dir), jobs, STUDY, Path(results), IDENTITY)
    print(leads_table(Path(results)))
