"""Clusters as groups: SPARE against the published code, GEORGE against known clusters, and both in runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from sklearn.metrics import silhouette_score

from imbalance.config.experiment import first_run, validate
from imbalance.config.resolve import load
from imbalance.data import Dataset, Split
from imbalance.methods.context import FirstRun
from imbalance.methods.group_inference.george import better_parts, george, reduced, subclasses
from imbalance.methods.group_inference.registry import with_environments
from imbalance.methods.group_inference.spare import cluster_classes, k_means, spare
from imbalance.methods.samplers import SAMPLERS, within_class_chance
from imbalance.methods.standalone import EpochSampler
from imbalance.training.loop import train
from imbalance.utils.seeds import generator

PUBLISHED = json.loads((Path(__file__).parents[1] / "objectives" / "published" / "spare.json").read_text())
SPARE = dict(first_epochs=1, lr=0.1, clusters=(2,), threshold=0.9, power=2.0)


def dataset_of(targets: torch.Tensor, classes: int = 2) -> Dataset:
    split = Split(torch.zeros(len(targets), 1), targets, targets, torch.arange(len(targets)))
    names = tuple(map(str, range(classes)))
    return Dataset(split, split, split, names, names)


def partition(environments: torch.Tensor, targets: torch.Tensor) -> set[frozenset[int]]:
    """The sets of rows that share class and environment."""
    groups = 100 * targets + environments
    return {frozenset(torch.nonzero(groups == group)[:, 0].tolist()) for group in groups.unique()}


def first_run_of(**outputs: torch.Tensor) -> FirstRun:
    return FirstRun(dict.fromkeys(("train", "val", "test"), outputs))


def test_spare_infers_the_published_groups_and_powers():
    inference = PUBLISHED["inference"]
    logits, targets = torch.tensor(inference["logits"], dtype=torch.float64), torch.tensor(inference["labels"])
    assert (inference["num_clusters"], inference["silhouette_threshold"]) == (2, 0.9)
    points, labels = dict(train=logits.numpy(), val=logits.numpy()), dict(train=targets, val=targets)
    clusters, silhouette = cluster_classes(points, labels, 2, (2,), seed=0)
    expected = {frozenset(rows) for rows in inference["partition"].values()}
    assert [partition(clusters[name], targets) for name in labels] == [expected, expected]
    np.testing.assert_allclose(silhouette, inference["silhouette_per_class"], rtol=1e-13)
    # The published values cluster the numbers as they are. The method clusters their softmax, with the same powers here.
    powers = spare(dataset_of(targets), 0, first_run_of(logits=logits), **SPARE).powers
    assert powers is not None and powers.tolist() == inference["sampling_powers"]


@pytest.mark.parametrize("powers", PUBLISHED["sampling_powers_to_weights"])
def test_chances_within_a_class_are_the_published_weights(powers):
    inputs, expected = PUBLISHED["inputs"], PUBLISHED["sampling_powers_to_weights"][powers]
    targets, groups = torch.tensor(inputs["labels"]), torch.zeros(len(inputs["labels"]), dtype=torch.long)
    for number, rows in enumerate(inputs["group_partition"].values()):
        groups[rows] = number
    chance = within_class_chance(targets, groups, torch.tensor(json.loads(powers)))
    np.testing.assert_allclose(chance, expected["weights_by_example"], rtol=1e-14)


def test_the_sampler_draws_with_the_chances():
    """The frequencies of the groups stray from their expectation by less than five standard deviations."""
    targets = torch.tensor([0] * 60 + [1] * 40)
    groups = torch.tensor([0] * 50 + [1] * 10 + [2] * 36 + [3] * 4)
    powers = torch.tensor([1.0, 2.0])
    draws = torch.cat([
        SAMPLERS["within_class"](targets, groups, powers, generator(0, "sampler", epoch)) for epoch in range(200)
    ])  # fmt: skip
    expected = torch.tensor([0.25, 0.25, 0.5 / 10, 0.5 * 9 / 10])  # 36^-1 : 4^-1 is 1 : 9
    shares = torch.bincount(groups[draws], minlength=4) / len(draws)
    assert ((shares - expected).abs() < 5 * (expected / len(draws)).sqrt()).all()
    standalone = EpochSampler("within_class", targets, groups).rows()
    assert len(standalone) == 100 and standalone.max() < 100


def test_of_several_numbers_of_clusters_the_highest_silhouette_wins_and_the_largest_cluster_is_0():
    random = np.random.default_rng(0)
    centres = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], [10, 30, 20], axis=0)
    points = centres + random.normal(size=centres.shape)
    clustering = k_means(points, (2, 3, 4, 5), seed=1)
    assert clustering.assign(points).tolist() == [2] * 10 + [0] * 30 + [1] * 20
    assert clustering.silhouette == silhouette_score(points, np.repeat([0, 1, 2], [10, 30, 20]))
    assert clustering.assign(np.array([[8.0, 1.0], [0.0, 1.0]])).tolist() == [0, 2]


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.ones((1, 2))])
def test_equal_points_are_one_cluster(points):
    clustering = k_means(points, (2, 4), seed=0)
    assert clustering.assign(points).tolist() == [0] * len(points) and clustering.silhouette == 1.0
    assert not subclasses(dict(train=points), "gmm", 3, 5, 1, seed=0)["train"].any()


@pytest.mark.parametrize("algorithm", ["gmm", "k_means"])
@pytest.mark.parametrize("reduction", ["none", "pca", "hardness"])
def test_george_finds_clusters_of_features(algorithm, reduction):
    """Three subclasses of class 0 and two of class 1, far apart; val and test are divided by those of train."""
    random = torch.Generator().manual_seed(0)
    subclass = torch.arange(5).repeat_interleave(torch.tensor([40, 30, 8, 40, 12]))
    features = 10 * torch.eye(5)[subclass] + torch.randn(130, 5, generator=random)
    logits = torch.stack([torch.zeros(130), torch.tensor([-9.0, -6.0, 8.0, 7.0, -7.0])[subclass]], 1)
    logits += 0.1 * torch.randn(130, 2, generator=random)
    targets = (subclass > 2).long()
    assignment = george(
        dataset_of(targets), 0, first_run_of(logits=logits, features=features), first_epochs=1, reduction=reduction,
        components=4, algorithm=algorithm, max_clusters=4, parts=1, smallest_part=5,
    )  # fmt: skip
    for name in ("train", "val", "test"):
        assert partition(assignment.environments[name], targets) == partition(subclass, targets)


def test_a_cluster_is_divided_into_parts_that_separate_better():
    """Two far clusters, the second of which has a small dense part; with a larger smallest part nothing is divided."""
    random = np.random.default_rng(0)
    centres = np.repeat([[0.0, 0.0], [30.0, 0.0], [30.0, 6.0]], [40, 30, 10], axis=0)
    points = centres + 0.5 * random.normal(size=centres.shape)
    truth = np.repeat([0, 1, 2], [40, 30, 10])
    found = subclasses(dict(train=points, val=points[::2]), "k_means", 2, 2, 5, seed=0)
    assert partition(torch.from_numpy(found["train"][40:]), torch.zeros(40)) == partition(
        torch.from_numpy(truth[40:]), torch.zeros(40)
    )
    assert (found["val"] == found["train"][::2]).all()
    assert len(np.unique(subclasses(dict(train=points), "k_means", 2, 2, 50, seed=0)["train"])) == 2
    assert len(better_parts(points, truth, truth, 1)) == 0  # a part that equals its cluster separates no better


def test_principal_components_are_scikit_learn_s():
    from sklearn.decomposition import PCA

    features = np.random.default_rng(0).normal(size=(20, 4)) @ np.diag([1.0, 2.0, 3.0, 0.0])
    standard = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
    ours = reduced(dict(train=features), "pca", 2)["train"]
    np.testing.assert_allclose(np.abs(ours), np.abs(PCA(2).fit_transform(standard)), atol=1e-12)


def test_environments_beyond_two_make_groups_of_class_and_environment():
    targets = torch.tensor([0, 0, 0, 1, 1])
    environments = torch.tensor([0, 2, 1, 0, 1])
    divided = with_environments(dataset_of(targets), dict.fromkeys(("train", "val", "test"), environments))
    assert divided.train.method_groups.tolist() == [0, 2, 1, 3, 4] and divided.train.groups.equal(targets)
    assert len(divided.inferred_names) == 6 and divided.inferred_names[2] == "0, environment 2"
    assert divided.notes[0] == (
        "inferred environments of train, with the number of examples of each group: "
        "environment 0 [1, 1], environment 1 [1, 1], environment 2 [1, 0]"
    )


@pytest.mark.parametrize("name", ["spare", "george"])
def test_a_run_trains_on_clusters_of_its_first_run(name, tmp_path):
    config = load(ROOT / "configs" / f"colored_digits_{name}.py")
    config.trainer.epochs, config.groups.first_epochs = 1, 2
    config.callbacks.monitor = config.score = "val/worst_inferred_group_accuracy"
    summary = train(config, tmp_path)
    first = first_run(validate(config))
    assert first and first.trainer.epochs == 2 and (first.optim["lr"] == config.groups.get("lr", config.optim.lr))
    assert 0 <= summary["metrics"]["val/worst_inferred_group_accuracy"] <= 1
    with np.load(tmp_path / "first" / "predictions" / "train.npz") as saved:
        assert ("features" in saved) == (name == "george")
        logits = saved["logits"]
        if name == "george":
            assert saved["features"].shape == (len(logits), 128)
    with np.load(tmp_path / "predictions" / "train.npz") as saved:
        inferred, targets = saved["inferred"], saved["targets"]
    assert (len(np.unique(inferred[targets == 0])), len(np.unique(inferred[targets == 1]))) >= (2, 2)
    assert not set(inferred[targets == 0]) & set(inferred[targets == 1])
