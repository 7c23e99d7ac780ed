"""Compare four methods over ten small data sets, each at its best learning rate, and measure the gain from tuning.

    imbalance reproduce ten_data_sets --folder=report --config.data_dir=data

The data sets are five pairs of classes of scikit-learn's digits and five of Fashion-MNIST, with ten times as many examples of
the first class as of the second. The model is a perceptron (configs/digits_pair_ce.py and fashion_pair_ce.py, with the
overrides in METHODS). On every data set, each method gets the best of five learning rates by mean val score over seeds 0 to 2.
At that learning rate the method is trained over ten seeds. A seed draws the images, the initialisation and the order, the
same for all methods.

The page <folder>/index.html shows each data set, and the aggregates of Agarwal et al. (2021) over all data sets. Test is
evaluated during training too, so the reader of the page can change the selection rule. The printed tables select nothing by
test.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.metrics.aggregates import bootstrap, improvement, interquartile_mean
from imbalance.metrics.intervals import expected_best
from imbalance.report.collect import collect
from imbalance.report.report import check_folder, write
from imbalance.report.saved_runs import Summary, metric
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, add_own_values, check_common_overrides, run_all
from imbalance.sweep.variants import Variant

# By method, the overrides of the config <data>_pair_ce. The first method is the baseline.
METHODS = {
    "erm": {"weights.name": "uniform"},
    "ce": {},
    "poly": {"loss": dict(name="poly", alpha=1.0, left="logistic")},
    "logit_adjusted": {"weights.name": "uniform", "loss": dict(name="logit_adjusted", tau=1.0)},
}
BASELINE = next(iter(METHODS))
PAIRS = {
    "digits": ((3, 8), (8, 1), (9, 8), (9, 5), (9, 3)),
    "fashion": (("T-shirt", "shirt"), ("pullover", "coat"), ("pullover", "shirt"), ("sneaker", "ankle boot"), ("dress", "coat")),
}  # fmt: skip
RATES = {"digits": (0.01, 0.03, 0.1, 0.3, 1.0), "fashion": (0.001, 0.003, 0.01, 0.03, 0.1)}
TUNING_SEEDS, SEEDS = range(3), range(10)
METRIC = "balanced_accuracy"


class Cell(NamedTuple):
    """A method on a pair of classes, which is one of the ten data sets."""

    data: str
    pair: tuple
    method: str

    def make_run(self, rate: float, seed: int, common: Mapping[str, Any], work_dir: str) -> Run:
        """Return the config and the run directory of this cell; nothing is trained.

        Args:
            rate: learning rate.
            common: config values by key, the same in all runs.
        """
        overrides = {"data.classes": self.pair, "optim.lr": rate, "trainer.eval_splits": ("val", "test")}
        return Variant(f"{self.data}_pair_ce", METHODS[self.method]).run(
            add_own_values(common, overrides), seed, work_dir
        )


CELLS = [Cell(data, pair, method) for data, pairs in PAIRS.items() for pair in pairs for method in METHODS]


def ten_data_sets(*, folder: str, overrides: Mapping[str, Any], work_dir: str, jobs: int, stacked: int) -> None:
    """Train the runs that are not done yet, print the tables of tuning and of results, and write a report to `folder`.

    Args:
        overrides: config values by key, for all runs.
        stacked: largest number of runs that one process trains as one stacked model.
    """
    check_folder(Path(folder))  # before the long work
    common = check_common_overrides(overrides)

    def train(wanted: Sequence[tuple[Cell, float, int]]) -> dict[tuple[Cell, float, int], tuple[Run, Summary]]:
        runs = [cell.make_run(rate, seed, common, work_dir) for cell, rate, seed in wanted]
        return dict(zip(wanted, zip(runs, run_all(runs, jobs, stacked))))

    results = train([(cell, rate, seed) for cell in CELLS for rate, seed in product(RATES[cell.data], TUNING_SEEDS)])
    scores = {cell: tuning_scores(cell, results) for cell in CELLS}
    best = {cell: max(scores[cell], key=scores[cell].__getitem__) for cell in CELLS}
    results |= train([(cell, best[cell], seed) for cell in CELLS for seed in SEEDS])
    print(tuning_table(scores))
    print(results_table({cell: [results[cell, best[cell], seed][1] for seed in SEEDS] for cell in CELLS}))
    ours = {run.directory.resolve() for run, _ in results.values()}
    rows = [row for row in collect(Path(work_dir)) if (Path(work_dir) / row["run"]).resolve() in ours]
    write(Path(work_dir), rows, Path(folder), [METRIC, "worst_class_recall"], pictured=len(CELLS))
    print(f"{Path(folder) / 'index.html'}: {len(rows)} runs")


def tuning_scores(cell: Cell, results: Mapping[tuple[Cell, float, int], tuple[Run, Summary]]) -> dict[float, float]:
    """Return the mean val score over the tuning seeds, by learning rate; a diverged run counts as 0.5, the score of chance."""
    scores = {rate: [results[cell, rate, seed][1]["score"] for seed in TUNING_SEEDS] for rate in RATES[cell.data]}
    return {rate: float(np.mean([0.5 if s is None else s for s in values])) for rate, values in scores.items()}


def tuning_table(scores: Mapping[Cell, Mapping[float, float]]) -> str:
    """Return a table of the expected best val score after trying k learning rates, by method, averaged over the data sets."""
    rows = []
    for method in METHODS:
        cells = [scores[cell] for cell in CELLS if cell.method == method]
        expected = np.mean([expected_best(list(by_rate.values())) for by_rate in cells], axis=0)
        ends = sum(max(by_rate, key=by_rate.__getitem__) in (min(by_rate), max(by_rate)) for by_rate in cells)
        rows.append([method, *(f"{100 * value:.1f}" for value in expected), ends])
    tried = len(next(iter(RATES.values())))
    heads = ["val, %, best rate of k", *map(str, range(1, tried + 1)), "best at an end of the grid"]
    return markdown(heads, rows)


def results_table(summaries: Mapping[Cell, Sequence[Summary]]) -> str:
    """Return a table with the aggregates that Agarwal et al. (2021) propose, for each method, computed from the test metric."""
    scores = {
        method: np.array([[metric(s, f"test/{METRIC}") for s in summaries[cell]] for cell in CELLS if cell.method == method])
        for method in METHODS
    }  # fmt: skip
    reference, rows = scores[BASELINE], []
    for method, values in scores.items():
        better = (
            ""
            if method == BASELINE
            else bootstrap(improvement, values, reference, paired=True, low=0, high=1).percent()
        )
        wins = "" if method == BASELINE else int((values.mean(1) > reference.mean(1)).sum())
        rows.append(
            [method, bootstrap(interquartile_mean, values, paired=False, low=0, high=1).percent(), better, wins]
        )
    heads = [
        f"test {METRIC}",
        "interquartile mean, %",
        f"better than {BASELINE}, % of pairs of runs",
        f"data sets, of {len(reference)}, with a higher mean",
    ]
    return markdown(heads, rows)
