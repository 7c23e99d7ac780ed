"""Compare a metric of several configs over the same seeds, with confidence intervals.

    imbalance compare --config=digits_ce,digits_poly --seeds=5

Every run is the one that `imbalance train` would make, in the same directory. A finished run is read, not trained again.
The command prints a Markdown table: the mean of a metric with its 95 % t-interval, and the difference from the first
config, paired by seed. Diverged runs are counted, and left out of the means.

    imbalance compare --config=digits_erm --variant=loss.name=balanced_softmax --variant="head.name=logit_adjusted head.tau=1"

Each `--variant` adds a row: the first config with the overrides of this variant.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from imbalance.config.metric_names import check_metric, in_percent
from imbalance.config.resolve import config_file, config_name_and_overrides
from imbalance.config.schema import MissingKeys
from imbalance.errors import BadInput
from imbalance.metrics.intervals import bounds, mean, paired_difference
from imbalance.report import kept_results
from imbalance.report.saved_runs import GROUP_METRICS, evaluation_groups, metric
from imbalance.report.tables import markdown
from imbalance.sweep.runs import check_common_overrides, check_config_names, make_run, run_all
from imbalance.sweep.variants import Variant


def compare(
    *,
    config: Sequence[str],
    variant: Sequence[Mapping[str, Any]],
    overrides: Mapping[str, Any],
    metric_name: str,
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
) -> None:
    """Train the runs that are not done yet, and print a Markdown table with a row for each config.

    Args:
        config: config files or names. Each later config is compared with the first.
        variant: config values by key for each further row, which are overrides of the first config.
        overrides: config values by key, for all runs.
        metric_name: key of a metric in summary.json.
        seeds: number of seeds of each config; the seeds are 0, 1, 2, …
        work_dir: folder of the run directories.
        jobs: number of worker processes.
        stacked: largest number of runs that one process trains together as one stacked model.
    """
    check_metric(metric_name)
    check_config_names(config)
    overrides = check_common_overrides(overrides)
    rows = {display_name(path): (path, overrides) for path in config}
    first = next(iter(rows))
    for own in variant:
        values = ",".join(f"{key}={value}" for key, value in check_common_overrides(own).items())
        rows[f"{first}/{values}"] = config[0], {**overrides, **own}
        try:
            make_run(*rows[f"{first}/{values}"], 0, work_dir)
        except MissingKeys as error:
            words = " ".join(f"{key}=<{fits}>" for key, fits in error.values.items())
            raise BadInput(
                f"--variant={values.replace(',', ' ')}: {next(iter(error.values))} is missing; add {words}"
            ) from None
    cells = [(name, seed) for seed in range(seeds) for name in rows]
    summaries = run_all([make_run(*rows[name], seed, work_dir) for name, seed in cells], jobs, stacked)
    values_of: dict[str, dict[int, float]] = {name: {} for name in rows}
    diverged = dict.fromkeys(rows, 0)
    for (name, seed), summary in zip(cells, summaries):
        values_of[name][seed] = metric(summary, metric_name)
        diverged[name] += summary["status"] == "diverged"
    split, _, name = metric_name.partition("/")
    metrics = (summary.get("metrics") or {} for summary in summaries)
    groups = evaluation_groups(metrics, split) if name in GROUP_METRICS else ""
    heading = f"{metric_name} over {groups}" if groups else metric_name
    print(comparison_table(values_of, metric_name, heading, diverged), end="")
    no_value = sum(isnan(value) for values in values_of.values() for value in values.values()) - sum(diverged.values())
    if no_value:
        print(f"WARNING: {no_value} of {len(cells)} runs: {metric_name} has no value on their data", file=sys.stderr)
    for warning in count_warnings([summary.get("warnings") or [] for summary in summaries]):
        print(f"WARNING: {warning}", file=sys.stderr)


def count_warnings(warnings_per_run: Sequence[Sequence[str]]) -> list[str]:
    """Return each distinct warning of several runs once, with the number of runs that have it.

    Warnings that differ only in numbers count as the same warning.

    Args:
        warnings_per_run: list of the warnings of each run.
    """
    alike: dict[str, list[str]] = {}
    for warnings in warnings_per_run:
        for kind, text in {re.sub(r"\d+(\.\d+)?", "#", text): text for text in warnings}.items():
            alike.setdefault(kind, []).append(text)
    total = len(warnings_per_run)
    texts = sorted(alike.values(), key=len, reverse=True)
    return [f"{len(same)} of {total} runs: {same[0]}" + ", or similar" * (len(set(same)) > 1) for same in texts]


def display_name(config: str) -> str:
    """Return a config's name for the table; for the config.json of a run, add the run's overrides."""
    name, overrides = config_name_and_overrides(config_file(config))
    return "/".join((name, *overrides))


def compare_kept(variants: Mapping[str, Variant], metric_name: str, folder: Path) -> str:
    """Return the table that `compare` prints, from results of the seeds 0 to 9 in <folder>/ledger.csv and without training.

    Args:
        variants: configs with overrides, by title. Each later variant is compared with the first.
        metric_name: the test metric, "balanced_accuracy" or "worst_group_accuracy".
        folder: folder that holds the tables of results, such as results/.
    """
    rows = [row for row in kept_results.read("ledger", folder) if int(row["seed"]) < 10]
    values_of, group_numbers = {}, set()
    for title, variant in variants.items():
        chosen = variant.rows(rows)
        values_of[title] = {int(row["seed"]): kept_results.score(row, "test", metric_name) for row in chosen}
        group_numbers |= {len(row["groups"].split("|")) for row in chosen}
    if not all(values_of.values()):
        return "Not all of these configs have kept results yet.\n"
    over = f" over {max(group_numbers)} groups" if metric_name == "worst_group_accuracy" else ""
    return comparison_table(values_of, f"test/{metric_name}", f"test/{metric_name}{over}")


def comparison_table(
    values_of: Mapping[str, Mapping[int, float]],
    metric_name: str,
    heading: str,
    diverged: Mapping[str, int] | None = None,
) -> str:
    """Return a Markdown table of each config's mean over seeds, and of its difference from the first config.

    The differences are paired by seed.

    Args:
        values_of: by config, the metric by seed; nan for a run that diverged or on whose data the metric has no value.
        metric_name: key of the metric, whose smallest and largest possible values are bounds of every interval.
        heading: head of the first column; ", %" is added if the metric is shown in percent.
        diverged: by config, the number of diverged runs; by default every nan is one.
    """
    rows, limits, (first, *_) = [], bounds(metric_name), values_of
    for config, values in values_of.items():
        over_seeds = mean(list(values.values()), *limits)
        difference = (
            "" if config == first else paired_difference(values, values_of[first], *limits).of_metric(metric_name)
        )
        lost = len(values) - over_seeds.n if diverged is None else diverged[config]
        rows.append([config, over_seeds.of_metric(metric_name), over_seeds.n, lost, difference])
    heads = [
        heading + ", %" * in_percent(metric_name),
        "mean ± 95 % t-interval",
        "n",
        "diverged",
        f"difference from {first}",
    ]
    return markdown(heads, rows)
