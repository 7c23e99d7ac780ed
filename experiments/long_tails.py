"""Compare methods on long-tailed CIFAR-10 at the last epoch, at the best epoch on val, and at the best epoch on test.

The runs are those of the configs in LONG_TAILS. Their results are kept in results/long_tails.csv, and the table is part of
docs/results.md.
"""

from pathlib import Path

from imbalance.metrics.intervals import mean
from imbalance.report import kept_results
from imbalance.report.kept_results import numbers
from imbalance.report.tables import markdown

# By title of a method: the config and the loss of its runs. A method has runs with several networks.
LONG_TAILS = {
    "cross-entropy": ("cifar10lt_erm", "cross_entropy"), "balanced softmax": ("cifar10lt_erm", "balanced_softmax"),
    "LDAM-DRW": ("cifar10lt_ldam_drw", "ldam"), "mixup-DRW": ("cifar10lt_mixup_drw", "cross_entropy"),
}  # fmt: skip


def long_tails_table(folder: Path) -> str:
    """Return a table of every network and method at the last epoch, the best epoch on val, and the best epoch on test.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    columns = {
        "last epoch": "test balanced",
        "best epoch on val": "best balanced: test balanced",
        "best epoch on test (leakage)": "oracle: test balanced",
    }
    table, rows = [], kept_results.read("long_tails", folder)
    for network in sorted({row["model"].removesuffix("_cosine") for row in rows}):
        for title, method in LONG_TAILS.items():
            chosen = [
                row
                for row in rows
                if (row["name"], row["loss"]) == method and row["model"].removesuffix("_cosine") == network
            ]
            if chosen:
                outcomes = [mean(list(numbers(chosen, column)), 0, 1).percent() for column in columns.values()]
                table.append([network, title, len(chosen), *outcomes])
    return markdown(["network", "method", "n", *columns], table) if table else "No run has finished yet.\n"
