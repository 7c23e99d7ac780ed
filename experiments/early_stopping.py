"""Compare the poly loss with cross-entropy if val chooses the epoch and the learning rate, both from the same values.

    imbalance reproduce early_stopping --data=cifar --seeds=3 --config.data_dir=data
    imbalance reproduce early_stopping --no-train       # the table from results/early.csv.gz only

Data, network and batch size are those of `experiments.pairs`, with importance weights to the power 1. In the runs of
`experiments.leads_along_training` val mostly chooses the smallest learning rate or the first evaluated epoch, and the losses
have different learning rates. Here both losses have the same, smaller learning rates, and every fourth of 100 epochs is
evaluated. For each pair and loss, val chooses the epoch of each run, and the learning rate with the best mean over seeds at
these epochs.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.experiments.leads_along_training import by_roles, choices, early_stopped, leads
from imbalance.experiments.pairs import CLASSES, EQUIVALENCE, IDENTITY, LOSSES, TITLES
from imbalance.metrics.clusters import ahead_and_behind, contrast
from imbalance.report import kept_results
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, add_own_values, check_common_overrides, make_run, run_and_keep

STUDY = "early"
RATES = (0.0001, 0.0003, 0.001)
EPOCHS, EVERY = 100, 4
EXPONENT = 1.0


def batches(common: Mapping[str, Any], data: str, seeds: int, work_dir: str) -> Iterable[list[Run]]:
    """Yield lists of runs, each to be trained as one stacked model: the runs of a loss on a pair of classes.

    Args:
        common: overrides of all runs.
        data: a key of `pairs.CLASSES`.
    """
    overrides = {"weights.exponent": EXPONENT, "trainer.epochs": EPOCHS, "trainer.eval_every": EVERY,
                 "trainer.eval_splits": ("val", "test")}  # fmt: skip
    for pair, loss in itertools.product(itertools.combinations(CLASSES[data], 2), LOSSES):
        yield [
            make_run(f"{data}_pair_{loss}",
                     add_own_values(common, {**overrides, "data.classes": pair, "optim.lr": rate}), seed, work_dir)
            for seed, rate in itertools.product(range(seeds), RATES)
        ]  # fmt: skip


def early_table(folder: Path) -> str:
    """Return a table of the lead of poly over cross-entropy, and of what val chooses for the two losses.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows = kept_results.read(STUDY, folder)
    heads = ["data", "weights", "pairs", "seeds", "poly minus cross-entropy, points", "pairs ahead, behind", "loss",
             "chosen rates: " + ", ".join(f"{rate:g}" for rate in RATES), "chosen epochs: first, last"]  # fmt: skip
    table = []
    for data in CLASSES:
        found = choices(by_roles(rows, data).get("as_listed", []), EXPONENT, early_stopped)
        result = leads(found, data)
        if result is None:
            continue
        pairs, values = result
        lead = contrast(values, pairs)
        about = [TITLES[data], f"IW^{EXPONENT:g}", str(len(pairs)), str(values.shape[-1]),
                 lead.points() + (" (level)" if lead.level(EQUIVALENCE) else ""), "{}, {}".format(*ahead_and_behind(values))]  # fmt: skip
        for loss, title in LOSSES.items():
            of_loss = [choice for by_loss in found.values() if (choice := by_loss[loss]) is not None]
            rates = ", ".join(f"{np.mean([choice.rate == rate for choice in of_loss]):.0%}" for rate in RATES)
            ends = ", ".join(f"{np.mean([choice.epochs == end for choice in of_loss]):.0%}" for end in (EVERY, EPOCHS))
            table.append([*(about if loss == "ce" else [""] * len(about)), title, rates, ends])
    return markdown(heads, table) if table else "No two pairs have finished yet.\n"


def early_stopping(
    *,
    data: Sequence[str],
    train: bool,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    results: str,
) -> None:
    """Train the runs that have no row in results/early.csv.gz, and print the table.

    Args:
        data: keys of `pairs.CLASSES`.
        train: False to train nothing.
        overrides: config values by key, for all runs.
        results: folder that holds the tables of results, such as results/.
    """
    if train:
        common = check_common_overrides(overrides)
        for name in data:
            run_and_keep(batches(common, name, seeds, work_dir), jobs, STUDY, Path(results), IDENTITY)
    print(early_table(Path(results)))
