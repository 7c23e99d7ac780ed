"""A module of one's own, named in the config: its data set, model and loss, kept with the run."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

import imbalance
from imbalance.config.experiment import validate
from imbalance.config.override_flags import OverrideText
from imbalance.config.registries import registries
from imbalance.config.resolve import load, override, run_directory
from imbalance.config.user_modules import load_user_module
from imbalance.errors import BadInput
from imbalance.methods.standalone import EpochSampler
from imbalance.sklearn import ImbalanceClassifier
from imbalance.training.learner import load_dataset
from imbalance.training.loop import train

MODULE = '''
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.data import as_dataset
from imbalance.methods.margins import log_odds_against
from imbalance.models import with_head
from imbalance.config.schema import Count, Positive


def blobs(seed: int, *, size: Count):
    def draw(n):
        targets = torch.arange(n) % 2
        inputs = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed + n)) + 2 * targets[:, None]
        return inputs, targets
    return as_dataset({"train": draw(size), "val": draw(40), "test": draw(42)}, class_names=("a", "b"))


class Power(nn.Module):
    """(1 − p_y)^γ, p = softmax(z)."""

    def __init__(self, *, gamma: Positive):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        return (self.gamma * F.logsigmoid(log_odds_against(logits, targets))).exp()


def narrow(input_shape, num_classes, *, width: Count):
    return with_head(nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], width), nn.ReLU()), width, num_classes)
'''


@pytest.fixture
def own(config, tmp_path, monkeypatch):
    """The config of a run of my_module.py in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("my_module.py").write_text(MODULE)
    config.work_dir = "runs"
    config.data = dict(name="my_module.py:blobs", size=60)
    config.loss = dict(name="my_module.py:Power", gamma=1.0)
    config.model = dict(name="my_module.py:narrow", width=3)
    return config


def test_a_run_of_ones_own_module_keeps_it_and_can_be_run_again_without_it(own, monkeypatch, tmp_path):
    directory = Path(train(own, run_directory(own, "own", own))["run_directory"])
    assert (directory / "modules" / "my_module.py").read_text() == MODULE
    assert json.loads((directory / "config.json").read_text())["loss"]["name"] == "my_module.py:Power"
    with np.load(directory / "predictions" / "test.npz") as saved:
        expected = saved["logits"]
    own.work_dir = "again"
    Path("my_module.py").rename("gone.py")
    again = load(directory / "config.json")
    assert validate(again).loss.name == f"{directory}/modules/my_module.py:Power"
    # The same experiment: it goes on in the same directory, and computes the same in another.
    assert run_directory(again, "own", again) == directory
    assert train(again, directory)["status"] == "done"
    again.work_dir = "elsewhere"
    second = Path(train(again, run_directory(again, "own", again))["run_directory"])
    with np.load(second / "predictions" / "test.npz") as saved:
        assert (saved["logits"] == expected).all()
    # Loaded from anywhere.
    moved = shutil.move(directory, tmp_path / "moved")
    monkeypatch.chdir("/")
    inputs = torch.randn(3, 4)
    assert imbalance.load(moved).predict(inputs).probabilities.shape == (3, 2)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_run_with_a_module_in_a_folder_is_repeated_also_when_the_folder_moves(own, absolute):
    Path("mods").mkdir()
    shutil.move("my_module.py", "mods")

    def named_in(folder: str) -> ConfigDict:
        config = ConfigDict(own.to_dict())
        for section in ("data", "loss", "model"):
            config[section].name = f"{Path(folder).absolute() if absolute else folder}/{own[section].name}"
        return config

    assert train(named_in("mods"), "run")["status"] == train(named_in("mods"), "run")["status"] == "done"
    Path("mods").rename("moved")
    assert train(named_in("moved"), "run")["status"] == "done"


def test_other_code_does_not_go_on_in_the_directory(own):
    directory = Path(train(own, "run")["run_directory"])
    Path("my_module.py").write_text(MODULE.replace("(self.gamma", "(2 * self.gamma"))
    with pytest.raises(
        BadInput, match=r"^my_module.py: not the code that this run began with, which is in run/modules/"
    ):
        train(own, directory)


