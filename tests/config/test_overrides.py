"""What a command line says of a config."""

import json
import pickle
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.pages import blocks, page
from ml_collections import ConfigDict

import imbalance
from imbalance.cli.main import call
from imbalance.config.experiment import validate
from imbalance.config.files import CONFIGS
from imbalance.config.override_flags import OverrideText, split_overrides
from imbalance.config.overrides import value_at
from imbalance.config.registries import is_annotated, registries
from imbalance.config.resolve import load, override, resolve, run_directory
from imbalance.config.run_directory import read_summary
from imbalance.config.schema import flatten, keyword_annotations
from imbalance.errors import BadInput


@pytest.fixture
def base() -> ConfigDict:
    return load(ROOT / "configs" / "digits_poly.py")


def written(base: ConfigDict, *arguments: str) -> ConfigDict:
    overrides, rest = split_overrides(arguments)
    assert not rest
    return override(base, overrides)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("optim.lr=1", 1.0), ("optim.lr=1e-3", 0.001), ("trainer.epochs=7", 7), ("debug=True", True), ("debug=false", False),
        ("data_dir=7", "7"), ("data_dir=a=b", "a=b"), ("data_dir=", ""), ("model.hidden=8,8", (8, 8)), ("model.hidden=8", (8,)),
        ("model.hidden=(8, 16)", (8, 16)), ("model.hidden=[8]", (8,)), ("trainer.eval_splits=val,test", ("val", "test")),
        ("trainer.eval_splits=('val',)", ("val",)), ("model.hidden=()", ()),
    ],
)  # fmt: skip
def test_a_value_is_read_as_what_the_file_has(base, argument, value):
    key = argument.partition("=")[0]
    found = written(base, f"--config.{argument}")
    for part in key.split("."):
        found = found[part]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "argument", ["debug=yes", "trainer.epochs=1.5", "optim.lr=", "optim.lr=1,2", "model.hidden=(8,", "optim.lr.x=1", "x=1",
                 "optim.lr=1_0", "trainer.epochs=1_0", "model.hidden=(1_0,)"]
)  # fmt: skip
def test_what_cannot_be_read_is_refused(base, argument):
    with pytest.raises(BadInput) as raised:
        written(base, f"--config.{argument}")
    assert "\n" not in str(raised.value) and argument.partition("=")[0] in str(raised.value)


def test_an_underscore_makes_a_name_and_no_number(base):
    """Python reads `1_0` as 10."""
    for arguments in (["model.hidden=1_0,8"], ["loss.name=vs", "loss.gamma=1_0", "loss.tau=0.5"]):
        with pytest.raises(BadInput, match="1_0"):
            validate(written(base, *(f"--config.{argument}" for argument in arguments)))
    assert written(base, "--config.data_dir=1_0").data_dir == "1_0"
    assert written(base, "--config.trainer.eval_splits=('a1_0',)").trainer.eval_splits == ("a1_0",)


def test_a_value_may_be_the_next_argument_and_a_key_is_given_once():
    assert split_overrides(["--config.seed", "3", "--x", "y"]) == ({"seed": "3"}, ["--x", "y"])
    with pytest.raises(BadInput, match="^--config.seed=4: --config.seed=3 was given before it; leave one of them out$"):
        split_overrides(["--config.seed", "3", "--x", "--config.seed=4", "y"])
    for lonely in (["--config.seed"], ["--config.seed", "--x"]):
        with pytest.raises(BadInput, match="--config.seed: lacks a value"):
            split_overrides(lonely)


# A section whose name changes: what must be said with it.
SWAPS = {
    "loss": ["name=vs", "gamma=1", "tau=0.5"],
    "model": ["name=linear"],
    "sampler": ["name=undersample", "by=class", "redraw=True"],
    "weights": ["name=uniform"],
    "objective": ["name=group_dro", "step_size=1", "size_adjustment=0", "adjust_absent=true"],
    "head": ["name=dfr", "inverse_penalties=1,0.1", "fits=2"],
    "optim": ["name=adamw", "betas=0.9,0.99"],
    "optim.schedule": ["name=step", "milestones=3,5", "factor=0.1"],
    "data": ["name=gaussian", "dim=2", "means=((3.0,), (0.0, 3.0))"],
}


@pytest.mark.parametrize("section", SWAPS)
def test_a_section_starts_afresh_when_its_name_changes(base, section):
    """In any order of the arguments; what is missing is said with what it may be, and the run directory says all."""
    arguments = [f"--config.{section}.{part}" for part in SWAPS[section]]
    arguments += ["--config.weights.name=uniform"] if section == "sampler" else []  # which would balance twice
    for _ in range(10):
        try:
            config = written(base, *arguments)
            frozen = validate(config)
            break
        except BadInput as error:
            assert "missing; add --config." in str(error), error
            missing = str(error).partition("add ")[2].split(" --config.")
            for flag in missing:
                key, _, about = flag.removeprefix("--config.").partition("=")
                assert about.startswith("<") and about.endswith(">")
                arguments.append(f"--config.{key}={example(key, about)}")
    else:
        pytest.fail(str(arguments))
    assert validate(written(base, *reversed(arguments))) == frozen
    if section == "optim":
        assert config.optim.schedule == base.optim.schedule
    folder = run_directory(config, "digits_poly", base).parent.name
    assert f"{section}.name=" in folder


