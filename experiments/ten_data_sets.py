"""Four methods over ten small data sets, each at its best learning rate, and how much of a gain is tuning.

    imbalance reproduce ten_data_sets --folder=report --config.data_dir=data

Five pairs of scikit-learn's digits and five of Fashion-MNIST's classes, ten to one, and a perceptron (configs/digits_pair_*
and fashion_pair_*). A method's rate is, on every data set, the best of five by the mean score on val over seeds 0 to 2;
at that rate it is trained over ten seeds. Seeds draw images, initialisation and order, the same for all methods.

The page in the folder shows each data set by itself, and all of them together as rliable does. Test is evaluated along
the way so that its reader can switch the selection rule; nothing is chosen by it.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.metrics.aggregates import bootstrap, improvement, interquartile_mean
from imbalance.metrics.intervals import expected_best
from imbalance.report.collect import collect
from imbalance.report.report import write
from imbalance.report.saved_runs import Summary, metric
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, configured, not_of_seeds, run_all

METHODS = ("erm", "ce", "poly", "logit_adjusted")  # the first is what the others are compared with
PAIRS = {
    "digits": ((3, 8), (8, 1), (9, 8), (9, 5), (9, 3)),
    "fashion": (("T-shirt", "shirt"), ("pullover", "coat"), ("pullover", "shirt"), ("sneaker", "ankle boot"), ("dress", "coat")),
}  # fmt: skip
RATES = {"digits": (0.01, 0.03, 0.1, 0.3, 1.0), "fashion": (0.001, 0.003, 0.01, 0.03, 0.1)}
TUNING_SEEDS, SEEDS = range(3), range(10)
METRIC = "balanced_accuracy"


class Cell(NamedTuple):
    """A method on a data set."""

    data: str
    pair: tuple
    method: str

    def run(self, rate: float, seed: int, common: Mapping[str, Any], work_dir: str) -> Run:
        overrides = {"data.classes": self.pair, "optim.lr": rate, "trainer.eval_splits": ("val", "test")}
        return configured(f"{self.data}_pair_{self.method}", {**common, **overrides}, seed, work_dir)


CELLS = [Cell(data, pair, method) for data, pairs in PAIRS.items() for pair in pairs for method in METHODS]


def ten_data_sets(*, folder: str, overrides: Mapping[str, Any], work_dir: str, jobs: int, at_once: int) -> None:
    """Train what is missing, print the two tables, and write the report of these runs to `folder`."""
    common = not_of_seeds(overrides)

    def trained(wanted: Sequence[tuple[Cell, float, int]]) -> dict[tuple[Cell, float, int], tuple[Run, Summary]]:
        runs = [cell.run(rate, seed, common, work_dir) for cell, rate, seed in wanted]
        return dict(zip(wanted, zip(runs, run_all(runs, jobs, at_once))))

    found = trained([(cell, rate, seed) for cell in CELLS for rate, seed in product(RATES[cell.data], TUNING_SEEDS)])
    scores = {cell: tuning_scores(cell, found) for cell in CELLS}
    best = {cell: max(scores[cell], key=scores[cell].__getitem__) for cell in CELLS}
    found |= trained([(cell, best[cell], seed) for cell in CELLS for seed in SEEDS])
    print(tuning_table(scores))
    print(results_table({cell: [found[cell, best[cell], seed][1] for seed in SEEDS] for cell in CELLS}))
    ours = {run.directory.resolve() for run, _ in found.values()}
    rows = [row for row in collect(Path(work_dir)) if (Path(work_dir) / row["run"]).resolve() in ours]
    write(Path(work_dir), rows, Path(folder), [METRIC, "worst_class_recall"], pictured=len(CELLS))
    print(f"{Path(folder) / 'index.html'}: {len(rows)} runs")


def tuning_scores(cell: Cell, found: Mapping[tuple[Cell, float, int], tuple[Run, Summary]]) -> dict[float, float]:
    """By rate the mean score on val over the tuning seeds; a run that diverged counts as chance, one half."""
    scores = {rate: [found[cell, rate, seed][1]["score"] for seed in TUNING_SEEDS] for rate in RATES[cell.data]}
    return {rate: float(np.mean([0.5 if s is None else s for s in of])) for rate, of in scores.items()}


def tuning_table(scores: Mapping[Cell, Mapping[float, float]]) -> str:
    """By method, over the data sets: the score on val that one rate, and the best of k, is expected to have."""
    rows = []
    for method in METHODS:
        of = [scores[cell] for cell in CELLS if cell.method == method]
        expected = np.mean([expected_best(list(by_rate.values())) for by_rate in of], axis=0)
        ends = sum(max(by_rate, key=by_rate.__getitem__) in (min(by_rate), max(by_rate)) for by_rate in of)
        rows.append([method, *(f"{100 * value:.1f}" for value in expected), ends])
    tried = len(next(iter(RATES.values())))
    heads = ["val, %, best rate of k", *map(str, range(1, tried + 1)), "best at an end of the grid"]
    return markdown(heads, rows)


def results_table(summaries: Mapping[Cell, Sequence[Summary]]) -> str:
    """By method, over all data sets and seeds, what rliable reports of the metric on test."""
    scores = {
        method: np.array([[metric(s, f"test/{METRIC}") for s in summaries[cell]] for cell in CELLS if cell.method == method])
        for method in METHODS
    }  # fmt: skip
    reference, rows = scores[METHODS[0]], []
    for method, of in scores.items():
        better = "" if method == METHODS[0] else bootstrap(improvement, of, reference, paired=True).percent()
        wins = "" if method == METHODS[0] else int((of.mean(1) > reference.mean(1)).sum())
        rows.append([method, bootstrap(interquartile_mean, of, paired=False).percent(), better, wins])
    heads = [
        f"test {METRIC}",
        "interquartile mean, %",
        f"beats {METHODS[0]}, % of pairs of runs",
        f"data sets, of {len(reference)}, with a higher mean",
    ]
    return markdown(heads, rows)
