"""Losses: `loss(logits (B, K), targets (B,), groups (B,)) -> (B,)`, one value an example, in at least float32.

`groups` can be left out where a loss does not read them. In a loop of one's own: `Poly(alpha=1.0, left="logistic")(logits,
targets).mean()`; see `imbalance.methods.standalone`.

To add one, write a module with keyword-only hyperparameters and put it in `LOSSES`; what stands before the `*`
(`class_counts`, `group_counts`, `num_classes`) is filled in from the training set.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Fraction, NonNegative, Positive, checked
from imbalance.methods.margins import against, at_least_float32, log_odds_against, soft_margins, softplus
from imbalance.methods.weights import inverse_effective_number


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) −log softmax(z)_y, as log(1 + the odds against y).

    `F.cross_entropy` subtracts two numbers that are equal once the margin passes 16 (in float32), and is 0 from there
    on. The tail of the loss is what decides where an interpolating model goes, so here it keeps its full precision.
    """
    return softplus(log_odds_against(logits, targets))


class CrossEntropy(nn.Module):
    """−log softmax(z)_y."""

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        return cross_entropy(logits, targets)


@checked
class Poly(nn.Module):
    """The polynomially-tailed loss of "Is Importance Weighting Incompatible with Interpolating Classifiers?".

    Wang, Chatterji, Haque and Hashimoto, ICLR 2022, equation 3: m^−α for margins m > 1, and for m ≤ 1 a left part
    that meets it at 1. Margins are those of `soft_margins`, so that the binary loss extends to any number of classes.

    Args:
        alpha: the exponent α of the tail.
        left: "logistic", log(1 + e^−m) / log(1 + e^−1), as in the paper's runs (convex for α ≤ 0.8585);
            "exponential", e^{α(1−m)}, or "linear", 1 − α(m − 1): both C¹ and convex for every α. The exponential goes
            on as its tangent where it exceeds e^`STEEPEST`, C¹ and convex still: it would be inf from m = 1 − 89/α
            on in float32, and its gradient sooner useless, as squares of it overflow in a norm.
    """

    STEEPEST = 30.0

    def __init__(self, *, alpha: Positive, left: Literal["logistic", "exponential", "linear"]):
        super().__init__()
        self.alpha, self.left = alpha, left

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        m = soft_margins(logits, targets)
        # The tail is evaluated only on margins where it is finite, in value and in gradient: |m|^−α masked by a
        # multiplication is inf · 0 = nan at m = 0, where every zero-initialised model starts.
        right = F.threshold(m, 1, 1).pow(-self.alpha)
        if self.left == "logistic":
            head = F.logsigmoid(m) / -math.log1p(math.exp(-1))
        elif self.left == "exponential":
            rise = self.alpha * (1 - m)
            head = rise.clamp(max=self.STEEPEST).exp() * (1 + F.relu(rise - self.STEEPEST))
        else:
            head = 1 - self.alpha * (m - 1)
        return torch.where(m > 1, right, head)


class Adjusted(nn.Module):
    """Cross-entropy of Δ_j · z_j + ι_j: a factor and an offset for each class j, or one of them alone."""

    def __init__(self, factors: Tensor | None, offsets: Tensor | None):
        super().__init__()
        self.register_buffer("factors", factors)
        self.register_buffer("offsets", offsets)

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        logits = at_least_float32(logits)
        if self.factors is not None:
            logits = logits * self.factors.to(logits)
        if self.offsets is not None:
            logits = logits + self.offsets.to(logits)
        return cross_entropy(logits, targets)


