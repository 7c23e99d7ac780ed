"""Compare the poly loss with cross-entropy at equal shares of training after interpolation, on all pairs of ten classes.

    imbalance reproduce leads_along_training --data=cifar,fashion --roles=as_listed --seeds=5 --config.data_dir=data
    imbalance reproduce leads_along_training --no-train       # the table from results/leads.csv.gz only

Data, network and batch size are those of `experiments.pairs`, with importance weights to the power 1 and 1.5. The runs have 240
epochs, and every loss has three learning rates. With the roles `as_listed` the first class of a pair has 250 training images
and the second has 25; with the roles `swapped` the second class has 250 and the first has 25.

A run reaches a share s of training after interpolation at the first evaluated epoch of which at least the share s of the epochs
so far came after the first epoch that predicted the whole training set correctly. There the two losses are compared. For each
pair and loss, val chooses the learning rate: the best mean over seeds of balanced accuracy at that epoch, among the learning
rates at which every seed reaches the share. So the choice reads neither test nor any other pair. The losses are also compared
at the last epoch, among learning rates at which every seed interpolates, because at an equal share they have trained for
different numbers of epochs.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.experiments.pairs import CLASSES, EQUIVALENCE, IDENTITY, LOSSES, TITLES
from imbalance.metrics.clusters import ahead_and_behind, contrast
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, add_own_values, check_common_overrides, make_run, run_and_keep

STUDY = "leads"
PATHS = ("epochs", "val balanced", "test balanced")  # columns of the results at every evaluated epoch
EXPONENTS = (1.0, 1.5)
RATES = {"ce": (0.001, 0.003, 0.01), "poly": (0.0003, 0.001, 0.003)}
EPOCHS = 240
SHARED_RATES = (0.001, 0.003)
SHARES = (0.5, 0.65, 0.8)
UNTIL = 80  # last epoch of the table by learning rate, as in the runs of `pairs`
EVERY = 10  # epochs between two evaluations, as in the configs
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
                make_run(f"{data}_pair_{loss}", add_own_values(common, {
                    "data.classes": classes, "weights.exponent": exponent, "optim.lr": rate,
                    "trainer.epochs": EPOCHS, "trainer.eval_splits": ("val", "test")}), seed, work_dir)
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


def last_if_interpolates(row: Row) -> int | None:
    """Return the last epoch; None if the run diverged or never predicted the whole training set correctly."""
    return last(row) if row["interpolation epoch"] else None


def last(row: Row) -> int | None:
    """Return the last evaluated epoch; None if the run diverged."""
    return max(path(row, "test"), default=None)


def early_stopped(row: Row) -> int | None:
    """Return the evaluated epoch with the best balanced accuracy on val; None if the run diverged."""
    val = path(row, "val")
    return max(val, key=lambda epoch: val[epoch], default=None)


# The table


class Choice(NamedTuple):
    """The choice of val for a loss on a pair of classes, and the test results there.

    rate: the learning rate.
    epochs: (S,) epochs at which the runs are compared, in the order of the seeds.
    accuracies: (S,) test balanced accuracies at these epochs.
    """

    rate: float
    epochs: np.ndarray
    accuracies: np.ndarray


def chosen(rows: Sequence[Row], epoch_of: Callable[[Row], int | None]) -> Choice | None:
    """Return the learning rate of a loss on a pair with the best mean on val; None if no learning rate counts.

    Args:
        rows: the runs of all learning rates and seeds.
        epoch_of: returns the epoch at which a run is compared, or None if it does not reach this epoch; a learning rate counts
            only if all its runs reach theirs.
    """
    best, choice = -np.inf, None
    for rate, runs in itertools.groupby(
        sorted(rows, key=lambda r: (float(r["lr"]), int(r["seed"]))), lambda r: r["lr"]
    ):
        at_epoch = [(row, epoch_of(row)) for row in runs]
        reached = [(row, epoch) for row, epoch in at_epoch if epoch is not None]
        if len(reached) < len(at_epoch):
            continue
        val = float(np.mean([path(row, "val")[epoch] for row, epoch in reached]))
        if val > best:
            accuracies = np.array([path(row, "test")[epoch] for row, epoch in reached])
            best, choice = val, Choice(float(rate), np.array([epoch for _, epoch in reached]), accuracies)
    return choice


Pair = tuple[str, str]  # the class with more images, then the one with fewer


def choices(
    rows: Iterable[Row], exponent: float, epoch_of: Callable[[Row], int | None]
) -> dict[Pair, dict[str, Choice | None]]:
    """Return the choices of val on each pair of classes, by loss.

    Args:
        rows: the rows of one data set, all with the same seeds.
        epoch_of: see `chosen`.
    """
    runs: dict[Pair, dict[str, list[Row]]] = {}
    for row in rows:
        if float(row["exponent"]) == exponent:
            first, second = row["classes"].split("+")
            runs.setdefault((first, second), {loss: [] for loss in LOSSES})[row["name"].rpartition("_")[2]].append(row)
    return {
        pair: {loss: chosen(of_loss, epoch_of) for loss, of_loss in by_loss.items()} for pair, by_loss in runs.items()
    }


def with_whole_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return the rows whose seed every setting has; a setting is a loss, a pair of classes, an exponent and a learning rate."""
    settings: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        setting = tuple(row[column] for column in ("name", "classes", "exponent", "lr"))
        settings.setdefault(setting, {})[row["seed"]] = row
    seeds = set.intersection(*(set(by_seed) for by_seed in settings.values())) if settings else set()
    return [by_seed[seed] for by_seed in settings.values() for seed in sorted(seeds, key=int)]


