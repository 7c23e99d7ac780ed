"""
Selection rules on one run
==========================

A selection rule decides which epoch of a run is tested. This script applies several rules to the same run; each reads
more labels than the one before. The last rule reads the test data, and shows how much leakage changes a result.
"""

import contextlib
import io

import matplotlib.pyplot as plt

import imbalance
from imbalance.metrics.selection import RULES, evaluations, worst

with contextlib.redirect_stdout(io.StringIO()):
    run = imbalance.run(
        "colored_digits_ce", {"trainer.eval_splits": ("val", "test"), "callbacks.keep_logits": True, "seed": 1}
    )
epochs, val = evaluations(run.directory, "val")
_, test = evaluations(run.directory, "test")

# %%
# Print for each rule the labels that it reads, the epoch that it selects and the test accuracy at this epoch:

figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
axis.plot(epochs, 100 * worst(val), color="0.7", label="val, worst group")
axis.plot(epochs, 100 * worst(test), color="C0", label="test, worst group")
rules = [rule for rule in RULES if "inferred" not in rule[0]]  # these rules need inferred groups
for marker, (name, labels, rule) in zip("osD^vPX*", rules):
    at = rule(val, test, 0.1, 0)
    print(f"{name:32} reads {labels:24} epoch {epochs[at]:3}, test worst group {100 * worst(test)[at]:.0f} %")
    axis.plot(epochs[at], 100 * worst(test)[at], marker, color="C3", markersize=9, label=name, zorder=3)
axis.set(xlabel="epoch", ylabel="accuracy, %")
axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
plt.show()

# %%
# The grey curve is noisy, because val has few examples of the smallest group. ``imbalance select`` prints the same
# comparison of rules as means over seeds.
