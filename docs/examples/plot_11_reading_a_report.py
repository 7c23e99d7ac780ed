"""
Reading a report
================

Two methods are trained with three seeds each, and ``imbalance report`` compares them. It writes a page for a browser,
``report/index.html``, and figures. This script shows the table of the page, and one of the figures.
"""

import contextlib
import io

import matplotlib.pyplot as plt

import imbalance
from imbalance.report.report import report

with contextlib.redirect_stdout(io.StringIO()):
    for name in ("colored_digits_erm", "colored_digits_ce"):
        for seed in range(3):
            imbalance.run(name, {"trainer.epochs": 30, "seed": seed})

# %%
# The same report on the command line: ``imbalance report --metrics=adjusted_accuracy,worst_group_accuracy``.

report(work_dir="runs", folder="report", metrics=["adjusted_accuracy", "worst_group_accuracy"], pictured=3)

# %%
# Read the table as follows:
#
# - *selection*: the rule that selected the epoch, and the labels that the rule reads. Do not compare rows with different
#   rules.
# - *±*: the 95 % t-interval of the mean over seeds. With three seeds it is wide.
# - *left out*: runs that diverged or are not finished. They are not in the mean.
# - The method with the best average is seldom the method with the best worst group.

figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
axis.imshow(plt.imread("report/boxes.png"))
axis.axis("off")
plt.show()

# %%
# Each point is a run with one seed. If the points of two methods overlap, run more seeds before you say that one is
# better.
