"""What every entry of every table keeps, whatever it does: parts, processes, kills, divergence, settings, batching.

The examples are in tests/examples.py, one line an entry.
"""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from examples import EXAMPLES, Example, advice, changes, missing_examples, names
from helpers.jobs import Job, at_call
from ml_collections import ConfigDict

from imbalance.config.experiment import validate
from imbalance.config.registries import registries
from imbalance.config.resolve import load
from imbalance.config.schema import check_call, required_arguments
from imbalance.config.tags import tags_of
from imbalance.data import Dataset
from imbalance.data import load as load_data
from imbalance.data.identity import digest
from imbalance.deploy.extract_features import features
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.methods.losses import LOSSES
from imbalance.training import loop
from imbalance.training.stacked.train import BATCHED, in_common, train_stacked
from imbalance.training.state import forensics

# The data are the same for all entries, see `test_data_are_the_same_each_time`; a schedule is a function of the epoch, see
# tests/training/test_optim.py.
SECTIONS = ("groups", "sampler", "weights", "mix", "loss", "objective", "head", "model", "adapter", "optim")
ENTRIES = [(section, name) for section in SECTIONS for name in names(section) if not EXAMPLES[section][name].elsewhere]
IDS = ["-".join(entry) for entry in ENTRIES]
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=IDS)


def test_every_entry_has_an_example():
    problems = missing_examples(registries(), EXAMPLES)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def test_an_entry_without_example_and_an_example_without_entry_are_named():
    tables = {"loss": {"poly": LOSSES["poly"], "ldam": LOSSES["ldam"]}, "sampler": ["shuffle"]}
    examples = {"loss": {"poly": Example(), "square": Example()}}
    assert missing_examples(tables, examples) == [
        "loss 'ldam' has no example: add the line `'ldam': Example(dict(max_margin=…, scale=…)),` to EXAMPLES[\"loss\"] in "
        "tests/examples.py",
        "sampler 'shuffle' has no example: add the line `'shuffle': Example(dict(…)),` to EXAMPLES[\"sampler\"] in "
        "tests/examples.py",
        "there is no loss 'square': delete its line from EXAMPLES[\"loss\"] in tests/examples.py",
    ]


def test_a_setting_without_another_value_is_named(monkeypatch):
    """A text has no double."""
    monkeypatch.setitem(EXAMPLES["model"], "linear", Example(dict(init="default")))
    assert changes("model", "linear", "init") == [dict(init="zeros")]
    monkeypatch.setitem(EXAMPLES["model"], "linear", Example(dict(init="default", weights="some")))
    with pytest.raises(
        pytest.fail.Exception, match=r"^model 'linear': the value weights has no .*`other=dict\(weights=…"
    ):
        changes("model", "linear", "weights")


@pytest.mark.parametrize(
    "entry", [(s, n) for s in EXAMPLES for n in names(s)], ids=[f"{s}-{n}" for s in EXAMPLES for n in names(s)]
)
def test_an_example_is_a_valid_section(entry):
    section, name = entry
    example = EXAMPLES[section][name]
    try:
        check_call(section, dict(name=name) | example.settings, registries()[section])
    except BadInput as error:
        pytest.fail(f"tests/examples.py, {section} {name!r}: {error}", pytrace=False)
    if example.elsewhere:
        file = ROOT / example.elsewhere
        assert file.is_file() and name.removesuffix("_cosine") in file.read_text(), (
            f"{section} {name!r}: {example.elsewhere} does not test it; tests/examples.py says so"
        )


def config_of(entry: tuple[str, str], **settings) -> ConfigDict:
    """Two epochs of colored digits, of which the last batch has one example, with one entry in its example's settings."""
    section, name = entry
    example = EXAMPLES[section][name]
    config = load(ROOT / "configs" / "colored_digits_erm.py")
    config.data.update(train_per_group=(50, 20, 10, 20), val_fraction=0.1, test_fraction=0.1)
    config.trainer.update(epochs=2, batch_size=33, eval_every=1, dtype="float64", eval_batch_size=60)
    config.model = ConfigDict(dict(name="mlp", hidden=(8,)))
    config.callbacks.select = "last"
    schedule = config.optim.schedule
    for key, value in example.config.items():
        path, _, last = key.partition("__")
        if last:
            config[path][last] = value
        else:
            config[path] = ConfigDict(value)
    config[section] = ConfigDict(dict(name=name) | example.settings | settings)
    config.optim.schedule = schedule
    return config


