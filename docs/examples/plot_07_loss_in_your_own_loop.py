"""
A loss in your own training loop
================================

This plain PyTorch loop uses only a loss and the importance weights of this project. The data are two moons, one of them
with ten times as many examples as the other.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

from imbalance.methods.losses import CrossEntropy, Poly, VectorScaling
from imbalance.methods.standalone import example_weights

inputs, targets = make_moons((300, 30), noise=0.25, random_state=0)
inputs, targets = torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets)
test_inputs, test_targets = make_moons((2000, 2000), noise=0.25, random_state=1)
test_inputs = torch.tensor(test_inputs, dtype=torch.float32)

# %%
# A loss returns one value for each example, so multiply it by the weights. Some losses take the number of examples of
# each class as an argument.

counts = torch.bincount(targets)
importance = example_weights("importance", targets, by="class", exponent=1.0)
settings = {
    "cross-entropy": (CrossEntropy(), torch.ones(len(targets))),
    "VS, γ = 0.2, τ = 1": (VectorScaling(counts, gamma=0.2, tau=1.0), torch.ones(len(targets))),
    "poly, weighted": (Poly(alpha=1.0, left="logistic"), importance),
}


def trained(loss, weights):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(600):
        optimizer.zero_grad()
        (weights * loss(model(inputs), targets)).mean().backward()
        optimizer.step()
    return model


across, up = np.meshgrid(np.linspace(-1.8, 2.8, 150), np.linspace(-1.3, 1.8, 150))
grid = torch.tensor(np.stack([across.ravel(), up.ravel()], 1), dtype=torch.float32)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
for axis, (name, (loss, weights)) in zip(axes, settings.items()):
    model = trained(loss, weights)
    with torch.inference_mode():
        margin = (model(grid)[:, 1] - model(grid)[:, 0]).reshape(across.shape)
        is_correct = model(test_inputs).argmax(1).numpy() == test_targets
    recalls = [100 * is_correct[test_targets == label].mean() for label in (0, 1)]
    axis.contourf(across, up, margin > 0, levels=1, colors=["C0", "C1"], alpha=0.2)
    for label, marker in ((0, "o"), (1, "^")):
        axis.scatter(*inputs[targets == label].T, s=9, marker=marker, color=f"C{label}")
    axis.set(title=f"{name}\nrecall {recalls[0]:.0f} % and {recalls[1]:.0f} %", xticks=[], yticks=[])
plt.show()
