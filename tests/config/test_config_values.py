"""Configs made in Python: of any container and number type, or refused in one line without Python's own words."""

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import imbalance
from imbalance.config import resolve as resolving
from imbalance.config.experiment import Experiment, validate
from imbalance.config.resolve import resolve, run_directory
from imbalance.config.schema import check_values, keyword_annotations
from imbalance.data import DATASETS
from imbalance.errors import BadInput
from imbalance.methods.group_inference.registry import GROUPS
from imbalance.methods.heads.registry import HEADS
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.training.loop import train
from imbalance.training.optim import OPTIMIZERS


def test_values_of_other_types_are_the_same_config(config):
    """Sections, data classes, numbers and arrays of NumPy and torch, lists and paths mean plain values."""
    plain = validate(config)
    values = config.to_dict()
    values |= {"loss": plain.loss, "trainer": plain.trainer, "seed": np.int64(0), "work_dir": Path(values["work_dir"])}
    values["data"] = {
        **values["data"],
        "classes": np.arange(10),
        "val_fraction": np.float64(values["data"]["val_fraction"]),
    }
    values["model"] = {**values["model"], "hidden": list(values["model"]["hidden"])}
    assert validate(values) == resolve(values, {})[0] == plain
    changed = {
        "seed": np.int64(3),
        "optim.lr": torch.tensor(0.5),
        "debug": np.bool_(True),
        "data.classes": [np.int64(1), 2],
    }
    expected = {"seed": 3, "optim.lr": 0.5, "debug": True, "data.classes": (1, 2)}
    assert resolve(config, changed)[0] == resolve(config, expected)[0]
    assert {type(value) for value in vars(resolve(config, changed)[0]).values()} & {np.int64, np.bool_} == set()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (3, r"^config: 3 given; give a config, the name of a config, or the path of a config file$"),
        (None, "^config: None given"),
        ((10**5000,), "^config: a value of type tuple given"),
        ([1], r"^config: \[1\] given"),
        ({3: 1}, "^config: the key 3 given; a key must be a text"),
        (
            {},
            r"^config.adapter: missing; a config has all of seed, .*, head; begin with a copy of a file of configs/",
        ),
    ],
)
def test_no_config_is_one_line(values, words):
    for call in (imbalance.run, train, validate):
        with pytest.raises(BadInput) as error:
            call(values)
        text = str(error.value)
        assert "\n" not in text and len(text) < 400
        for python in ("object has no attribute", "NoneType", "<class", "a valid", "--config"):
            assert python not in text
    with pytest.raises(BadInput, match=words):
        imbalance.run(values)


def test_a_file_is_no_config_for_train():
    for file in ("x.json", Path("x.json")):
        with pytest.raises(
            BadInput, match=r"x\.json'\)? given; a config is needed, such as a ConfigDict or a dictionary"
        ):
            train(file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([1], r"^overrides: \[1\] given; a dictionary of values by key is needed, such as"),
        ('{"seed": 1}', "^overrides: '{\"seed\": 1}' given"),
        ("", "^overrides: '' given"),
        ({3: 1}, "^overrides: the key 3 given"),
        ({"optim.lr": 10**400}, "^config.optim.lr: 10+… given; it should be a number, as in the config file$"),
        ({"seed": 10**400}, "^config.seed: 10+… given; it should be less than 9223372036854775808$"),
        ({"seed": "1"}, "^config.seed: '1' given; it should be an integer, as in the config file$"),
        ({"loss.name": 3}, "^config.loss.name: 3 given; it should be a text"),
        ({"score": ""}, "^config.score: '' given; it should have at least 1 character$"),
    ],
)
def test_wrong_overrides_are_one_line(config, changes, words):
    with pytest.raises(BadInput, match=words):
        imbalance.run(config, changes)


@pytest.mark.parametrize("directory", [3, "", "a\0b", b"run", ["run"]])
def test_no_directory_is_one_line(config, directory):
    for call in (lambda: imbalance.run(config, directory=directory), lambda: train(config, directory)):
        with pytest.raises(BadInput, match="^directory: .* given; the path of a folder is needed$"):
            call()


