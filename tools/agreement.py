"""Compare the metrics of this package with fairlearn, scikit-learn and torchmetrics on 300 random cases.

    pip install fairlearn torchmetrics
    python tools/agreement.py

A case has 20 to 300 examples of 2 to 6 classes and of 2 to 4 attributes. In two cases of three the probabilities are
multiples of 1/64, so many of them tie. The script prints the largest difference of each metric over all cases in which the
other library defines the metric. Every attribute has examples of every class, because fairlearn takes a rate that is 0/0 for
0, and this package leaves such a rate out.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from imbalance.metrics import WorstGroupAccuracy, evaluate

CASES = 300
Case = tuple[np.ndarray, np.ndarray, np.ndarray]  # targets (N,), probabilities (N, K), attributes (N,)


def random_case(seed: int) -> Case:
    """Return a case in which every attribute has examples of every class."""
    rng = np.random.default_rng(seed)
    n, num_classes, num_attributes = (
        int(rng.integers(20, 301)),
        int(rng.choice([2, 2, 2, 3, 4, 6])),
        int(rng.integers(2, 5)),
    )
    pairs = [(k, a) for k in range(num_classes) for a in range(num_attributes)]
    shares = rng.dirichlet(np.full(num_classes, 0.7))
    targets = np.concatenate([[k for k, _ in pairs], rng.choice(num_classes, n, p=shares)])
    attributes = np.concatenate([[a for _, a in pairs], rng.integers(num_attributes, size=n)])
    logits = rng.normal(size=(len(targets), num_classes)) * rng.choice([0.3, 1, 3])
    logits[np.arange(len(targets)), targets] += rng.normal()
    exponentials = np.exp(logits)
    probability = exponentials / exponentials.sum(1, keepdims=True)
    if seed % 3:
        probability = (1 + rng.multinomial(64 - num_classes, probability)) / 64
    return targets, probability, attributes


def fairlearn_values(
    targets: np.ndarray, probability: np.ndarray, attributes: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Yield the names and values of fairlearn's parity metrics; they need two classes."""
    from fairlearn import metrics

    if probability.shape[1] == 2:
        for name in ("demographic_parity", "equalized_odds"):
            for kind in ("difference", "ratio"):
                function = getattr(metrics, f"{name}_{kind}")
                yield f"{name}_{kind}", function(targets, probability.argmax(1), sensitive_features=attributes)
    frame = metrics.MetricFrame(
        metrics={"a": lambda y, p: float((y == p).mean())},
        y_true=targets,
        y_pred=probability.argmax(1),
        sensitive_features={"class": targets, "attribute": attributes},
    )
    yield "worst_group_accuracy", float(frame.group_min()["a"])
    yield "group_balanced_accuracy", float(frame.by_group["a"].mean())


def sklearn_values(targets: np.ndarray, probability: np.ndarray, attributes: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yield the names and values of scikit-learn's metrics."""
    from sklearn import metrics

    predicted, classes = probability.argmax(1), np.arange(probability.shape[1])
    one_hot = np.eye(len(classes))[targets]
    yield "accuracy", metrics.accuracy_score(targets, predicted)
    yield "balanced_accuracy", metrics.balanced_accuracy_score(targets, predicted)
    yield "macro_f1", metrics.f1_score(targets, predicted, average="macro")
    yield "mcc", metrics.matthews_corrcoef(targets, predicted)
    yield "nll", metrics.log_loss(targets, probability, labels=classes)
    yield "auroc", float(metrics.roc_auc_score(one_hot, probability, average="macro"))
    yield "auprc", float(metrics.average_precision_score(one_hot, probability, average="macro"))
    for k, recall in enumerate(metrics.recall_score(targets, predicted, average=None)):
        yield f"recall/{k}", recall
    if len(classes) > 2:
        yield "top2_accuracy", metrics.top_k_accuracy_score(targets, probability, k=2, labels=classes)
    else:
        yield "brier", metrics.brier_score_loss(targets, probability[:, 1])


def torchmetrics_values(
    targets: np.ndarray, probability: np.ndarray, attributes: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Yield the names and values of torchmetrics' metrics, in float64."""
    from torchmetrics.functional import classification

    p, y, k = torch.from_numpy(probability), torch.from_numpy(targets), probability.shape[1]
    for name, function, values in (
        ("balanced_accuracy", classification.multiclass_accuracy, {"average": "macro"}),
        ("macro_f1", classification.multiclass_f1_score, {"average": "macro"}),
        ("mcc", classification.multiclass_matthews_corrcoef, {}),
        ("auroc", classification.multiclass_auroc, {"average": "macro"}),
        ("ece", classification.multiclass_calibration_error, {"n_bins": 15, "norm": "l1"}),
    ):
        yield name, function(p, y, num_classes=k, **values).item()
    groups = torch.from_numpy(targets * 4 + attributes)
    metric = WorstGroupAccuracy(num_groups=4 * k)
    for batch in torch.arange(len(y)).split(7):
        metric.update(p[batch], y[batch], groups[batch])
    yield "worst_group_accuracy", metric.compute().item()


def main() -> None:
    """Print the largest difference of each metric from each library."""
    largest: dict[tuple[str, str], float] = defaultdict(float)
    compared: dict[tuple[str, str], int] = defaultdict(int)
    for seed in range(CASES):
        case = random_case(seed)
        targets, probability, attributes = case
        ours = evaluate(targets, probability, attributes, top_k=(2,) if probability.shape[1] > 2 else ())
        for library, function in (
            ("fairlearn", fairlearn_values), ("scikit-learn", sklearn_values), ("torchmetrics", torchmetrics_values)
        ):  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about metrics that are not defined
                theirs = dict(function(*case))
            for name, value in theirs.items():
                if not np.isnan(value):
                    key = library, name.partition("/")[0]
                    difference = abs(value - ours[name].value)
                    largest[key] = max(largest[key], np.inf if np.isnan(difference) else difference)
                    compared[key] += 1
    print(f"{'library':14}{'metric':32}{'compared':>10}{'largest difference':>20}")
    for (library, name), value in sorted(largest.items()):
        print(f"{library:14}{name:32}{compared[library, name]:10}{value:20.1e}")


if __name__ == "__main__":
    main()
