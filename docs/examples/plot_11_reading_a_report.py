"""
Reading a report
================

Two methods, three seeds each, and what ``imbalance report`` says of them. The page itself, ``report/index.html``, is opened in a
browser; here are its table and the figures that are written beside it.
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
# On the command line: ``imbalance report --metrics=adjusted_accuracy,worst_group_accuracy``.

report(work_dir="runs", folder="report", metrics=["adjusted_accuracy", "worst_group_accuracy"], pictured=3)

# %%
# Read it so:
#
# - *selection*: by which rule the epoch was chosen, and which labels that reads. Rows with other rules are not to be compared.
# - *±*: the 95 % t-interval of the mean over seeds. With three seeds it is wide, and that is the truth.
# - *left out*: runs that diverged or are not finished. They are not in the mean.
# - The rows say which method is ahead on average *and* which in its worst group: seldom the same.

figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
axis.imshow(plt.imread("report/boxes.png"))
axis.axis("off")
plt.show()

# %%
# A point a seed. If the clouds overlap, more seeds are needed, not more decimals.