def ends_in(directory: Path) -> dict[str, torch.Tensor]:
    """What a finished run leaves that a method has a part in: weights, what it has learned, logits of test."""
    selected, last = (
        torch.load(directory / "checkpoints" / f"{name}.pt", weights_only=True) for name in ("selected", "last")
    )
    return {f"model {key}": value for key, value in selected.items()} | {
        f"objective {key}": value for key, value in last["objective"].items()
    }


def assert_close(ours: Path, theirs: Path, tolerance: float = 1e-9) -> None:
    a, b = ends_in(ours), ends_in(theirs)
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(
            a[key], b[key], rtol=tolerance, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run directory of an entry's example, trained once."""
    directory, done = tmp_path_factory.mktemp("whole"), set()

    def of(entry: tuple[str, str]) -> Path:
        path = directory / "-".join(entry)
        if entry not in done:
            loop.train(config_of(entry), path)
            done.add(entry)
        return path

    return of


@each_entry
def test_three_parts_make_the_step_of_one(entry, whole, tmp_path):
    config = config_of(entry)
    config.trainer.accumulation = 3
    loop.train(config, tmp_path)
    assert_close(tmp_path, whole(entry))


@pytest.fixture(scope="module")
def pixels_as_features(tmp_path_factory) -> Path:
    """The examples' data set as `imbalance features` keeps it, of a network that hands the pixels on."""
    config, folder = config_of(("loss", "cross_entropy")), tmp_path_factory.mktemp("features") / "pixels"
    config.model = ConfigDict(dict(name="linear", init="default"))
    file = folder.with_name("config.json")
    file.write_text(json.dumps(config.to_dict()))
    features(config=str(file), run=None, output=str(folder), overrides={})
    return folder


@each_entry
def test_on_features_it_does_what_it_does_on_inputs(entry, whole, pixels_as_features, tmp_path):
    config = config_of(entry)
    config.data = ConfigDict(dict(name="features", folder=str(pixels_as_features), standardise=False))
    if entry in (("mix", "cutmix"), ("mix", "glmc")):  # a vector of features has no pixels to cut out
        with pytest.raises(BadInput, match=f"'{entry[1]}' given, which needs images"):
            loop.train(config, tmp_path)
        return
    loop.train(config, tmp_path)
    assert_close(tmp_path, whole(entry))


def train_all(entries: list[tuple[str, str]], sharded: list[tuple[str, str]], work_dir: Path) -> None:
    """Train the examples of entries, one after another in the same processes: these take long to start."""
    for entry in entries:
        loop.train(config_of(entry), work_dir / "-".join(entry))
    for entry in sharded:
        config = config_of(entry)
        config.trainer.shard = True
        loop.train(config, work_dir / "sharded" / "-".join(entry))
    sys.exit()


@pytest.fixture(scope="module")
def by_two(request, tmp_path_factory) -> Path:
    """The work directory in which two processes have trained the entries that this session tests."""

    def entries_of(test) -> list[tuple[str, str]]:
        items = [item for item in request.session.items if getattr(item, "function", None) is test]
        return [item.callspec.params["entry"] for item in items]

    entries, sharded = entries_of(test_two_processes_are_one), entries_of(test_two_sharded_processes_are_one)
    work_dir = tmp_path_factory.mktemp("by_two")
    config = config_of(("loss", "cross_entropy"))
    config.work_dir = str(work_dir)
    job = Job(config, world=2, target=partial(train_all, entries, sharded, work_dir))
    assert job.wait(timeout=500) == [0, 0], job.stderr()
    return work_dir


@each_entry
def test_two_processes_are_one(entry, whole, by_two):
    directory = by_two / "-".join(entry)
    assert json.loads((directory / "summary.json").read_text())["processes"] == 2
    assert_close(directory, whole(entry))


# A sampler, weights, mixing and a loss never see whether the model is sharded.
@pytest.mark.parametrize(
    "entry",
    [entry for entry in ENTRIES if entry[0] in ("objective", "head", "model", "adapter", "optim")],
    ids="-".join,
)
def test_two_sharded_processes_are_one(entry, whole, by_two):
    assert_close(by_two / "sharded" / "-".join(entry), whole(entry))


@each_entry
def test_stopped_and_gone_on_with_it_ends_in_the_same_bits(entry, whole, tmp_path, monkeypatch):
    """In the second step: of a first run, where there is one."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config_of(entry), tmp_path)
    loop.train(config_of(entry), tmp_path)
    assert_close(tmp_path, whole(entry), tolerance=0)


@each_entry
def test_a_divergence_is_reported_and_can_be_replayed(entry, tmp_path):
    config = config_of(entry)
    config.optim.lr = 1e308
    with pytest.raises(
        Diverged,
        match=r"^non-finite .* step \d+.*; first non-finite: .*; to replay this step, type imbalance forensics",
    ):
        loop.train(config, tmp_path)
    directory = next(iter(sorted(tmp_path.rglob("divergence.pt")))).parent  # of a first run, where there is one
    assert json.loads((directory / "summary.json").read_text())["status"] == "diverged"
    assert not list(directory.glob("checkpoints/selected.pt"))
    report = forensics.replay(directory)
    assert "the losses are the same, bit for bit" in report
    assert any(line.split()[:1] in (["nan"], ["inf"]) for line in report.splitlines()) or "the objective" in report


SETTINGS = [
    (section, name, key)
    for section, name in ENTRIES
    for key in EXAMPLES[section][name].settings
    if key not in EXAMPLES[section][name].inert
]


@pytest.mark.parametrize(("section", "name", "key"), SETTINGS, ids=["-".join(setting) for setting in SETTINGS])
def test_every_setting_acts(section, name, key, whole, tmp_path):
    entry = (section, name)
    for number, change in enumerate(changes(section, name, key)):
        loop.train(config_of(entry, **change), tmp_path / str(number))
        ours, theirs = ends_in(tmp_path / str(number)), ends_in(whole(entry))
        changed = any(ours[name].shape != theirs[name].shape or not ours[name].equal(theirs[name]) for name in ours)
        assert changed, advice(section, name, key, f"changes nothing as {change}")


@each_entry
def test_trained_at_once_is_trained_alone_or_is_refused(entry, whole, tmp_path):
    section, name = entry
    config = config_of(entry)
    tags = tags_of(registries()[section][name])
    if in_common(validate(config)) is None:
        refusers = [tags_of(registries()[s][config[s].name]) for s in BATCHED]
        assert not all(of_one.batched for of_one in refusers) or tags.first_run
        return
    other = config_of(entry)
    other.seed = 1
    for summary in train_stacked([(config, tmp_path / "0"), (other, tmp_path / "1")]):
        assert summary["status"] == "done" and summary["together"] == 2
    assert_close(tmp_path / "0", whole(entry))


def test_a_method_that_asks_for_what_no_run_has_is_refused(monkeypatch):
    monkeypatch.setitem(registries()["objective"], "average", lambda env_counts: None)
    with pytest.raises(
        BadInput,
        match="config.objective.name: 'average' requires the argument 'env_counts', which no run passes; use only class_counts",
    ):
        validate(config_of(("objective", "average")))


# Data sets


def data_of(name: str, folder: Path, seed: int = 0) -> Dataset:
    """Load the example of a data set, whose files are written into `folder` first."""
    example = EXAMPLES["data"][name]
    if example.files and not any(folder.iterdir()):
        example.files(folder)
    return load_data(dict(name=name) | example.settings, str(folder), seed)


@pytest.mark.parametrize(
    "name",
    [name for name in names("data") if not EXAMPLES["data"][name].elsewhere],
    ids=[f"data-{name}" for name in names("data") if not EXAMPLES["data"][name].elsewhere],
)
def test_data_are_the_same_each_time(name, tmp_path):
    """A data set that does not take the seed, or whose tag `seeded` says no, is the same at every seed."""
    dataset, table = data_of(name, tmp_path), registries()["data"]
    assert digest(data_of(name, tmp_path)) == digest(dataset)
    seeded = tags_of(table[name]).seeded
    if "seed" not in required_arguments(table[name]) or (seeded and not seeded(EXAMPLES["data"][name].settings)):
        assert digest(data_of(name, tmp_path, seed=1)) == digest(dataset)
