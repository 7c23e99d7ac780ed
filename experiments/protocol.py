"""The tuning protocol: importance-weighted cross-entropy against poly, at two batch sizes, each at its best rate.

    imbalance protocol --data=gaussian,digits,colored_digits --epochs=100 --seeds=5
    imbalance protocol --data=cifar,celeba,waterbirds --seeds=10 --launcher=slurm --jobs=12

For every data set (configs/<data>_ce.py and _poly.py), method and batch size one run at each learning rate, all with
SGD with momentum .9, no weight decay and the same model; the rate whose run has the best val score; then that rate over
all seeds. Rates are chosen at seed 0, by val; the table is about test. Everything else, the weights' exponent included,
is as the config has it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.config.resolve import config_file, load
from imbalance.errors import BadInput
from imbalance.metrics.intervals import bounds, mean, paired_difference
from imbalance.report.saved_runs import metric, summary_of
from imbalance.report.tables import Raw, markdown
from imbalance.sweep import study as studies
from imbalance.sweep.runs import not_of_seeds
from imbalance.sweep.search import read
from imbalance.sweep.workers import launch

METHODS = ("ce", "poly")
RATES_OF = {
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
LENET = "_lenet"  # ends the name of a data set of RATES_OF that is another one under this network


class Cell(NamedTuple):
    data: str
    method: str
    batch_size: int

    @property
    def config(self) -> str:
        return f"{self.data.removesuffix(LENET)}_{self.method}"

    def point(self, rate: float, seed: int, epochs: int, common: studies.Point) -> studies.Point:
        return {
            "config": self.config, **({"model.name": "lenet"} if self.data.endswith(LENET) else {}), "trainer.batch_size": self.batch_size, "trainer.epochs": epochs,
            "optim.momentum": 0.9, "optim.weight_decay": 0.0, "optim.lr": rate, "seed": seed, **common,
        }  # fmt: skip


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
    at_once: int,
    study: str | None,
    storage: str,
    launcher: str,
    slurm: Sequence[str],
) -> None:
    """Tune, train over seeds, and print both tables.

    Args:
        data: some of RATES_OF.
        rates: learning rates; if none, those of RATES_OF for each data set.
        overrides: of every run.
    """
    cells = [Cell(name, method, size) for name in data for size in batch_sizes for method in METHODS]
    where = studies.Place(study or "protocol", work_dir, storage)
    common = not_of_seeds(overrides)

    def point(cell: Cell, rate: float, seed: int) -> studies.Point:
        return read(cell.point(rate, seed, epochs, common))

    def train(points: list[studies.Point]) -> list[dict]:
        studies.add(where, points)
        launch(where, None, jobs, at_once, launcher, slurm)
        trials = {studies.canonical(point): trial for point, trial in studies.points_of(studies.open_study(where))}
        unfinished = [
            point for point in points if studies.status(trials[studies.canonical(point)]) not in ("done", "diverged")
        ]
        if unfinished:
            raise BadInput(f"{len(unfinished)} of {len(points)} trials have not finished; the same command goes on")
        return [summary_of(Path(trials[studies.canonical(point)].user_attrs["run_directory"])) for point in points]

    tried = {cell: rates or RATES_OF[cell.data] for cell in cells}
    found = iter(train([point(cell, rate, 0) for cell in cells for rate in tried[cell]]))
    scores = {cell: {rate: next(found) for rate in tried[cell]} for cell in cells}
    best = {cell: best_rate(scores[cell]) for cell in cells}
    print_tuning(scores, best)
    cells = [cell for cell in cells if best[cell] is not None]
    found = iter(train([point(cell, best[cell], seed) for cell in cells for seed in range(seeds)]))
    print_results({cell: {seed: next(found) for seed in range(seeds)} for cell in cells}, best)


def best_rate(summaries: dict[float, dict]) -> float | None:
    """The rate with the best val score, of equal ones the smallest; None if every run diverged."""
    scores = {rate: s["score"] for rate, s in sorted(summaries.items()) if s["score"] is not None}
    return max(scores, key=scores.get, default=None)


def print_tuning(scores: dict[Cell, dict[float, dict]], best: dict[Cell, float | None]) -> None:
    print("Val score by learning rate, seed 0, %. The best in bold.\n")
    rows = []
    for cell, summaries in scores.items():
        tried = []
        for rate, summary in summaries.items():
            text = f"{rate:g}: " + ("diverged" if summary["score"] is None else f"{100 * summary['score']:.1f}")
            tried.append(f"**{text}**" if rate == best[cell] else text)
        if best[cell] in (min(summaries), max(summaries)):
            tried.append("at an end of the grid")
        rows.append([cell.data, cell.batch_size, cell.method, Raw(", ".join(tried))])
    print(markdown(["data", "batch", "method", ""], rows), end="")


def print_results(found: dict[Cell, dict[int, dict]], best: dict[Cell, float | None]) -> None:
    print("\nTest, %: mean ± 95 % t-interval over n seeds; the difference from cross-entropy is paired by seed.\n")
    rows = []
    for cell, summaries in found.items():
        config = load(config_file(cell.config))
        name = config.score.replace("val/", "test/")
        values = {seed: metric(summary, name) for seed, summary in summaries.items()}
        over_seeds, reference = mean(list(values.values()), *bounds(name)), cell._replace(method=METHODS[0])
        difference = ""
        if cell.method != METHODS[0] and reference in found:
            ours = {seed: metric(summary, name) for seed, summary in found[reference].items()}
            difference = paired_difference(values, ours, *bounds(name)).percent()
        exponent, rate = (f"{value:g}" for value in (config.weights.exponent, best[cell]))
        measured = over_seeds.percent(), over_seeds.n, len(values) - over_seeds.n, difference
        rows.append([cell.data, cell.batch_size, cell.method, exponent, rate, name.removeprefix("test/"), *measured])
    heads = ["data", "batch", "method", "weights' exponent", "rate", "metric", "test", "n", "diverged", "minus ce"]
    print(markdown(heads, rows), end="")
