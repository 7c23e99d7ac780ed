"""The tuning protocol: importance-weighted cross-entropy against poly, at two batch sizes, each at its best rate.

    python -m experiments.protocol --data=gaussian,digits,colored_digits --epochs=100 --seeds=5
    python -m experiments.protocol --data=cifar,celeba,waterbirds --seeds=10 --launcher=slurm --jobs=12

For every data set (configs/<data>_ce.py and _poly.py), method and batch size one run at each learning rate, all with
SGD with momentum .9, no weight decay and the same model; the rate whose run has the best val score; then that rate over
all seeds. Rates are chosen at seed 0, by val; the table is about test. Everything else, the weights' exponent included,
is as the config has it.
"""

from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from experiments import study as studies
from experiments.intervals import mean, paired_difference
from experiments.launch import launch, place
from experiments.runs import DATA, SEEDS, exit_status, metric, summary_of
from imbalance.config import config_file, load
from imbalance.errors import BadInput

METHODS = ("ce", "poly")
BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["64", "512"], "Batch sizes.")
RATES = flags.DEFINE_list("rates", [], "Learning rates; by default those of RATES_OF for each data set.")
EPOCHS = flags.DEFINE_integer("epochs", 200, "Epochs of every run.", lower_bound=1)

RATES_OF = {
    "digits": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "colored_digits": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "gaussian": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3),
    "cifar": (0.001, 0.003, 0.01, 0.03),
    "celeba": (0.0001, 0.0003, 0.001, 0.003),
    "waterbirds": (0.0001, 0.0003, 0.001, 0.003),
}


class Cell(NamedTuple):
    data: str
    method: str
    batch_size: int

    @property
    def config(self) -> str:
        return f"{self.data}_{self.method}"

    def point(self, rate: float, seed: int) -> studies.Point:
        return {
            "config": self.config, "trainer.batch_size": self.batch_size, "trainer.epochs": EPOCHS.value,
            "optim.momentum": 0.9, "optim.weight_decay": 0.0, "optim.lr": rate, "seed": seed,
        }  # fmt: skip


def protocol() -> int:
    try:
        sizes, rates = [int(size) for size in BATCH_SIZES.value], [float(rate) for rate in RATES.value]
    except ValueError as error:
        raise BadInput(f"--batch_sizes or --rates: {error}") from None
    if not DATA.value or set(DATA.value) - RATES_OF.keys():
        raise BadInput(f"--data={','.join(DATA.value)}: not one or several of {', '.join(RATES_OF)}")
    cells = [Cell(data, method, size) for data in DATA.value for size in sizes for method in METHODS]
    where = place("protocol")

    def train(points: list[studies.Point]) -> list[dict]:
        studies.add(where, points)
        launch(where)
        trials = {studies.canonical(point): trial for point, trial in studies.points_of(studies.open_study(where))}
        unfinished = [
            point for point in points if studies.status(trials[studies.canonical(point)]) not in ("done", "diverged")
        ]
        if unfinished:
            raise BadInput(f"{len(unfinished)} of {len(points)} trials have not finished; the same command goes on")
        return [summary_of(Path(trials[studies.canonical(point)].user_attrs["run_directory"])) for point in points]

    tried = {cell: rates or RATES_OF[cell.data] for cell in cells}
    found = iter(train([cell.point(rate, 0) for cell in cells for rate in tried[cell]]))
    scores = {cell: {rate: next(found) for rate in tried[cell]} for cell in cells}
    best = {cell: best_rate(scores[cell]) for cell in cells}
    print_tuning(scores, best)
    cells = [cell for cell in cells if best[cell] is not None]
    found = iter(train([cell.point(best[cell], seed) for cell in cells for seed in range(SEEDS.value)]))
    print_results({cell: {seed: next(found) for seed in range(SEEDS.value)} for cell in cells}, best)
    return 0


def best_rate(summaries: dict[float, dict]) -> float | None:
    """The rate with the best val score, of equal ones the smallest; None if every run diverged."""
    scores = {rate: s["score"] for rate, s in sorted(summaries.items()) if s["score"] is not None}
    return max(scores, key=scores.get, default=None)


def print_tuning(scores: dict[Cell, dict[float, dict]], best: dict[Cell, float | None]) -> None:
    print("Val score by learning rate, seed 0, %. The best in bold.\n")
    print("| data | batch | method | |\n|---|---|---|---|")
    for cell, summaries in scores.items():
        tried = []
        for rate, summary in summaries.items():
            text = f"{rate:g}: " + ("diverged" if summary["score"] is None else f"{100 * summary['score']:.1f}")
            tried.append(f"**{text}**" if rate == best[cell] else text)
        if best[cell] in (min(summaries), max(summaries)):
            tried.append("at an end of the grid")
        print(f"| {cell.data} | {cell.batch_size} | {cell.method} | {', '.join(tried)} |")


def print_results(found: dict[Cell, dict[int, dict]], best: dict[Cell, float | None]) -> None:
    print("\nTest, %: mean ± 95 % t-interval over n seeds; the difference from cross-entropy is paired by seed.\n")
    print("| data | batch | method | weights' exponent | rate | metric | test | n | diverged | minus ce |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for cell, summaries in found.items():
        config = load(config_file(cell.config))
        name = config.score.replace("val/", "test/")
        values = {seed: metric(summary, name) for seed, summary in summaries.items()}
        over_seeds, reference = mean(list(values.values())), cell._replace(method=METHODS[0])
        difference = ""
        if cell.method != METHODS[0] and reference in found:
            ours = {seed: metric(summary, name) for seed, summary in found[reference].items()}
            difference = paired_difference(values, ours).percent()
        print(
            f"| {cell.data} | {cell.batch_size} | {cell.method} | {config.weights.exponent:g} | {best[cell]:g} "
            f"| {name.removeprefix('test/')} | {over_seeds.percent()} | {over_seeds.n} "
            f"| {len(values) - over_seeds.n} | {difference} |"
        )


def main(argv: list[str]) -> int:
    return exit_status(protocol, argv)


if __name__ == "__main__":
    app.run(main)
