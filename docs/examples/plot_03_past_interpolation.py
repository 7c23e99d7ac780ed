"""
Weights fade as training goes on
================================

The claim is about the limit of training. This script shows the way to the limit: the boundary of a linear model under
weights of one over the class count, step by step.
"""

import matplotlib.pyplot as plt
import torch

from imbalance.experiments.figure1 import draw
from imbalance.methods.losses import CrossEntropy, Poly
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.methods.standalone import example_weights

inputs, targets = map(torch.tensor, draw(1))
inputs = inputs.double()
weights = example_weights("importance", targets, by="class", exponent=1.0).double()

# %%
# Plain descent slows down as the loss falls, so a million steps would show little. ``log_average`` has the same minimisers
# and follows the same path, at a rate that does not decay. An offset is the distance of the boundary from the point midway
# between the classes, in units of the inputs.

log_average = OBJECTIVES["log_average"]()


def offsets(loss, weights, rate, steps=400):
    model = torch.nn.Linear(2, 2, dtype=torch.float64)
    torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    optimizer, distances = torch.optim.SGD(model.parameters(), lr=rate), []
    for _ in range(steps):
        optimizer.zero_grad()
        log_average(loss(model(inputs), targets), weights, targets).backward()
        optimizer.step()
        w, b = (model.weight[1] - model.weight[0]).detach(), (model.bias[1] - model.bias[0]).item()
        distances.append(-((w @ torch.tensor([2.5, 2.5]).double() + b) / w.norm()).item())
    return distances


figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
ones = torch.ones(220, dtype=torch.float64)
for name, loss, rate in (("cross-entropy", CrossEntropy(), 0.1), ("poly", Poly(alpha=1.0, left="logistic"), 0.2)):
    (line,) = axis.plot(offsets(loss, weights, rate), label=f"{name}, weighted")
    axis.plot(offsets(loss, ones, rate), ":", color=line.get_color(), label=f"{name}, unweighted")
axis.axhline(0, color="0.5", linewidth=0.8)
axis.set(xlabel="step", ylabel="towards the small class", xscale="log", xlim=(1, 400))
axis.legend()
plt.show()

# %%
# Early in training weights move both losses. Later weighted cross-entropy drifts towards unweighted cross-entropy, and
# weighted poly stays where it is. A run that validation data stop early ends on the left of this picture.
