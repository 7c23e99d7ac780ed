"""Compare methods on long-tailed CIFAR-10 at the last epoch, at the best epoch on val, and at the best epoch on test.

The runs are those of the configs below, kept in results/long_tails.csv. The table is part of docs/results.md.
"""

from pathlib import Path

from imbalance.metrics.intervals import mean
from imbalance.report import kept_results
from imbalance.report.kept_results import numbers
from imbalance.report.tables import markdown

LONG_TAILS = {
    "cifar10lt_erm": "cross-entropy", "cifar10lt_balanced_softmax": "balanced softmax", "cifar10lt_ldam_drw": "LDAM-DRW",
    "cifar10lt_mixup_drw": "mixup-DRW",
}  # fmt: skip


def long_tails_table(folder: Path) -> str:
    """Return a table of the same runs at the last epoch, at the best epoch on val, and at the best epoch on test."""
    columns = {
        "last epoch": "test balanced",
        "best epoch on val": "best balanced: test balanced",
        "best epoch on test (leakage)": "oracle: test balanced",
    }
    table, rows = [], kept_results.read("long_tails", folder)
    for network in sorted({row["model"].removesuffix("_cosine") for row in rows}):
        for config, title in LONG_TAILS.items():
            chosen = [row for row in rows if row["name"] == config and row["model"].removesuffix("_cosine") == network]
            if chosen:
                outcomes = [mean(list(numbers(chosen, column)), 0, 1).percent() for column in columns.values()]
                table.append([network, title, len(chosen), *outcomes])
    return markdown(["network", "method", "n", *columns], table) if table else "No run has finished yet.\n"
