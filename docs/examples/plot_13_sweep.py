"""
A sweep
=======

Two losses, each with four learning rates and three exponents of the importance weights, make 24 runs of a small
network. Several runs are trained together as one batched model, and each run has an ordinary run directory.
"""

import contextlib
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from imbalance.config.resolve import config_file, load
from imbalance.training.stacked.train import train_stacked

RATES, EXPONENTS = (0.01, 0.03, 0.1, 0.3), (0.0, 1.0, 1.5)


def sweep(name):
    runs = []
    for exponent in EXPONENTS:
        for rate in RATES:
            config = load(config_file(name))
            config.model.hidden = (64,)
            config.trainer.update(epochs=150, eval_every=150)
            config.weights.exponent, config.optim.lr = exponent, rate
            runs.append((config, Path(name, f"{exponent},{rate}")))
    with contextlib.redirect_stdout(io.StringIO()):
        scores = [summary["score"] for summary in train_stacked(runs)]
    scores = [np.nan if score is None else 100 * score for score in scores]
    return np.reshape(scores, (len(EXPONENTS), len(RATES)))


# %%
# The sweep of one loss on the command line: ``imbalance sweep --config=digits_ce --grid=optim.lr=0.01,0.03,0.1,0.3
# --grid=weights.exponent=0,1,1.5``.

figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
for axis, name, title in zip(axes, ("digits_ce", "digits_poly"), ("Cross-entropy", "Poly")):
    scores = sweep(name)
    axis.imshow(scores, vmin=40, vmax=90, cmap="viridis")
    for (row, column), value in np.ndenumerate(scores):
        label = "diverged" if np.isnan(value) else f"{value:.0f}"
        axis.text(column, row, label, ha="center", va="center", color="black" if value > 70 else "white")
    axis.set_xticks(range(len(RATES)), RATES)
    axis.set_yticks(range(len(EXPONENTS)), EXPONENTS)
    axis.set(title=f"{title}: balanced accuracy on val, %", xlabel="learning rate", ylabel="weights to the power")
plt.show()

# %%
# The best learning rates of the two losses differ, so do not compare the losses at one learning rate, nor by a single
# seed. First choose the learning rate of each loss on val, then compare the losses over seeds (``imbalance protocol``
# does both).
