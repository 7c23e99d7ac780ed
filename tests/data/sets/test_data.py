import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from imbalance.data.images.normalise import normaliser
from imbalance.data.sets.cifar10 import CLASSES, cifar10
from imbalance.data.sets.digits import digits
from imbalance.data.sets.gaussian import balanced_error, gaussian, truncated_normal
from imbalance.data.splits import draw_per_class, imbalanced_counts, stratified_split
from imbalance.errors import BadInput

# Long-tailed CIFAR as published: per-class counts and sums for CIFAR-10, sum and minimum for CIFAR-100.
CIFAR10_LT = {
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    200: [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25],
}
CIFAR100_LT = {10: (19573, 50), 50: (12608, 10), 100: (10847, 5), 200: (9502, 2)}


@pytest.mark.parametrize("ratio", CIFAR10_LT)
def test_long_tails_have_the_published_counts(ratio):
    assert imbalanced_counts([5000] * 10, "exp", ratio, 0).tolist() == CIFAR10_LT[ratio]
    counts = imbalanced_counts([500] * 100, "exp", ratio, 0)
    assert (counts.sum(), counts.min()) == CIFAR100_LT[ratio]


def test_steps_have_the_published_counts():
    assert imbalanced_counts([5000] * 10, "step", 10, 0).sum() == 27500
    assert imbalanced_counts([5000] * 10, "step", 100, 0).sum() == 25250
    assert imbalanced_counts([5000] * 2, "step", 10, 0).tolist() == [5000, 500]


@pytest.mark.parametrize("profile", ["exp", "step"])
@pytest.mark.parametrize("total", [103, 5500, 9999])
def test_a_fixed_total_is_divided_exactly_and_in_proportion(profile, total):
    for ratio in (1.0, 3.0, 10.0):
        counts = imbalanced_counts([9000] * 4, profile, ratio, total)
        free = imbalanced_counts([10**9] * 4, profile, ratio, 0)
        assert counts.sum() == total
        np.testing.assert_allclose(counts, total * free / free.sum(), atol=1)


def test_impossible_imbalances_are_refused():
    with pytest.raises(BadInput, match=r"config.data.total: 20000 given, which needs \[10000, 10000\]"):
        imbalanced_counts([5000, 5000], "step", 1.0, 20000)
    with pytest.raises(BadInput, match="config.data.imbalance_ratio"):
        imbalanced_counts([5000, 5000], "step", 1e6, 0)
    with pytest.raises(BadInput, match="'none'"):
        imbalanced_counts([5000, 5000], "none", 10.0, 0)


def test_stratified_splits_are_disjoint_and_proportional():
    labels = np.repeat([0, 1, 2], [1000, 100, 10])
    first, second = stratified_split(labels, 0.2, np.random.default_rng(0))
    assert np.array_equal(np.sort(np.r_[first, second]), np.arange(1110))
    assert np.bincount(labels[second]).tolist() == [200, 20, 2]


def test_choice_is_random_within_a_class():
    labels = np.repeat([0, 1], 1000)
    rows = [draw_per_class(labels, [100, 10], np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])
    assert np.bincount(labels[rows[0]]).tolist() == [100, 10]
    assert 300 < rows[0][:100].mean() < 700


DIGITS = dict(
    classes=tuple(range(10)), imbalance="exp", imbalance_ratio=50.0, total=0, val_fraction=0.2, test_fraction=0.2
)


def test_digits_are_split_stratified_and_thinned_out():
    data = digits(0, **DIGITS)
    every = torch.cat([data.train.indices, data.val.indices, data.test.indices])
    assert len(every.unique()) == len(every)
    assert data.class_counts(data.train).tolist() == imbalanced_counts([104] * 10, "exp", 50, 0).tolist()
    for split in (data.val, data.test):
        assert data.class_counts(split).min() >= 34 and data.class_counts(split).max() <= 37
    assert data.input_shape == (1, 8, 8) and data.train.inputs.max() == 1
    assert not torch.equal(digits(1, **DIGITS).test.indices, data.test.indices)


def test_a_pair_of_digits_in_the_order_given():
    data = digits(0, **DIGITS | dict(classes=(8, 3), imbalance="step", imbalance_ratio=10.0))
    from sklearn.datasets import load_digits

    source = load_digits()
    assert data.class_names == ("8", "3")
    assert set(source.target[data.train.indices[data.train.targets == 0]]) == {8}
    assert data.class_counts(data.train).tolist() == [104, 10]
    image = source.images[data.train.indices[5]] / 16
    np.testing.assert_allclose(data.train.inputs[5, 0], image)


@pytest.mark.parametrize("classes", [(3,), (3, 3), (3, 10)])
def test_digits_refuses_impossible_classes(classes):
    with pytest.raises(BadInput, match="config.data.classes"):
        digits(0, **DIGITS | dict(classes=classes))


@pytest.mark.parametrize(("dim", "radius"), [(2, 1.0), (2, 5.0), (500, 23.0), (500, 5.0)])
def test_truncated_lengths_follow_the_truncated_chi_distribution(dim, radius):
    lengths = np.linalg.norm(truncated_normal(4000, dim, radius, np.random.default_rng(0)), axis=1)
    chi = stats.chi(dim)
    assert lengths.max() <= radius
    if dim == 500 and radius == 5.0:  # beyond what cdf ratios can express: the density near R grows as r^(d-1)
        assert (
            stats.kstest(
                lengths, lambda r: (r / radius) ** dim * np.exp((radius**2 - r**2) / 2 * dim / (dim + 2))
            ).pvalue
            > 1e-4
        )
    else:
        assert stats.kstest(lengths, lambda r: chi.cdf(r) / chi.cdf(radius)).pvalue > 1e-3


