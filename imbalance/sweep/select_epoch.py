"""Select epochs of saved runs by other selection rules, from the runs' saved logits and without training again.

    imbalance select --config=colored_digits_erm,colored_digits_poly --seeds=10

The command trains the unfinished runs of these configs, and saves their logits. Without --config it reads all runs under
--work_dir that saved their logits. For every config and rule it prints the labels that the rule reads, and test
accuracies at the epoch that the rule selects, as means over seeds. The accuracies are those of the worst group, of the groups
on average, of the classes on average, and over all examples. All rules are applied to the same runs, so their differences are
paired by seed. The oracle selects by test, so it shows how much the usable rules leave to gain.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.errors import BadInput
from imbalance.metrics.intervals import mean
from imbalance.metrics.selection import KEPT, METRICS, RULES, evaluations
from imbalance.report.collect import collect, separate_repeated
from imbalance.report.saved_runs import evaluation_groups
from imbalance.report.tables import markdown
from imbalance.sweep.runs import add_own_values, check_common_overrides, check_config_names, make_run, run_all
from imbalance.utils.output import counted


def select(
    *,
    config: Sequence[str],
    overrides: Mapping[str, Any],
    share: float,
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
) -> None:
    """Train the unfinished runs of the configs, and print a table with a row for every config and rule.

    Args:
        config: config files or names; if empty, nothing is trained, and all runs under `work_dir` are read.
        overrides: config values by key, for the runs of the configs.
        share: fraction of the val examples whose group labels are known to the selection rule for few labels.
        seeds: number of seeds of each config; the seeds are 0, 1, 2, …
        work_dir: folder of the run directories.
        jobs: number of worker processes.
        stacked: largest number of runs that one process trains together as one stacked model.
    """
    folder, wanted = Path(work_dir), None
    if config:
        common = add_own_values(check_common_overrides(overrides), KEPT)
        check_config_names(config)
        runs = [make_run(c, common, s, work_dir) for c in config for s in range(seeds)]
        run_all(runs, jobs, stacked)
        wanted = {str(run.directory.relative_to(folder)) for run in runs}
    elif overrides:
        raise BadInput(
            f"--config.{next(iter(overrides))}: overrides apply to the runs that --config trains; add --config=<names>, "
            "or leave the override out"
        )
    read = [
        row
        for row in collect(folder)
        if (wanted is None or row["run"] in wanted)
        and (row["status"] == "done" or (wanted is not None and row["status"] == "debug"))
        and all(any((folder / row["run"]).glob(f"evaluations/{split}-*.npy")) for split in ("val", "test"))
    ]
    if not read:
        raise BadInput(
            f"--work_dir={work_dir} has no finished run with saved logits of val and test; type --config=<names> to train such runs"
        )
    read, warning = separate_repeated(read)
    if warning:
        print(warning, file=sys.stderr)
    print(f"reading the logits of {counted(len(read), 'run')}", file=sys.stderr, flush=True)
    values_of = {}
    for row in read:
        directory = folder / row["run"]
        (epochs, val), (_, test) = evaluations(directory, "val"), evaluations(directory, "test")
        metrics = [metric(test) for metric in METRICS.values()]
        for name, _, rule in RULES:
            if "inferred" in name and val.inferred is None:
                continue
            chosen = rule(val, test, share, row["seed"])
            values = (epochs[chosen], *(metric[chosen] for metric in metrics))
            values_of.setdefault((row["name"], row["overrides"]), {}).setdefault(name, []).append(values)
    print(
        f"Test, %: mean ± 95 % t-interval over n seeds. The rule for few labels reads the groups of {share:.0%} of val."
    )
    if groups := evaluation_groups(read, "test"):
        print(f"The groups are {groups}.")
    print()
    rows = []
    for (name, overrides_text), by_rule in values_of.items():
        # The name of a run directory without overrides is "default".
        others = [part for part in overrides_text.split(",") if part.partition("=")[0] not in (*KEPT, "default")]
        for rule, labels, _ in RULES:
            if rule not in by_rule:
                continue
            epochs, *metrics = zip(*by_rule[rule])
            cells = [",".join([name, *others]), rule, labels, f"{np.mean(epochs):.0f}"]
            rows.append([*cells, *(mean(m, 0, 1).percent() for m in metrics), len(epochs)])
    print(markdown(["config", "rule", "labels it reads", "epoch", *METRICS, "n"], rows), end="")
