import ast
import builtins
import functools
import json
import operator
from pathlib import Path

import pytest
from conftest import CONFIG_FILES, ROOT
from ml_collections import ConfigDict
from ml_collections.config_dict import create, placeholder

from imbalance.config.experiment import Experiment, validate
from imbalance.config.registries import registries
from imbalance.config.resolve import (
    as_file_name,
    config_file,
    load,
    resolve,
    run_directory,
    upgrade_saved_config,
)
from imbalance.config.schema import flatten, keyword_annotations
from imbalance.errors import BadInput
from imbalance.training.loop import run

CONFIGS = list(CONFIG_FILES.values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_self_contained(path: Path):
    validate(load(path))
    module = ast.parse(path.read_text())
    imported = {node.module for node in ast.walk(module) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"ml_collections", "ml_collections.config_dict"}
    assert f"--config=configs/{path.relative_to(ROOT / 'configs')}" in ast.get_docstring(module)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_value_of_a_config_can_be_overridden(path: Path):
    """ml_collections types a flag by the value in the file: an int where a float is meant would refuse 0.5."""
    for key, value in flatten(load(path)).items():
        assert not isinstance(value, list) and value is not None, key
        if key.rpartition(".")[2] in ("lr", "momentum", "exponent", "alpha", "imbalance_ratio", "weight_decay"):
            assert isinstance(value, float), key


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.stem.startswith(("digits", "gaussian", "colored_digits"))], ids=lambda p: p.stem
)
def test_configs_without_downloads_run_in_debug_mode(path: Path, tmp_path: Path):
    config = load(path)
    config.update(debug=True, work_dir=str(tmp_path))
    assert 0 <= run(config).score <= 1
    (summary,) = tmp_path.rglob("seed=*/summary.json")  # below it may be a first run
    assert json.loads(summary.read_text())["step"] == 1


def edited(config: ConfigDict, key: str, value) -> ConfigDict:
    config = ConfigDict(config.to_dict())
    *sections, last = key.split(".")
    target = functools.reduce(operator.getitem, sections, config)
    if value is KeyError:
        del target[last]
    else:
        with target.ignore_type():
            target[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optim.lr", -1.0, "config.optim.lr: -1.0 given; it should be greater than 0"),
        ("optim.lr", 0.0, "greater than 0"),
        (
            "trainer.epochs",
            2**62,
            "config.trainer.epochs: 4611686018427387904 given; it should be less than or equal to 10000000",
        ),
        ("optim.lr", float("nan"), "finite"),
        ("optim.lr", float("inf"), "finite"),
        ("optim.lr", "0.1", "config.optim.lr: '0.1' given"),
        ("optim.lr", KeyError, "config.optim.lr: missing; add --config.optim.lr=<number, greater than 0>"),
        ("optim.lrr", 0.1, "config.optim.lrr: unknown key; did you mean lr?"),
        ("optim.momentum", 1.0, "less than 1"),
        ("optim.name", "sdg", "config.optim.name: 'sdg' given; did you mean sgd?"),
        ("optim.schedule", KeyError, "config.optim.schedule: must be a section with a name, one of constant"),
        ("optim.schedule.name", "cos", "cosine"),
        ("trainer.epochs", 0, "greater than or equal to 1"),
        ("trainer.epochs", 2.5, "integer"),
        ("trainer.epochs", True, "integer"),
        ("trainer.eval_splits", ("train",), "config.trainer.eval_splits[0]: 'train' given"),
        ("trainer.dtype", "float16", "'float32' or 'float64'"),
        ("loss.alpha", 0.0, "config.loss.alpha: 0.0 given"),
        ("loss.left", "square", "'logistic', 'exponential' or 'linear'"),
        ("loss.name", "poly2", "did you mean poly?"),
        ("loss", "poly", "config.loss: 'poly' given"),
        ("data.name", "digit", "did you mean digits?"),
        ("data.imbalance_ratio", 0.5, "greater than or equal to 1"),
        ("data.classes", (1, 2.5), "config.data.classes[1]: 2.5 given"),
        ("model.hidden", (0,), "config.model.hidden[0]: 0 given"),
        ("weights.by", "example", "'class' or 'group'"),
        ("debug", 1, "it should be True or False"),
        ("seed", -1, "greater than or equal to 0"),
        ("logger.mode", "on", "'disabled', 'offline', 'online' or 'tensorboard'"),
        ("score", "test/accuracy", "it must be val/ followed by accuracy"),
        ("score", "val/recal/0", "recall/<class>"),
        ("callbacks.monitor", "val/", "config.callbacks.monitor: 'val/' given"),
        ("sampler", KeyError, "config.sampler: missing"),
        ("tags", ("a",), "config.tags: unknown key"),
        ("loss.name", {"a": 1}, "config.loss.name: {'a': 1} given"),
        ("data.classes", ({"a": 1},), "config.data.classes: the tuple contains a section"),
    ],
)
def test_one_line_names_the_key_what_was_given_and_what_is_valid(config, key, value, words):
    with pytest.raises(BadInput) as raised:
        validate(edited(config, key, value))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bad_combinations_are_refused(config):
    for section, values, words in [
        ("trainer", dict(dtype="float64", mixed_precision="bf16"), "mixed_precision"),
        ("trainer", dict(eval_splits=("test",)), "eval_splits"),
    ]:
        bad = ConfigDict(config.to_dict())
        bad.callbacks.select = "best"
        bad[section].update(values)
        with pytest.raises(BadInput, match=words):
            validate(bad)


