"""ProCo: probabilistic contrastive learning, which contrasts each view with a distribution of the features of every class."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Count, NonNegative, Positive, checked
from imbalance.config.tags import Tags
from imbalance.methods.batch import Batch, Loss
from imbalance.methods.losses import share
from imbalance.methods.objectives.base import Objective
from imbalance.methods.objectives.supcon import Projected, by_example, concatenated

LARGEST_KAPPA = 1e5  # as in the authors' code; one feature vector alone would have an infinite κ
LOWEST_ORDER = 50.0  # from this order on, the first five terms of the expansion give 11 digits
# The polynomials u_k of Debye's expansion, k = 1 to 5: the coefficients of t^k, t^(k+2), …, and their common divisor.
DEBYE = (
    ((3, -5), 24),
    ((81, -462, 385), 1152),
    ((30375, -369603, 765765, -425425), 414720),
    ((4465125, -94121676, 349922430, -446185740, 185910725), 39813120),
    ((1519035525, -49286948607, 284499769554, -614135872350, 566098157625, -188699385875), 6688604160),
)


def debye(order: float, squares: Tensor) -> Tensor:
    """Return log(I_ν(κ) / κ^ν) of the modified Bessel function I_ν, by Debye's uniform expansion (DLMF 10.41.3).

    Args:
        order: ν, which must be large.
        squares: κ².
    """
    root = (1 + squares / order**2).sqrt()
    t, series = 1 / root, torch.ones_like(root)
    for k, (coefficients, divisor) in enumerate(DEBYE, start=1):
        powers = sum(c * t ** (k + 2 * i) for i, c in enumerate(coefficients))
        series = series + powers / (divisor * order**k)
    exponent = order * (root - torch.log1p(root) - math.log(order))
    return exponent - 0.5 * math.log(2 * math.pi * order) - 0.5 * root.log() + series.log()


def log_bessel(order: float, squares: Tensor) -> Tensor:
    """Return log(I_ν(κ) / κ^ν) of the modified Bessel function I_ν, for κ² = `squares`; it is finite at κ = 0.

    For a small order ν, Debye's expansion gives the value at a large order. The recurrence h_{n−1} = 2n h_n + κ² h_{n+1}
    of h_n = I_n(κ) / κ^n (DLMF 10.29.1) then goes down to ν; all its terms are positive.
    """
    steps = max(0, math.ceil(LOWEST_ORDER - order))
    top = order + steps
    log_h = debye(top, squares)
    if steps:
        ratio = (debye(top + 1, squares) - log_h).exp()  # h_{n+1} / h_n
        for n in range(steps):
            factor = 2 * (top - n) + squares * ratio
            log_h, ratio = log_h + factor.log(), 1 / factor
    return log_h


def contrast_logits(features: Tensor, means: Tensor, temperature: float) -> Tensor:
    """Return the (N, K) logarithms of the expected exp(⟨f, z⟩/τ), where z has the von Mises–Fisher distribution of a class.

    Let ρ be the mean of the feature vectors of a class, which have length 1 and D dimensions, and R = |ρ|. The
    distribution of this class has the direction ρ/R and the concentration κ = D R / (1 − R²), at most 100,000. A class
    without feature vectors has ρ = 0, and its distribution is uniform.

    Args:
        features: (N, D), f; vectors of length 1.
        means: (K, D), ρ.
        temperature: τ.
    """
    width = features.shape[1]
    lengths = means.norm(dim=1, keepdim=True)
    kappas = (width * lengths / (1 - lengths**2).clamp(min=1e-12)).clamp(max=LARGEST_KAPPA)
    vectors = kappas * means / lengths.clamp(min=1e-12)
    order = width / 2 - 1
    points = features / temperature
    squares = points.square().sum(1, keepdim=True) + 2 * points @ vectors.T + vectors.square().sum(1)
    return log_bessel(order, squares.clamp(min=0)) - log_bessel(order, vectors.square().sum(1))


@checked
class ProbabilisticContrastive(Objective):
    """The mean weighted loss of the first view, plus `penalty` times the probabilistic contrastive loss of two views (ProCo).

    Du, Wang, Song and Huang, "Probabilistic Contrastive Learning for Long-Tailed Visual Recognition", TPAMI 2024. The
    features of both views go through a projection as in `SupervisedContrastive`. The projections of a class are taken
    to have a von Mises–Fisher distribution, whose parameters follow from their running mean; see `contrast_logits`. The
    contrastive loss is the cross-entropy of these logits plus log π, averaged over both views; π are the class shares
    of the training set. This loss is the limit of the supervised contrastive loss for infinitely many examples of every
    class. With the loss `balanced_softmax` the sum is the objective of the paper. The weights of examples multiply both
    terms.

    As in the authors' code (github.com/LeapLabTHU/ProCo), the loss uses running means over the epoch before and the current
    epoch up to this batch, including it. The next epoch starts from the means over the current epoch alone.
    The authors' code computes Bessel functions by a recurrence that starts at too low an order. For 128 dimensions its log I
    is wrong by 1.2 at κ = 20,000, and the gradient of log I is clipped. Here the values are exact to about ten digits. The
    authors compute the loss of the config on a third view, this class on the first of the two views.

    Args:
        class_counts: (K,) numbers of training examples of each class.
        penalty: the factor of the contrastive loss; 1 in the authors' code.
        temperature: τ; 0.1 for CIFAR-LT in the authors' commands.
        width: D, the number of outputs of the projection, at least 3; 128 for CIFAR-LT in the authors' commands.
    """

    tags = Tags(batched=False, unmixed=True)
    columns = ("projections", "targets", "epoch")
    views = 2
    log_shares: Tensor
    means: Tensor
    counts: Tensor
    epoch: Tensor

    def __init__(self, class_counts: Tensor, *, penalty: NonNegative, temperature: Positive, width: Count):
        super().__init__()
        self.penalty, self.temperature, self.width = penalty, temperature, width
        classes = len(class_counts)
        self.register_buffer("log_shares", share(class_counts).log(), persistent=False)
        # The first row has the means that the loss uses, the second those that are gathered for the next epoch.
        self.register_buffer("means", torch.zeros(2, classes, width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(2, classes, 1, dtype=torch.float64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Projected(make(), self.width, detached=False)

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        logits, projections = model(concatenated(batch.views))
        logits = logits[: len(batch.rows)]  # of the first view
        projections = by_example(projections, self.views)
        return {"losses": batch.losses(loss, logits), "logits": logits, "projections": projections}

    def update(self, points: Tensor, classes: Tensor, epoch: int) -> None:
        """Add feature vectors to the running means; a new epoch first drops what came before the last epoch.

        Args:
            points: (N, D) vectors of length 1.
            classes: (N,) classes.
        """
        is_new = self.epoch != epoch
        means, counts = (
            torch.where(is_new, torch.stack([values[1], torch.zeros_like(values[1])]), values)
            for values in (self.means, self.counts)
        )
        onehot = F.one_hot(classes, self.means.shape[1]).double()
        totals = counts + onehot.sum(0)[:, None]
        self.means.copy_((means * counts + onehot.T @ points) / totals.clamp(min=1))
        self.counts.copy_(totals)
        self.epoch.fill_(epoch)

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        projections: Tensor,
        targets: Tensor,
        epoch: int,
    ) -> Tensor:
        # In float64, because the logits are differences of numbers that are hundreds of times as large.
        points = projections.double().flatten(0, 1)
        classes = targets.repeat_interleave(self.views)
        if self.training:
            self.update(points.detach(), classes, epoch)
        logits = contrast_logits(points, self.means[0], self.temperature) + self.log_shares.to(points)
        contrast = F.cross_entropy(logits, classes, reduction="none").unflatten(0, (-1, self.views)).mean(1)
        return (weights * losses).mean() + self.penalty * (weights * contrast.to(losses)).mean()
