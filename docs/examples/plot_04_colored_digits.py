"""
Colored digits, and what each method sees
=========================================

Waterbirds in miniature: even or odd digits, red or green. In train colour nearly always gives the answer away; in test it
says nothing. What do methods make of it?
"""

import contextlib
import io

import matplotlib.pyplot as plt
import numpy as np

import imbalance
from imbalance.config.resolve import config_file, load
from imbalance.data import load as load_data

config = load(config_file("colored_digits_erm"))
data = load_data(config.data, config.data_dir, config.seed)
figure, axes = plt.subplots(4, 8, figsize=(8, 4.6), layout="constrained")
for group, row in enumerate(axes):
    for axis, image in zip(row, data.train.inputs[data.train.groups == group]):
        axis.imshow(np.moveaxis(np.asarray(image, dtype=float), 0, -1) / image.max().item())
    for axis in row:
        axis.axis("off")
    count = int((data.train.groups == group).sum())
    row[0].set_title(f"{data.group_names[group]}: {count} in train", loc="left", fontsize=9)
plt.show()

# %%
# Four methods, 40 epochs each. They differ in one section of the config; which epoch counts is chosen by the worst group
# of val for all.

methods = {"ERM": "erm", "importance weights": "ce", "group DRO": "dro", "undersampling": "undersampled"}
accuracy = {}
for name, stem in methods.items():
    with contextlib.redirect_stdout(io.StringIO()):
        result = imbalance.run(f"colored_digits_{stem}", {"trainer.epochs": 40})
    metrics = result.summary["metrics"]
    accuracy[name] = [100 * metrics[f"test/group_accuracy/{group}"] for group in data.group_names]

figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
for at, (name, values) in enumerate(accuracy.items()):
    axis.bar(np.arange(4) + 0.2 * at - 0.3, values, width=0.18, label=name)
axis.set_xticks(range(4), data.group_names)
axis.set(ylabel="test accuracy, %", ylim=(0, 118))
axis.legend(ncols=4, loc="upper center", frameon=False)
plt.show()

# %%
# ERM is right where colour helps and wrong where it misleads. The others give a little there, and gain much where it counts.
# This is one seed; ten are in the results.
