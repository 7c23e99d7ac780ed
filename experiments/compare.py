"""Compare configs over shared seeds, with intervals.

    python -m experiments.compare --configs=digits_ce,digits_poly --seeds=5

Every run is the ordinary one that main.py makes, in the same directory: what is done already is read, not run again.
Prints a Markdown table of the mean of a metric with its 95 % t-interval, and of the differences, paired by seed, from
the first config. A diverged run is counted, and left out of the means.
"""

from pathlib import Path

from absl import app, flags

from experiments.intervals import mean, paired_difference
from experiments.runs import AT_ONCE, CONFIGS, JOBS, SEEDS, WORK_DIR, configured, exit_status, metric, run_all
from imbalance.errors import BadInput

METRIC = flags.DEFINE_string("metric", "test/balanced_accuracy", "A metric of summary.json.")


def compare() -> None:
    if not CONFIGS.value:
        raise BadInput("--configs: missing; the first is what the others are compared with")
    paths, seeds = CONFIGS.value, range(SEEDS.value)
    cells = [(path, seed) for seed in seeds for path in paths]
    summaries = run_all([configured(path, {}, seed, WORK_DIR.value) for path, seed in cells], JOBS.value, AT_ONCE.value)
    found = {path: {} for path in paths}
    for (path, seed), summary in zip(cells, summaries):
        found[path][seed] = metric(summary, METRIC.value)
    print(f"| {METRIC.value}, % | mean ± 95 % t-interval | n | diverged | difference from {Path(paths[0]).stem} |")
    print("|---|---|---|---|---|")
    for path, values in found.items():
        over_seeds = mean(list(values.values()))
        difference = "" if path == paths[0] else paired_difference(values, found[paths[0]]).percent()
        lost = len(seeds) - over_seeds.n
        print(f"| {Path(path).stem} | {over_seeds.percent()} | {over_seeds.n} | {lost} | {difference} |")


def main(argv: list[str]) -> int:
    return exit_status(compare, argv)


if __name__ == "__main__":
    app.run(main)
