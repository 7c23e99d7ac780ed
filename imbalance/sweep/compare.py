"""Compare configs over shared seeds, with intervals.

    imbalance compare --config=digits_ce,digits_poly --seeds=5

Every run is the ordinary one that `imbalance train` makes, in the same directory: what is done already is read, not run
again. Prints a Markdown table of the mean of a metric with its 95 % t-interval, and of the differences, paired by seed,
from the first config. A diverged run is counted, and left out of the means.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from imbalance.config.metric_names import check_metric
from imbalance.config.resolve import config_file, config_name_and_overrides
from imbalance.metrics.intervals import bounds, mean, paired_difference
from imbalance.report.saved_runs import OF_GROUPS, evaluated_over, metric
from imbalance.report.tables import markdown
from imbalance.sweep.runs import configured, not_of_seeds, run_all


def compare(
    *,
    config: Sequence[str],
    overrides: Mapping[str, Any],
    metric_name: str,
    seeds: int,
    work_dir: str,
    jobs: int,
    at_once: int,
) -> None:
    """Train what is missing, and print the table.

    Args:
        config: files or names; the first is what the others are compared with.
        overrides: of all of them.
        metric_name: of summary.json.
    """
    check_metric(metric_name)
    cells = [(path, seed) for seed in range(seeds) for path in config]
    overrides = not_of_seeds(overrides)
    summaries = run_all([configured(path, overrides, seed, work_dir) for path, seed in cells], jobs, at_once)
    found: dict[str, dict[int, float]] = {path: {} for path in config}
    for (path, seed), summary in zip(cells, summaries):
        found[path][seed] = metric(summary, metric_name)
    split, _, name = metric_name.partition("/")
    groups = evaluated_over((summary.get("metrics") or {} for summary in summaries), split) if name in OF_GROUPS else ""
    what = f"{metric_name} over {groups}, %" if groups else f"{metric_name}, %"
    print(comparison({called(path): values for path, values in found.items()}, metric_name, what), end="")


def called(config: str) -> str:
    """The name of a config, and the overrides of the run whose config.json it is."""
    name, overrides = config_name_and_overrides(config_file(config))
    return "/".join((name, *overrides))


def comparison(found: Mapping[str, Mapping[int, float]], metric_name: str, what: str) -> str:
    """The table of what every config came to over seeds; of the differences from the first, paired by seed.

    Args:
        found: by config and seed; nan of a run that diverged.
        what: the first heading.
    """
    rows, limits, (first, *_) = [], bounds(metric_name), found
    for config, values in found.items():
        over_seeds = mean(list(values.values()), *limits)
        difference = "" if config == first else paired_difference(values, found[first], *limits).percent()
        rows.append([config, over_seeds.percent(), over_seeds.n, len(values) - over_seeds.n, difference])
    heads = [what, "mean ± 95 % t-interval", "n", "diverged", f"difference from {first}"]
    return markdown(heads, rows)