HEADS = """
import torch
from torch import nn
from imbalance.config.tags import tagged
from imbalance.config.schema import Positive


class Sharpened(nn.Module):
    def __init__(self, head, power):
        super().__init__()
        self.linear, self.power = nn.Linear(head.in_features, head.out_features), power
        self.linear.load_state_dict(head.state_dict())

    def forward(self, features):
        logits = self.linear(features)
        return logits.sign() * logits.abs() ** self.power


@tagged(module=lambda head, section: Sharpened(head, section.power))
def sharpened(head, *, power: Positive):
    return Sharpened(head, power)


def untagged(head, *, power: Positive):
    return Sharpened(head, power)


def weights(head):
    return head.weight, head.bias
"""


def test_a_head_of_ones_own_that_is_no_linear_layer(own, tmp_path, monkeypatch):
    Path("heads.py").write_text(HEADS)
    own.head = dict(name="heads.py:sharpened", power=2.0)
    directory = Path(train(own, tmp_path / "run")["run_directory"])
    with np.load(directory / "predictions" / "test.npz") as saved:
        expected = torch.from_numpy(saved["logits"]).softmax(1).numpy()
    inputs = load_dataset(own).test.inputs
    Path("heads.py").rename("gone.py")
    monkeypatch.chdir("/")
    np.testing.assert_allclose(imbalance.load(directory).predict(inputs).probabilities, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (dict(name="heads.py:untagged", power=2.0), "returns another module than a linear layer .*; tag it with"),
        (dict(name="heads.py:weights"), "returns tuple; it must return an nn.Module from features to logits"),
    ],
)
def test_a_head_that_could_not_be_loaded_is_refused(own, head, words):
    Path("heads.py").write_text(HEADS)
    own.head = head
    with pytest.raises(BadInput, match=f"config.head.name: '{head['name']}' {words}"):
        train(own)


def test_the_command_line_swaps_in_ones_own(own, config):
    said = {"loss.name": OverrideText("my_module.py:Power"), "loss.gamma": OverrideText("2")}
    changed = override(own, said)
    assert validate(changed).loss.to_dict() == {"name": "my_module.py:Power", "gamma": 2.0}
    own.loss = dict(name="poly", alpha=1.0, left="logistic")
    assert override(own, said).loss.gamma == 2.0


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("loss", dict(name="none.py:Power", gamma=1.0), "config.loss.name: no file "),
        ("loss", dict(name="my_module.py:Powr", gamma=1.0), "config.loss.name: my_module.py has no 'Powr'; did you mean Power?"),
        ("loss", dict(name="my_module.py:Power", gamma=0.0), "config.loss.gamma: 0.0 given; it should be greater than 0"),
        ("loss", dict(name="my_module.py:Power"), "config.loss.gamma: missing"),
        ("loss", dict(name="my_module.py:Power", gamma=1.0, a=1), "config.loss.a: unknown key"),
        ("model", dict(name="narrow", width=3), "or <file>.py:<function> for one of your own"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_one_line(own, section, values, words):
    own[section] = values
    with pytest.raises(BadInput) as error:
        validate(own)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_two_modules_of_one_name_are_refused(own):
    Path("other").mkdir()
    shutil.copy("my_module.py", "other")
    own.loss.name = "other/my_module.py:Power"
    with pytest.raises(BadInput, match="two modules with the same file name"):
        train(own)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "line 1: SyntaxError: invalid syntax"),
        ("\n1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("import nothing_there\n", "line 1: ModuleNotFoundError: No module named 'nothing_there'"),
        (
            "from imbalance.margins import soft_margins\n",  # as in version 0.1.0
            "line 1: ModuleNotFoundError: No module named 'imbalance.margins'; import imbalance.methods.margins instead",
        ),
        ("from nothing_there import *\n", "line 1: ModuleNotFoundError: No module named 'nothing_there'"),
        ("import sys\nsys.exit('no GPU here')\n", "line 2: SystemExit: no GPU here"),
        ("def get_config():\n    return nothing\n", "line 2: NameError: name 'nothing' is not defined"),
    ],
)
def test_code_that_cannot_be_run_is_one_line_in_every_section(own, text, words):
    Path("wrong.py").write_text(text)
    for section in registries():
        if "get_config" not in text and "." not in section:
            changed = own.copy_and_resolve_references()
            kept = {"schedule": own.optim.schedule} if section == "optim" else {}
            changed[section] = dict(name="wrong.py:f", **kept)
            with pytest.raises(BadInput, match=rf"wrong.py, {words}$"):
                validate(changed)
    words = words.replace("SyntaxError: ", "")  # which reading a config finds
    Path("wrong.py").write_text(text if "get_config" in text else f"{text}get_config = 1\n")
    with pytest.raises(BadInput, match=rf"wrong.py, {words}$"):
        load("wrong.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("from nothing_there import *\n", "stars.py, line 1: ModuleNotFoundError: No module named 'nothing_there'"),
        ("from math import *\n", "stars.py is no config: it has no get_config()"),
        ("if False:\n    def get_config(): ...\n", "stars.py is no config: it has no get_config()"),
        ("import base_of_stars\ndef get_config(): ...\n", "stars.py, line 1: SyntaxError: invalid syntax (base_of_stars.py, line 3)"),
    ],
)  # fmt: skip
def test_a_config_that_imports_is_answered_by_its_own_line(text, words, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "base_of_stars.py").write_text("\n\ndef f(:\n")
    (tmp_path / "stars.py").write_text(text)
    with pytest.raises(BadInput, match=re.escape(words)):
        load(tmp_path / "stars.py")
    assert "base_of_stars" not in sys.modules


