"""How general is the claim? All 45 pairs of the ten classes of Fashion-MNIST, and of CIFAR-10, ten to one.

    python -m experiments.pairs --data=fashion,cifar --seeds=10 --data_dir=data --jobs=2
    python -m experiments.pairs --notrain      # the tables and the picture of what results/ has

On every pair a perceptron is trained on 250 images of the first class and 25 of the second (configs/<data>_pair_ce.py and
_poly.py), with {cross-entropy, poly} × weights to the power 0, 1 and 1.5. A seed draws images, initialisation and order,
the same for all six. Judged are the last epoch and the one with the best balanced accuracy on val, which is as large as the
training set and looked at every ten epochs; test has 1,000 of each class.

Rates come first: for each of the six, the best of four on val, over four pairs at two seeds that are not used again,
among those rates at which three runs of four come to predict all of their training set rightly: what the claim is about.

Runs that results/pairs.csv.gz has are not run again; those that finish are added to it.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from absl import app

from experiments import results
from experiments.pairs_report import EXPONENTS, METHODS, TITLES, Method, label, markdown, report
from experiments.paper_rows import DATA_DIR, TRAIN
from experiments.results import Row, numbers
from experiments.runs import DATA, JOBS, SEEDS, WORK_DIR, Run, configured, exit_status, run_batches
from imbalance.data.cifar10 import CLASSES as CIFAR10
from imbalance.data.fashion import CLASSES as FASHION
from imbalance.errors import BadInput

STUDY = "pairs"
LOSSES = ("ce", "poly")
CLASSES = {"fashion": FASHION, "cifar": CIFAR10}
RATES = {"fashion": (0.001, 0.003, 0.01, 0.03), "cifar": (0.0003, 0.001, 0.003, 0.01)}
TUNED_ON = {
    "fashion": (("T-shirt", "shirt"), ("sandal", "bag"), ("pullover", "coat"), ("sneaker", "ankle boot")),
    "cifar": (("cat", "dog"), ("airplane", "frog"), ("automobile", "truck"), ("bird", "ship")),
}
TUNING_SEEDS = (1000, 1001)
INTERPOLATING = 0.75  # at least, of the tuning runs


def point(data: str, method: Method, pair: Sequence[str], rate: float, seed: int) -> Run:
    """The run of a method on a pair."""
    loss, exponent = method
    overrides = {"data_dir": DATA_DIR.value, "data.classes": tuple(pair), "weights.exponent": exponent, "optim.lr": rate,
                 "trainer.eval_splits": ("val", "test")}  # fmt: skip
    return configured(f"{data}_pair_{loss}", overrides, seed, WORK_DIR.value)


# What tells two of these runs apart, whatever else configs and the names of run directories come to have.
SAME = ("name", "seed", "classes", "exponent", "lr", "batch size", "epochs")


def identity(run: Run) -> tuple[str, ...]:
    """Of a run that may be yet to come, as its row will have it."""
    row = {"name": run.directory.parts[-3], "seed": run.config.seed} | results.settings(run.config)
    return tuple(results.text(row[column]) for column in SAME)


def train(batches: list[list[Run]]) -> None:
    """Those runs that results/ lacks, each batch at once; some batches after another they are added to results/."""
    there = {tuple(row[column] for column in SAME) for row in results.read(STUDY)}
    missing = [[run for run in batch if identity(run) not in there] for batch in batches]
    missing = [batch for batch in missing if batch]
    some = 6 * JOBS.value
    for i in range(0, len(missing), some):
        run_batches(missing[i : i + some], JOBS.value)
        rows = [results.row_of(run.directory) for batch in missing[i : i + some] for run in batch]
        results.add(STUDY, filter(None, rows), packed=True)


def tune(data: str) -> None:
    """Every method at every rate on a few pairs."""
    train([
        [point(data, (loss, exponent), pair, rate, seed)
         for seed in TUNING_SEEDS for exponent in EXPONENTS for rate in RATES[data]]
        for pair in TUNED_ON[data] for loss in LOSSES
    ])  # fmt: skip


def rows_of(data: str, method: Method) -> list[Row]:
    """What results/ has of a method: tuning and all."""
    loss, exponent = method
    return [row for row in results.read(STUDY)
            if row["name"] == f"{data}_pair_{loss}" and float(row["exponent"]) == exponent]  # fmt: skip


def tried(data: str, method: Method) -> dict[float, tuple[float, float]]:
    """By rate, val balanced accuracy at the last epoch and the share of runs that interpolated, over the tuning runs.

    A run that diverged counts as chance.
    """
    found = {}
    for rate in RATES[data]:
        rows = [r for r in rows_of(data, method) if float(r["lr"]) == rate and int(r["seed"]) in TUNING_SEEDS]
        val = np.nan_to_num(numbers(rows, "val balanced"), nan=0.5)
        if len(rows):
            found[rate] = float(val.mean()), float(np.mean([row["interpolation epoch"] != "" for row in rows]))
    return found


def rate_of(data: str, method: Method) -> float | None:
    """The best rate on val of those at which enough runs interpolate, or where none do, of those at which most do.

    None before there are tuning runs.
    """
    found = tried(data, method)
    enough = min(INTERPOLATING, max((share for _, share in found.values()), default=0))
    interpolating = {rate: val for rate, (val, share) in found.items() if share >= enough}
    return max(interpolating, key=interpolating.get, default=None)


def all_pairs(data: str) -> None:
    """Every method on every pair, at its rate."""
    rates = {method: rate_of(data, method) for method in METHODS}
    train([
        [point(data, (loss, exponent), pair, rates[loss, exponent], seed)
         for seed in range(SEEDS.value) for exponent in EXPONENTS]
        for pair in itertools.combinations(CLASSES[data], 2) for loss in LOSSES
    ])  # fmt: skip


def pairs() -> None:
    data_sets = DATA.value or list(CLASSES)
    if set(data_sets) - CLASSES.keys():
        raise BadInput(f"--data={','.join(DATA.value)}: not one or several of {', '.join(CLASSES)}")
    for data in data_sets if TRAIN.value else ():
        tune(data)
    for data in data_sets if TRAIN.value else ():
        all_pairs(data)
    print(tuning_table(data_sets) + "\n")
    report(by_method(data_sets), results.RESULTS.value)


def by_method(data_sets: Sequence[str]) -> dict[str, dict[Method, list[Row]]]:
    """What results/ has of the pairs, without the tuning runs."""
    return {data: {method: of_seeds(data, method) for method in METHODS} for data in data_sets}


def of_seeds(data: str, method: Method) -> list[Row]:
    """What results/ has of a method at its rate, without the tuning runs."""
    rate = rate_of(data, method)
    return [r for r in rows_of(data, method) if float(r["lr"]) == rate and int(r["seed"]) not in TUNING_SEEDS]


def tuning_table(data_sets: Sequence[str]) -> str:
    """Val balanced accuracy at the last epoch and the share of runs that interpolate, by rate; the chosen one in bold."""
    table = [["data", "method", "rate: val balanced accuracy, % (runs that interpolate, %)"]]
    for data, method in itertools.product(data_sets, METHODS):
        chosen, cells = rate_of(data, method), []
        for rate, (val, share) in tried(data, method).items():
            text = f"{rate:g}: {100 * val:.1f} ({100 * share:.0f})"
            cells.append(f"**{text}**" if rate == chosen else text)
        table.append([TITLES[data], label(method), ", ".join(cells)])
    return markdown(table)


def main(argv: list[str]) -> int:
    return exit_status(pairs, argv)


if __name__ == "__main__":
    app.run(main)
