"""Methods by attribute need groups that are class × attribute; the number of groups alone does not show this."""

import numpy as np
import pytest
import torch

import imbalance
from imbalance.errors import BadInput
from imbalance.methods.mixing import lisa

IRM = {"name": "irm", "environments": "attribute", "penalty": 1.0, "warmup_steps": 0}
SSA = {"name": "ssa", "first_epochs": 1, "lr": 0.01, "threshold": 0.9, "labelled_share": 0.5}
METHODS = {
    "lisa": {"mix.name": "lisa", "mix.alpha": 1.0, "mix.same_label": 0.5},
    "irm": {f"objective.{key}": value for key, value in IRM.items()},
    "ssa": {f"groups.{key}": value for key, value in SSA.items()},
}


def splits(group_of):
    inputs, targets = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32), np.arange(40) % 2
    groups = np.array([group_of(label, row // 2) for row, label in enumerate(targets)])
    return dict.fromkeys(("train", "val", "test"), (inputs, targets, groups))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "group_of", [lambda label, i: 3 if label else i % 3, lambda label, i: (1 + i % 2) if label else 3 * (i % 2)]
)
def test_groups_that_are_not_class_by_attribute_are_refused(method, group_of, tmp_path):
    """Four groups of two classes, but group mod 2 is no attribute."""
    with pytest.raises(BadInput, match=r"numbered class · 2 \+ attribute; group [123] must then have class"):
        imbalance.run("arrays_erm", METHODS[method], data=splits(group_of), directory=tmp_path / "run")


def test_lisa_without_a_config_refuses_them_too():
    arguments = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 3, 3]), 2, 4, torch.Generator()
    with pytest.raises(BadInput, match="group 2 must then have class 1, but has an example of class 0"):
        lisa(*arguments, alpha=1.0, same_label=0.5)


def test_groups_by_class_and_attribute_are_taken(tmp_path):
    run = {"trainer.epochs": 1, **METHODS["lisa"]}
    data = splits(lambda label, i: 2 * label + i % 2)
    assert imbalance.run("arrays_erm", run, data=data, directory=tmp_path / "run").score >= 0