def test_directions_stay_uniform_and_no_radius_cuts_nothing():
    x = truncated_normal(20000, 3, 1.5, np.random.default_rng(0))
    np.testing.assert_allclose(x.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), np.eye(3) * x.var(), atol=0.02)
    free = truncated_normal(20000, 3, 0, np.random.default_rng(0))
    assert stats.kstest(free.ravel(), stats.norm.cdf).pvalue > 1e-3


GAUSSIAN = dict(
    dim=5, means=((3.0,), (0.0, 3.0)), scale=2.0, radius=0.0,
    train_per_class=(200, 20), val_per_class=(10, 10), test_per_class=(40000, 40000),
)  # fmt: skip


def test_gaussian_has_the_means_and_scale_it_is_given():
    data = gaussian(0, **GAUSSIAN)
    assert data.class_counts(data.train).tolist() == [200, 20]
    for k, mean in enumerate([[3, 0, 0, 0, 0], [0, 3, 0, 0, 0]]):
        x = data.test.inputs[data.test.targets == k].numpy()
        np.testing.assert_allclose(x.mean(0), mean, atol=0.05)
        np.testing.assert_allclose(np.cov(x.T), 4 * np.eye(5), atol=0.1)


def test_the_closed_form_error_is_what_a_large_sample_shows():
    data = gaussian(0, **GAUSSIAN)
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((2, 5)), rng.standard_normal(2)
    weight[1] += [-1, 1, 0, 0, 0]
    predictions = (data.test.inputs.numpy() @ weight.T + bias).argmax(1)
    wrong = predictions != data.test.targets.numpy()
    sampled = np.mean([wrong[data.test.targets == k].mean() for k in (0, 1)])
    means = np.array([[3, 0, 0, 0, 0], [0, 3, 0, 0, 0]])
    assert balanced_error(weight, bias, means, 2.0) == pytest.approx(sampled, abs=4 * np.sqrt(0.25 / 80000))


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_per_class", (200,)), ("means", ((3.0,),)), ("means", ((3.0,) * 6, (1.0,)))],
)
def test_gaussian_refuses_what_does_not_fit_together(key, value):
    with pytest.raises(BadInput, match="config.data"):
        gaussian(0, **GAUSSIAN | {key: value})


class FakeCIFAR10:
    """Labels as the real one has them, 5000/1000 of each class; an image's first pixel says which row it is."""

    base_folder, url, classes = "cifar-10-batches-py", "https://example.org", list(CLASSES)

    def __init__(self, root, train, download):
        if root == "empty":
            raise RuntimeError("Dataset not found or corrupted.\nYou can use download=True")
        n = 50000 if train else 10000
        self.targets = (np.arange(n) % 10).tolist()
        self.data = np.zeros((n, 32, 32, 3), dtype=np.uint8)
        self.data[:, 0, 0, :] = np.stack([np.arange(n) >> 8 & 255, np.arange(n) & 255, np.full(n, 7)], 1)


@pytest.fixture
def fake_cifar10(monkeypatch):
    fake = SimpleNamespace(datasets=SimpleNamespace(CIFAR10=FakeCIFAR10))
    monkeypatch.setattr(sys.modules[cifar10.__module__], "import_torchvision", lambda: fake)
    return cifar10


CATS_AND_DOGS = dict(
    classes=("cat", "dog"), imbalance="step", imbalance_ratio=10.0, total=0, val_fraction=0.2, draw="stratified",
    download=False,
)  # fmt: skip


def test_cats_and_dogs_have_the_papers_counts(fake_cifar10):
    data = fake_cifar10("anywhere", 0, **CATS_AND_DOGS)
    counts = [data.class_counts(split).tolist() for split in (data.train, data.val, data.test)]
    assert counts == [[4000, 400], [1000, 100], [1000, 1000]]
    assert not set(data.train.indices.tolist()) & set(data.val.indices.tolist())
    row = data.train.indices[123].item()
    assert row % 10 == [3, 5][data.train.targets[123]]
    assert data.train.inputs[123, :, 0, 0].tolist() == [row >> 8, row & 255, 7]
    assert data.input_shape == (3, 32, 32) and data.train.inputs.dtype == torch.uint8


def test_images_are_normalised_per_channel(fake_cifar10):
    data = fake_cifar10("anywhere", 0, **CATS_AND_DOGS)
    batch = data.train.inputs[:4]
    found = normaliser(data, torch.device("cpu"), torch.float32)(batch)
    mean, std = (np.reshape(value, (3, 1, 1)) for value in (data.mean, data.std))
    np.testing.assert_allclose(found, (batch.numpy() / 255 - mean) / std, atol=1e-5)


def test_missing_files_and_unknown_classes_are_one_line(fake_cifar10):
    with pytest.raises(BadInput, match=r"empty/cifar-10-batches-py.*download=True") as raised:
        fake_cifar10("empty", 0, **CATS_AND_DOGS)
    assert "\n" not in str(raised.value)
    with pytest.raises(BadInput, match="airplane"):
        fake_cifar10("anywhere", 0, **CATS_AND_DOGS | dict(classes=("cat", "dgo")))
