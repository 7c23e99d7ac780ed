"""Figure 4 of the paper: the weighted runs of figure 3, early-stopped, where weights help cross-entropy too.

CIFAR-10 cat/dog and CelebA, {cross-entropy, poly} × {weights, weights to a higher power}, at the epoch with the best val
accuracy on average over groups, which are the classes in CIFAR: the rule reads the groups of val. After figure 3 there
is nothing left to train. --no-train shows what there is, unfinished runs too.

    imbalance reproduce figure4 --data=cifar --seeds=10
"""

from imbalance.experiments.figure3 import ROWS as LAST
from imbalance.experiments.paper_rows import best_group_average, compare

ROWS = {data: {f"{row}-ES": rows[row] for row in rows if "No IW" not in row} for data, rows in LAST.items()}


def figure4(**arguments) -> None:
    """`paper_rows.compare` of these rows."""
    compare("figure4", "Early-stopped", ROWS, best_group_average, **arguments)