def test_one_message_names_the_missing_keys_of_all_sections(base):
    """Copied as it is, with values, the message completes the command."""
    names = ["--config.loss.name=focal", "--config.optim.name=adamw", "--config.optim.schedule.name=step"]
    with pytest.raises(BadInput) as error:
        validate(written(base, *names))
    flags = str(error.value).partition("add ")[2].split(" --config.")
    keys = [flag.removeprefix("--config.").partition("=")[0] for flag in flags]
    sections = {
        "loss": ["gamma"],
        "optim": ["betas", "decayed", "lr", "weight_decay"],
        "optim.schedule": ["factor", "milestones"],
    }
    assert {f"{section}.{key}" for section, last in sections.items() for key in last} <= set(keys)
    assert pickle.loads(pickle.dumps(error.value)).values == error.value.values
    own = {"optim.betas": "0.9,0.99", "optim.schedule.milestones": "3,5"}
    examples = {key: own.get(key) or example(key, flag.partition("=")[2]) for key, flag in zip(keys, flags)}
    validate(written(base, *names, *(f"--config.{key}={value}" for key, value in examples.items())))


def example(key: str, about: str) -> str:
    """A value of the kind that a message asks for."""
    if "'" in about:
        return about.split("'")[1]
    number = "10,10" if "commas" in about else "0.5" if "number" in about else "10" if "integer" in about else "True"
    return {"dim": "2", "scale": "1.0", "radius": "5.0"}.get(key.rpartition(".")[2], number)


def test_values_of_a_new_section_are_read_as_its_signature_says(base):
    config = written(base, "--config.loss.name=vs", "--config.loss.gamma=1", "--config.loss.tau=0")
    assert config.loss.to_dict() == {"name": "vs", "gamma": 1.0, "tau": 0.0}
    assert type(config.loss.gamma) is float
    assert "loss.gamma=1.0,loss.name=vs,loss.tau=0.0" in str(run_directory(config, "digits_poly", base))
    with pytest.raises(BadInput, match=r"config.loss.gamma: -1 given|config.loss.gamma: -1.0 given"):
        validate(written(base, "--config.loss.name=vs", "--config.loss.gamma=-1", "--config.loss.tau=0"))


def test_the_same_name_keeps_the_section(base):
    config = written(base, "--config.loss.name=poly", "--config.loss.alpha=2")
    assert config.loss.to_dict() == base.loss.to_dict() | {"alpha": 2.0}
    with pytest.raises(BadInput, match=r"config.loss.gamma: no such key"):
        written(base, "--config.loss.name=poly", "--config.loss.gamma=2")


def test_a_section_may_be_given_whole(base):
    config = written(base, "--config.loss={'name': 'vs', 'gamma': 1.0, 'tau': 0.0}")
    assert validate(config).loss.to_dict() == {"name": "vs", "gamma": 1.0, "tau": 0.0}
    assert base.loss.name == "poly"
    run_directory(config, "digits_poly", base)


def test_values_from_python_are_taken_as_they_are(base):
    assert override(base, {"optim.lr": 1, "data_dir": "x"}).optim.lr == 1
    with pytest.raises(BadInput, match=r"config.optim.lr: 'x' given; it should be a number"):
        override(base, {"optim.lr": "x"})
    assert override(base, {"optim.lr": OverrideText("2")}).optim.lr == 2.0


