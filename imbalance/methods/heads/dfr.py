"""DFR: deep feature reweighting (Kirichenko et al., ICLR 2023)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor, nn

from imbalance.config.schema import Positive, Repeats
from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.samplers import rows_by_label, shuffled


def dfr(
    dataset: Dataset,
    features: Callable[[str], Tensor],
    generator: Generator,
    *,
    inverse_penalties: tuple[Positive, ...],
    fits: Repeats,
) -> nn.Module:
    """Fit L1-penalised logistic regressions on group-balanced subsets of val, and average them.

    Kirichenko, Izmailov and Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations",
    ICLR 2023, DFR on validation data. Features are standardised by the mean and deviation of train. A fit on one half
    of val for each penalty selects the penalty with the best worst-group accuracy on the other half. Then come fits on
    subsets of all of val. The groups of val train the layer, so the metrics of val are training metrics: compare runs
    on test.

    Args:
        inverse_penalties: the candidates for C of scikit-learn; 1, 0.7, 0.3, 0.1, 0.07, 0.03 and 0.01 in the paper.
        fits: the number of subsets to average over; 20 in the paper's code, 10 in its text.
    """
    val, train = dataset.val, features("train").double()
    mean, std = train.mean(0), train.std(0, correction=0).clamp(min=1e-12)
    std[std <= 1e-12] = 1  # a constant feature has no information, and must not become large on val
    inputs = ((features("val").double() - mean) / std).cpu().numpy()
    targets, groups = val.targets.cpu(), val.groups.cpu()
    counts = dataset.group_counts(val).cpu()

    def balanced_subset(rows: Tensor) -> Tensor:
        sizes = torch.bincount(groups[rows], minlength=len(counts))
        if (sizes[counts > 0] == 0).any():
            raise BadInput(
                f"config.head.name: 'dfr' needs each group of val in both of its random halves; the groups of val have "
                f"{counts.tolist()} examples; use more val examples, or another head"
            )
        rows_per_group = rows_by_label(groups[rows], sizes)
        return torch.cat([rows[shuffled(part, generator)[: sizes[sizes > 0].min()]] for part in rows_per_group])

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
    return linear(weight / std, bias - (weight / std) @ mean)


def l1_logistic_regression(
    inputs: np.ndarray, targets: Tensor, num_classes: int, inverse_penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit scikit-learn's logistic regression, one class against the rest if there are more than two.

    Returns:
        Weights (K, D) and biases (K,).
    """
    from sklearn.linear_model import LogisticRegression

    def fit(is_class: np.ndarray) -> tuple[np.ndarray, float]:
        # liblinear is the solver of the published code. It penalises the intercept, too, which is small for standardised
        # features.
        model = LogisticRegression(l1_ratio=1.0, C=inverse_penalty, solver="liblinear", random_state=0, max_iter=1000)
        model.fit(inputs, is_class)
        return model.coef_[0], np.asarray(model.intercept_)[0]

    classes = (1,) if num_classes == 2 else range(num_classes)
    fitted = [fit(targets.numpy() == label) for label in classes]
    if num_classes == 2:
        fitted = [(-fitted[0][0] / 2, -fitted[0][1] / 2), (fitted[0][0] / 2, fitted[0][1] / 2)]
    weights, biases = zip(*fitted)
    return np.stack(weights), np.array(biases)