def test_a_config_may_import_its_function_with_a_star(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "base_of_star.py").write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'seed': 7})\n"
    )
    (tmp_path / "star.py").write_text("from base_of_star import *\n")
    assert load(tmp_path / "star.py").seed == 7


def test_no_compiled_file_is_written_beside_a_module(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "mine.py").write_text("def f():\n    return 3\n")
    assert load_user_module(str(tmp_path / "mine.py"))["f"]() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_changed_code_is_loaded_again_and_the_run_keeps_the_code_that_it_trained(own, monkeypatch):
    def logits_of(name: str) -> np.ndarray:
        own.work_dir = name
        with np.load(imbalance.run(own).directory / "predictions" / "test.npz") as saved:
            return saved["logits"]

    code = MODULE.replace("(self.gamma *", "(0 * self.gamma *")  # no gradient, so that the network never changes
    before = logits_of("before")
    Path("my_module.py").write_text(code)
    os.utime("my_module.py", ns=(0, 0))  # the content counts, not the time
    after = logits_of("after")
    assert (before != after).any()
    (kept,) = Path("after").rglob("modules/my_module.py")
    assert kept.read_text() == code
    # The data set too is that of the new code, and the copy is that of the code that trains.
    Path("my_module.py").write_text(MODULE.replace("draw(42)", "draw(44)"))
    experiment = validate(own)
    Path("my_module.py").write_text(code)
    directory = Path(train(experiment, "third")["run_directory"])
    with np.load(directory / "predictions" / "test.npz") as saved:
        assert len(saved["targets"]) == 44
    assert "draw(44)" in (directory / "modules" / "my_module.py").read_text()


def test_a_fit_and_a_sampler_of_the_own_loop_take_changed_code(tmp_path):
    file, table = tmp_path / "changing.py", np.random.default_rng(0).normal(size=(60, 3))
    targets, probabilities, rows = (table[:, 0] > 0.8).astype(int), [], []
    for factor in (1, 0):
        file.write_text(
            "import torch\n"
            "class Scaled(torch.nn.Module):\n"
            "    def forward(self, logits, targets, groups):\n"
            f"        return {factor} * torch.nn.functional.cross_entropy(logits, targets, reduction='none')\n"
            f"def few(targets):\n    return torch.arange({factor} + 1)\n"
        )
        classifier = ImbalanceClassifier(loss={"name": f"{file}:Scaled"}, trainer={"epochs": 2}, random_state=0)
        probabilities.append(classifier.fit(table, targets).predict_proba(table))
        rows.append(len(EpochSampler(f"{file}:few", targets)))
    assert (probabilities[0] != probabilities[1]).any()
    assert rows == [2, 1]


def test_a_loaded_run_has_the_network_of_the_run_that_is_in_the_directory_now(own):
    for layer in ("ReLU", "Tanh"):
        Path("my_module.py").write_text(MODULE.replace("ReLU", layer))
        shutil.rmtree("run", ignore_errors=True)
        train(own, "run")
        assert layer in repr(imbalance.load("run").network)