def test_python_and_the_command_line_make_the_same_run(tmp_path, monkeypatch, capsys):
    """One name, one directory, one result; by Python also of a saved config, and of one made there."""
    monkeypatch.chdir(tmp_path)
    flags = ["--config.trainer.epochs=2", "--config.loss.name=vs", "--config.loss.gamma=0.1", "--config.loss.tau=1"]
    assert call(["train", "--config=digits_poly", *flags]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = imbalance.run("digits_poly", {"trainer.epochs": 2, "loss": {"name": "vs", "gamma": 0.1, "tau": 1.0}})
    assert (str(result.directory), result.score) == (said["run_directory"], said["score"])
    assert result.summary == read_summary(result.directory)
    again = imbalance.run(result.directory / "config.json", {"seed": 1})
    assert again.directory == result.directory.with_name("seed=1") and again.summary["score"] == again.score
    base = load(CONFIGS / "digits_poly.py")
    base.trainer.epochs = 2
    made = [imbalance.run(base).directory, imbalance.run(base.to_dict(), {"seed": 1}).directory]
    assert made[0].parts[:2] == ("runs", "digits_poly") and made[1] == made[0].with_name("seed=1")
    assert "done before" not in capsys.readouterr().out.splitlines()[-1]


def test_a_name_of_ones_own_makes_no_folders(config):
    config.loss = {"name": "/some/where/mine.py:Loss"}
    directory = run_directory(config)
    assert directory.parent.parent.parent == Path(config.work_dir) and "mine.py" in directory.parent.parent.name


def test_the_pages_program_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = blocks(page("how-to/configs.md"), "python")
    exec(program.replace('"seed": 3}', '"seed": 3, "debug": True}'))
    assert capsys.readouterr().out.rstrip().endswith("runs/digits_poly/debug=True,optim.lr=0.1/seed=3")


@pytest.mark.parametrize("wrong", [3, None, ["digits_poly"], {"a": ({"b": 1},)}, {}])
def test_what_is_no_config_is_one_line(wrong):
    with pytest.raises(BadInput) as error:
        imbalance.run(wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("data.classes", "0,1,2", ("0", "1", "2")), ("data.classes", "1_1,01", ("1_1", "01")), ("data.missing", "-999", ("-999",)),
        ("data.missing", "-999,", ("-999", "")), ("data.missing", "?,-999", ("?", "-999")), ("data.missing", "()", ()),
        ("data.missing", "'?','-999'", ("?", "-999")), ("data.categorical", "1,True", ("1", "True")), ("model.hidden", "8,8", (8, 8)),
    ],
)  # fmt: skip
def test_names_that_look_like_numbers_are_names_where_the_key_takes_names(key, text, value):
    config = load(ROOT / "configs" / "arrays_ce.py")
    assert value_at(override(config, {key: OverrideText(text)}), key) == value


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("optim.learning_rate", "optim.lr"), ("optim.rate", "optim.lr"), ("lr", "optim.lr"), ("optim.lrr", "optim.lr"),
        ("trainer.epoch", "trainer.epochs"), ("trainer.num_epochs", "trainer.epochs"), ("random_state", "seed"),
        ("optim.batch_size", "trainer.batch_size"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_answered_by_the_key_that_is_meant(base, key, expected):
    with pytest.raises(BadInput, match=rf"config.{key}: no such key; did you mean config.{expected}\?$"):
        override(base, {key: OverrideText("1")})


@pytest.mark.parametrize(
    ("line", "key", "text", "value"),
    [
        ("ema_decay=0.0,", "trainer.ema_decay", "0.9", 0.9),
        ("imbalance_ratio=50.0,", "data.imbalance_ratio", "20", 20.0),
        ("momentum=0.9, ", "optim.momentum", "0.5", 0.5),
        ("config.seed = 0", "seed", "3", 3),
    ],
)
def test_a_key_that_a_config_file_left_out_can_be_given_as_its_message_says(tmp_path, line, key, text, value):
    content = (ROOT / "configs" / "digits_erm.py").read_text()
    assert line in content
    path = tmp_path / "mine.py"
    path.write_text(content.replace(line, ""))
    with pytest.raises(BadInput, match=rf"^config.{key}: missing; "):
        resolve(path, {})
    config, directory = resolve(path, {key: OverrideText(text)})
    assert flatten(config.to_dict())[key] == value
    assert str(directory).endswith(f"seed={value}" if key == "seed" else f"{key}={value}/seed=0")


def test_a_key_that_was_left_out_is_none_misspelt_though_another_key_is_spelt_alike():
    config = load(ROOT / "configs" / "gaussian_erm.py")
    with config.unlocked():
        del config.data.test_per_class  # train_per_class is there
    assert override(config, {"data.test_per_class": OverrideText("9,9")}).data.test_per_class == (9, 9)


def test_a_key_of_a_function_is_told_from_a_misspelt_one_without_the_functions():
    tables = registries().items()
    keys = {key for _, table in tables for function in table.values() for key in keyword_annotations(function)}
    assert len(keys) > 100 and all(map(is_annotated, keys))
    assert not any(map(is_annotated, ("lrr", "momentun", "alpah", "learning_rate", "\udcff")))


@pytest.mark.parametrize("key", ["trainer.epochs", "loss.name", "optim.lr", "seed"])
def test_an_override_of_half_a_config_is_answered_by_what_the_config_lacks(key):
    half = {"debug": False} if key == "seed" else {"seed": 0}
    with pytest.raises(BadInput, match=r"^config.adapter: missing; a config has all of seed, debug, "):
        validate(override(half, {key: OverrideText("1")}))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"loss.name": "focal", "loss.gamma": 1}, "1"),
        ({"loss": {"name": "focal", "gamma": 1}}, "1"),
        ({"head.name": "dfr", "head.fits": 2, "head.inverse_penalties": [1, 2]}, "1,2"),
    ],
)
def test_a_whole_number_from_python_has_the_run_directory_of_the_command_line(changes, text):
    typed = {"loss.name": "focal", "loss.gamma": OverrideText(text)}
    if "head.name" in changes:
        typed = changes | {"head.inverse_penalties": OverrideText(text)}
    config, directory = resolve("digits_erm", changes)
    assert (config.to_dict(), directory) == (resolve("digits_erm", typed)[0].to_dict(), resolve("digits_erm", typed)[1])
    assert "1.0" in str(directory)
