"""
Thresholds and calibration
==========================

A classifier can be corrected after training: thresholds move its decision boundary, and a temperature changes its
confidence. Both are fitted to validation data.
"""

import contextlib
import io

import matplotlib.pyplot as plt
import numpy as np

import imbalance
from imbalance.metrics.scores import probabilities, reliability

heads = {
    "as trained": {"head.name": "none"},
    "temperature": {"head.name": "temperature"},
    "thresholds": {"head.name": "thresholds", "head.metric": "worst_group_accuracy", "head.rounds": 2},
}
runs = {}
for name, head in heads.items():
    with contextlib.redirect_stdout(io.StringIO()):
        runs[name] = imbalance.run("colored_digits_erm", {"trainer.epochs": 40, "callbacks.select": "last", **head})

# %%
# A network that interpolates is overconfident: of its predictions with a probability of 95 %, fewer than 95 % are
# correct. A temperature, one number that is fitted to val, corrects this on average and changes no predicted class.
# Thresholds add a constant to the logit of each class, and so change predicted classes.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
for name, marker in (("as trained", "o"), ("temperature", "s")):
    with np.load(runs[name].directory / "predictions" / "test.npz") as saved:
        curve = reliability(probabilities(saved["logits"]), saved["targets"], bins=8, equal_mass=True)
    axes[0].plot(curve.confidence, curve.accuracy, marker=marker, label=name)
axes[0].plot([0.5, 1], [0.5, 1], color="0.5", linewidth=0.8)
axes[0].set(xlabel="confidence", ylabel="accuracy", title="Calibration")
axes[0].legend()
metrics = ("accuracy", "balanced_accuracy", "worst_group_accuracy")
for at, (name, run) in enumerate(runs.items()):
    values = [100 * run.summary["metrics"][f"test/{metric}"] for metric in metrics]
    axes[1].bar(np.arange(3) + 0.25 * at - 0.25, values, width=0.23, label=name)
axes[1].set_xticks(range(3), ["average", "balanced", "worst group"])
axes[1].set(ylabel="test, %", title="Predictions", ylim=(0, 120))
axes[1].legend(frameon=False, loc="upper right")
plt.show()

# %%
# A temperature leaves the accuracies on the right unchanged. Thresholds lower the average accuracy a little and raise
# the worst-group accuracy, without training. A loss that is designed for small groups should do better than thresholds.
