"""Compare cross-entropy with the poly loss, both importance-weighted, at two batch sizes and the best learning rates.

    imbalance protocol --data=gaussian,digits,colored_digits --epochs=100 --seeds=5
    imbalance protocol --data=cifar,celeba,waterbirds --seeds=10 --launcher=slurm --jobs=12

The poly loss (`poly`) is the polynomially tailed loss of Wang et al. (ICLR 2022). For every data set (configs/<data>_ce.py and
_poly.py), loss and batch size, one run is trained at each learning rate, at seed 0. The learning rate with the best val score
is then trained over all seeds, and the table shows the test metric. All runs have SGD with momentum 0.9 and no weight decay,
and both losses train the same model. All other values, such as the exponent of the importance weights, are those of the
config.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.config.resolve import resolve
from imbalance.experiments.pairs import LOSSES
from imbalance.metrics.intervals import bounds, mean, paired_difference
from imbalance.report import kept_results
from imbalance.report.kept_results import Row, score, share_interpolating
from imbalance.report.saved_runs import metric, summary_of
from imbalance.report.tables import Raw, markdown
from imbalance.sweep import study as studies
from imbalance.sweep.launch import train_in_study
from imbalance.sweep.runs import add_own_values, check_common_overrides
from imbalance.sweep.storage import StudyLocation
from imbalance.sweep.sweep import parse_values

METHODS = ("ce", "poly")  # names of losses, as at the end of config names
LENET = "_lenet"  # end of the name of a data set that is trained with LeNet instead of its config's network
RATES_OF = {  # the learning rates to choose from, by data set
    "digits": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "colored_digits": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "gaussian": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3),
    "fashion_pair": (1e-5, 3e-5, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "fashion_pair_lenet": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "cifar_pair": (1e-5, 3e-5, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "cifar_pair_lenet": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "cifar_pair_features": (1e-5, 3e-5, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "cifar": (0.001, 0.003, 0.01, 0.03),
    "celeba": (0.0001, 0.0003, 0.001, 0.003),
    "waterbirds": (0.0001, 0.0003, 0.001, 0.003),
}


class Cell(NamedTuple):
    """A data set, loss and batch size, for which one learning rate is chosen."""

    data: str
    method: str
    batch_size: int

    @property
    def config(self) -> str:
        return f"{self.data.removesuffix(LENET)}_{self.method}"

    def point(self, rate: float, seed: int, epochs: int, common: Mapping[str, Any]) -> studies.Point:
        """Return the config, overrides and seed of a run of this cell, for the Optuna study.

        Args:
            rate: learning rate.
            epochs: number of epochs to train.
            common: config values by key, the same in all trials.
        """
        own = {
            "config": self.config, **({"model.name": "lenet"} if self.data.endswith(LENET) else {}), "trainer.batch_size": self.batch_size, "trainer.epochs": epochs,
            "optim.lr": rate, "seed": seed,
        }  # fmt: skip
        return {"optim.momentum": 0.9, "optim.weight_decay": 0.0, **add_own_values(common, own)}


def protocol(
    *,
    data: Sequence[str],
    batch_sizes: Sequence[int],
    rates: Sequence[float],
    epochs: int,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    study: str | None,
    storage: str,
    launcher: str,
    slurm: Sequence[str],
) -> None:
    """Tune the learning rates, train over seeds at the best learning rates, and print a table for each of the two steps.

    Args:
        data: names of data sets, which are keys of RATES_OF.
        rates: learning rates to choose from; if none, those of RATES_OF.
        epochs: number of epochs of every run.
        overrides: config values by key, for all runs.
        seeds: number of seeds at the best learning rate; seeds count from 0.
        stacked: largest number of runs that one worker trains as one stacked model.
        study: name of the Optuna study that holds the runs; "protocol" if None.
    """
    cells = [Cell(name, method, size) for name in data for size in batch_sizes for method in METHODS]
    location = StudyLocation(study or "protocol", work_dir, storage)
    common = check_common_overrides(overrides)

    def point(cell: Cell, rate: float, seed: int) -> studies.Point:
        return parse_values(cell.point(rate, seed, epochs, common))

    def train(points: list[studies.Point]) -> list[dict]:
        return [summary_of(path) for path in train_in_study(location, points, jobs, stacked, launcher, slurm)]

    tried = {cell: rates or RATES_OF[cell.data] for cell in cells}
    summaries = iter(train([point(cell, rate, 0) for cell in cells for rate in tried[cell]]))
    tuning = {cell: {rate: next(summaries) for rate in tried[cell]} for cell in cells}
    best = {cell: rate for cell in cells if (rate := best_rate(tuning[cell])) is not None}
    print_tuning(tuning, best)
    summaries = iter(train([point(cell, rate, seed) for cell, rate in best.items() for seed in range(seeds)]))
    print_results({cell: {seed: next(summaries) for seed in range(seeds)} for cell in best}, best)


def best_rate(summaries: dict[float, dict]) -> float | None:
    """Return the learning rate with the best val score, the smallest of several equally good; None if every run diverged.

    Args:
        summaries: summary.json of each run, by learning rate.
    """
    scores = {rate: s["score"] for rate, s in sorted(summaries.items()) if s["score"] is not None}
    return max(scores, key=lambda rate: scores[rate], default=None)


def print_tuning(scores: dict[Cell, dict[float, dict]], best: dict[Cell, float]) -> None:
    """Print the val score of every cell (data set, loss and batch size) at each learning rate.

    Args:
        scores: summary.json of each run, by cell and learning rate.
        best: by cell, the learning rate whose score is printed in bold.
    """
    print("Val score by learning rate, seed 0, %. The best is in bold.\n")
    rows = []
    for cell, summaries in scores.items():
        tried = []
        for rate, summary in summaries.items():
            text = f"{rate:g}: " + ("diverged" if summary["score"] is None else f"{100 * summary['score']:.1f}")
            tried.append(f"**{text}**" if rate == best.get(cell) else text)
        if best.get(cell) in (min(summaries), max(summaries)):
            tried.append("the best rate is at an end of the grid")
        rows.append([cell.data, cell.batch_size, cell.method, Raw(", ".join(tried))])
    print(markdown(["data", "batch", "method", ""], rows), end="")


def print_results(results: dict[Cell, dict[int, dict]], best: dict[Cell, float]) -> None:
    """Print the test metric of every cell (data set, loss, batch size), and the lead of poly over cross-entropy.

    Both are means over seeds.

    Args:
        results: summary.json of each run, by cell and seed.
        best: the learning rate of these runs, by cell.
    """
    print("\nTest, %: mean ± 95 % t-interval over n seeds; the difference from cross-entropy is paired by seed.\n")
    rows = []
    for cell, summaries in results.items():
        config, _ = resolve(cell.config, {})
        name = config.score.replace("val/", "test/")
        values = {seed: metric(summary, name) for seed, summary in summaries.items()}
        over_seeds, reference = mean(list(values.values()), *bounds(name)), cell._replace(method=METHODS[0])
        difference = ""
        if cell.method != METHODS[0] and reference in results:
            baseline = {seed: metric(summary, name) for seed, summary in results[reference].items()}
            difference = paired_difference(values, baseline, *bounds(name)).percent()
        exponent, rate = (f"{value:g}" for value in (config.weights.exponent, best[cell]))
        measured = over_seeds.percent(), over_seeds.n, len(values) - over_seeds.n, difference
        rows.append([cell.data, cell.batch_size, cell.method, exponent, rate, name.removeprefix("test/"), *measured])
    heads = [
        "data",
        "batch",
        "method",
        "exponent of importance weights",
        "learning rate",
        "metric",
        "test",
        "n",
        "diverged",
        "minus ce",
    ]
    print(markdown(heads, rows), end="")


# The same tables from results/protocol.csv

SEEDS = 10


class DataSet(NamedTuple):
    """The title of a data set, and the metric that chooses the learning rate and compares the losses."""

    title: str
    metric: str = "balanced_accuracy"


SMALL_DATA = {
    "gaussian": DataSet("Gaussian mixture, linear"),
    "digits": DataSet("digits, perceptron"),
    "colored_digits": DataSet("colored digits, perceptron; worst group", "worst_group_accuracy"),
}
IMAGES = {
    "fashion_pair": DataSet("T-shirt against shirt, perceptron"),
    "fashion_pair_lenet": DataSet("T-shirt against shirt, LeNet"),
    "cifar_pair": DataSet("cat against dog, perceptron"),
    "cifar_pair_lenet": DataSet("cat against dog, LeNet"),
    "cifar_pair_features": DataSet("cat against dog, linear on features"),
}


def kept_table(data_sets: Mapping[str, DataSet], folder: Path) -> str:
    """Return a table of cross-entropy and poly at their best learning rates, for the data sets and batch sizes with all seeds done.

    Args:
        data_sets: the data sets by name.
        folder: folder that holds the tables of results, such as results/; the rows are in protocol.csv.
    """
    table, every = [], kept_results.read("protocol", folder)
    for data, (title, metric_name) in data_sets.items():
        for size in ("64", "512"):
            best = {
                loss: best_kept_rate(
                    [row for row in every if is_run_of(row, data, loss) and row["batch size"] == size], metric_name
                )
                for loss in LOSSES
            }
            if any(len(rows) < SEEDS for _, rows in best.values()):
                continue
            tests = {loss: {int(row["seed"]): score(row, "test", metric_name) for row in rows}
                     for loss, (_, rows) in best.items()}  # fmt: skip
            difference = paired_difference(tests["poly"], tests["ce"], 0, 1).percent()
            for loss, (rate, rows) in best.items():
                over_seeds = mean(list(tests[loss].values()), 0, 1).percent()
                gain = difference if loss == "poly" else ""
                table.append([title, size, LOSSES[loss], rate, len(rows), share_interpolating(rows), over_seeds, gain])
    heads = ["data and network", "batch", "loss", "rate", "n", "interpolate", "test", "poly minus cross-entropy"]
    return markdown(heads, table) if table else "No part of the protocol has finished yet.\n"


def is_run_of(row: Row, data: str, loss: str) -> bool:
    """Return True if a row belongs to a run of this loss on this data set.

    Args:
        data: a key of RATES_OF.
    """
    name = f"{data.removesuffix(LENET)}_{loss}"
    return row["name"] == name and ("model.name=lenet" in row["overrides"].split(",")) == data.endswith(LENET)


def best_kept_rate(rows: Sequence[Row], metric_name: str) -> tuple[str, list[Row]]:
    """Return the learning rate with the best val metric at seed 0, and the rows at that learning rate.

    Of several equally good learning rates, the smallest is returned.
    """
    at_seed_0 = [row for row in rows if row["seed"] == "0" and row["status"] == "done"]
    scores = {row["lr"]: score(row, "val", metric_name) for row in sorted(at_seed_0, key=lambda row: float(row["lr"]))}
    best = max(scores, key=lambda rate: scores[rate], default="")
    return best, [row for row in rows if row["lr"] == best and int(row["seed"]) < SEEDS]
