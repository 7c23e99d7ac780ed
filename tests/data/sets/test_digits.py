"""Digits: long-tailed, in two classes, and what is refused."""

import numpy as np
import pytest
import torch

from imbalance.data.sets.digits import digits
from imbalance.data.splits import imbalanced_counts
from imbalance.errors import BadInput

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
