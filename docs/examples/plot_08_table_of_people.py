"""
A table with groups
===================

The data are a CSV file with columns of numbers and categories, a class, and an attribute on which the prediction should
not depend. Three methods are compared by their worst-group accuracy.
"""

import contextlib
import csv
import io

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification

import imbalance

# %%
# The people are made up with scikit-learn, in the style of the Adult data set. Each has six numbers, a sex and an
# income. One of the numbers depends on the sex, and the income is high much more often for men than for women.

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
# The config names the attribute; the groups are its combinations with the class. The inputs of the model are all other columns; the
# values of a column decide whether it is numeric or categorical.

overrides = {
    "data_dir": ".", "data.file": "people.csv", "data.target": "income", "data.classes": ("low", "high"),
    "data.attributes": ("sex",), "trainer.epochs": 15,
}  # fmt: skip
accuracy = {}
for name in ("arrays_erm", "arrays_ce", "arrays_dro"):
    with contextlib.redirect_stdout(io.StringIO()):
        summary = imbalance.run(name, overrides).summary
    groups = summary["groups"]["test"]
    accuracy[name] = [100 * summary["metrics"][f"test/group_accuracy/{group}"] for group in groups]

figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
for at, (name, values) in enumerate(accuracy.items()):
    axis.bar(np.arange(4) + 0.26 * at - 0.26, values, width=0.24, label=name)
axis.set_xticks(range(4), [f"{group}\n{count} in test" for group, count in groups.items()])
axis.set(ylabel="test accuracy, %", ylim=(0, 118))
axis.legend(ncols=3, frameon=False, loc="upper center")
plt.show()
