"""Class counts of published imbalances, and stratified splits."""

import numpy as np
import pytest
import torch

from imbalance.data import as_dataset
from imbalance.data.splits import Dataset, Split, draw_per_class, imbalanced_counts, stratified_split
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
    for profile in ("exp", "step"):
        assert imbalanced_counts([5000] * 2, profile, 10, 0).tolist() == [5000, 500]


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


@pytest.mark.parametrize(
    ("classes", "groups", "expected"),
    [
        (("no", "yes"), ("no, f", "no, m", "yes, f", "yes, m"), (0, 1, 0, 1)),
        (("a,b", "c"), ('"a,b", f', '"a,b", m', "c, m", "c, n"), (0, 1, 1, 2)),
        (("landbird", "waterbird"), ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water"),
         (0, 1, 0, 1)),
        (("no", "yes"), ("none", "no f", "yes", "yes f"), None),
        (("0", "1"), ("0", "1", "2", "3"), None),
    ],
)  # fmt: skip
def test_the_attribute_of_a_group_follows_from_its_name(classes, groups, expected):
    labels = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    split = Split(torch.zeros(4, 1), *labels, torch.arange(4))
    crossed = Dataset(split, split, split, classes, groups).crossed_groups
    assert crossed == (expected and ((0, 0, 1, 1), expected))
    both = Split(torch.zeros(8, 1), torch.tensor([0, 0, 1, 1] * 2), torch.arange(8) // 2, torch.arange(8))
    assert Dataset(both, both, both, classes, groups).crossed_groups is None  # a group has both classes


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_no_fraction_to_hold_out_is_refused(fraction):
    with pytest.raises(BadInput, match="^fraction: .* given; a number from 0 to below 1 is needed$"):
        long_tail().hold_out(fraction, seed=0)


@pytest.mark.parametrize("fraction", [0.5, 0.9999])
def test_every_class_keeps_a_training_example(fraction):
    with pytest.raises(BadInput, match=r"leaves no training example of class '.', which has [0-9]+; give a smaller"):
        long_tail().hold_out(fraction, seed=0)
    held = long_tail().hold_out(0.4, seed=0)
    assert torch.bincount(held.train.targets).tolist() == [6, 1] and len(held.held_out) == 4


def long_tail():
    """Return a data set with ten training examples of class 0 and one of class 1."""
    targets = (np.arange(11) == 10).astype(int)
    return as_dataset(dict.fromkeys(("train", "val", "test"), (np.ones((11, 1), np.float32), targets)))
