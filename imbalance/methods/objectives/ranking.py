"""Ranking objectives: AUROC by its squared surrogate, partial AUROC, and average precision."""

from typing import Literal

import torch
from torch import Tensor

from imbalance.config.schema import Fraction, Natural, Positive, Share, checked
from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective


class Ranking(Objective):
    """Base class of objectives: (1 − share) times the mean weighted loss, plus `share` times a ranking loss.

    For each class in `positives` the examples of the batch are ranked by the probability p_k of the class k; the
    positives are the examples of the class. The losses of these rankings are averaged. A class without positives or
    without negatives in the batch is left out. Example weights do not change the rankings.

    Args:
        num_classes: K.
        positives: the classes whose rankings count, by number; (1,) for the second of two classes.
        share: the share of the ranking loss; 1 for the ranking loss alone.
    """

    tags = Tags(batched=True, unmixed=True)
    columns = ("logits", "targets")

    def __init__(self, num_classes: int, *, positives: tuple[Natural, ...], share: Share):
        super().__init__()
        if not positives or max(positives) >= num_classes or len(set(positives)) < len(positives):
            raise BadInput(
                f"positives: {positives} given; name at least one class by its number from 0 to "
                f"{num_classes - 1}, each once"
            )
        self.share = share
        self.register_buffer("positives", torch.tensor(positives), persistent=False)
        self.positives: Tensor

    def forward(
        self, losses: Tensor, weights: Tensor, groups: Tensor, *, logits: Tensor, targets: Tensor, **columns: Tensor
    ) -> Tensor:
        scores = at_least_float32(logits).softmax(1).T.index_select(0, self.positives)
        positive = targets == self.positives[:, None]
        ranked = positive.any(1) & (~positive).any(1)
        values = torch.where(ranked, self.rankings(scores, positive, **columns), 0.0)
        ranking = values.sum() / ranked.sum().clamp(min=1)
        return (1 - self.share) * (weights * losses).mean() + self.share * ranking

    def rankings(self, scores: Tensor, positive: Tensor, **columns: Tensor) -> Tensor:
        """Return the (Q,) losses of Q rankings of the batch.

        Args:
            scores: (Q, B), by which the examples are ranked.
            positive: (Q, B) booleans, true for the examples that should be ranked first.
            columns: the further tensors that the objective's attribute `columns` names, without logits and targets.
        """
        raise NotImplementedError


def mean_of(values: Tensor, member: Tensor) -> Tensor:
    """Return the mean over the last dimension of the values for which `member` is true; 0 if there are none."""
    return (values * member).sum(-1) / member.sum(-1).clamp(min=1)


def auc_margin(
    scores: Tensor,
    positive: Tensor,
    margin: float,
    a: Tensor | float | None = None,
    b: Tensor | float | None = None,
    alpha: Tensor | float | None = None,
) -> Tensor:
    """Return the (Q,) AUC margin losses of Q rankings: mean₊ (s − a)² + mean₋ (s − b)² + 2α(m + μ₋ − μ₊) − α².

    μ₊ and μ₋ are the mean scores of positives and negatives.

    Args:
        scores: (Q, B), s.
        positive: (Q, B) booleans.
        margin: m.
        a, b: (Q,) or one number; by default the means μ₊ and μ₋, which minimise the loss.
        alpha: α, (Q,) or one number; by default max(0, m + μ₋ − μ₊), which maximises the loss over α ≥ 0.
    """
    mean, other = mean_of(scores, positive), mean_of(scores, ~positive)
    a, b = mean if a is None else a, other if b is None else b
    lead = margin + other - mean
    alpha = lead.clamp(min=0) if alpha is None else alpha
    a, b = (torch.as_tensor(centre, dtype=scores.dtype)[..., None] for centre in (a, b))
    spread = mean_of((scores - a) ** 2, positive) + mean_of((scores - b) ** 2, ~positive)
    return spread + 2 * alpha * lead - alpha**2


