"""Compare configs over shared seeds, with intervals.

    imbalance compare --config=digits_ce,digits_poly --seeds=5

Every run is the ordinary one that `imbalance train` makes, in the same directory: what is done already is read, not run
again. Prints a Markdown table of the mean of a metric with its 95 % t-interval, and of the differences, paired by seed,
from the first config. A diverged run is counted, and left out of the means.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from imbalance.config import config_file, origin, tables
from imbalance.errors import BadInput
from imbalance.judge.metrics import OF_A_CLASS, OF_A_GROUP, OF_TRAINING_GROUPS, RANKINGS, SUMMARIES
from imbalance.judge.scores import SCORE_SUMMARIES
from imbalance.methods.tags import tags_of

from .intervals import bounds, mean, paired_difference
from .runs import OF_GROUPS, configured, evaluated_over, metric, not_of_seeds, run_all
from .tables import markdown


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
    name, overrides = origin(config_file(config))
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


def check_metric(name: str, flag: str = "--metric", split: str = "") -> None:
    """Raise `BadInput`, before anything is trained, unless a summary has metrics of this name for some class or group.

    Args:
        flag: which said so.
        split: that the metric is of, if the name does not say.
    """
    of_split, _, metric = (f"{split}/{name}" if split else name).partition("/")
    kind, _, label = metric.partition("/")
    scores = () if of_split == "train" else SCORE_SUMMARIES
    of_some = (*OF_TRAINING_GROUPS, *measured_by_some())
    of_all = ("loss", *SUMMARIES, *scores)
    of_one = (*OF_A_CLASS, *OF_A_GROUP, *(RANKINGS if scores else ()))
    if of_split not in ("train", "val", "test") or not (kind in of_one if label else metric in (*of_all, *of_some)):
        raise BadInput(
            f"{flag}: {name!r} given; valid: {'' if split else 'train/, val/ or test/ and '}one of {', '.join(of_all)}, "
            f"{', '.join(f'{kind}/<class>' for kind in OF_A_CLASS)}, group_accuracy/<group>"
        )


def measured_by_some() -> set[str]:
    """The names, without a split, of the metrics that only runs with some method have."""
    entries = itertools.chain.from_iterable(table.values() for table in tables().values())
    return {name.partition("/")[2] for function in entries for name in tags_of(function).measures}


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise `BadInput` unless all are metrics of test."""
    for name in metrics:
        check_metric(name, "--metrics", split="test")
