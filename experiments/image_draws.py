"""Compare the spread of test accuracy over seeds if all seeds train on the published images, and if each draws its own.

The runs are those of cifar_ce and cifar_poly with `data.draw` "published" and "stratified". Their results are kept in
results/draws.csv, and the table is part of docs/results.md.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imbalance.experiments.pairs import LOSSES
from imbalance.metrics.intervals import mean, paired_difference
from imbalance.report import kept_results
from imbalance.report.kept_results import Row, score, share_interpolating
from imbalance.report.tables import markdown


def draws_table(folder: Path) -> str:
    """Return a table of cross-entropy and poly, on the published images and on images that each seed draws.

    The last column has the variance over seeds divided by that on the published images, with its 95 % interval.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    heads = [
        "images",
        "loss",
        "rate",
        "n",
        "interpolate",
        "test",
        "standard deviation",
        "poly minus cross-entropy",
        "variance ratio",
    ]
    every = kept_results.read("draws", folder)
    table, published = [], {}
    for draw, title in (("published", "the published draw"), ("stratified", "drawn by each seed")):
        rows_of = {
            loss: [row for row in every if row["name"] == f"cifar_{loss}" and draw_of(row) == draw] for loss in LOSSES
        }
        tests = {
            loss: {int(row["seed"]): score(row, "test", "balanced_accuracy") for row in rows}
            for loss, rows in rows_of.items()
        }
        for loss, rows in rows_of.items():
            if not rows:
                continue
            values = list(tests[loss].values())
            difference = paired_difference(tests["poly"], tests["ce"], 0, 1).percent() if loss == "poly" else ""
            over_seeds = mean(values, 0, 1).percent(), deviation(values)
            ratio = variance_ratio(values, published[loss]) if loss in published else ""
            if draw == "published":
                published[loss] = values
            table.append(
                [
                    title,
                    LOSSES[loss],
                    rows[0]["lr"],
                    len(rows),
                    share_interpolating(rows),
                    *over_seeds,
                    difference,
                    ratio,
                ]
            )
    return markdown(heads, table) if table else "No run has finished yet.\n"


def draw_of(row: Row) -> str:
    """Return which images a run trained on: its value of `data.draw`, "published" or "stratified"."""
    return "stratified" if "data.draw=stratified" in row["overrides"] else "published"


def deviation(values: Sequence[float]) -> str:
    """Return the standard deviation of fractions as text, in percent, with a 95 % interval that is exact for normal values."""
    from scipy import stats

    n, estimate = len(values), 100 * np.std(values, ddof=1)
    low, high = estimate * np.sqrt((n - 1) / stats.chi2.ppf([0.975, 0.025], n - 1))
    return f"{estimate:.1f} ({low:.1f} to {high:.1f})"


def variance_ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the variance of values divided by that of others, as text, with a 95 % interval that is exact for normal values."""
    from scipy import stats

    ratio = float(np.var(values, ddof=1) / np.var(others, ddof=1))
    low, high = ratio / stats.f.ppf([0.975, 0.025], len(values) - 1, len(others) - 1)
    return f"{ratio:.1f} ({low:.1f} to {high:.1f})"
