"""
Features and refitted heads
===========================

The features of a network that relies on a shortcut still contain what the network should have used. So these methods
train once, without any correction, and then correct the last layer.
"""

import contextlib
import io

import matplotlib.pyplot as plt

import imbalance
from imbalance.config.load import config_file, load

# %%
# The configs of these methods are plain training with another ``head``. All have the same seed, so their networks are equal
# up to the last layer.

heads = {"as trained": "erm", "cRT": "crt", "LWS": "lws", "DFR, on the groups of val": "dfr"}
rows = []
for name, stem in heads.items():
    config = load(config_file(f"colored_digits_{stem}"))
    over = {"trainer.epochs": 40, "callbacks.select": "last"}
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = imbalance.run(f"colored_digits_{stem}", over).summary["metrics"]
    rows.append((name, 100 * metrics["test/adjusted_accuracy"], 100 * metrics["test/worst_group_accuracy"]))
    print(f"{name:22} head = {config.head.name:5} average {rows[-1][1]:.1f}, worst group {rows[-1][2]:.1f}")

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, average, worst in rows:
    axis.plot([0, 1], [average, worst], "o-")
    axis.annotate(name, (1, worst), textcoords="offset points", xytext=(8, -3))
axis.set_xticks([0, 1], ["average", "worst group"])
axis.set(ylabel="test accuracy, %", xlim=(-0.2, 1.7))
plt.show()

# %%
# Balancing classes (cRT, LWS) does not help here, because a group within a class is rare. DFR reads the groups of val.
