"""Figure 4 of the paper: with early stopping, weights help cross-entropy too.

    imbalance reproduce figure4 --data=cifar --seeds=10

The runs are the weighted ones of figure 3: CIFAR-10 cat/dog and CelebA, {cross-entropy, poly} × {weights, weights to a higher
power}. After figure 3 no run is missing. Each run is shown at the epoch with the best val accuracy on average over groups. So
the rule reads the groups of val; for CIFAR these are the classes. With --no-train the command trains nothing and shows the
runs so far, unfinished ones too.
"""

from imbalance.experiments.figure3 import ROWS as FIGURE3_ROWS
from imbalance.experiments.paper_rows import best_group_average, compare

ROWS = {data: {f"{row}-ES": rows[row] for row in rows if "No IW" not in row} for data, rows in FIGURE3_ROWS.items()}


def figure4(**arguments) -> None:
    """Train, tabulate and draw these rows by `paper_rows.compare`."""
    compare("figure4", "Early-stopped", ROWS, best_group_average, **arguments)
