"""Reproduce figure 4 of Wang et al.: with early stopping, importance weights help cross-entropy too.

    imbalance reproduce figure4 --data=cifar --seeds=10

The runs are those of figure 3 that have importance weights, so after figure 3 this command trains nothing. Each run is shown
at the epoch with the best val accuracy, averaged over groups. So the selection reads the groups of val; for CIFAR the groups
are the classes. With --no-train the command trains nothing, and shows all runs that were started before, including
unfinished ones.
"""

from imbalance.experiments.figure3 import ROWS as FIGURE3_ROWS
from imbalance.experiments.paper_rows import best_group_average, compare

ROWS = {data: {f"{row}-ES": rows[row] for row in rows if "No IW" not in row} for data, rows in FIGURE3_ROWS.items()}


def figure4(**arguments) -> None:
    """Train the runs of ROWS, print their table and draw the figure; for the arguments see `paper_rows.compare`."""
    compare("figure4", "Early-stopped", ROWS, best_group_average, **arguments)