def test_a_name_too_long_for_a_directory_is_one_line(config, tmp_path):
    with pytest.raises(BadInput, match="^config.work_dir: cannot write .*: File name too long"):
        imbalance.run(config, directory=tmp_path / ("a" * 300))


def test_an_experiment_stays_valid(config):
    """Neither a section nor a copy can hold a value that `validate` refuses."""
    experiment = validate(config)
    with pytest.raises(TypeError):
        experiment.loss._values["alpha"] = -1.0
    assert dataclasses.replace(experiment, seed=3).seed == 3
    with pytest.raises(BadInput, match="^config.seed: -1 given"):
        dataclasses.replace(experiment, seed=-1)
    with pytest.raises(BadInput, match="^config.trainer.epochs: 0 given"):
        dataclasses.replace(experiment, trainer=dataclasses.replace(experiment.trainer, epochs=0))
    with pytest.raises(BadInput, match="^config.loss.alpha: missing"):
        dataclasses.replace(experiment, loss=type(experiment.loss)({"name": "poly"}))
    for same in (pickle.loads(pickle.dumps(experiment)), copy.deepcopy(experiment)):
        assert isinstance(same, Experiment) and same == experiment and hash(same.loss) == hash(experiment.loss)


def test_a_key_that_a_version_adds_does_not_move_the_runs_of_python(config, monkeypatch):
    """The name of the run directory is a hash of the config, which must not change with the version."""
    before = run_directory(validate(config))
    older = resolving.upgrade_saved_config

    def newer(saved):
        upgraded = older(saved)
        if not {"trainer", "optim"} <= saved.keys():
            return upgraded
        return upgraded | {"trainer": {"new_key": 1} | upgraded["trainer"], "new_section": {"name": "as_before"}}

    monkeypatch.setattr(resolving, "upgrade_saved_config", newer)
    values = newer(validate(config).to_dict())
    assert values["trainer"]["new_key"] == 1 and run_directory(resolving.ConfigDict(values)) == before
    values["trainer"]["new_key"] = 2
    assert run_directory(resolving.ConfigDict(values)) != before
    values["trainer"] |= {"new_key": 1, "clip_norm": 0.5}  # a key that an earlier version has added
    assert run_directory(resolving.ConfigDict(values)) != before


def test_the_errors_of_run_are_where_run_is():
    assert {"BadInput", "Diverged", "Interrupted", "load", "run"} <= set(dir(imbalance)) == set(imbalance.__all__)
    assert all(hasattr(imbalance, name) for name in dir(imbalance))


def test_a_share_out_of_range_is_named_by_its_own_rule():
    """The message named the rule of the other alternative, 'natural' or 'uniform'."""
    changes = {"head.name": "prior", "head.target": (1.0, 0.0)}
    with pytest.raises(BadInput, match=r"config.head.target\[1\]: 0.0 given; it should be greater than 0"):
        resolve("gaussian_erm", changes)
    with pytest.raises(BadInput, match="config.head.target: 'even' given; it should be 'natural' or 'uniform'"):
        resolve("gaussian_erm", {**changes, "head.target": "even"})


@pytest.mark.parametrize(
    ("table", "name", "key", "value", "rule"),
    [
        (OPTIMIZERS, "adam", "betas", (0.9,), "should have 2 values"),
        (OPTIMIZERS, "adam", "betas", (0.9, 0.9, 0.9), "should have 2 values"),
        (HEADS, "dfr", "inverse_penalties", (), "should have at least 1 value"),
        (OBJECTIVES, "mmd", "gammas", (), "should have at least 1 value"),
        (GROUPS, "spare", "clusters", (), "should have at least 1 value"),
        (DATASETS, "drawn", "val_counts", (), "should have at least 1 value"),
    ],
)
def test_a_tuple_with_too_few_or_too_many_values_is_refused(table, name, key, value, rule):
    """A run with an empty tuple ended in an error of torch or NumPy, and pydantic said `it Field required`."""
    annotation = keyword_annotations(table[name])[key]
    with pytest.raises(BadInput, match=rf"^{key}: \(.*\) given; it {rule}$"):
        check_values("", {key: value}, {key: annotation})
