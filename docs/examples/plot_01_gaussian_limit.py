"""
Weights and the limit, in two dimensions
========================================

If a linear model predicts every training example correctly, the direction of its parameters converges as training goes
on. In two dimensions this limit can be computed and drawn as a line.
"""

# %%
# The data have 200 examples of one class and 20 of the other:

import matplotlib.pyplot as plt
import numpy as np

from imbalance.experiments.figure1 import draw
from imbalance.theory.oracle import margin_direction, poly_direction

inputs, targets = draw(1)

# %%
# Under cross-entropy gradient descent converges to the boundary with the largest margin, whatever the importance
# weights are. Under the polynomially-tailed loss (poly) the limit depends on the importance weights.
# ``imbalance.theory.oracle`` computes the limit directions of both losses.


def boundary(direction):
    w0, w1, bias = direction
    across = np.array([-4.0, 9.0])
    return across, -(w0 * across + bias) / w1


def importance(exponent):
    weights = np.bincount(targets)[targets] ** -float(exponent)
    return weights / weights.mean()


figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), sharex=True, sharey=True, layout="constrained")
axes[0].plot(*boundary(margin_direction(inputs, targets)), color="C2", label="any weights")
for exponent, style in ((0, "-"), (1, "--"), (2, ":")):
    direction = poly_direction(inputs, targets, importance(exponent), alpha=1.0)
    axes[1].plot(*boundary(direction), style, color="C3", label=f"weights to the power {exponent}")
for axis, title in zip(axes, ("Cross-entropy", "Poly, α = 1")):
    axis.scatter(*inputs[targets == 0].T, s=10, marker="o", label="200 examples")
    axis.scatter(*inputs[targets == 1].T, s=16, marker="^", label="20 examples")
    axis.plot([-4, 9], [-4, 9], color="0.5", linewidth=0.8, label="best for equal classes")
    axis.set(title=title, xlim=(-3, 8), ylim=(-3, 8), aspect="equal")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
plt.show()

# %%
# Left, cross-entropy: the line keeps the same distance to the outermost points of both classes. The outermost of 200
# points lie further out than the outermost of 20, so the line lies too close to the small class. Right, poly: without
# weights the line is worse than that of cross-entropy. With weights of one over the class count the line is in the best
# place for equally frequent classes. With these weights squared it turns too far.
