"""
Weights fade as training goes on
================================

Importance weights have no effect on the limit of training under cross-entropy. This script shows how training
approaches the limit: the boundary of a linear model, with and without weights of one over the class count, during
training.
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
# The gradient of the mean loss shrinks as the loss falls, so even a million steps of gradient descent would show
# little. The objective ``log_average`` is the logarithm of the mean loss. It has the same minimisers, and its gradient
# does not shrink. The offset in the picture is the distance of the boundary from the point midway between the classes,
# in units of the inputs.

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
# Early in training the weights move the boundary under both losses. Later the boundary under weighted cross-entropy
# approaches that of unweighted cross-entropy, while the boundary under weighted poly stays where it is. A run with
# early stopping ends on the left side of this picture.
