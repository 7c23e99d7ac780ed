"""Heads: what happens to the last layer after training, before it is evaluated.

A head is a function of the trained linear layer, the data set, the features that its model makes of a split
(`features(name) -> (N, D)`, in evaluation mode, computed when asked for), a generator and its section's values; it
returns the weight (K, D) and the bias (K,) to go on with.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Generator, Tensor, nn

from imbalance.data import Dataset
from imbalance.errors import BadInput, Diverged
from imbalance.methods.afr import afr
from imbalance.methods.disagreement import disagreement, hold_out
from imbalance.methods.losses import cross_entropy, share
from imbalance.methods.samplers import balanced, rows_of_each, shuffled
from imbalance.schema import By, Count, Fraction, NonNegative, Positive

Features = Callable[[str], Tensor]
WeightAndBias = tuple[Tensor, Tensor]
T = TypeVar("T", bound=nn.Module)


def none(head: nn.Linear) -> WeightAndBias:
    """The layer as it was trained."""
    return head.weight, head.bias


def logit_adjusted(head: nn.Linear, class_counts: Tensor, *, tau: NonNegative) -> WeightAndBias:
    """z_j − τ log π_j, π_j = n_j / n in training (Menon et al., ICLR 2021, equation 9). Uses no labels beyond those.

    Args:
        tau: τ; 1.0 in theory, 0.0 leaves the layer as it is.
    """
    return head.weight, head.bias - tau * share(class_counts).log().to(head.bias)


def tau_normalised(head: nn.Linear, *, tau: NonNegative) -> WeightAndBias:
    """w_j / ‖w_j‖^τ without a bias (Kang et al., ICLR 2020, equation 4).

    Args:
        tau: τ; 1.0 makes all rows unit vectors, 0.0 only drops the bias.
    """
    return head.weight / head.weight.norm(dim=1, keepdim=True) ** tau, torch.zeros_like(head.bias)


def crt(
    head: nn.Linear,
    dataset: Dataset,
    features: Features,
    generator: Generator,
    *,
    by: By,
    epochs: Count,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> WeightAndBias:
    """Classifier re-training: a new last layer by cross-entropy on balanced draws of the training set.

    Kang et al., "Decoupling Representation and Classifier for Long-tailed Recognition", ICLR 2020, section 4.1: the
    features stay as they are, the layer starts afresh, and its learning rate falls as a half cosine.

    Args:
        by: what is balanced: "class", as in the paper, or "group".
        epochs, batch_size, lr, momentum, weight_decay: of the layer's own training, by SGD.
    """
    inputs = features("train")

    def fresh() -> nn.Linear:
        layer = nn.Linear(head.in_features, head.out_features, device="cpu").to(inputs)
        with torch.no_grad():
            bound = 1 / math.sqrt(head.in_features)  # nn.Linear's own initialisation, from this generator
            for parameter in layer.parameters():
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
        return layer

    sgd = dict(lr=lr, momentum=momentum, weight_decay=weight_decay)
    layer = trained_on_balanced("crt", fresh, inputs, dataset, generator, by, epochs, batch_size, sgd)
    return layer.weight, layer.bias


def lws(
    head: nn.Linear,
    dataset: Dataset,
    features: Features,
    generator: Generator,
    *,
    by: By,
    epochs: Count,
    batch_size: Count,
    lr: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
) -> WeightAndBias:
    """Learnable weight scaling: f_j · w_j, with one factor a class learnt as `crt` learns its layer.

    Kang et al., ICLR 2020, section 4.3 (equation 5 with f_j learnt on the training set): features, w_j and b_j stay as
    they are; as in their code f_j starts at 1, scales the bias too, and decays with the others' weight decay.

    Args:
        by: what is balanced: "class", as in the paper, or "group".
        epochs, batch_size, lr, momentum, weight_decay: of the factors' own training, by SGD.
    """
    inputs = features("train")
    with torch.no_grad():
        logits = nn.functional.linear(inputs, head.weight.to(inputs), head.bias.to(inputs))
    sgd = dict(lr=lr, momentum=momentum, weight_decay=weight_decay)
    factors = trained_on_balanced(
        "lws", lambda: Factors(logits), logits, dataset, generator, by, epochs, batch_size, sgd
    ).factors
    return head.weight * factors[:, None], head.bias * factors


class Factors(nn.Module):
    """One a class, on its logits, 1 to begin with."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.factors = nn.Parameter(torch.ones_like(logits[0]))

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factors


