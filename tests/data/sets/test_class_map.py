"""Class maps: training on some classes, evaluating on others or on new ones."""

import pytest
import torch

from imbalance.data import new_classes
from imbalance.data.sets.class_map import class_map
from imbalance.errors import BadInput

DIGITS = dict(
    name="digits",
    classes=tuple(range(10)),
    imbalance="none",
    imbalance_ratio=1.0,
    total=0,
    val_fraction=0.2,
    test_fraction=0.2,
)


PARITY = (("0", "even"), ("1", "odd"), ("2", "even"), ("3", "odd")), (("4", "even"), ("5", "odd"), ("0", "even"))


def test_a_class_map_trains_on_some_classes_and_evaluates_on_others():
    dataset = class_map("", 0, source=DIGITS, train_map=PARITY[0], eval_map=PARITY[1])
    assert dataset.class_names == ("even", "odd") and dataset.group_names == tuple("0123456789")
    assert set(dataset.train.groups.tolist()) == {0, 1, 2, 3} and set(dataset.val.groups.tolist()) == {0, 4, 5}
    for split in (dataset.train, dataset.val, dataset.test):
        assert torch.equal(split.targets, split.groups % 2)
    assert dataset.eval_dataset is dataset


def test_new_classes_keep_the_models_classes_apart_from_those_that_it_is_evaluated_on():
    maps = dict(train_map=PARITY[0], eval_map=(("6", "six"), ("7", "seven"), ("8", "eight")))
    dataset = new_classes("", 0, source=DIGITS, **maps, head_strength=1.0)
    assert dataset.class_names == ("even", "odd") and dataset.eval_dataset.class_names == ("six", "seven", "eight")
    assert set(dataset.train.groups.tolist()) == {0, 1, 2, 3}
    for split in (dataset.eval_dataset.train, dataset.eval_dataset.val, dataset.eval_dataset.test):
        assert torch.equal(split.targets, split.groups - 6)
    assert not set(dataset.eval_dataset.train.indices.tolist()) & set(dataset.eval_dataset.val.indices.tolist())


@pytest.mark.parametrize(
    ("function", "change", "reason"),
    [
        (
            class_map,
            dict(train_map=(("0", "a"), ("ten", "b"))),
            r"config.data.train_map: no class 'ten' in config.data.source",
        ),
        (class_map, dict(train_map=(("0", "a"), ("0", "b"))), r"config.data.train_map: a class is mapped twice"),
        (class_map, dict(train_map=(("0", "a"), ("1", "a"))), r"config.data.train_map: labels \('a',\) given"),
        (
            class_map,
            dict(eval_map=(("4", "even"), ("5", "prime"))),
            r"label 'prime' given, which is not a label of config.data.train_map: even, odd",
        ),
        (new_classes, {}, r"label 'even' given, which is a label of config.data.train_map, too"),
        (
            class_map,
            dict(source=DIGITS | dict(tottal=0)),
            r"config.data.source.tottal: unknown key; did you mean total",
        ),
        (class_map, dict(source=dict(name="digit")), r"config.data.source.name: 'digit' given; did you mean digits"),
    ],
)
def test_maps_that_cannot_be_are_one_line(function, change, reason):
    values = dict(source=DIGITS, train_map=PARITY[0], eval_map=PARITY[1]) | change
    with pytest.raises(BadInput, match=reason):
        function("", 0, **values, **({"head_strength": 1.0} if function is new_classes else {}))
