"""Figure 4 of the paper: the weighted runs of figure 3, early-stopped, where weights help cross-entropy too.

CIFAR-10 cat/dog and CelebA, {cross-entropy, poly} × {weights, weights to a higher power}, at the epoch with the best val
accuracy on average over groups, which are the classes in CIFAR: the rule reads the groups of val. After figure 3 there
is nothing left to train. --notrain shows what there is, unfinished runs too.

    python -m experiments.figure4 --data=cifar --seeds=10
"""

from absl import app

from experiments.figure3 import ROWS as LAST
from experiments.paper_rows import best_group_average, compare
from experiments.runs import exit_status

ROWS = {data: {f"{row}-ES": rows[row] for row in rows if "No IW" not in row} for data, rows in LAST.items()}


def main(argv: list[str]) -> int:
    return exit_status(lambda: compare("figure4", "Early-stopped", ROWS, best_group_average), argv)


if __name__ == "__main__":
    app.run(main)