def trained_on_balanced(
    name: str,
    start: Callable[[], T],
    inputs: Tensor,
    dataset: Dataset,
    generator: Generator,
    by: By,
    epochs: int,
    batch_size: int,
    sgd: Mapping[str, float],
) -> T:
    """`start()`, a module from `inputs` of train to logits, trained by cross-entropy on balanced draws.

    Its learning rate falls as a half cosine.

    Raises:
        Diverged: it is not finite at the end; then it is trained once more, to tell from which step on.
    """
    random = generator.get_state()

    def made(look: bool) -> T:
        """The module; if asked to look, after every step at what it has made."""
        generator.set_state(random)
        layer = start()
        # Fused, as `training.optim.sgd`: the others raise where a rate is more than float32 has.
        optimizer = torch.optim.SGD(layer.parameters(), **sgd, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        step = 0
        for epoch in range(epochs):
            drawn = balanced(lambda by: dataset.labels(dataset.train, by), generator, by=by)
            for batch in shuffled(drawn, generator).to(inputs.device).split(batch_size):
                loss = cross_entropy(layer(inputs[batch]), dataset.train.targets[batch]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if look and not all(p.isfinite().all() for p in layer.parameters()):
                    raise Diverged(
                        f"config.head.name: '{name}' made a last layer that is not finite by its step {step} (epoch "
                        f"{epoch}), learning rate {optimizer.param_groups[0]['lr']:g}, whose loss is {loss.item():g}"
                    )
                step += 1
            schedule.step()
        return layer

    layer = made(look=False)
    if not all(parameter.isfinite().all() for parameter in layer.parameters()):
        layer = made(look=True)
    return layer


def dfr(
    dataset: Dataset,
    features: Features,
    generator: Generator,
    *,
    inverse_penalties: tuple[Positive, ...],
    fits: Count,
) -> WeightAndBias:
    """Deep feature reweighting: L1-penalised logistic regression on group-balanced subsets of val, averaged.

    Kirichenko, Izmailov and Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations",
    ICLR 2023, DFR on validation data. Features are standardised as on the training set. The penalty is that of the
    best worst-group accuracy on one half of val after a fit on the other; then come fits on subsets of all of val.
    So val's groups train the layer, and the val metrics of such a run are training metrics: compare runs on test.

    Args:
        inverse_penalties: scikit-learn's C, the candidates; the paper's are 1, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01.
        fits: how many subsets are averaged over; 20 in the paper's code, 10 in its text.
    """
    val, train = dataset.val, features("train").double()
    mean, std = train.mean(0), train.std(0, correction=0).clamp(min=1e-12)
    std[std <= 1e-12] = 1  # a feature that is always the same says nothing, and must not blow up on val
    inputs = ((features("val").double() - mean) / std).cpu().numpy()
    targets, groups = val.targets.cpu(), val.groups.cpu()
    counts = dataset.group_counts(val).cpu()

    def balanced_subset(rows: Tensor) -> Tensor:
        size = torch.bincount(groups[rows], minlength=len(counts))
        if (size[counts > 0] == 0).any():
            raise BadInput(
                f"config.head.name: 'dfr' needs each group in both halves of val, which has {counts.tolist()}"
            )
        each = rows_of_each(groups[rows], size)
        return torch.cat([rows[shuffled(part, generator)[: size[size > 0].min()]] for part in each])

    def worst_group_accuracy(rows: Tensor, weight: np.ndarray, bias: np.ndarray) -> float:
        right = torch.from_numpy((inputs[rows] @ weight.T + bias).argmax(1)) == targets[rows]
        return min(right[groups[rows] == group].double().mean().item() for group in groups[rows].unique())

    order = torch.randperm(len(val), generator=generator)
    tuning, held_out = balanced_subset(order[len(val) // 2 :]), order[: len(val) // 2]
    scores = [
        worst_group_accuracy(held_out, *l1_logistic_regression(inputs[tuning], targets[tuning], dataset.num_classes, c))
        for c in inverse_penalties
    ]
    best = inverse_penalties[int(np.argmax(scores))]
    subsets = (balanced_subset(order) for _ in range(fits))
    layers = [l1_logistic_regression(inputs[s], targets[s], dataset.num_classes, best) for s in subsets]
    weight, bias = (torch.from_numpy(np.mean(parts, axis=0)).to(mean) for parts in zip(*layers))
    return weight / std, bias - (weight / std) @ mean


def temperature(head: nn.Linear, dataset: Dataset, features: Features) -> WeightAndBias:
    """z / T, T of the smallest negative log-likelihood on val: calibrates, and predicts as before.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The likelihood is
    concave in 1 / T, which is sought between 0.01 and 100: a val split that is all right would have it infinite. Reads
    val's classes, so that val's likelihood and calibration are training metrics: compare runs on test.
    """
    from scipy.optimize import minimize_scalar

    logits, targets = val_logits(head, dataset, features), dataset.val.targets.cpu()

    def loss(log_inverse: float) -> float:
        return cross_entropy(math.exp(log_inverse) * logits, targets).mean().item()

    least, most = math.log(0.01), math.log(100)
    inverse = math.exp(minimize_scalar(loss, bounds=(least, most), method="bounded", options={"xatol": 1e-6}).x)
    return inverse * head.weight, inverse * head.bias


def thresholds(
    head: nn.Linear,
    dataset: Dataset,
    features: Features,
    *,
    metric: Literal["balanced_accuracy", "worst_class_recall", "worst_group_accuracy"],
    rounds: Count,
) -> WeightAndBias:
    """z_j + b_j, with the b_j that are best on val by `metric`: each in turn at its best, the others as they are.

    Two classes have one threshold, which one round finds exactly; of more a round can end in a local optimum. Reads
    val's classes, or its groups for worst_group_accuracy, so that val's metrics are training metrics: compare runs on test.

    Args:
        metric: what val is to have the most of.
        rounds: over all classes; it ends before where nothing gets better.
    """
    val, logits = dataset.val, val_logits(head, dataset, features)
    by_group = metric == "worst_group_accuracy"
    labels = (val.groups if by_group else val.targets).cpu()
    reduce = torch.mean if metric == "balanced_accuracy" else torch.amin
    offsets, best = torch.zeros(dataset.num_classes, dtype=torch.float64), -math.inf
    for _ in range(rounds):
        before = best
        for k in range(1 if dataset.num_classes == 2 else 0, dataset.num_classes):
            value, offset = best_offset(logits + offsets, k, val.targets.cpu(), labels, reduce)
            if value > best:
                best, offsets[k] = value, offsets[k] + offset
        if best == before:
            break
    return head.weight, head.bias + (offsets - offsets.mean()).to(head.bias)


def best_offset(
    logits: Tensor, k: int, targets: Tensor, labels: Tensor, reduce: Callable[..., Tensor]
) -> tuple[float, float]:
    """What `reduce` makes of the accuracies by label at best, and what to add to the logit of class k for it.

    Example i is predicted as k from d_i = max_{j ≠ k} z_j − z_k on. Between two neighbouring d nothing changes: all
    intervals are tried, and of the best ones the widest is taken in its middle.
    """
    others = logits.clone()
    others[:, k] = -math.inf
    largest, rival = others.max(1)
    needed, order = (largest - logits[:, k]).sort()
    onehot = torch.nn.functional.one_hot(labels[order]).double()
    onehot = onehot[:, onehot.sum(0) > 0]
    won, lost = ((targets == k)[order, None] * onehot).cumsum(0), ((rival == targets)[order, None] * onehot).cumsum(0)
    right = torch.cat([lost[-1:], won + lost[-1] - lost])  # (N + 1, labels): after the offset has passed so many d
    values = reduce(right / onehot.sum(0), dim=1)
    ends = torch.cat([needed[:1] - 2, needed, needed[-1:] + 2])
    widths = (ends[1:] - ends[:-1]).where(values >= values[ends[1:] > ends[:-1]].max(), -1.0)
    place = int(widths.argmax())
    return values[place].item(), ((ends[place] + ends[place + 1]) / 2).item()


def val_logits(head: nn.Linear, dataset: Dataset, features: Features) -> Tensor:
    """(N, K) of val, in float64 on the CPU."""
    with torch.no_grad():
        return (features("val").to(head.weight) @ head.weight.T + head.bias).double().cpu()


def l1_logistic_regression(
    inputs: np.ndarray, targets: Tensor, num_classes: int, inverse_penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (K, D) and bias (K,) of one scikit-learn fit for two classes, of one against the rest for more."""
    from sklearn.linear_model import LogisticRegression

    def fit(is_class: np.ndarray) -> tuple[np.ndarray, float]:
        # The solver of the published code; its intercept is penalised too, which standardised features need little.
        model = LogisticRegression(l1_ratio=1.0, C=inverse_penalty, solver="liblinear", random_state=0, max_iter=1000)
        model.fit(inputs, is_class)
        return model.coef_[0], model.intercept_[0]

    classes = (1,) if num_classes == 2 else range(num_classes)
    fitted = [fit(targets.numpy() == label) for label in classes]
    if num_classes == 2:
        fitted = [(-fitted[0][0] / 2, -fitted[0][1] / 2), (fitted[0][0] / 2, fitted[0][1] / 2)]
    weights, biases = zip(*fitted)
    return np.stack(weights), np.array(biases)


def fit_head(features: Tensor, targets: Tensor, strength: float) -> nn.Linear:
    """A new head for features that stay as they are: logistic regression with an L2 penalty.

    The features are standardised for the fit, since the penalty would otherwise depend on their scale, and the head
    takes that back into its weights.

    Args:
        features: (N, D).
        targets: (N,), 0 to K - 1.
        strength: the inverse of the penalty, scikit-learn's C.

    Returns:
        A layer from D to K, on the features' device and of their type.
    """
    from sklearn.linear_model import LogisticRegression

    inputs = features.double()
    mean, std = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    fit = LogisticRegression(C=strength, max_iter=1000)
    fit.fit(((inputs - mean) / std).cpu().numpy(), targets.cpu().numpy())
    weight, bias = (torch.from_numpy(value).to(mean) for value in (fit.coef_, fit.intercept_))
    if len(weight) == 1:  # of two classes scikit-learn gives the second's logit, the first's being 0
        weight, bias = (torch.cat([torch.zeros_like(value), value]) for value in (weight, bias))
    head = nn.Linear(weight.shape[1], len(weight)).to(features)
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - (weight / std) @ mean)
    return head


HEADS = {
    "none": none,
    "logit_adjusted": logit_adjusted,
    "tau_normalised": tau_normalised,
    "crt": crt,
    "lws": lws,
    "dfr": dfr,
    "hold_out": hold_out,
    "afr": afr,
    "self": disagreement,
    "temperature": temperature,
    "thresholds": thresholds,
}
