"""
A table with groups
===================

Columns of numbers and categories in a CSV file, a class, and groups that the class should not depend on: from the file to methods
compared by their worst group.
"""

import contextlib
import csv
import io

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification

import imbalance

# %%
# People as in the Adult data, made by scikit-learn: six numbers, one of which betrays the group, and an income that in one
# group is mostly low and in the other mostly high.

numbers, income = make_classification(4000, 6, n_informative=4, weights=[0.75], flip_y=0.02, random_state=0)
rng = np.random.default_rng(0)
woman = rng.random(4000) < np.where(income, 0.15, 0.6)
numbers[:, 5] += 1.5 * woman
with open("people.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["a", "b", "c", "d", "e", "f", "sex", "income"])
    for row, w, i in zip(numbers.round(3), woman, income):
        table.writerow([*row, "woman" if w else "man", "high" if i else "low"])

# %%
# Which columns are numbers is read off the file. The groups are named; the column itself is seen by the model, too, unless
# the config leaves it out.

said = {
    "data_dir": ".", "data.file": "people.csv", "data.target": "income", "data.classes": ("low", "high"),
    "data.groups": ("sex", "income"), "trainer.epochs": 15,
}  # fmt: skip
shown = {}
for name in ("arrays_erm", "arrays_ce", "arrays_dro"):
    with contextlib.redirect_stdout(io.StringIO()):
        summary = imbalance.run(name, said).summary
    groups = summary["groups"]["test"]
    shown[name] = [100 * summary["metrics"][f"test/group_accuracy/{group}"] for group in groups]

figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
for at, (name, values) in enumerate(shown.items()):
    axis.bar(np.arange(4) + 0.26 * at - 0.26, values, width=0.24, label=name)
axis.set_xticks(range(4), [f"{group}\n{count} in test" for group, count in groups.items()])
axis.set(ylabel="test accuracy, %", ylim=(0, 118))
axis.legend(ncols=3, frameon=False, loc="upper center")
plt.show()
