"""Tables of the rows in results/: configs compared, the tuning protocol, other draws of the images, long tails.

Each is made by what `results/<study>.csv` has, and says how many seeds that is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imbalance.experiments.pairs_report import LOSSES
from imbalance.experiments.protocol import LENET
from imbalance.metrics.intervals import mean, paired_difference
from imbalance.report import keep as kept
from imbalance.report.keep import Row, numbers
from imbalance.report.tables import markdown
from imbalance.sweep.compare import comparison
from imbalance.sweep.variants import Variant

SEEDS = 10


def score(row: Row, split: str, metric: str) -> float:
    """A fraction; nan of a run that diverged.

    Args:
        metric: "balanced_accuracy" or "worst_group_accuracy".
    """
    if row["status"] != "done":
        return np.nan
    if metric == "worst_group_accuracy":
        return float(np.nanmin([float(of_group or "nan") for of_group in row[f"{split} of groups"].split("|")]))
    return float(row[f"{split} balanced"])


def interpolating(rows: Sequence[Row]) -> str:
    """The share of runs that had every training prediction right in some epoch."""
    return f"{np.mean([row['interpolation epoch'] != '' for row in rows]):.0%}"


# Configs compared, as `imbalance compare` does it


def compared(variants: Mapping[str, Variant], metric: str, folder: Path) -> str:
    """Tabulate every variant's metric on test over the seeds, from results/ledger.csv.

    Args:
        variants: by what the table calls each.
    """
    rows = [row for row in kept.read("ledger", folder) if int(row["seed"]) < SEEDS]
    found, groups = {}, set()
    for title, variant in variants.items():
        mine = variant.rows(rows)
        found[title] = {int(row["seed"]): score(row, "test", metric) for row in mine}
        groups |= {len(row["groups"].split("|")) for row in mine}
    if not all(found.values()):
        return "Not all of these have run yet.\n"
    over = f" over {max(groups)} groups" if metric == "worst_group_accuracy" else ""
    return comparison(found, f"test/{metric}", f"test/{metric}{over}, %")


# The tuning protocol


class Tuned(NamedTuple):
    """What a data set of the protocol is called, and by what its rates were chosen and its runs compared."""

    said: str
    metric: str = "balanced_accuracy"


ON_MADE_UP = {
    "gaussian": Tuned("Gaussian mixture, linear"),
    "digits": Tuned("digits, perceptron"),
    "colored_digits": Tuned("colored digits, perceptron; worst group", "worst_group_accuracy"),
}
ON_IMAGES = {
    "fashion_pair": Tuned("T-shirt against shirt, perceptron"),
    "fashion_pair_lenet": Tuned("T-shirt against shirt, LeNet"),
    "cifar_pair": Tuned("cat against dog, perceptron"),
    "cifar_pair_lenet": Tuned("cat against dog, LeNet"),
    "cifar_pair_features": Tuned("cat against dog, linear on features"),
}


def protocol_table(of: Mapping[str, Tuned], folder: Path) -> str:
    """Both losses at their best rates, where all seeds are done."""
    table, rows_there = [], kept.read("protocol", folder)
    for data, (said, metric) in of.items():
        for size in ("64", "512"):
            found = {
                loss: best_rate(
                    [row for row in rows_there if is_of(row, data, loss) and row["batch size"] == size], metric
                )
                for loss in LOSSES
            }
            if any(len(rows) < SEEDS for _, rows in found.values()):
                continue
            tests = {loss: {int(row["seed"]): score(row, "test", metric) for row in rows}
                     for loss, (_, rows) in found.items()}  # fmt: skip
            difference = paired_difference(tests["poly"], tests["ce"], 0, 1).percent()
            for loss, (rate, rows) in found.items():
                over_seeds = mean(list(tests[loss].values()), 0, 1).percent()
                of_loss = difference if loss == "poly" else ""
                table.append([said, size, LOSSES[loss], rate, len(rows), interpolating(rows), over_seeds, of_loss])
    heads = ["data and network", "batch", "loss", "rate", "n", "interpolate", "test", "poly minus cross-entropy"]
    return markdown(heads, table) if table else "No part of the protocol has finished yet.\n"


def is_of(row: Row, data: str, loss: str) -> bool:
    """Return whether the row is of this data set of the protocol and this loss."""
    name = f"{data.removesuffix(LENET)}_{loss}"
    return row["name"] == name and ("model.name=lenet" in row["overrides"].split(",")) == data.endswith(LENET)


def best_rate(rows: Sequence[Row], metric: str) -> tuple[str, list[Row]]:
    """The rate with the best val at seed 0, of equal ones the smallest, and the runs at it."""
    at_seed_0 = [row for row in rows if row["seed"] == "0" and row["status"] == "done"]
    scores = {row["lr"]: score(row, "val", metric) for row in sorted(at_seed_0, key=lambda row: float(row["lr"]))}
    best = max(scores, key=scores.get, default="")
    return best, [row for row in rows if row["lr"] == best and int(row["seed"]) < SEEDS]


# Other draws of the images


def draws_table(folder: Path) -> str:
    """How far seeds spread where all have the published images, and where each draws its own."""
    heads = ["images", "loss", "rate", "n", "interpolate", "test", "standard deviation", "poly minus cross-entropy"]
    table = []
    for draw, said in (("published", "the published draw"), ("stratified", "drawn by each seed")):
        found = {
            loss: [row for row in kept.read("draws", folder) if row["name"] == f"cifar_{loss}" and draw_of(row) == draw]
            for loss in LOSSES
        }
        tests = {
            loss: {row["seed"]: score(row, "test", "balanced_accuracy") for row in rows} for loss, rows in found.items()
        }
        for loss, rows in found.items():
            if not rows:
                continue
            values = list(tests[loss].values())
            difference = paired_difference(tests["poly"], tests["ce"], 0, 1).percent() if loss == "poly" else ""
            over_seeds = mean(values, 0, 1).percent(), deviation(values)
            table.append([said, LOSSES[loss], rows[0]["lr"], len(rows), interpolating(rows), *over_seeds, difference])
    return markdown(heads, table) if table else "No run has finished yet.\n"


def draw_of(row: Row) -> str:
    """What a run of cifar_ce or cifar_poly overrides, or what these configs say."""
    return "stratified" if "data.draw=stratified" in row["overrides"] else "published"


def deviation(values: Sequence[float]) -> str:
    """The standard deviation of fractions, in percent, with its 95 % interval, as of normal values (chi-square)."""
    from scipy import stats

    n, found = len(values), 100 * np.std(values, ddof=1)
    low, high = found * np.sqrt((n - 1) / stats.chi2.ppf([0.975, 0.025], n - 1))
    return f"{found:.1f} ({low:.1f} to {high:.1f})"


# Long tails

# By what the table calls a method: its config and the loss that its rows have, whatever the network.
LONG_TAILS = {
    "cross-entropy": ("cifar10lt_erm", "cross_entropy"), "balanced softmax": ("cifar10lt_erm", "balanced_softmax"),
    "LDAM-DRW": ("cifar10lt_ldam_drw", "ldam"), "mixup-DRW": ("cifar10lt_mixup_drw", "cross_entropy"),
}  # fmt: skip


def long_tails_table(folder: Path) -> str:
    """What the same runs come to at the last epoch, at the best by val, and at the best by test."""
    columns = {
        "last epoch": "test balanced",
        "best epoch on val": "best balanced: test balanced",
        "best epoch on test (leakage)": "oracle: test balanced",
    }
    table, rows = [], kept.read("long_tails", folder)
    for network in sorted({row["model"].removesuffix("_cosine") for row in rows}):
        for said, method in LONG_TAILS.items():
            mine = [
                row
                for row in rows
                if (row["name"], row["loss"]) == method and row["model"].removesuffix("_cosine") == network
            ]
            if mine:
                outcomes = [mean(list(numbers(mine, column)), 0, 1).percent() for column in columns.values()]
                table.append([network, said, len(mine), *outcomes])
    return markdown(["network", "method", "n", *columns], table) if table else "No run has finished yet.\n"