def by_roles(rows: Iterable[Row], data: str) -> dict[str, list[Row]]:
    """Return the rows of a data set for each of ROLES that has any, and for "both" if both have; see `with_whole_seeds`.

    Args:
        data: a key of `pairs.CLASSES`.
    """
    parts: dict[str, list[Row]] = {name: [] for name in ROLES}
    for row in rows:
        if row["name"].rpartition("_pair_")[0] == data:
            first, second = map(CLASSES[data].index, row["classes"].split("+"))
            parts[ROLES[int(first > second)]].append(row)
    parts = {name: of_role for name, of_role in parts.items() if of_role}
    if len(parts) == len(ROLES):
        parts["both"] = [row for of_role in parts.values() for row in of_role]
    return {name: with_whole_seeds(of_role) for name, of_role in parts.items()}


def leads(
    found: Mapping[Pair, Mapping[str, Choice | None]], data: str
) -> tuple[list[tuple[int, int]], np.ndarray] | None:
    """Return the lead of poly over cross-entropy on the pairs for which both losses have a choice; None for fewer than two pairs.

    Args:
        found: the result of `choices`; if it has both orders of the classes, a pair needs choices in both.
        data: a key of `pairs.CLASSES`.

    Returns:
        The numbers of the two classes of each of P pairs, and the (P, R, S) differences between the test accuracies, for R role
        orders and S seeds.
    """
    values: dict[tuple[int, int], list[np.ndarray]] = {}
    for (first, second), by_loss in found.items():
        poly, cross_entropy = by_loss["poly"], by_loss["ce"]
        if poly is not None and cross_entropy is not None:
            numbers = CLASSES[data].index(first), CLASSES[data].index(second)
            values.setdefault((min(numbers), max(numbers)), []).append(poly.accuracies - cross_entropy.accuracies)
    orders = max((len(of_pair) for of_pair in values.values()), default=0)
    whole = {pair: of_pair for pair, of_pair in sorted(values.items()) if len(of_pair) == orders}
    return (list(whole), np.stack([np.stack(of_pair) for of_pair in whole.values()])) if len(whole) > 1 else None


COMPARED_AT: dict[str, Callable[[Row], int | None]] = {
    **{f"{share:.0%} of training after interpolation": lambda row, s=share: epoch_of_share(row, s) for share in SHARES},
    f"epoch {EPOCHS}": last_if_interpolates,
    "the best epoch on val (early-stopped)": early_stopped,
    "early-stopped, at the learning rates that both losses have": lambda row: (
        early_stopped(row) if float(row["lr"]) in SHARED_RATES else None
    ),
}


MORE_IMAGES = {"as_listed": "first class", "swapped": "second class", "both": "either, averaged"}


