"""
Features and refitted heads
===========================

A network that leans on a shortcut still has what it should have used in its features. So train once, plainly, and mend the last layer.
"""

import contextlib
import io

import matplotlib.pyplot as plt

import imbalance
from imbalance.config.resolve import config_file, load

# %%
# The configs of these methods are plain training with another ``head``. Each is the same network up to its last layer, as all have the same
# seed.

heads = {"as trained": "erm", "cRT": "crt", "LWS": "lws", "DFR, on val's groups": "dfr"}
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
# Balancing classes (cRT, LWS) does not help here: the rare thing is a group within a class. DFR knows the groups of val.