@checked
class VectorScaling(Adjusted):
    """The VS loss: cross-entropy of (n_j / n_max)^γ · z_j + τ log π_j, where π_j = n_j / n.

    Kini, Paraskevas, Oymak and Thrampoulidis, "Label-Imbalanced and Group-Sensitive Classification under
    Overparameterization", NeurIPS 2021, equation 2. The factors decide where an interpolating model goes, the offsets
    how it starts.

    Args:
        class_counts: (K,) training examples of each class.
        gamma: the power γ of the factors; 0 for none.
        tau: the factor τ of the offsets; 0 for none.
    """

    def __init__(self, class_counts: Tensor, *, gamma: NonNegative, tau: NonNegative):
        super().__init__(relative(class_counts) ** gamma, tau * share(class_counts).log())


@checked
class ClassDependentTemperatures(Adjusted):
    """CDT: cross-entropy of (n_j / n_max)^γ · z_j.

    Ye, Chen, Zhan and Chao, "Identifying and Compensating for Feature Deviation in Imbalanced Deep Learning", 2020.

    Args:
        class_counts: (K,) training examples of each class.
        gamma: the power γ; at 0 it is cross-entropy.
    """

    def __init__(self, class_counts: Tensor, *, gamma: NonNegative):
        super().__init__(relative(class_counts) ** gamma, None)


@checked
class LogitAdjusted(Adjusted):
    """Cross-entropy of z_j + τ log π_j (Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, eq. 10).

    Args:
        class_counts: (K,) training examples of each class.
        tau: the factor τ; at 0 it is cross-entropy.
    """

    def __init__(self, class_counts: Tensor, *, tau: NonNegative):
        super().__init__(None, tau * share(class_counts).log())


class BalancedSoftmax(Adjusted):
    """−log n_y e^{z_y} / Σ_j n_j e^{z_j} (Ren et al., NeurIPS 2020, equation 4): `LogitAdjusted` at τ = 1."""

    def __init__(self, class_counts: Tensor):
        super().__init__(None, share(class_counts).log())


@checked
class LDAM(nn.Module):
    """Cross-entropy of s · (z_j − Δ_y [j = y]), with a margin Δ_y ∝ n_y^−¼ that is `max_margin` for the rarest class.

    Cao, Wei, Gaidon, Arechiga and Ma, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019, equation 13, with the scale s of their code.

    Args:
        class_counts: (K,) training examples of each class.
        max_margin: the margin of the rarest class.
        scale: s; 30 in their code, which is meant for logits in [−1, 1].
    """

    def __init__(self, class_counts: Tensor, *, max_margin: NonNegative, scale: Positive):
        super().__init__()
        self.scale = scale
        margin = present(class_counts) ** -0.25
        self.register_buffer("offsets", scale * max_margin * margin / margin.max())

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        odds = log_odds_against(self.scale * at_least_float32(logits), targets)
        return softplus(odds + self.offsets.to(odds)[targets])


@checked
class GroupVectorScaling(nn.Module):
    """The VS loss for groups: log(1 + Σ_{j≠y} e^{ι_g + Δ_g (z_j − z_y)}).

    Kini et al., NeurIPS 2021, equation 5, with Δ_g = (n_g / n_max)^γ and ι_g = τ log(n_max / n_g), so that a small
    group must reach a larger margin. The offset is on the target's rivals alone: on every logit, as in published
    code, the softmax would cancel it, and τ would do nothing.

    Args:
        group_counts: (G,) training examples of each group.
        gamma: the power γ of the factors; 0 for none.
        tau: the factor τ of the offsets; 0 for none.
    """

    def __init__(self, group_counts: Tensor, *, gamma: NonNegative, tau: NonNegative):
        super().__init__()
        self.register_buffer("factors", relative(group_counts) ** gamma)
        self.register_buffer("offsets", -tau * relative(group_counts).log())

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        logits = at_least_float32(logits)
        scaled = logits * self.factors.to(logits)[groups, None]
        return softplus(self.offsets.to(logits)[groups] + log_odds_against(scaled, targets))