def leads_table(folder: Path) -> str:
    """Return a table of the lead of poly over cross-entropy, at each share of training after interpolation and early-stopped.

    The last columns have two values, of cross-entropy and of poly: the pairs without a learning rate that counts, the share
    of chosen learning rates that are the smallest or the largest, and the share of early-stopped runs whose best epoch is the
    first evaluated.
    """
    rows = kept_results.read(STUDY, folder)
    heads = ["data", "more images", "weights", "compared at", "pairs", "seeds", "poly minus cross-entropy, points", "pairs ahead, behind",
             "pairs without a rate", "rates at an end", "first epoch"]  # fmt: skip
    table = []
    for data in CLASSES:
        parts = by_roles(rows, data)
        for exponent, (roles, of_role) in itertools.product(EXPONENTS, parts.items()):
            results = {}
            for epoch, epoch_of in COMPARED_AT.items():
                found = choices(of_role, exponent, epoch_of)
                results[epoch] = leads(found, data)
                if results[epoch] is None:
                    continue
                pairs, values = results[epoch]
                result = contrast(values, pairs)
                by_loss = {loss: [by_loss[loss] for by_loss in found.values()] for loss in LOSSES}
                missing = [sum(choice is None for choice in of_loss) for of_loss in by_loss.values()]
                ends, first = [], []
                for loss, of_loss in by_loss.items():
                    kept = [choice for choice in of_loss if choice is not None]
                    ends.append(np.mean([choice.rate in (RATES[loss][0], RATES[loss][-1]) for choice in kept]))
                    first.append(np.mean([choice.epochs == EVERY for choice in kept]))
                table.append([
                    TITLES[data], MORE_IMAGES[roles], f"IW^{exponent:g}", epoch, str(len(pairs)), str(values.shape[-1]),
                    result.points() + (" (level)" if result.level(EQUIVALENCE) else ""), "{}, {}".format(*ahead_and_behind(values)),
                    "{}, {}".format(*missing), "–" if "both losses" in epoch else "{:.0%}, {:.0%}".format(*ends),
                    "{:.0%}, {:.0%}".format(*first) if "early-stopped" in epoch else "–",
                ])  # fmt: skip
            few, many = (results[f"{share:.0%} of training after interpolation"] for share in (SHARES[0], SHARES[-1]))
            shared = [pair for pair in few[0] if pair in many[0]] if few and many else []
            if len(shared) > 1:
                growth = np.stack([many[1][many[0].index(pair)] - few[1][few[0].index(pair)] for pair in shared])
                table.append([
                    TITLES[data], MORE_IMAGES[roles], f"IW^{exponent:g}", f"{SHARES[-1]:.0%} minus {SHARES[0]:.0%}, the same pairs",
                    str(len(shared)), str(growth.shape[-1]), contrast(growth, shared).points(),
                    "{}, {}".format(*ahead_and_behind(growth)), "–", "–", "–",
                ])  # fmt: skip
    return markdown(heads, table) if table else "No two pairs have finished yet.\n"


def leads_summary(folder: Path) -> str:
    """Return a short table of the rows of `leads_table`: the leads, with the numbers of pairs that have one."""
    rows = kept_results.read(STUDY, folder)
    columns = [epoch for epoch in COMPARED_AT if epoch != "the best epoch on val (early-stopped)"]
    table = []
    for data in CLASSES:
        for roles, of_role in by_roles(rows, data).items():
            for exponent in EXPONENTS:
                found = [leads(choices(of_role, exponent, COMPARED_AT[epoch]), data) for epoch in columns]
                cells = [f"{contrast(lead[1], lead[0]).points()} ({len(lead[0])})" if lead else "–" for lead in found]
                if any(found):
                    seeds = next(lead[1].shape[-1] for lead in found if lead)
                    table.append([TITLES[data], MORE_IMAGES[roles], str(seeds), f"IW^{exponent:g}", *cells])
    heads = ["data", "more images", "seeds", "weights", *columns]
    return markdown(heads, table) if table else "No two pairs have finished yet.\n"


def rates_table(folder: Path) -> str:
    """Return a table of poly minus cross-entropy on CIFAR-10 up to epoch UNTIL, at each learning rate of cross-entropy, and at val's choice.

    Val chooses for each pair, at the epoch of the column. Poly has the middle one of its learning rates. "early-stopped" is the epoch with the best balanced accuracy on val.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows = by_roles(kept_results.read(STUDY, folder), "cifar").get("as_listed", [])

    def until(row: Row) -> Row:
        epochs = [epoch for epoch in path(row, "test") if epoch <= UNTIL]
        return row | {f"path: {key}": "|".join(row[f"path: {key}"].split("|")[: len(epochs)]) for key in PATHS}

    def accuracies(
        loss: str, exponent: float, rates: Sequence[float], epoch_of: Callable[[Row], int | None]
    ) -> dict[Pair, np.ndarray]:
        cut = [until(row) for row in rows if float(row["lr"]) in rates and row["status"] == "done"]
        found = {pair: by_loss[loss] for pair, by_loss in choices(cut, exponent, epoch_of).items()}
        return {pair: choice.accuracies for pair, choice in found.items() if choice}

    kinds = {"both at the last epoch": (last, last), "poly at the last epoch, cross-entropy early-stopped": (last, early_stopped),
             "both early-stopped": (early_stopped, early_stopped)}  # fmt: skip
    table = []
    rates = {**{f"{rate:g}": (rate,) for rate in RATES["ce"]}, "val's choice": RATES["ce"]}
    for exponent, (title, tried) in itertools.product(EXPONENTS, rates.items()):
        cells = []
        for of_poly, of_ce in kinds.values():
            poly, ce = (
                accuracies("poly", exponent, RATES["poly"][1:2], of_poly),
                accuracies("ce", exponent, tried, of_ce),
            )
            shared = sorted(poly.keys() & ce.keys())
            numbers = [(CLASSES["cifar"].index(first), CLASSES["cifar"].index(second)) for first, second in shared]
            if len(shared) > 1:
                cells.append(contrast(np.stack([poly[pair] - ce[pair] for pair in shared]), numbers).points())
        if cells:
            table.append([f"IW^{exponent:g}", title, *cells])
    heads = ["weights", "learning rate of cross-entropy", *kinds]
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