def test_a_valid_config_is_frozen_and_left_as_it_was(config):
    before = config.to_dict()
    frozen = validate(config)
    assert isinstance(frozen, Experiment)
    assert frozen.to_dict() == config.to_dict() == before
    with pytest.raises(AttributeError):
        frozen.optim.lr = 1.0
    with pytest.raises(AttributeError):
        frozen.trainer.epochs = 7
    assert {frozen: 1}[validate(config)] == 1  # equal configs have one hash


def test_the_run_directory_says_what_was_overridden(config):
    base = ConfigDict(config.to_dict())
    assert run_directory(config, "digits_poly", base) == Path(config.work_dir, "digits_poly", "default", "seed=0")
    config.seed = 3
    config.data_dir = "elsewhere"  # where files lie is no part of an experiment
    config.trainer.epochs = 7
    config.model.hidden = (8, 8)
    directory = run_directory(config, "digits_poly", base)
    assert directory == Path(config.work_dir, "digits_poly", "model.hidden=8+8,trainer.epochs=7", "seed=3")


def test_run_directories_of_many_overrides_differ_and_fit_a_file_system(config):
    base = ConfigDict(config.to_dict())
    config.model.hidden = tuple(range(1, 200))
    one = run_directory(config, "digits_poly", base)
    config.model.hidden = tuple(range(1, 201))
    two = run_directory(config, "digits_poly", base)
    assert one != two
    assert max(len(part.encode()) for part in (*one.parts, *two.parts)) < 255


def test_values_that_no_file_name_can_show_are_distinguished():
    """Today's ordinary names stay as they are."""
    names = {
        "0.1": 0.1, "1e-05": 1e-05, "True": True, "None": None, "labels.csv": "labels.csv", "data_2.csv": "data_2.csv",
        "cat+dog": ["cat", "dog"], "8+8": [8, 8], "8": [8], "3.0+-3.0": [[3.0], [-3.0]], "größe": "größe", "": [],
    }  # fmt: skip
    assert [as_file_name(value) for value in names.values()] == list(names)
    alike = ["a b.csv", "a_b.csv", "a/b.csv", "a,b.csv", ["a b.csv"], ["a", "b"], ["a+b"], ["a,", "b"], [["a", "b"]],
             [[3.0], [0.0, 3.0]], [[3.0, 0.0], [3.0]], [3.0, 0.0, 3.0], [""], [], "e\u0301", "é", "x=1", "x_1"]  # fmt: skip
    found = [as_file_name(value) for value in alike]
    assert len(set(found)) == len(alike) and not any("/" in name or "," in name for name in found)