@checked
class Focal(nn.Module):
    """−(1 − p_y)^γ log p_y, p = softmax(z) (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4).

    Both factors come from the log-odds of p_y, so that neither is lost to rounding: 1 − p_y is 0 in float32 from a
    margin of 17 on, where its power has no gradient. Weights multiply the loss, and never enter p.

    Args:
        gamma: the power γ; at 0 it is cross-entropy.
    """

    def __init__(self, *, gamma: NonNegative):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        odds = log_odds_against(logits, targets)
        return (self.gamma * F.logsigmoid(odds)).exp() * softplus(odds)


@checked
class ClassBalanced(nn.Module):
    """The focal loss times K · u_y / Σ_j u_j with u_j = (1 − β) / (1 − β^{n_j}), the inverse effective number.

    Cui, Jia, Lin, Song and Belongie, "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
    equations 2 and 5; at γ = 0 their class-balanced softmax loss (equation 6). At γ > 0 it is the softmax focal loss
    that is weighted; their focal loss is a sum of sigmoids, `ClassBalancedSigmoid`. `weights.effective_number` serves
    other losses.

    Args:
        class_counts: (K,) training examples of each class.
        beta: β; 0 for no factors, and the nearer to 1 the nearer they are to 1 / n.
        gamma: the power γ of the focal loss; 0 for cross-entropy.
    """

    def __init__(self, class_counts: Tensor, *, beta: Fraction, gamma: NonNegative):
        super().__init__()
        self.focal = Focal(gamma=gamma)
        self.register_buffer("factors", class_balanced_factors(class_counts, beta))

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        losses = self.focal(logits, targets, groups)
        return self.factors.to(losses)[targets] * losses


@checked
class ClassBalancedSigmoid(nn.Module):
    """−K u_y / Σ_j u_j · Σ_k (1 − p_k)^γ log p_k, p_y = σ(z_y) and p_k = σ(−z_k) of the other classes.

    The class-balanced focal loss as it was published: Cui et al., CVPR 2019, equations 7 to 10, one class against the
    rest K times, with the factors of `ClassBalanced`; at γ = 0 their class-balanced sigmoid loss. Their code also
    starts the last layer's bias at −log(K − 1) and keeps weight decay from it; here it is trained like any other.

    Args:
        class_counts: as for `ClassBalanced`.
        beta: β of the effective number; 0 for no factors, and towards 1 they become one over the count.
        gamma: the power γ.
    """

    def __init__(self, class_counts: Tensor, *, beta: Fraction, gamma: NonNegative):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("factors", class_balanced_factors(class_counts, beta))

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        logits = at_least_float32(logits)
        odds = logits * against(logits, targets)  # log (1 − p_k) / p_k
        losses = ((self.gamma * F.logsigmoid(odds)).exp() * softplus(odds)).sum(1)
        return self.factors.to(losses)[targets] * losses


def class_balanced_factors(class_counts: Tensor, beta: float) -> Tensor:
    """(K,) u_j = (1 − β) / (1 − β^{n_j}), rescaled to a mean of 1 over the classes."""
    factors = inverse_effective_number(present(class_counts), beta)
    return factors / factors.mean()


def present(counts: Tensor) -> Tensor:
    """Counts as float64, 1 where there are none: such a class or group has no example to lose on, but a finite value."""
    return counts.double().clamp(min=1)


def relative(counts: Tensor) -> Tensor:
    """n_j / n_max."""
    return present(counts) / counts.max()


def share(counts: Tensor) -> Tensor:
    """π_j = n_j / n."""
    return present(counts) / counts.sum()


LOSSES = {
    "cross_entropy": CrossEntropy,
    "poly": Poly,
    "vs": VectorScaling,
    "vs_group": GroupVectorScaling,
    "cdt": ClassDependentTemperatures,
    "logit_adjusted": LogitAdjusted,
    "balanced_softmax": BalancedSoftmax,
    "ldam": LDAM,
    "focal": Focal,
    "class_balanced": ClassBalanced,
    "class_balanced_sigmoid": ClassBalancedSigmoid,
}
