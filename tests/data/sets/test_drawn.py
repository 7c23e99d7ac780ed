"""The data set "drawn": a given number of examples of every group, drawn anew at each seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from imbalance.data import Dataset
from imbalance.data.sets import drawn as module
from imbalance.data.sets.drawn import drawn, with_conflicting_groups
from imbalance.errors import BadInput
from tests.data.sets.test_class_map import DIGITS
from tests.helpers.features import split

VALUES = dict(
    source=DIGITS, groups="source", train_counts=(20, 5), val_counts=(3,), test_counts=(4, 6), test_from="test", standardise=False
)  # fmt: skip


def draw(seed=0, **changes) -> Dataset:
    return drawn("", seed, **VALUES | changes)


@pytest.mark.parametrize("test_from", ("test", "all"))
def test_each_split_has_the_given_number_of_examples_of_every_group_and_no_example_twice(test_from):
    dataset = draw(test_from=test_from)
    counts = {name: torch.bincount(part.groups, minlength=10).tolist() for name, part in dataset.splits.items()}
    assert counts == {"train": [20, 5] * 5, "val": [3] * 10, "test": [4, 6] * 5}
    rows = torch.cat([part.indices for part in dataset.splits.values()]).tolist()
    assert len(set(rows)) == len(rows) == sum(map(sum, counts.values()))


def test_test_is_drawn_from_test_unless_all_examples_are_wanted():
    source = module.build_source(DIGITS, "", module.SOURCE_SEED)
    published = set(source.test.indices.tolist())
    assert set(draw().test.indices.tolist()) <= published
    assert not set(draw(train_counts=(60,)).train.indices.tolist()) & published
    assert set(draw(train_counts=(60,), test_from="all").train.indices.tolist()) & published


def test_a_seed_draws_the_same_examples_again_and_another_seed_other_ones():
    first, again, other = (set(draw(seed).train.indices.tolist()) for seed in (0, 0, 1))
    assert first == again and len(first & other) < len(first)


def test_the_largest_group_of_a_class_is_aligned_and_all_others_are_conflicting():
    groups = Dataset(split((5, 90, 40, 6), 0), split((4,) * 4, 1), split((7,) * 4, 2), ("a", "b"), tuple("wxyz"))
    result = with_conflicting_groups(groups)
    assert result.group_names == ("a, aligned", "a, conflicting", "b, aligned", "b, conflicting")
    for name, part in result.splits.items():
        old = groups.splits[name].groups
        assert part.groups.tolist() == [{0: 1, 1: 0, 2: 2, 3: 3}[group] for group in old.tolist()], name
    assert torch.bincount(result.train.groups).tolist() == [90, 5, 40, 6]


def test_features_are_standardised_by_the_drawn_training_examples(monkeypatch):
    raw = Dataset(split((90,) * 4, 0), split((40,) * 4, 1), split((30,) * 4, 2), ("a", "b"), tuple("wxyz"))
    monkeypatch.setattr(module, "build_source", lambda *_: raw)
    module.pooled.cache_clear()
    features = dict(name="features", folder="f", standardise=False)
    dataset = draw(source=features, train_counts=(50, 5, 5, 20), standardise=True)
    pool = torch.cat([raw.train.inputs, raw.val.inputs]).numpy().astype(np.float64)
    rows = {tuple(row): i for i, row in enumerate(raw.train.inputs.tolist() + raw.val.inputs.tolist())}
    plain = draw(source=features, train_counts=(50, 5, 5, 20))
    chosen = pool[[rows[tuple(row)] for row in plain.train.inputs.tolist()]]
    for name in ("train", "val", "test"):
        expected = (plain.splits[name].inputs.numpy() - chosen.mean(0)) / chosen.std(0)
        np.testing.assert_allclose(dataset.splits[name].inputs.numpy(), expected, atol=1e-5)
    (column,) = dataset.preprocessing["features"]["numeric"]
    np.testing.assert_allclose(column["mean"], chosen.mean(0), atol=1e-6)
    module.pooled.cache_clear()


@pytest.mark.parametrize(("groups", "test_from"), [("source", "all"), ("source", "test"), ("conflicting", "all")])
def test_drawn_examples_keep_their_evaluation_groups_unless_the_groups_are_made_anew(monkeypatch, groups, test_from):
    raw = Dataset(split((90,) * 4, 0), split((40,) * 4, 1), split((30,) * 4, 2), ("a", "b"), tuple("wxyz"))
    masks = {  # an example's evaluation groups follow from its first input, so that the draw can be checked
        name: replace(part, eval_group_mask=torch.stack([part.inputs[:, 0] > 0, part.inputs[:, 0] > 1], 1))
        for name, part in raw.splits.items()
    }
    raw = replace(raw, **masks, evaluation_names=("above 0", "above 1"))
    monkeypatch.setattr(module, "build_source", lambda *_: raw)
    module.pooled.cache_clear()
    counts = dict(train_counts=(50, 5), val_counts=(3,), test_counts=(4,))
    dataset = draw(source=dict(name="features", folder="f"), groups=groups, test_from=test_from, **counts)
    module.pooled.cache_clear()
    assert len(dataset.evaluation_names) == (2 if groups == "source" else 0)
    for part in dataset.splits.values():
        if groups == "source":
            assert part.eval_group_mask.equal(torch.stack([part.inputs[:, 0] > 0, part.inputs[:, 0] > 1], 1))
        else:
            assert part.eval_group_mask is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(train_counts=(1, 2, 3)), r"config.data.train_counts: 3 numbers given for 10 groups"),
        (dict(val_counts=()), r"config.data.val_counts: 0 numbers given for 10 groups"),
        (dict(test_counts=(400,)), r"config.data.test_counts: 400 examples of the group '0' wanted, but .* has 36"),
        (dict(groups="conflicting"), r"config.data.groups: 'conflicting' given, but the groups"),
        (dict(standardise=True), r"config.data.standardise: True given, which needs config.data.source.name='features'"),
        (dict(source=dict(name="digit")), r"config.data.source.name: 'digit' given; did you mean digits"),
    ],
)  # fmt: skip
def test_draws_that_cannot_be_are_one_line(change, reason):
    with pytest.raises(BadInput, match=reason):
        draw(**change)
