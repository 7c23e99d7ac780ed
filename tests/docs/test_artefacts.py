"""The page of artefacts and their keys: each part of each key is changed, and does what the page says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from helpers.data_files import make_folder, save_image
from helpers.pages import page
from helpers.texts import text_config
from ml_collections import ConfigDict

from imbalance.config.experiment import validate
from imbalance.config.resolve import load, resolve
from imbalance.deploy.extract_features import features
from imbalance.errors import BadInput
from imbalance.report import kept_results
from imbalance.report.watch import WatchedRuns
from imbalance.training.learner import load_dataset
from imbalance.training.loop import train

TABLE = re.findall(r"^\| (?!artefact|-)(.+?) \| (.+?) \| (.+?) \|$", page("reference/artefacts.md"), re.M)
MODULE = (
    "from torch import nn\nfrom imbalance.models import with_head\n"
    "def f(input_shape, num_classes):\n    return with_head(nn.Sequential(nn.Flatten(), nn.{}()), 64, num_classes)\n"
)


def digits(**sections) -> ConfigDict:
    config = load(ROOT / "configs" / "digits_poly.py")
    config.data.update(total=60, imbalance_ratio=2.0)
    config.model = dict(name="linear", init="zeros")
    config.trainer.update(epochs=1, batch_size=30)
    for name, values in sections.items():
        config[name] = ConfigDict(values) if "name" in values else config[name]
        config[name].update(values)
    return config


def refused(before: ConfigDict, after: ConfigDict, directory: Path, reason: str, change=lambda: None) -> str:
    """Train `before`, and return "refused" if the run of `after` in the same directory is refused, done or not."""
    train(before, directory)
    train(before, directory)
    change()
    with pytest.raises(BadInput, match=reason):
        train(after, directory)
    (directory / "summary.json").unlink()
    with pytest.raises(BadInput, match=reason):
        train(after, directory)
    return "refused"


# Changes of a part of a key, by artefact and part. Each returns "another" or "refused".


def config_of_run(tmp_path, patch):
    before, after = digits(), digits(optim={"lr": 0.123})
    assert resolve(before, {})[1] != resolve(after, {})[1]
    for same in ({"work_dir": "x"}, {"data_dir": "x"}, {"logger.project": "x"}):
        assert resolve(before, same)[1].parts[-2:] == resolve(before, {})[1].parts[-2:]
    return "another directory; with the same directory, " + refused(
        before, after, tmp_path / "run", "config.optim.lr: "
    )


def code_of_run(tmp_path, patch):
    file = tmp_path / "mine.py"
    file.write_text(MODULE.format("Identity"))
    config = digits(model={"name": f"{file}:f"})
    return refused(config, config, tmp_path / "run", "not the code", lambda: file.write_text(MODULE.format("ReLU")))


def table(tmp_path: Path, inputs: np.ndarray, targets: np.ndarray) -> None:
    np.savez(tmp_path / "table.npz", x=inputs.astype(np.float32), y=targets)


def data_of_run(tmp_path, patch):
    config = load(ROOT / "configs" / "arrays_erm.py")
    config.data_dir, config.model = str(tmp_path), ConfigDict(dict(name="linear", init="zeros"))
    config.data.update(
        file="table.npz", target="y", classes=("0", "1"), attributes=(), numeric=(), categorical=(), split=""
    )
    config.data.update(val_fraction=0.2, test_fraction=0.2)
    config.trainer.update(epochs=1, batch_size=30)
    inputs, targets = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    changed_inputs, changed_targets = inputs.copy(), targets.copy()
    changed_inputs[0, 0] += 1
    changed_targets[0] ^= 1
    results = []
    for name, change in (
        ("inputs", (changed_inputs, targets)),
        ("targets", (inputs, changed_targets)),
        ("rows", (inputs[:59], targets[:59])),
    ):
        table(tmp_path, inputs, targets)
        put = lambda change=change: table(tmp_path, *change)  # noqa: E731
        results.append(refused(config, config, tmp_path / name, "these are not the data", put))
    assert set(results) == {"refused"}
    return "refused"


def weights_of_run(tmp_path, patch):
    first = tmp_path / "first"
    train(digits(), first)
    config = digits(model={"name": "pretrained", "pretrained": str(first)})

    def train_first_again() -> None:
        for file in first.rglob("*"):
            if file.is_file():
                file.unlink()
        train(digits(optim={"lr": 0.2}), first)

    return refused(config, config, tmp_path / "run", "these are not the weights", train_first_again)


def first_run(tmp_path, patch):
    weights = {"name": "just_train_twice", "first_epochs": 1, "upweight": 2.0}
    before, after = digits(weights=weights), digits(weights=weights, data={"total": 50})
    train(before, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(BadInput, match=r"config.data.total: .* given, but .*first/config.json"):
        train(after, tmp_path / "run")
    return "refused"


def images(tmp_path: Path) -> ConfigDict:
    make_folder(tmp_path, n=2)
    config = load(ROOT / "configs" / "folder_erm.py")
    config.data_dir = str(tmp_path)
    config.data.update(
        folder="birds", val_fraction=0.0, test_fraction=0.0, resize=20, size=16, images_from="store", augment=()
    )
    return config


def stores(tmp_path: Path, pattern: str) -> set[str]:
    return {path.name for path in (tmp_path / "decoded").glob(pattern)}


def another_store(tmp_path: Path, config: ConfigDict, changes: list, pattern: str) -> str:
    """Return "another store" if each of the changes (functions of a config) makes a store that did not exist."""
    load_dataset(validate(config))
    kept = stores(tmp_path, pattern)
    load_dataset(validate(config))
    assert stores(tmp_path, pattern) == kept and len(kept) == 1
    for change in changes:
        change(config)
        load_dataset(validate(config))
        assert len(stores(tmp_path, pattern)) == len(kept) + 1
        kept = stores(tmp_path, pattern)
    return "another store"


def names_of_images(tmp_path, patch):
    config, image = images(tmp_path), tmp_path / "birds" / "train" / "land" / "0.png"
    return another_store(tmp_path, config, [lambda _: image.rename(image.with_name("9.png"))], "birds-*/")


def content_of_images(tmp_path, patch):
    config, image = images(tmp_path), tmp_path / "birds" / "train" / "land" / "0.png"
    return another_store(tmp_path, config, [lambda _: save_image(image, seed=99)], "birds-*/")


def decoding_of_images(tmp_path, patch):
    changes = [
        lambda c: c.data.update(size=12),
        lambda c: c.data.update(resize=18),
        lambda c: c.data.update(convert=False),
    ]
    return another_store(
        tmp_path, images(tmp_path), [*changes, lambda c: c.data.update(mode="L", convert=True)], "*-*-*-*/"
    )


def texts_of_tokens(tmp_path, patch):
    config, file = text_config(tmp_path), tmp_path / "texts.csv"
    return another_store(
        tmp_path, config, [lambda _: file.write_text(file.read_text() + "good,yes,shop,0.0,0.0\n")], "tokens-*/"
    )


def tokenizer_of_tokens(tmp_path, patch):
    config = text_config(tmp_path)
    changes = [lambda c: c.data.update(max_tokens=9), lambda c: c.data.update(vocabulary=20)]
    return another_store(tmp_path, config, changes, "tokens-*/")


def texts_of_vocabulary(tmp_path, patch):
    config = text_config(tmp_path)
    result = another_store(tmp_path, config, [lambda c: setattr(c, "seed", 5)], "vocabulary-*.json")
    return result.replace("store", "vocabulary")


def kind_of_vocabulary(tmp_path, patch):
    changes = [lambda c: c.data.update(vocabulary=20), lambda c: c.data.update(tokenizer="pieces", vocabulary=300)]
    return another_store(tmp_path, text_config(tmp_path), changes, "vocabulary-*.json").replace("store", "vocabulary")


def extract(tmp_path: Path, config: ConfigDict) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    return features(config=str(tmp_path / "config.json"), run=None, output=str(tmp_path / "store"), overrides={})


def refused_features(tmp_path: Path, before: ConfigDict, after: ConfigDict, reason: str, change=lambda: None) -> str:
    extract(tmp_path, before)
    assert "done before" in extract(tmp_path, before)
    change()
    with pytest.raises(BadInput, match=f"holds other features: .*{reason}"):
        extract(tmp_path, after)
    return "refused"


def data_of_features(tmp_path, patch):
    return refused_features(tmp_path, digits(), digits(data={"total": 50}), "train: now 50 examples, before 60")


MLP = {"name": "mlp", "hidden": (4,)}


def weights_of_features(tmp_path, patch):
    after = digits(model=MLP)
    after.seed = 1  # also draws other data
    return refused_features(tmp_path, digits(model=MLP), after, "other network weights")


def code_of_features(tmp_path, patch):
    file = tmp_path / "mine.py"
    file.write_text(MODULE.format("Identity"))
    config = digits(model={"name": f"{file}:f"})
    return refused_features(tmp_path, config, config, "another code", lambda: file.write_text(MODULE.format("ReLU")))


def arithmetic_of_features(tmp_path, patch):
    for number, trainer in enumerate(({"dtype": "float64"}, {"mixed_precision": "bf16"}, {"tf32": "all"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert refused_features(folder, digits(), digits(trainer=trainer), next(iter(trainer))) == "refused"
    return "refused"


def partial_features(tmp_path, patch):
    from helpers.jobs import at_call

    from imbalance.deploy import extract_features

    def stopped(config: ConfigDict) -> None:
        with pytest.MonkeyPatch.context() as inner, pytest.raises(KeyboardInterrupt):
            inner.setattr(extract_features, "SAVE_SECONDS", 0)
            at_call(
                inner, extract_features.TrainedModel, "features", 4, lambda: (_ for _ in ()).throw(KeyboardInterrupt)
            )
            extract(tmp_path, config)

    small = dict(trainer={"eval_batch_size": 30})
    stopped(digits(**small))
    with pytest.MonkeyPatch.context() as inner:
        printed = []
        inner.setattr(extract_features, "print_safely", lambda text, _: printed.append(text))
        extract(tmp_path, digits(**small, data={"total": 50}))
    assert len(printed) == 1 and "starting anew, because it holds the features of other data" in printed[0]
    return "extracted anew"


def row_of_result(tmp_path, patch):
    rows = []
    for number, sections in enumerate(({}, {"data": {"total": 50}})):
        for seed in (0, 1):
            config = digits(**sections)
            config.seed = seed
            directory = tmp_path / "digits" / f"n={number}" / f"seed={seed}"
            train(config, directory)
            rows.append(kept_results.row_of(directory))
    assert len({tuple(row[key] for key in kept_results.KEY) for row in rows}) == 4
    assert len({row["data"] for row in rows}) == 4
    return "another row"


def values_of_result(tmp_path, patch):
    changes = {"a": {}, "b": {"optim": {"lr": 0.3}}, "c": {"trainer": {"clip_norm": 9.0}}, "d": {}}
    rows = {}
    for folder, sections in changes.items():
        config, directory = digits(**sections), tmp_path / folder / "digits" / "default" / "seed=0"
        config.data_dir = folder
        train(config, directory)
        rows[folder] = kept_results.row_of(directory)
    kept_results.add("rows", tmp_path, [rows["a"]])
    for folder, words in (("b", "lr 0.3 instead of"), ("c", "other values in config.trainer; give")):
        with pytest.raises(BadInput, match=f"another run has this name and other values: {words}"):
            kept_results.add("rows", tmp_path, [rows[folder]])
    assert kept_results.add("rows", tmp_path, [rows["d"]]) == 0
    return "refused"


def page_of_watch(tmp_path, patch):
    directory = tmp_path / "digits" / "default" / "seed=0"
    train(digits(), directory)
    watched = WatchedRuns([tmp_path], ["balanced_accuracy"], 0)
    stamp = watched.stamp()
    for name in ("config.json", "metrics.jsonl", "summary.json", "predictions/test.npz", "log.txt"):
        with open(directory / name, "ab") as file:
            file.write(b"\n")
        assert watched.stamp() != stamp, name
        stamp = watched.stamp()
    return "another page"


CHANGES = {
    ("run directory", "the config, except `work_dir`, `data_dir` and `logger`"): config_of_run,
    ("run directory", "the code of your own modules that the config names"): code_of_run,
    ("run directory", "the data: inputs, classes, groups, splits, rows, and the names of classes, groups and input columns"): data_of_run,
    ("run directory", "pretrained weights in a file, a folder or another run"): weights_of_run,
    ("first run of a two-stage method", "the config and the data of the run"): first_run,
    ("store of decoded images", "the names of the image files"): names_of_images,
    ("store of decoded images", "the content of the image files"): content_of_images,
    ("store of decoded images", "mode, size and all steps of decoding"): decoding_of_images,
    ("store of tokens", "the texts"): texts_of_tokens,
    ("store of tokens", "the tokenizer, with its vocabulary and longest text"): tokenizer_of_tokens,
    ("learnt vocabulary", "the training texts"): texts_of_vocabulary,
    ("learnt vocabulary", "the kind of tokenizer and the number of tokens"): kind_of_vocabulary,
    ("features", "the data"): data_of_features,
    ("features", "the network weights"): weights_of_features,
    ("features", "the code of a network of your own"): code_of_features,
    ("features", "`trainer.dtype`, `mixed_precision` and `tf32`, and the preprocessing of inputs"): arithmetic_of_features,
    ("features that are half extracted", "the key of the features"): partial_features,
    ("kept result", "name of the config, overrides, seed, and the rows, classes and groups of the data"): row_of_result,
    ("kept result", "all values of the config file, except `work_dir`, `data_dir` and `logger`"): values_of_result,
    ("page of `imbalance watch`", "the files of each run"): page_of_watch,
}  # fmt: skip


def test_each_row_of_the_page_has_a_change_here():
    assert {(artefact, part) for artefact, part, _ in TABLE} == CHANGES.keys()


@pytest.mark.parametrize("row", TABLE, ids=[f"{artefact}: {part}"[:60] for artefact, part, _ in TABLE])
def test_a_changed_part_of_a_key_does_what_the_page_says(row, tmp_path, monkeypatch):
    artefact, part, consequence = row
    assert CHANGES[artefact, part](tmp_path, monkeypatch) == consequence
