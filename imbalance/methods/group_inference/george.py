"""GEORGE: clusters of the features of a trained model become groups, after some clusters are divided once more."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Count, Repeats
from imbalance.config.tags import INFERRED_GROUP_METRICS, Tags, tagged
from imbalance.data import Dataset
from imbalance.methods.batch import Inputs
from imbalance.methods.context import FirstRun, GroupAssignment, cross_entropy_baseline
from imbalance.methods.group_inference.spare import LARGEST_SEED, silhouettes
from imbalance.methods.objectives.base import features_of
from imbalance.methods.objectives.reductions import Average
from imbalance.utils.seeds import derived_seed

Algorithm = Literal["gmm", "k_means"]
STARTS = 3  # number of random starts of each clustering, as in the authors' code
SMALLEST_SHARE = 0.005  # smallest share of a class's examples that a part may have, as in the authors' code


class AverageWithFeatures(Average):
    """The mean weighted loss; the run saves the features, the inputs of the last layer, next to the logits.

    This is the objective of the first run of `config.groups.name="george"`.
    """

    tags = Tags(batched=True, averages=True)

    def extra_outputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        return {"features": features_of(model)(inputs).flatten(1)}


def george_first_run(config: Experiment) -> dict[str, Any]:
    """Return the config of the first run of `george` as a dictionary."""
    return cross_entropy_baseline(config, config.groups.first_epochs) | {"objective": {"name": "george"}}


@tagged(first_run=george_first_run, measures=INFERRED_GROUP_METRICS)
def george(
    dataset: Dataset,
    seed: int,
    first: FirstRun,
    *,
    first_epochs: Repeats,
    reduction: Literal["none", "hardness", "pca"],
    components: Count,
    algorithm: Algorithm,
    max_clusters: Count,
    parts: Count,
    smallest_part: Count,
) -> GroupAssignment:
    """Infer groups: cluster the features of a first run in each class, and divide clusters where that separates better.

    Sohoni, Dunnmon, Angus, Gu and Ré, "No Subclass Left Behind: Fine-Grained Robustness in Coarse-Grained
    Classification Problems" (GEORGE), NeurIPS 2020. A first run trains by plain cross-entropy. Its features become
    points as `reduction` says. The points of each class are clustered, and the number of clusters, from 2 to
    `max_clusters`, is the number for which the mean of the clusters' mean silhouettes is highest. Then every cluster is
    divided into `parts` parts. A part becomes a group if the mean silhouette of its examples is positive and higher
    than before the division, and if it has at least `smallest_part` examples and 0.5 % of the class. All other parts of
    a cluster together stay one group. The authors then train by group DRO on these groups.

    Differences from the authors' code (github.com/HazyResearch/hidden-stratification): a part need not have a higher
    loss than its cluster, as in SpuCo's version; UMAP is not among the reductions; val and test are divided by the
    clusters of train. The inference reads no groups.

    Args:
        first_epochs: the number of epochs of the first run; 300 on Waterbirds and 50 on CelebA in the authors' code.
        reduction: "none": points are the standardised features of examples. "pca": their first `components` principal
            components. "hardness": for two classes the difference of the logits, which the authors use on Waterbirds;
            for more classes the difference of each logit from the first.
        components: the number of principal components; only "pca" reads it.
        algorithm: "gmm" for a Gaussian mixture, which the authors use on Waterbirds, or "k_means", which they use on
            CelebA.
        max_clusters: the largest number of clusters of a class before clusters are divided; 1 for a single cluster.
        parts: the number of parts into which a cluster is divided; 5 in the authors' code, 1 to divide none.
        smallest_part: the fewest examples of a part that becomes a group; 25 in the authors' code.
    """
    splits = {name: getattr(dataset, name).targets for name in ("train", "val", "test")}
    column = "logits" if reduction == "hardness" else "features"
    outputs = {name: first.logits(name, targets, column).double().numpy() for name, targets in splits.items()}
    points = reduced(outputs, reduction, components)
    environments = {name: torch.zeros_like(targets) for name, targets in splits.items()}
    for label in range(dataset.num_classes):
        members = {name: (targets == label).numpy() for name, targets in splits.items()}
        of_class = {name: points[name][rows] for name, rows in members.items()}
        assigned = subclasses(
            of_class,
            algorithm,
            max_clusters,
            parts,
            smallest_part,
            derived_seed(seed, f"clusters of class {label}") % LARGEST_SEED,
        )
        for name, rows in members.items():
            environments[name][torch.from_numpy(rows)] = torch.from_numpy(assigned[name])
    return GroupAssignment(environments)


def reduced(outputs: dict[str, np.ndarray], reduction: str, components: int) -> dict[str, np.ndarray]:
    """Return, for each split, the (N, D) points to cluster; means, scales and principal components are those of train.

    Args:
        outputs: for each split, (N, K) logits for "hardness", else (N, F) features.
        reduction, components: as for `george`.
    """
    if reduction == "hardness":
        return {name: logits[:, 1:] - logits[:, :1] for name, logits in outputs.items()}
    mean, scale = outputs["train"].mean(0), outputs["train"].std(0)
    points = {name: (features - mean) / np.where(scale > 0, scale, 1) for name, features in outputs.items()}
    if reduction == "none":
        return points
    _, _, directions = np.linalg.svd(points["train"], full_matrices=False)
    return {name: each @ directions[:components].T for name, each in points.items()}


def subclasses(
    points: dict[str, np.ndarray], algorithm: Algorithm, max_clusters: int, parts: int, smallest_part: int, seed: int
) -> dict[str, np.ndarray]:
    """Return for each split the (N,) final groups of the points of one class, numbered from 0, as `george` makes them.

    Args:
        points: for each split, (N, D) points.
        algorithm, max_clusters, parts, smallest_part: as for `george`.
        seed: the seed of the clusterings.
    """
    train = points["train"]
    best, clusters = -np.inf, {name: np.zeros(len(each), dtype=np.int64) for name, each in points.items()}
    different = len(np.unique(train, axis=0))
    for count in range(2, min(max_clusters, different) + 1):
        divided = divide(points, train, algorithm, count, seed)
        score = mean_per_cluster(silhouettes(train, divided["train"]), divided["train"]).mean()
        if score >= best:  # of two numbers of clusters with the same score take the larger, as in the authors' code
            best, clusters = score, divided
    finer = {name: parts * each for name, each in clusters.items()}
    for cluster in np.unique(clusters["train"]):
        own = train[clusters["train"] == cluster]
        count = min(parts, len(np.unique(own, axis=0)))
        inside = {name: each == cluster for name, each in clusters.items()}
        for name, each in divide({name: points[name][rows] for name, rows in inside.items()}, own, algorithm, count, seed).items():  # fmt: skip
            finer[name][inside[name]] += each
    kept = better_parts(train, clusters["train"], finer["train"], smallest_part)
    # Parts that are not kept are merged into one group of their cluster; the negative number cannot be that of a part.
    merged = {name: np.where(np.isin(finer[name], kept), finer[name], -1 - clusters[name]) for name in points}
    numbers = np.unique(np.concatenate([merged[name] for name in points]))
    return {name: np.searchsorted(numbers, each) for name, each in merged.items()}


def divide(
    points: dict[str, np.ndarray], own: np.ndarray, algorithm: Algorithm, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Fit a clustering to the points `own`, and return for each split the (N,) clusters of its points, 0 to `count` − 1.

    Args:
        points: for each split, (N, D) points.
        own: the points of train that the clustering is fitted to.
        count: the number of clusters.
    """
    if count == 1:
        return {name: np.zeros(len(each), dtype=np.int64) for name, each in points.items()}
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    make = GaussianMixture if algorithm == "gmm" else KMeans
    model: Any = make(count, n_init=STARTS, random_state=seed)  # pyright: ignore[reportArgumentType] (sklearn: int)
    model.fit(own)
    return {
        name: model.predict(each).astype(np.int64) if len(each) else np.zeros(0, dtype=np.int64)
        for name, each in points.items()
    }


def mean_per_cluster(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return the mean of `values` in each cluster that has points, in ascending order of the cluster numbers.

    Args:
        values, clusters: (N,) a value and the cluster of each point.
    """
    return np.array([values[clusters == cluster].mean() for cluster in np.unique(clusters)])


def better_parts(points: np.ndarray, clusters: np.ndarray, parts: np.ndarray, smallest: int) -> np.ndarray:
    """Return the numbers of the parts that separate their points better than the clusters do, and are large enough.

    Args:
        points: (N, D).
        clusters, parts: (N,) the cluster and the part of each point; a part lies in one cluster.
        smallest: the fewest points that a part needs; it also needs 0.5 % of all points.
    """
    numbers, sizes = np.unique(parts, return_counts=True)
    if len(numbers) == 1:
        return numbers[:0]
    before = silhouettes(points, clusters) if len(np.unique(clusters)) > 1 else np.zeros(len(points))
    earlier, later = mean_per_cluster(before, parts), mean_per_cluster(silhouettes(points, parts), parts)
    return numbers[(later > np.maximum(earlier, 0)) & (sizes >= max(smallest, SMALLEST_SHARE * len(points)))]
