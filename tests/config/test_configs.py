"""Configs of data sets: each validates, and each is what its name says."""

import pytest
from conftest import ROOT

from imbalance.config.experiment import validate
from imbalance.config.resolve import load

FILES = sorted((ROOT / "configs").rglob("*.py"))
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
    (path,) = (path for path in FILES if path.stem == f"{dataset}_{method}")
    config = validate(load(path))
    assert config.data.name == dataset.removesuffix("_small")
    assert config.loss.name == ("poly" if method == "poly" else "cross_entropy")
    assert config.weights.name == ("uniform" if method == "erm" else "importance")
    assert f"--config=configs/{path.name}" in path.read_text()


@pytest.mark.parametrize(
    ("name", "kind"), [("cifar10_unseen_kinds", "class_map"), ("cifar10_new_classes", "new_classes")]
)
def test_both_ways_of_evaluating_on_other_classes_have_a_config(name, kind):
    (path,) = (path for path in FILES if path.stem == name)
    assert validate(load(path)).data.name == kind
