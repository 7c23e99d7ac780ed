"""
Losses for a long tail
======================

The data are images of the ten digits, with 104 images of the first class and 2 of the last. Which losses help, and the
recall of which classes do they raise?
"""

import contextlib
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ml_collections import ConfigDict

from imbalance.config.resolve import config_file, load
from imbalance.training.stacked.train import train_stacked

losses = {
    "cross-entropy": {"name": "cross_entropy"},
    "focal": {"name": "focal", "gamma": 2.0},
    "balanced softmax": {"name": "balanced_softmax"},
    "VS": {"name": "vs", "gamma": 0.2, "tau": 1.0},
    "CDT": {"name": "cdt", "gamma": 0.2},
}

# %%
# Each loss is trained with five seeds, together as one batched model, for 300 epochs. All losses have the same learning
# rate.

shots = ("many_shot_accuracy", "medium_shot_accuracy", "few_shot_accuracy", "balanced_accuracy")
recalls = {}
for name, loss in losses.items():
    runs = []
    for seed in range(5):
        config = load(config_file("digits_erm"))
        config.seed, config.loss, config.model.hidden = seed, ConfigDict(loss), (64,)
        config.trainer.update(epochs=300, eval_every=300)
        runs.append((config, Path(name, f"{seed}")))
    with contextlib.redirect_stdout(io.StringIO()):
        summaries = train_stacked(runs)
    recalls[name] = 100 * np.array([[s["metrics"][f"test/{shot}"] for shot in shots] for s in summaries])

figure, axis = plt.subplots(figsize=(8.4, 3.8), layout="constrained")
for at, (name, values) in enumerate(recalls.items()):
    places = np.arange(4) + 0.16 * at - 0.32
    axis.bar(places, values.mean(0), width=0.15, label=name)
    axis.plot(np.tile(places, (5, 1)), values, ".", color="black", markersize=2)
axis.set_xticks(range(4), ["many (> 100)", "medium (20 to 100)", "few (< 20)", "all classes"])
axis.set(ylabel="mean recall on test, %", ylim=(40, 112))
axis.legend(ncols=5, frameon=False, loc="upper center", fontsize=8)
plt.show()

# %%
# Each dot is a run with one seed. Balanced softmax and VS add to each logit an offset that depends on the class count;
# they raise the recall of rare classes and lower that of common classes. Focal loss reads no class counts and helps
# little. CDT multiplies the logits by factors and adds no offsets. Factors change the limit of training, which is not
# reached in 300 epochs.