@pytest.mark.parametrize("value", ["字" * 100, "ß" * 150, "a" * 199, "a" * 300, "a b" * 60, "\udcff" * 90])
def test_a_directory_can_be_made_for_any_value(config, tmp_path, value):
    base = ConfigDict(config.to_dict())
    config.logger.project = "not part of it"
    base.data.path = ""
    config.data.path = value
    directory = run_directory(config, "digits_poly", base)
    (tmp_path / directory.parent.name).mkdir()
    config.data.path = value + "x"
    assert run_directory(config, "digits_poly", base) != directory


def test_configs_made_in_python_are_distinguished(config):
    one = run_directory(config, "digits_poly")
    config.loss.alpha = 2.0
    assert run_directory(config, "digits_poly") != one
    config.loss = create(name="poly", alpha=placeholder(float), left="logistic")
    with pytest.raises(BadInput, match=r"config.loss.alpha: None given"):
        validate(config)


def test_every_entry_of_every_table_says_its_values():
    """Also one that is made of another by filling in."""
    for path, table in registries().items():
        assert all(isinstance(keyword_annotations(table[name]), dict) for name in table), path
    assert (
        keyword_annotations(registries()["model"]["resnet18_cosine"]).keys()
        == keyword_annotations(registries()["model"]["resnet18"]).keys()
    )


def test_a_config_in_configs_is_resolved_without_listing_the_others_and_its_file_is_compiled_once(
    monkeypatch, tmp_path
):
    (tmp_path / "mine.py").write_text((ROOT / "configs" / "digits_ce.py").read_text())
    monkeypatch.setattr("imbalance.config.files.CONFIGS", tmp_path)
    monkeypatch.setattr("imbalance.config.files.config_files_by_name", lambda: pytest.fail("lists all configs"))
    compiled, compile_once = [], builtins.compile
    monkeypatch.setattr(builtins, "compile", lambda *a, **kw: compiled.append(a[1]) or compile_once(*a, **kw))
    for seed in range(3):
        config, directory = resolve("mine", {"optim.lr": 0.5, "seed": seed, "work_dir": "runs"})
        assert config.optim.lr == 0.5 and directory == Path(f"runs/mine/optim.lr=0.5/seed={seed}")
    assert compiled.count(str(tmp_path / "mine.py")) == 1
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("lr=0.02", "lr=0.25"))  # a changed file is read again
    assert text.count("lr=0.02") == 1 and resolve("mine", {})[0].optim.lr == 0.25


def test_a_saved_config_of_group_dro_without_its_newest_key_is_what_its_run_computed():
    saved = {"trainer": {}, "optim": {}, "objective": {"name": "group_dro", "step_size": 0.1, "size_adjustment": 1.0}}
    assert upgrade_saved_config(saved)["objective"] == saved["objective"] | {"adjust_absent": False}
    other = saved | {"objective": {"name": "average"}}
    assert upgrade_saved_config(other)["objective"] == {"name": "average"}


def test_a_key_that_occurs_twice_in_a_json_config_is_refused(tmp_path):
    text = json.dumps(load(config_file("digits_erm")).to_dict())
    path = tmp_path / "twice.json"
    path.write_text(text)
    assert load(path).seed == 0
    for twice in (text.replace('"seed": 0', '"seed": 5, "seed": 0'), text.replace('"lr": ', '"lr": 9.0, "lr": ')):
        path.write_text(twice)
        with pytest.raises(BadInput, match=r"twice.json is no config: .*the key '(seed|lr)' occurs twice"):
            load(path)
