"""DFR: deep feature reweighting (Kirichenko et al., ICLR 2023)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor, nn

from imbalance.config.schema import Positives, Repeats
from imbalance.config.tags import tagged
from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.samplers import rows_by_label, shuffled


@tagged(reads_val=True)
def dfr(
    dataset: Dataset,
    features: Callable[[str], Tensor],
    generator: Generator,
    *,
    inverse_penalties: Positives,
    fits: Repeats,
) -> nn.Module:
    """Fit L1-penalised logistic regressions on group-balanced subsets of val, and average them.

    Kirichenko, Izmailov and Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations",
    ICLR 2023, DFR on validation data. Features are standardised by the mean and standard deviation of train. First one
    regression for each penalty is fitted to a random half of val; the penalty with the best worst-group accuracy on the
    other half is selected. Then `fits` regressions with this penalty are fitted to group-balanced subsets of all of
    val. Their weights and biases are averaged. The head is fitted to the groups of val, so the metrics of
    val are training metrics: compare runs on test.

    Args:
        inverse_penalties: the values of C of scikit-learn, one over the penalty, to select from; 1, 0.7, 0.3, 0.1,
            0.07, 0.03 and 0.01 in the paper.
        fits: the number of regressions that are averaged; 20 in the authors' code, 10 in the text of the paper.
    """
    val, train = dataset.val, features("train").double()
    mean, std = train.mean(0), train.std(0, correction=0).clamp(min=1e-12)
    std[std <= 1e-12] = 1  # a feature that is constant in train would become large on val
    inputs = ((features("val").double() - mean) / std).cpu().numpy()
    targets, groups = val.targets.cpu(), val.groups.cpu()
    counts = dataset.group_counts(val).cpu()

    def balanced_subset(rows: Tensor) -> Tensor:
        sizes = torch.bincount(groups[rows], minlength=len(counts))
        if (sizes[counts > 0] == 0).any():
            raise BadInput(
                f"config.head.name: 'dfr' needs each group of val in both of its random halves; the groups of val have "
                f"{counts.tolist()} examples, too few in one half; use more val examples, or another head"
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
    """Fit L1-penalised logistic regression: one fit for two classes, else one fit of each class against the rest.

    Args:
        inputs: (N, D) features.
        targets: (N,) classes.
        inverse_penalty: C of scikit-learn, one over the penalty.

    Returns:
        Weights (K, D) and biases (K,).
    """
    from sklearn.linear_model import LogisticRegression

    def fit(is_class: np.ndarray) -> tuple[np.ndarray, float]:
        # The authors' code uses the solver liblinear. It penalises the intercept, too, which hardly matters, because
        # the intercept is small for standardised features.
        model = LogisticRegression(l1_ratio=1.0, C=inverse_penalty, solver="liblinear", random_state=0, max_iter=1000)
        model.fit(inputs, is_class)
        return model.coef_[0], np.asarray(model.intercept_)[0]

    classes = (1,) if num_classes == 2 else range(num_classes)
    fitted = [fit(targets.numpy() == label) for label in classes]
    if num_classes == 2:
        fitted = [(-fitted[0][0] / 2, -fitted[0][1] / 2), (fitted[0][0] / 2, fitted[0][1] / 2)]
    weights, biases = zip(*fitted)
    return np.stack(weights), np.array(biases)
