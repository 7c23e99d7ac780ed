"""Losses: `loss(logits (B, K), targets (B,), groups (B,)) -> (B,)`, one value for each example, in at least float32.

A loss that reads no groups can be called without them. In a training loop of your own call `Poly(alpha=1.0,
left="logistic")(logits, targets).mean()`; see `imbalance.methods.standalone`.

To add a loss, write an `nn.Module` with keyword-only hyperparameters and put it into `LOSSES`. The run passes the
arguments before the `*` (`class_counts`, `group_counts`, `num_classes`), which it computes from the training set.

A loss whose minimiser is z_j = log p_j + s_j, for the class probabilities p of an input, has a method
`log_prior_shift() -> Tensor | None`. The method returns the (K,) shifts s, or one shift for all classes. It returns
None if the loss has no such minimiser at its hyperparameters. A loss without the method has none; see
`imbalance.methods.prior`.

Two attributes tell `config.optim.name="lbfgs"` about a loss. `is_convex` says whether the loss is convex in the logits;
a loss without this attribute counts as not convex. `is_relative` says whether the loss depends only on the differences
between the logits of an example.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Fraction, NonNegative, Positive, checked, short_repr
from imbalance.config.tags import tagged
from imbalance.errors import BadInput
from imbalance.methods.margins import against, at_least_float32, check_shapes, log_odds_against, soft_margins, softplus
from imbalance.methods.weights import inverse_effective_number


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (B,) cross-entropies −log softmax(z)_y, computed as log(1 + (1 − p_y) / p_y) for full precision.

    `F.cross_entropy` subtracts two numbers that are equal in float32 if the margin is above 16, and so returns 0. Once
    a model fits all training examples, such small losses decide the direction to which it converges, so they must not
    be 0.
    """
    return softplus(log_odds_against(logits, targets))


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float | Tensor) -> Tensor:
    """Return (B,) cross-entropies with label smoothing: the target has the share 1 − ε + ε / K, each other class ε / K.

    Args:
        smoothing: ε, one number for all examples or a (B,) tensor.
    """
    check_shapes(logits, targets)
    logits = at_least_float32(logits)
    lead = logits.gather(1, targets[:, None]).squeeze(1) - logits.mean(1)
    return cross_entropy(logits, targets) + smoothing * lead