@checked
class AUCMargin(Ranking):
    """(1 − share) · mean weighted loss + share · AUC margin loss, a surrogate that raises AUROC (AUCM).

    Yuan, Yan, Sonka and Yang, "Large-scale Robust Deep AUC Maximization: A New Surrogate Loss and Empirical Studies on Medical
    Image Classification", ICCV 2021. The loss is the minimum over a and b, and the maximum over α ≥ 0, of mean₊ (s − a)² +
    mean₋ (s − b)² + 2α(m + μ₋ − μ₊) − α². Without the bound on α it is the mean of (m − (s_i − s_j))² over all pairs of a
    positive i and a negative j. With the bound, the means are no longer pushed apart once they differ by m. A score s is the
    probability of a class, as in the authors' library.

    The authors' optimiser (PESG in LibAUC) moves a, b and α by gradient steps. Here each batch has the best a, b and α,
    which have a closed form, so no optimiser is needed. Version 2 of the loss in LibAUC 2.0.1 multiplies μ₋ by the ratio
    of negatives to all examples, and divides by the number of scores that are not 0 (LibAUC issue 74); the formula above
    has neither.

    Args:
        positives: the classes whose AUROC counts, by number; (1,) for the second of two classes.
        share: the share of the AUC margin loss; 1 for this loss alone, as in the paper.
        margin: m; 1 in the paper.
    """

    def __init__(self, num_classes: int, *, positives: tuple[Natural, ...], share: Share, margin: Positive):
        super().__init__(num_classes, positives=positives, share=share)
        self.margin = margin

    def rankings(self, scores: Tensor, positive: Tensor, **columns: Tensor) -> Tensor:
        return auc_margin(scores, positive, self.margin)


