"""Configs of data sets: each validates, and each is what its name says."""

import pytest
from conftest import CONFIG_FILES

from imbalance.config.experiment import validate
from imbalance.config.override_flags import split_overrides
from imbalance.config.renamed import RENAMED
from imbalance.config.resolve import load, resolve

DATASETS = (
    "waterbirds",
    "celeba",
    "colored_digits",
    "cifar10lt",
    "cifar100lt",
    "fashion",
    "medmnist",
    "table",
    "folder",
    "arrays",
    "text_small",
    "civilcomments",
    "multinli",
    "features",
)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", ["erm", "ce", "poly"])
def test_every_data_set_has_its_three_configs(dataset, method):
    """As a file, or as the command that took a file's place."""
    name = f"{dataset}_{method}"
    assert name in CONFIG_FILES or name in RENAMED, f"{name}: add a row of this name to ROWS in tools/config_table.py"
    file, *values = RENAMED.get(name, name).split()
    config, _ = resolve(CONFIG_FILES[file], split_overrides([f"--config.{value}" for value in values])[0])
    assert config.data.name == dataset.removesuffix("_small")
    assert config.loss.name == ("poly" if method == "poly" else "cross_entropy")
    assert config.weights.name == ("uniform" if method == "erm" else "importance")


@pytest.mark.parametrize(
    ("name", "kind"), [("cifar10_unseen_kinds", "class_map"), ("cifar10_new_classes", "new_classes")]
)
def test_both_ways_of_evaluating_on_other_classes_have_a_config(name, kind):
    assert validate(load(CONFIG_FILES[name])).data.name == kind
