"""
The noise of a worst group
==========================

Four groups all have the same true accuracy. The worst-group accuracy is the lowest of their measured accuracies. How
far below the true accuracy is it?
"""

import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(0)
sizes = np.array([30, 60, 120, 180, 360, 720, 1440])
truth = 0.8

figure, axis = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
for groups, colour in ((2, "C0"), (4, "C1"), (16, "C2")):
    worst = np.array([rng.binomial(n, truth, size=(20_000, groups)).min(1) / n for n in sizes])
    low, high = np.quantile(worst, (0.025, 0.975), axis=1)
    axis.fill_between(sizes, 100 * low, 100 * high, alpha=0.15, color=colour)
    axis.plot(sizes, 100 * worst.mean(1), color=colour, label=f"worst of {groups} groups")
axis.axhline(100 * truth, color="0.4", linewidth=0.8, label="true accuracy of every group")
axis.set(xscale="log", xlabel="test examples of each group", ylabel="measured accuracy, %")
axis.set_xticks(sizes, sizes)
axis.minorticks_off()
axis.legend()
plt.show()

# %%
# The bands contain 95 % of the simulated measurements. With 180 examples in each group, the measured worst-group
# accuracy of four equally good groups is three points too low on average, and lies between 71 and 81 % in most cases.
# So a gain of two points in worst-group accuracy does not show that a method is better.