class CrossEntropy(nn.Module):
    """Cross-entropy, −log softmax(z)_y."""

    is_convex = is_relative = True

    def log_prior_shift(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        return cross_entropy(logits, targets)


@checked
class Poly(nn.Module):
    """The polynomially tailed loss of "Is Importance Weighting Incompatible with Interpolating Classifiers?".

    Wang, Chatterji, Haque and Hashimoto, ICLR 2022, equation 3: the loss is m^−α for margins m > 1. For m ≤ 1 it is
    another function of m, which `left` chooses and which is 1 at m = 1, too. The margins are `soft_margins`, which
    extend the binary loss to any number of classes.

    Args:
        alpha: the exponent α of the tail.
        left: the loss for m ≤ 1. "logistic" is log(1 + e^−m) / log(1 + e^−1), as in the experiments of the paper; the
            whole loss is then convex for α ≤ 0.8585. "exponential" is e^{α(1−m)} and "linear" is 1 − α(m − 1); with
            either one the whole loss is C¹ and convex for every α. If the exponential exceeds e^`STEEPEST`, its tangent
            replaces it; the loss stays C¹ and convex. Without the tangent the loss would be inf in float32 below
            m = 1 − 89/α, and the square of its gradient would overflow even earlier.
    """

    STEEPEST = 30.0
    is_relative = True

    def __init__(self, *, alpha: Positive, left: Literal["logistic", "exponential", "linear"]):
        super().__init__()
        self.alpha, self.left = alpha, left
        # The loss is convex if its slope does not fall at m = 1, where the logistic part and the tail meet. The slope of the
        # logistic part there is −1 / ((1 + e) log(1 + e^−1)), and that of the tail is −α.
        self.is_convex = left != "logistic" or alpha <= 1 / ((1 + math.e) * math.log1p(math.exp(-1)))

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        m = soft_margins(logits, targets)
        # A model initialised with zeros starts at m = 0, where |m|^−α is inf, and inf times a mask of 0 is nan. So
        # evaluate the tail at max(m, 1), where its value and gradient are finite.
        tail = F.threshold(m, 1, 1).pow(-self.alpha)
        if self.left == "logistic":
            left = F.logsigmoid(m) / -math.log1p(math.exp(-1))
        elif self.left == "exponential":
            rise = self.alpha * (1 - m)
            left = rise.clamp(max=self.STEEPEST).exp() * (1 + F.relu(rise - self.STEEPEST))
        else:
            left = 1 - self.alpha * (m - 1)
        return torch.where(m > 1, tail, left)


class Adjusted(nn.Module):
    """Cross-entropy of the logits Δ_j · z_j + ι_j.

    factors: (K,) factor Δ_j of each class; None for 1.
    offsets: (K,) offset ι_j of each class; None for 0.
    """

    factors: Tensor | None
    offsets: Tensor | None
    is_convex = True

    def __init__(self, factors: Tensor | None, offsets: Tensor | None):
        super().__init__()
        self.is_relative = factors is None or bool((factors == factors[0]).all())
        self.register_buffer("factors", factors)
        self.register_buffer("offsets", offsets)

    def log_prior_shift(self) -> Tensor | None:
        if self.factors is not None and not (self.factors == 1).all():
            return None
        return torch.zeros(1, dtype=torch.float64) if self.offsets is None else -self.offsets

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return the (B, K) logits Δ_j · z_j + ι_j in at least float32."""
        logits = at_least_float32(logits)
        if self.factors is not None:
            logits = logits * self.factors.to(logits)
        if self.offsets is not None:
            logits = logits + self.offsets.to(logits)
        return logits

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        return cross_entropy(self.adjusted(logits), targets)


@checked
@tagged(balances=True)
class VectorScaling(Adjusted):
    """The VS loss: cross-entropy of (n_j / n_max)^γ · z_j + τ log π_j, where π_j = n_j / n.

    Kini, Paraskevas, Oymak and Thrampoulidis, "Label-Imbalanced and Group-Sensitive Classification under
    Overparameterization", NeurIPS 2021, equation 2. Once a model fits all training examples, the factors decide the
    direction to which it converges. The offsets have an effect before that only.

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        gamma: the power γ of the factors; 0 for factors of 1.
        tau: the factor τ of the offsets; 0 for offsets of 0.
    """

    def __init__(self, class_counts: Tensor, *, gamma: NonNegative, tau: NonNegative):
        super().__init__(relative(class_counts) ** gamma, tau * share(class_counts).log())


@checked
class Smoothed(VectorScaling):
    """Cross-entropy or VS loss with label smoothing: (1 − ε) ℓ_y + ε/K Σ_j ℓ_j, where ℓ_j is the VS loss for target j.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7. At γ = τ = 0 the
    loss is that of `torch.nn.CrossEntropyLoss(label_smoothing=ε)`, at γ = 0 and τ = 1 balanced softmax with smoothing,
    and at ε = 0 `VectorScaling`. The loss is computed as ℓ_y + ε (z_y − mean z), which keeps full precision.

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        label_smoothing: ε, the share of each target that is spread equally over all classes; 0 for none.
        gamma: the power γ of the factors of `VectorScaling`; 0 for factors of 1.
        tau: the factor τ of the offsets of `VectorScaling`; 0 for offsets of 0.
    """

    def __init__(self, class_counts: Tensor, *, label_smoothing: Fraction, gamma: NonNegative, tau: NonNegative):
        super().__init__(class_counts, gamma=gamma, tau=tau)
        self.label_smoothing = label_smoothing

    def log_prior_shift(self) -> Tensor | None:
        return None if self.label_smoothing else super().log_prior_shift()

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        adjusted = self.adjusted(logits)
        return smoothed_cross_entropy(adjusted, targets, self.label_smoothing)


@checked
class ClassDependentTemperatures(Adjusted):
    """The loss with class-dependent temperatures, CDT: cross-entropy of (n_j / n_max)^γ · z_j.

    Ye, Chen, Zhan and Chao, "Identifying and Compensating for Feature Deviation in Imbalanced Deep Learning", 2020.

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        gamma: the power γ; 0 gives cross-entropy.
    """

    def __init__(self, class_counts: Tensor, *, gamma: NonNegative):
        super().__init__(relative(class_counts) ** gamma, None)


@checked
@tagged(balances=True)
class LogitAdjusted(Adjusted):
    """The logit-adjusted loss: cross-entropy of z_j + τ log π_j, where π_j = n_j / n.

    Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, equation 10.

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        tau: the factor τ; 0 gives cross-entropy.
    """

    def __init__(self, class_counts: Tensor, *, tau: NonNegative):
        super().__init__(None, tau * share(class_counts).log())


@tagged(balances=True)
class BalancedSoftmax(Adjusted):
    """Balanced softmax: −log(n_y e^{z_y} / Σ_j n_j e^{z_j}), which is `LogitAdjusted` at τ = 1.

    Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020, equation 4.
    """

    def __init__(self, class_counts: Tensor):
        super().__init__(None, share(class_counts).log())


@checked
class LabelAwareSmoothing(nn.Module):
    """Cross-entropy with label smoothing that is strongest for the most frequent class.

    Zhong, Cui, Liu and Jia, "Improving Calibration for Long-Tailed Recognition", CVPR 2021 (MiSLAS). The target
    of class y gets the share 1 − ε_y + ε_y / K and every other class ε_y / K, where

        ε_y = tail + (head − tail) · sin(π/2 · (n_y − n_min) / (n_max − n_min)).

    The paper has three forms of ε_y; this is the concave one, as in the authors' commands. If all classes have the same
    number of examples, ε is `head` for all.

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        head: ε of the most frequent class.
        tail: ε of the rarest class.
    """

    smoothing: Tensor
    is_convex = is_relative = True

    def __init__(self, class_counts: Tensor, *, head: Fraction, tail: Fraction):
        super().__init__()
        counts = present(class_counts)
        least, most = counts.min(), counts.max()
        ranks = (counts - least) / (most - least) if most > least else torch.ones_like(counts)
        self.register_buffer("smoothing", tail + (head - tail) * (math.pi / 2 * ranks).sin())

    def log_prior_shift(self) -> Tensor | None:
        return None if self.smoothing.any() else torch.zeros(1, dtype=torch.float64)

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        check_shapes(logits, targets, self.smoothing)
        return smoothed_cross_entropy(logits, targets, self.smoothing.to(at_least_float32(logits))[targets])


@checked
class LDAM(nn.Module):
    """The LDAM loss: cross-entropy of s · (z_j − Δ_y [j = y]) with a margin Δ_y ∝ n_y^−¼, largest for the rarest class.

    Cao, Wei, Gaidon, Arechiga and Ma, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019, equation 13, with the scale s of the authors' code.

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        max_margin: the margin of the rarest class.
        scale: the scale s; 30 in the authors' code, for logits in [−1, 1].
    """

    is_convex = is_relative = True

    offsets: Tensor

    def __init__(self, class_counts: Tensor, *, max_margin: NonNegative, scale: Positive):
        super().__init__()
        self.scale = scale
        margin = present(class_counts) ** -0.25
        self.register_buffer("offsets", scale * max_margin * margin / margin.max())

    def log_prior_shift(self) -> Tensor | None:
        return None if self.scale != 1 or self.offsets.any() else torch.zeros(1, dtype=torch.float64)

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        check_shapes(logits, targets, self.offsets)
        odds = log_odds_against(self.scale * at_least_float32(logits), targets)
        return softplus(odds + self.offsets.to(odds)[targets])


@checked
class GroupVectorScaling(nn.Module):
    """The VS loss for groups: log(1 + Σ_{j≠y} e^{ι_g + Δ_g (z_j − z_y)}).

    Kini et al., NeurIPS 2021, equation 5, with Δ_g = (n_g / n_max)^γ and ι_g = τ log(n_max / n_g), so a small group
    needs a larger margin. The offset ι_g is added to the logits of the classes j ≠ y only. The authors' code adds it to
    every logit, so the softmax cancels it and τ has no effect.

    Args:
        group_counts: (G,) numbers n_g of training examples of each group.
        gamma: the power γ of the factors; 0 for factors of 1.
        tau: the factor τ of the offsets; 0 for offsets of 0.
    """

    is_convex = is_relative = True

    factors: Tensor
    offsets: Tensor

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
    """The focal loss −(1 − p_y)^γ log p_y, with p = softmax(z).

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4. Both factors are computed from the
    log-odds of p_y. Computed from p_y, 1 − p_y would be 0 in float32 for a margin above 17, and its power would have no
    gradient. Example weights multiply the loss and never change p.

    Args:
        gamma: the power γ; 0 gives cross-entropy.
    """

    is_relative = True

    def __init__(self, *, gamma: NonNegative):
        super().__init__()
        self.gamma, self.is_convex = gamma, gamma == 0

    def log_prior_shift(self) -> Tensor | None:
        return None if self.gamma else torch.zeros(1, dtype=torch.float64)

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        odds = log_odds_against(logits, targets)
        return (self.gamma * F.logsigmoid(odds)).exp() * softplus(odds)


@checked
@tagged(balances=True)
class ClassBalanced(nn.Module):
    """The focal loss times K · u_y / Σ_j u_j, where u_j = (1 − β) / (1 − β^{n_j}).

    (1 − β^{n_j}) / (1 − β) is the effective number of examples of class j.

    Cui, Jia, Lin, Song and Belongie, "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, equations 2
    and 5. At γ = 0 it is their class-balanced softmax loss (equation 6). At γ > 0 it is the focal loss of
    the softmax; the paper's focal loss is of sigmoids, see `ClassBalancedSigmoid`. To combine these factors with
    another loss, use the weights "effective_number".

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        beta: β; 0 for factors of 1. As β approaches 1, the factors become proportional to 1 / n_j.
        gamma: the power γ of the focal loss; 0 for cross-entropy.
    """

    is_relative = True

    factors: Tensor

    def __init__(self, class_counts: Tensor, *, beta: Fraction, gamma: NonNegative):
        super().__init__()
        self.focal = Focal(gamma=gamma)
        self.is_convex = gamma == 0
        self.register_buffer("factors", class_balanced_factors(class_counts, beta))

    def log_prior_shift(self) -> Tensor | None:
        return None if self.focal.gamma else self.factors.log()

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        check_shapes(logits, targets, self.factors)
        losses = self.focal(logits, targets, groups)
        return self.factors.to(losses)[targets] * losses


@checked
@tagged(balances=True)
class ClassBalancedSigmoid(nn.Module):
    """The class-balanced sigmoid focal loss −(K u_y / Σ_j u_j) · Σ_k (1 − p_k)^γ log p_k.

    Here p_y = σ(z_y), p_k = σ(−z_k) for k ≠ y, and the factors u are those of `ClassBalanced`. This is the loss as
    published: Cui et al., CVPR 2019, equations 7 to 10. It compares each class with all other classes. At γ = 0 it is
    their class-balanced sigmoid loss. The authors' code also starts the bias of the last layer at −log(K − 1) and
    excludes it from weight decay; here the bias is trained like any other parameter.

    Args:
        class_counts: (K,) numbers n_j of training examples of each class.
        beta: β of the effective number; 0 for factors of 1. As β approaches 1, the factors become proportional to
            1 / n_j.
        gamma: the power γ; 0 for the sigmoid cross-entropy.
    """

    factors: Tensor

    def __init__(self, class_counts: Tensor, *, beta: Fraction, gamma: NonNegative):
        super().__init__()
        self.gamma, self.is_convex = gamma, gamma == 0
        self.register_buffer("factors", class_balanced_factors(class_counts, beta))

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
        check_shapes(logits, targets, self.factors)
        logits = at_least_float32(logits)
        odds = logits * against(logits, targets)  # log (1 − p_k) / p_k
        losses = ((self.gamma * F.logsigmoid(odds)).exp() * softplus(odds)).sum(1)
        return self.factors.to(losses)[targets] * losses


def class_balanced_factors(class_counts: Tensor, beta: float) -> Tensor:
    """Return the (K,) factors (1 − β) / (1 − β^{n_j}), rescaled to mean 1 over the classes."""
    factors = inverse_effective_number(present(class_counts), beta)
    return factors / factors.mean()


def checked_counts(counts: Any, name: str = "class_counts") -> Tensor:
    """Return numbers of examples as a float64 tensor.

    Args:
        counts: (K,) or (G,): a tensor, an array or a sequence.
        name: the name of the argument, for messages: "class_counts" or "group_counts".

    Raises:
        BadInput: the counts are not whole numbers from 0 on, or all are 0.
    """
    try:
        values = torch.as_tensor(counts).double()
    except (TypeError, ValueError, RuntimeError):
        values = torch.empty(0)
    whole = values.ndim == 1 and bool((values.isfinite() & (values >= 0) & (values == values.floor())).all())
    if not whole or not values.any():
        raise BadInput(
            f"{name}: {short_repr(counts)} given; the number of training examples of each {name.removesuffix('_counts')} is needed"
        )
    return values


def present(counts: Any) -> Tensor:
    """Return counts as float64, with 1 in place of 0, so that their powers and logarithms are finite."""
    return checked_counts(counts).clamp(min=1)


def relative(counts: Any) -> Tensor:
    """Return the (K,) or (G,) ratios n_j / n_max of the counts to the largest count."""
    values = present(counts)
    return values / values.max()


def share(counts: Any) -> Tensor:
    """Return the (K,) or (G,) shares n_j / n of all examples."""
    values = checked_counts(counts)
    return values.clamp(min=1) / values.sum()


LOSSES = {
    "cross_entropy": CrossEntropy,
    "poly": Poly,
    "vs": VectorScaling,
    "smoothed": Smoothed,
    "vs_group": GroupVectorScaling,
    "cdt": ClassDependentTemperatures,
    "logit_adjusted": LogitAdjusted,
    "balanced_softmax": BalancedSoftmax,
    "label_aware_smoothing": LabelAwareSmoothing,
    "ldam": LDAM,
    "focal": Focal,
    "class_balanced": ClassBalanced,
    "class_balanced_sigmoid": ClassBalancedSigmoid,
}
