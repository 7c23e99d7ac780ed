import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from imbalance.data.sets.colored_digits import colored_digits
from imbalance.errors import BadInput

SECTION = dict(train_per_group=(420, 22, 7, 127), saturation=0.5, val_fraction=0.2, test_fraction=0.3)


def test_groups_are_what_the_config_says_and_colour_says_nothing_outside_training():
    dataset = colored_digits(3, **SECTION)
    assert dataset.group_names == ("even red", "even green", "odd red", "odd green")
    assert dataset.group_counts(dataset.train).tolist() == [420, 22, 7, 127]
    for split in (dataset.val, dataset.test):
        counts = dataset.group_counts(split)
        assert counts[0] == counts[1] and counts[2] == counts[3] and counts.min() > 80
    rows = torch.cat([dataset.train.indices, dataset.val.indices, dataset.test.indices])
    assert len(rows.unique()) == len(rows)


def test_images_are_the_source_digit_in_its_groups_colour():
    dataset, source = colored_digits(0, **SECTION), load_digits()
    split = dataset.test
    assert split.targets.tolist() == (source.target[split.indices] % 2).tolist()
    grey = source.images[split.indices] / 16
    np.testing.assert_allclose(split.inputs[:, 2], grey / 2, rtol=1e-6)  # blue never shows the colour
    green = split.groups % 2
    np.testing.assert_allclose(split.inputs[torch.arange(len(split)), green], grey, rtol=1e-6)
    np.testing.assert_allclose(split.inputs[torch.arange(len(split)), 1 - green], grey / 2, rtol=1e-6)


def test_the_seed_decides():
    a, b, other = (colored_digits(seed, **SECTION).train.indices for seed in (1, 1, 2))
    assert a.equal(b) and not a.equal(other)


@pytest.mark.parametrize("change, said", [
    (dict(train_per_group=(440, 40, 7, 127)), "config.data.train_per_group: (440, 40) even digits given, but val"),
    (dict(val_fraction=0.0), "config.data.val_fraction"),
])  # fmt: skip
def test_too_many_or_no_examples_are_refused(change, said):
    with pytest.raises(BadInput) as error:
        colored_digits(0, **SECTION | change)
    assert str(error.value).startswith(said)
