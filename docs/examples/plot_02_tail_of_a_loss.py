"""
The tail of a loss, and the effect of a weight on it
====================================================

The tail of a loss is its values at large margins. The weight of an example shifts the tail of cross-entropy by a
constant, and stretches the tail of the polynomially-tailed loss by a factor. When all margins are large, only the
factor still has an effect.
"""

import matplotlib.pyplot as plt
import torch

from imbalance.methods.losses import CrossEntropy, Poly

margins = torch.linspace(-3, 60, 400)
logits = torch.stack([torch.zeros(400), margins], dim=1)
targets = torch.ones(400, dtype=torch.long)
losses = {"cross-entropy": CrossEntropy(), "poly, α = 1": Poly(alpha=1.0, left="logistic")}

# %%
# One example has weight 1, another one weight 10. At which margin does the second example move the boundary as much as
# the first? The influence of an example is the size of the derivative of its loss with respect to the margin.


def pull(loss, logits):
    logits = logits.clone().requires_grad_()
    loss(logits, targets).sum().backward()
    return -logits.grad[:, 1]


figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for axis, (name, loss) in zip(axes, losses.items()):
    for weight, style in ((1, "-"), (10, "--")):
        axis.plot(margins, weight * pull(loss, logits), style, label=f"weight {weight}")
    axis.set(title=name, xlabel="margin", ylabel="pull on the boundary", yscale="log", ylim=(1e-6, 20))
    axis.legend()
plt.show()

# %%
# Left: the dashed line is the solid line, shifted to the right by log 10 = 2.3. At a margin of 3 this is a large shift, at
# a margin of 300 a negligible one. Right: the dashed line is the solid line, stretched to the right by √10 = 3.2 at every
# margin.
