"""Messages that a Python call raises say what to write in Python."""

import numpy as np
import pytest
import torch

import imbalance
from imbalance.data import as_dataset
from imbalance.errors import BadInput
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.methods.standalone import example_weights
from imbalance.sklearn import ImbalanceClassifier
from imbalance.theory.oracle import margin_direction


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ({"trainer": {"epochs": 2}}, "pass overrides={'trainer.epochs': 2}"),
        ({"trainer": 3}, "set its keys one by one, such as config.trainer.accumulation"),
        ({"loss": {"name": "poly", "alpha": 1.0}}, "pass overrides={'loss.name': 'poly', 'loss.alpha': 1.0, 'loss.left': <"),
        ({"loss.name": "focal"}, "add overrides={'loss.gamma': <number, at least 0>}"),
        ({"optim.learning_rate": 1.0}, "did you mean config.optim.lr?"),
        ({"loss.gamma": 2.0}, "set config.loss.name=<one of them> too"),
    ],
)  # fmt: skip
def test_run_tells_no_flags(overrides, advice, tmp_path):
    with pytest.raises(BadInput) as error:
        imbalance.run("digits_ce", overrides, directory=tmp_path)
    assert advice in str(error.value) and "--" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_the_advice_for_a_whole_section_is_taken(tmp_path):
    result = imbalance.run("digits_ce", {"trainer.epochs": 2, "trainer.eval_every": 2}, directory=tmp_path)
    assert result.summary["epoch"] == 2


def test_a_missing_config_is_told_without_flags():
    with pytest.raises(BadInput, match="^config: no config nothing; "):
        imbalance.run("nothing")


@pytest.mark.parametrize(
    ("parameters", "advice"),
    [
        ({"optim": {"schedule": 3}}, "set its keys one by one, such as config.optim.schedule.name"),
        ({"loss": {"gamma": 2.0}}, "set config.loss.name=<one of them> too"),
        ({"optim": {"learning_rate": 1.0}}, "did you mean config.optim.lr?"),
    ],
)
def test_the_classifier_tells_its_parameters(parameters, advice):
    with pytest.raises(BadInput) as error:
        ImbalanceClassifier(**parameters).fit(np.eye(4), [0, 1, 0, 1])
    assert advice in str(error.value) and "--" not in str(error.value)


def test_plain_functions_name_their_arguments_and_a_run_its_keys(tmp_path):
    """Their messages began with config.data, config.weights.values and config.objective.positives."""
    targets = torch.tensor([0, 1, 1])
    with pytest.raises(BadInput, match="^values: 1 values given; these data have 2 classes; .* because by='class'$"):
        example_weights("given", targets, by="class", values=(1.0,))
    with pytest.raises(BadInput, match="^inputs: no linear classifier separates"):
        margin_direction(np.array([[0.0], [1.0], [0.0], [1.0]]), np.array([0, 0, 1, 1]))
    with pytest.raises(BadInput, match="^positives: "):
        OBJECTIVES["smooth_ap"](2, positives=(2,), share=0.5, temperature=0.1)  # pyright: ignore[reportCallIssue]
    for changes, start in (
        ({"weights": {"name": "given", "by": "class", "values": (1.0,)}}, "config.weights.values: 1 values given"),
        (
            {"objective": {"name": "smooth_ap", "positives": (20,), "share": 0.5, "temperature": 0.1}},
            "config.objective.positives: ",
        ),
    ):
        with pytest.raises(BadInput, match=f"^{start}"):
            imbalance.run("digits_ce", changes, directory=tmp_path / start[:14])


def test_data_from_python_are_named_data():
    inputs, targets = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    splits = dict.fromkeys(("train", "val", "test"), (inputs, targets))
    dataset = as_dataset(splits, (" cat", "dog "))
    with pytest.raises(
        BadInput, match="^data: class ' cat' is empty, or begins or ends with a space; rename it \\(and 3 more\\)$"
    ):
        imbalance.run("digits_ce", data=dataset)