def smooth_ap(scores: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Return the (Q,) smooth average precisions of Q rankings.

    The smooth rank of example i is 1 + Σ_{j≠i} σ((s_j − s_i)/τ). Its precision is its rank among the positives divided by
    its rank among all examples. The result is the mean precision of the positives; 0 without positives.

    Args:
        scores: (Q, B), s.
        positive: (Q, B) booleans.
        temperature: τ; as τ falls to 0, the result becomes the average precision of scores without ties.
    """
    above = ((scores[:, None, :] - scores[:, :, None]) / temperature).sigmoid()  # (Q, i, j)
    above = above * ~torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    precision = (1 + (above * positive[:, None, :]).sum(2)) / (1 + above.sum(2))
    return mean_of(precision, positive)


@checked
class SmoothAP(Ranking):
    """(1 − share) · mean weighted loss + share · (1 − smooth average precision) (Smooth-AP).

    Brown, Xie, Kalogeiton and Zisserman, "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval", ECCV 2020,
    equation 5: in the average precision, the indicator of s_j > s_i becomes σ((s_j − s_i)/τ). The paper ranks images by
    their similarity to a query; here each class is a query, and s is the probability of the class.

    Args:
        positives: the classes whose average precision counts, by number; (1,) for the second of two classes.
        share: the share of the ranking loss; 1 for this loss alone.
        temperature: τ; 0.01 in the paper, whose similarities are between −1 and 1.
    """

    def __init__(self, num_classes: int, *, positives: tuple[Natural, ...], share: Share, temperature: Positive):
        super().__init__(num_classes, positives=positives, share=share)
        self.temperature = temperature

    def rankings(self, scores: Tensor, positive: Tensor, **columns: Tensor) -> Tensor:
        return 1 - smooth_ap(scores, positive, self.temperature)


def pair_losses(scores: Tensor, margin: float) -> Tensor:
    """Return the (Q, B, B) squared hinge losses max(0, m − (s_i − s_j))² of all ordered pairs of examples i and j."""
    return (margin - (scores[:, :, None] - scores[:, None, :])).clamp(min=0) ** 2


def positive_or_one(values: Tensor) -> Tensor:
    """Return the values with 1 in place of 0, so that they can be divisors; values are 0 if the batch has no negatives."""
    return values.where(values > 0, 1.0)


@checked
class PartialAUC(Ranking):
    """(1 − share) · mean weighted loss + share · the pair losses of the highest negatives (one-way partial AUROC).

    Zhu, Li, Wang, Wu and Yang, "When AUC Meets DRO: Optimizing Partial AUC for Deep Learning with Non-Convex Convergence
    Guarantee", ICML 2022. The partial AUROC counts only false positive rates up to a bound β, so a positive is compared
    with the negatives of the highest scores. The loss of a pair is max(0, m − (s_i − s_j))², and s is the probability of
    the class. Both estimators of the paper keep a number u for each positive example of train.

    - "cvar" (SOPA): only pairs with a loss above u count; the sum of their losses is divided by β times the number of
      negatives. u moves by gradient steps towards the quantile that a share β of the losses exceeds: u ← u − step · (1 − (share
      of the negatives' losses above u)/β).
    - "kl" (SOPA-s): a pair counts with the weight exp(loss/λ)/u. u is a moving average of the mean of exp(loss/λ)
      over the negatives, in which the current batch has the weight `step`.

    Args:
        positives: the classes whose partial AUROC counts, by number; (1,) for the second of two classes.
        share: the share of the ranking loss; 1 for this loss alone, as in the paper.
        margin: m; 1 in the authors' library (LibAUC).
        estimator: "cvar" or "kl".
        level: β for "cvar", greater than 0 and at most 1; λ for "kl". 0.2 and 1 in LibAUC.
        step: the size of the changes of u. In LibAUC it is 0.1 divided by the number of positives for "cvar", and 0.9 for
            "kl", where it must be at most 1.
    """

    tags = Tags(batched=False, unmixed=True)  # it has a state for every example, so it cannot be stacked
    columns = ("logits", "targets", "rows")
    states: Tensor

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        *,
        positives: tuple[Natural, ...],
        share: Share,
        margin: Positive,
        estimator: Literal["cvar", "kl"],
        level: Positive,
        step: Positive,
    ):
        super().__init__(num_classes, positives=positives, share=share)
        bounded, value = ("level", level) if estimator == "cvar" else ("step", step)
        if value > 1:
            raise BadInput(f"{bounded}: {value:g} given; it must be at most 1 if estimator={estimator!r}")
        self.margin, self.estimator, self.level, self.step = margin, estimator, level, step
        self.register_buffer("states", torch.zeros(len(targets), dtype=torch.float64))

    def rankings(self, scores: Tensor, positive: Tensor, *, rows: Tensor) -> Tensor:
        negative = ~positive
        losses = pair_losses(scores, self.margin)
        pairs = losses.detach().double()
        states = self.states[rows][None, :, None]
        if self.estimator == "cvar":
            weights = (pairs > states).double() / self.level
            latest = states[..., 0] - self.step * (1 - mean_of(weights, negative[:, None, :]))
        else:
            exponentials = (pairs / self.level).exp()
            latest = mean_of(exponentials, negative[:, None, :])
            latest = (1 - self.step) * states[..., 0] + self.step * latest
            weights = exponentials / positive_or_one(latest[..., None])
        if self.training:
            moved = (latest * positive).sum(0)  # an example is a positive of its own class only
            self.states[rows] = torch.where(positive.any(0), moved, self.states[rows])
        return mean_of(mean_of(weights.to(losses) * losses, negative[:, None, :]), positive)


@checked
class AveragePrecision(Ranking):
    """(1 − share) · mean weighted loss + share · a loss whose gradient is that of the average precision (SOAP).

    Qi, Luo, Xu, Ji and Yang, "Stochastic Optimization of Areas Under Precision-Recall Curves with Provable
    Convergence", NeurIPS 2021. In the average precision of a positive i, max(0, m − (s_i − s_j))² takes the place of
    the indicator that j is ranked above i. Each positive of train has two moving averages: u of the sum of this loss
    over all examples j of a batch, and v of the sum over its positives j, each divided by the size of the batch. A pair
    counts with the weight (v − u·1[j is positive]) / u². The value of the loss itself has no meaning; its gradient
    raises the average precision.

    Args:
        positives: the classes whose average precision counts, by number; (1,) for the second of two classes.
        share: the share of the ranking loss; 1 for this loss alone, as in the paper.
        margin: m; 1 in the authors' library (LibAUC).
        decay: the factor on the old moving averages in each update; 0.1 in LibAUC, whose weight of the batch is 0.9.
    """

    tags = Tags(batched=False, unmixed=True)  # it has a state for every example, so it cannot be stacked
    columns = ("logits", "targets", "rows")
    states: Tensor

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        *,
        positives: tuple[Natural, ...],
        share: Share,
        margin: Positive,
        decay: Fraction,
    ):
        super().__init__(num_classes, positives=positives, share=share)
        self.margin, self.decay = margin, decay
        # Row 0 has the averages u over all examples, row 1 the averages v over the positives.
        self.register_buffer("states", torch.zeros(2, len(targets), dtype=torch.float64))

    def rankings(self, scores: Tensor, positive: Tensor, *, rows: Tensor) -> Tensor:
        losses = pair_losses(scores, self.margin)
        pairs = losses.detach().double()
        means = torch.stack([pairs.mean(2), (pairs * positive[:, None, :]).mean(2)])  # (2, Q, B)
        latest = self.decay * self.states[:, None, rows] + (1 - self.decay) * means
        if self.training:
            moved = (latest * positive).sum(1)  # an example is a positive of its own class only
            self.states[:, rows] = torch.where(positive.any(0), moved, self.states[:, rows])
        everything, among = latest[..., None]
        weights = (among - everything * positive[:, None, :]) / positive_or_one(everything) ** 2
        return mean_of((weights.to(losses) * losses).mean(2), positive)
