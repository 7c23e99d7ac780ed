"""How general is the claim? All 45 pairs of the ten classes of Fashion-MNIST, and of CIFAR-10, ten to one.

    imbalance reproduce pairs --data=fashion,cifar --seeds=10 --config.data_dir=data
    imbalance reproduce pairs --no-train       # the tables and the picture of what results/ has

On every pair a perceptron is trained on 250 images of the first class and 25 of the second (configs/<data>_pair_ce.py and
_poly.py), with {cross-entropy, poly} × weights to the power 0, 1 and 1.5. A seed draws images, initialisation and order,
the same for all six. Evaluated are the last epoch and the one with the best balanced accuracy on val, which is as large as the
training set and looked at every ten epochs; test has 1,000 of each class.

Rates come first: for each of the six, the best of four on val, over four pairs at two seeds that are not used again,
among those rates at which three runs of four come to predict all of their training set rightly: what the claim is about.
Then each loss under weights at the rate that it has without them, so that weights are all that differs.

Runs that results/pairs.csv.gz has are not run again; those that finish are added to it.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.data.sets.cifar10 import CLASSES as CIFAR10
from imbalance.data.sets.fashion import CLASSES as FASHION
from imbalance.errors import BadInput
from imbalance.experiments.pairs_report import EXPONENTS, LOSSES, METHODS, TITLES, Method, label, one_rate_table, report
from imbalance.report import keep as kept
from imbalance.report.keep import Row, numbers
from imbalance.report.tables import Raw, markdown
from imbalance.sweep.runs import Run, configured, not_of_seeds, run_batches

STUDY = "pairs"
CLASSES = {"fashion": FASHION, "cifar": CIFAR10}
RATES = {"fashion": (0.001, 0.003, 0.01, 0.03), "cifar": (0.0003, 0.001, 0.003, 0.01)}
TUNED_ON = {
    "fashion": (("T-shirt", "shirt"), ("sandal", "bag"), ("pullover", "coat"), ("sneaker", "ankle boot")),
    "cifar": (("cat", "dog"), ("airplane", "frog"), ("automobile", "truck"), ("bird", "ship")),
}
TUNING_SEEDS = (1000, 1001)
INTERPOLATING = 0.75  # at least, of the tuning runs


class Place(NamedTuple):
    """Where runs are made and kept, and with what."""

    work_dir: str
    folder: Path  # of results
    common: Mapping[str, Any]  # overrides of all runs
    jobs: int


def point(where: Place, data: str, method: Method, pair: Sequence[str], rate: float, seed: int) -> Run:
    """The run of a method on a pair."""
    loss, exponent = method
    overrides = {"data.classes": tuple(pair), "weights.exponent": exponent, "optim.lr": rate,
                 "trainer.eval_splits": ("val", "test")}  # fmt: skip
    return configured(f"{data}_pair_{loss}", {**where.common, **overrides}, seed, where.work_dir)


# What distinguishes two of these runs, whatever else configs and the names of run directories come to have.
SAME = ("name", "seed", "classes", "exponent", "lr", "batch size", "epochs")


def identity(run: Run) -> tuple[str, ...]:
    """Of a run that may be yet to come, as its row will have it."""
    row = {"name": run.directory.parts[-3], "seed": run.config.seed} | kept.settings(run.config.to_dict())
    return tuple(kept.text(row[column]) for column in SAME)


def train(where: Place, batches: Iterable[list[Run]]) -> None:
    """Those runs that results/ lacks, each batch at once; some batches after another they are added to results/."""
    there = {tuple(row[column] for column in SAME) for row in kept.read(STUDY, where.folder)}
    missing = [[run for run in batch if identity(run) not in there] for batch in batches]
    missing = [batch for batch in missing if batch]
    some = 6 * where.jobs
    for i in range(0, len(missing), some):
        run_batches(missing[i : i + some], where.jobs)
        rows = [kept.row_of(run.directory) for batch in missing[i : i + some] for run in batch]
        kept.add(STUDY, where.folder, filter(None, rows), packed=True)


def tune(where: Place, data: str) -> None:
    """Every method at every rate on a few pairs."""
    train(where, (
        [point(where, data, (loss, exponent), pair, rate, seed)
         for seed in TUNING_SEEDS for exponent in EXPONENTS for rate in RATES[data]]
        for pair in TUNED_ON[data] for loss in LOSSES
    ))  # fmt: skip


def all_pairs(where: Place, data: str, seeds: int) -> None:
    """Every method on every pair, at its rate."""
    rows = kept.read(STUDY, where.folder)
    rates = {method: rate_of(rows, data, method) for method in METHODS}
    train(where, (
        [point(where, data, (loss, exponent), pair, rates[loss, exponent], seed)
         for seed in range(seeds) for exponent in EXPONENTS]
        for pair in itertools.combinations(CLASSES[data], 2) for loss in LOSSES
    ))  # fmt: skip


def at_one_rate(where: Place, data: str, seeds: int) -> None:
    """Each loss under weights at the rate that it has without, so that weights are all that differs."""
    rows = kept.read(STUDY, where.folder)
    rates = {loss: rate_of(rows, data, (loss, 0.0)) for loss in LOSSES}
    train(where, (
        [point(where, data, (loss, exponent), pair, rates[loss], seed)
         for seed in range(seeds) for exponent in EXPONENTS]
        for loss in LOSSES for pair in itertools.combinations(CLASSES[data], 2)
    ))  # fmt: skip


def rows_of(rows: Iterable[Row], data: str, method: Method) -> list[Row]:
    """Those of a method: tuning and all."""
    loss, exponent = method
    return [row for row in rows if row["name"] == f"{data}_pair_{loss}" and float(row["exponent"]) == exponent]


def tried(rows: Iterable[Row], data: str, method: Method) -> dict[float, tuple[float, float]]:
    """By rate, val balanced accuracy at the last epoch and the share of runs that interpolated, over the tuning runs.

    A run that diverged counts as chance.
    """
    found, mine = {}, [row for row in rows_of(rows, data, method) if int(row["seed"]) in TUNING_SEEDS]
    for rate in RATES[data]:
        at_rate = [row for row in mine if float(row["lr"]) == rate]
        if at_rate:
            val = np.nan_to_num(numbers(at_rate, "val balanced"), nan=0.5)
            found[rate] = float(val.mean()), float(np.mean([row["interpolation epoch"] != "" for row in at_rate]))
    return found


def rate_of(rows: Iterable[Row], data: str, method: Method) -> float | None:
    """The best rate on val of those at which enough runs interpolate, or where none do, of those at which most do.

    None before there are tuning runs.
    """
    found = tried(rows, data, method)
    enough = min(INTERPOLATING, max((share for _, share in found.values()), default=0))
    interpolating = {rate: val for rate, (val, share) in found.items() if share >= enough}
    return max(interpolating, key=lambda rate: interpolating[rate], default=None)


def by_method(
    rows: Sequence[Row], data_sets: Iterable[str], one_rate: bool = False
) -> dict[str, dict[Method, list[Row]]]:
    """The rows of every method at its rate, without the tuning runs; with `one_rate`, at that of its loss without weights."""

    def of(data: str, method: Method) -> list[Row]:
        rate = rate_of(rows, data, (method[0], 0.0) if one_rate else method)
        mine = rows_of(rows, data, method)
        return [row for row in mine if float(row["lr"]) == rate and int(row["seed"]) not in TUNING_SEEDS]

    return {data: {method: of(data, method) for method in METHODS} for data in data_sets}


def tuning_table(rows: Sequence[Row], data_sets: Iterable[str]) -> str:
    """Val balanced accuracy at the last epoch and the share of runs that interpolate, by rate; the chosen one in bold."""
    cells = []
    for data, method in itertools.product(data_sets, METHODS):
        chosen, texts = rate_of(rows, data, method), []
        for rate, (val, share) in tried(rows, data, method).items():
            text = f"{rate:g}: {100 * val:.1f} ({100 * share:.0f})"
            texts.append(f"**{text}**" if rate == chosen else text)
        cells.append([TITLES[data], label(method), Raw(", ".join(texts))])
    return markdown(["data", "method", "rate: val balanced accuracy, % (runs that interpolate, %)"], cells)


def pairs(
    *,
    data: Sequence[str],
    train: bool,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    results: str,
) -> None:
    """Train what is missing, unless asked not to; print the tables, and draw the picture in the folder of results."""
    unknown = sorted(set(data) - CLASSES.keys())
    if unknown:
        raise BadInput(f"--data={unknown[0]}; valid: {', '.join(CLASSES)}")
    data_sets = data or list(CLASSES)
    where = Place(work_dir, Path(results), not_of_seeds(overrides), jobs)
    for name in data_sets if train else ():
        tune(where, name)
    for name in data_sets if train else ():
        all_pairs(where, name, seeds)
    for name in data_sets if train else ():
        at_one_rate(where, name, seeds)
    rows = kept.read(STUDY, where.folder)
    print(tuning_table(rows, data_sets))
    report(by_method(rows, data_sets), results)
    print(f"\n{one_rate_table(by_method(rows, data_sets, one_rate=True))}")
