"""SPARE: groups are clusters of the class probabilities that a model predicts after a few epochs of training."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Counts, NonNegative, Positive, Repeats, Share
from imbalance.config.tags import INFERRED_GROUP_METRICS, tagged
from imbalance.data import Dataset
from imbalance.methods.context import FirstRun, GroupAssignment, cross_entropy_baseline
from imbalance.utils.seeds import derived_seed

LARGEST_SEED = 2**32  # scikit-learn's seeds are below it


class Clustering(NamedTuple):
    """The clusters of some points.

    assign: a function from (M, D) points to their (M,) clusters; cluster 0 is the largest one.
    silhouette: the mean silhouette of the points; 1 if they form a single cluster.
    """

    assign: Callable[[np.ndarray], np.ndarray]
    silhouette: float


def k_means(points: np.ndarray, counts: tuple[int, ...], seed: int) -> Clustering:
    """Cluster points by k-means with each number of clusters in `counts`; keep the one with the highest mean silhouette.

    k-means starts ten times. There are never more clusters than different points.

    Args:
        points: (N, D) points, with N at least 1.
        counts: numbers of clusters to try; if two have the same mean silhouette, the first is kept.
        seed: the seed of k-means.
    """
    from sklearn.cluster import KMeans

    different = len(np.unique(points, axis=0))
    best = Clustering(lambda others: np.zeros(len(others), dtype=np.int64), 1.0)
    tried: dict[int, Clustering] = {}
    for count in counts:
        if (number := min(count, different)) == 1 or number in tried:
            continue
        model = KMeans(number, n_init=10, random_state=seed % LARGEST_SEED)  # pyright: ignore[reportArgumentType] (sklearn: int)
        labels = model.fit_predict(points)
        ranks = np.argsort(np.argsort(-np.bincount(labels, minlength=number), kind="stable"))
        tried[number] = Clustering(
            lambda others, model=model, ranks=ranks: ranks[model.predict(others)],
            silhouettes(points, labels).mean(),
        )
    return max(tried.values(), key=lambda clustering: clustering.silhouette) if tried else best


def silhouettes(points: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return the (N,) silhouettes of points: those of scikit-learn, or 0 if every point is a cluster of its own.

    scikit-learn raises in the latter case.

    Args:
        clusters: (N,) the cluster of each point; there must be at least two clusters.
    """
    from sklearn.metrics import silhouette_samples

    if len(np.unique(clusters)) == len(points):
        return np.zeros(len(points))
    return cast(np.ndarray, silhouette_samples(points, clusters))


def spare_first_run(config: Experiment) -> dict[str, Any]:
    """Return the config of the first run of `spare` as a dictionary."""
    values = cross_entropy_baseline(config, config.groups.first_epochs)
    values["optim"]["lr"] = config.groups.lr
    return values


@tagged(first_run=spare_first_run, measures=INFERRED_GROUP_METRICS)
def spare(
    dataset: Dataset,
    seed: int,
    first: FirstRun,
    *,
    first_epochs: Repeats,
    lr: Positive,
    clusters: Counts,
    threshold: Share,
    power: NonNegative,
) -> GroupAssignment:
    """Infer groups: cluster the class probabilities that a first run predicts, separately in each class.

    Yang, Gan, Dziugaite and Mirzasoleiman, "Identifying Spurious Biases Early in Training through the Lens of Simplicity Bias",
    AISTATS 2024. A first run trains by plain cross-entropy for `first_epochs` epochs. k-means clusters the softmax outputs of
    the training examples of each class. The sampler `within_class` then draws small clusters more often: an example of a
    cluster of n is drawn with a probability ∝ n^-λ. λ is 1 in a class with a mean silhouette of at least `threshold`, whose
    clusters are far apart, and `power` in every other class. The authors' code (github.com/BigML-CS-UCLA/SpuCo) confuses the
    powers of two classes if the first training example is not of class 0; this function does not.

    Examples of val and test join the cluster of train with the nearest centre, which the authors do not do. So an epoch can be
    selected without groups of the data. The inference reads no groups.

    Args:
        first_epochs: the number of epochs of the first run; 1 on Waterbirds in the paper.
        lr: the learning rate of the first run; 0.001 in the paper.
        clusters: the numbers of clusters of a class to try; of several, the one with the highest mean silhouette is
            taken. (4,) on Waterbirds and (2,) on CelebA in the paper.
        threshold: the mean silhouette from which on λ is 1 for a class; 0.9 in the paper.
        power: λ of the other classes; 2 in the authors' code.
    """
    targets = {name: getattr(dataset, name).targets for name in ("train", "val", "test")}
    points = {name: first.logits(name, labels).double().softmax(1).numpy() for name, labels in targets.items()}
    environments, silhouette = cluster_classes(points, targets, dataset.num_classes, clusters, seed)
    return GroupAssignment(environments, powers=torch.where(silhouette >= threshold, 1.0, power))


def cluster_classes(
    points: dict[str, np.ndarray], targets: dict[str, Tensor], num_classes: int, counts: tuple[int, ...], seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return for each split the (N,) clusters, and the (K,) mean silhouettes of the training examples of each class.

    Args:
        points: for each split, (N, D) points; those of train are clustered; those of val and test join the cluster with the
            nearest centre.
        targets: for each split, (N,) classes.
        counts: numbers of clusters to try, as for `k_means`.
    """
    clusters = {name: torch.zeros_like(labels) for name, labels in targets.items()}
    silhouette = torch.ones(num_classes, dtype=torch.float64)
    for label in range(num_classes):
        members = {name: labels == label for name, labels in targets.items()}
        own_seed = derived_seed(seed, f"clusters of class {label}")
        clustering = k_means(points["train"][members["train"].numpy()], counts, own_seed)
        silhouette[label] = clustering.silhouette
        for name, rows in members.items():
            if rows.any():
                clusters[name][rows] = torch.from_numpy(clustering.assign(points[name][rows.numpy()]))
    return clusters, silhouette
