"""
Features and refitted heads
===========================

The features of a network that relies on a shortcut still contain the information that it should have used. So the
methods here first train with plain cross-entropy, and then change only the last layer, the head.
"""

import contextlib
import io

import matplotlib.pyplot as plt

import imbalance

# %%
# The configs of the methods differ only in the section ``head``. All runs have the same seed, so their networks are
# equal up to the last layer.

training = {"by": "class", "epochs": 20, "batch_size": 64, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005}
heads = {
    "as trained": {"name": "none"},
    "cRT": {"name": "crt", **training},
    "LWS": {"name": "lws", **training},
    "DFR, on the groups of val": {
        "name": "dfr",
        "inverse_penalties": (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
        "fits": 20,
    },
}
rows = []
for name, head in heads.items():
    overrides = {"trainer.epochs": 40, "callbacks.select": "last"}
    overrides |= {f"head.{key}": value for key, value in head.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = imbalance.run("colored_digits_erm", overrides).summary["metrics"]
    rows.append((name, 100 * metrics["test/adjusted_accuracy"], 100 * metrics["test/worst_group_accuracy"]))
    print(f"{name:26} average {rows[-1][1]:.1f}, worst group {rows[-1][2]:.1f}")

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, average, worst in rows:
    axis.plot([0, 1], [average, worst], "o-")
    axis.annotate(name, (1, worst), textcoords="offset points", xytext=(8, -3))
axis.set_xticks([0, 1], ["average", "worst group"])
axis.set(ylabel="test accuracy, %", xlim=(-0.2, 1.7))
plt.show()

# %%
# cRT and LWS balance the classes, which does not help here, because the rare group is a part of a class. DFR helps, and
# reads the groups of val.
