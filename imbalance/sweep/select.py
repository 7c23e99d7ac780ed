"""Which epoch would another rule have chosen? From saved logits, without training again.

    imbalance select --config=colored_digits_erm,colored_digits_poly --seeds=10

Trains what is missing of these configs, keeping the logits; without --config it reads all runs under --work_dir that
kept theirs. For every config, test accuracy of the worst group, of groups on average, of classes on average and over all
examples at the epoch that each rule chooses, the mean over seeds, and the labels that the rule reads. All rules are
applied to the same runs, so that their differences are paired. The oracle reads test: what the others leave to be had.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.errors import BadInput
from imbalance.metrics.intervals import mean
from imbalance.metrics.selection import KEPT, METRICS, RULES, evaluations
from imbalance.report.collect import collect
from imbalance.report.saved_runs import evaluated_over
from imbalance.report.tables import markdown
from imbalance.sweep.runs import configured, not_of_seeds, run_all


def select(
    *,
    config: Sequence[str],
    overrides: Mapping[str, Any],
    share: float,
    seeds: int,
    work_dir: str,
    jobs: int,
    at_once: int,
) -> None:
    """Train what is missing of the configs, if any are named, and print a row for every rule.

    Args:
        overrides: of all of them.
        share: of val whose groups the rule for few labels reads.
    """
    folder, wanted = Path(work_dir), None
    if config:
        common = {**not_of_seeds(overrides), **KEPT}
        runs = [configured(c, common, s, work_dir) for c in config for s in range(seeds)]
        run_all(runs, jobs, at_once)
        wanted = {str(run.directory.relative_to(folder)) for run in runs}
    elif overrides:
        raise BadInput("--config.<key>=<value>: is for configs that --config names")
    found, read = {}, []
    for row in collect(folder):
        directory = folder / row["run"]
        if (wanted is not None and row["run"] not in wanted) or row["status"] != "done":
            continue
        if all(any(directory.glob(f"evaluations/{split}-*.npy")) for split in ("val", "test")):
            (epochs, val), (_, test) = evaluations(directory, "val"), evaluations(directory, "test")
            read.append(row)
            metrics = [metric(test) for metric in METRICS.values()]
            for name, _, rule in RULES:
                if "inferred" in name and val.inferred is None:
                    continue
                chosen = rule(val, test, share, row["seed"])
                values = (epochs[chosen], *(metric[chosen] for metric in metrics))
                found.setdefault((row["name"], row["overrides"]), {}).setdefault(name, []).append(values)
    if not found:
        raise BadInput(f"--work_dir={work_dir}: no finished run there kept its logits of val and test; see --config")
    print(f"Test, %: mean ± 95 % t-interval over n seeds; few labels are {share:.0%} of val.")
    if groups := evaluated_over(read, "test"):
        print(f"Groups are {groups}.")
    print()
    rows = []
    for (name, overrides), by_rule in found.items():
        others = [part for part in overrides.split(",") if part.partition("=")[0] not in KEPT]
        for rule, labels, _ in RULES:
            if rule not in by_rule:
                continue
            epochs, *metrics = zip(*by_rule[rule])
            cells = [",".join([name, *others]), rule, labels, f"{np.mean(epochs):.0f}"]
            rows.append([*cells, *(mean(m, 0, 1).percent() for m in metrics), len(epochs)])
    print(markdown(["config", "rule", "labels it reads", "epoch", *METRICS, "n"], rows), end="")
