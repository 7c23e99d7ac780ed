"""The data are part of a run: done or resumed on others it is refused; moved or copied as a whole they are the same."""

import json
import os
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import save_summary
from helpers.data_files import save_image
from ml_collections import ConfigDict
from ml_collections.config_dict import create

import imbalance
from imbalance.data import load
from imbalance.data.identity import COLUMNS, dataset_duplicates, differences, digest
from imbalance.data.sets.arrays import arrays
from imbalance.data.splits import Dataset, Split, class_split
from imbalance.errors import BadInput, Interrupted
from imbalance.sweep.trial_data import summary_digest
from imbalance.training import loop
from imbalance.training.loop import train
from imbalance.training.stacked.train import train_stacked
from imbalance.training.state import checkpoint
from imbalance.training.state.provenance import FORMAT, check_provenance, provenance, versions
from imbalance.utils.package import __version__


@pytest.fixture
def birds(config: ConfigDict, tmp_path: Path) -> ConfigDict:
    """A config for 24 images, of one size each, that a table lists."""
    rows = [
        f"{split}/{target}{i}.bmp,{target},{split}"
        for split in ("train", "val", "test")
        for target in ("land", "water")
        for i in range(4)
    ]
    folder = tmp_path / "data"
    for seed, row in enumerate(rows):
        save_image(folder / "images" / row.split(",")[0], seed=seed)
    (folder / "birds.csv").write_text("\n".join(["path,target,split", *rows]) + "\n")
    config.data_dir = str(folder)
    config.data = create(
        name="table", file="birds.csv", delimiter=",", folder="images", path="path", target="target",
        classes=("land", "water"), attributes=(), split="split", val_fraction=0.0, test_fraction=0.0, mode="RGB",
        convert=False, reduce=False, resize=20, size=16, images_from="store", augment=(),
    )  # fmt: skip
    config.trainer.update(epochs=2, batch_size=8)
    return config


def relabel(folder: Path) -> None:
    """Classes exchanged in one split: as many of each as before."""
    text = (folder / "birds.csv").read_text()
    swap = {"land,train": "water,train", "water,train": "land,train"}
    lines = [line.replace(pair, swap[pair]) for line in text.splitlines() for pair in swap if pair in line]
    others = [line for line in text.splitlines() if not line.endswith(",train")]
    (folder / "birds.csv").write_text("\n".join([*others[:1], *lines, *others[1:]]) + "\n")


def replace_image(folder: Path) -> None:
    """By another of its size and time."""
    path = folder / "images" / "val" / "land0.bmp"
    before = path.stat()
    save_image(path, seed=99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def drop(folder: Path) -> None:
    text = (folder / "birds.csv").read_text()
    (folder / "birds.csv").write_text(text.replace("test/water3.bmp,water,test\n", ""))


CHANGES = [
    (relabel, r"train: other targets, groups"),
    (replace_image, r"val: other inputs"),
    (drop, r"test: now 7 examples, before 8"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_a_finished_run_repeated_on_other_data_is_refused(birds, tmp_path, change, what):
    done = train(birds)
    change(Path(birds.data_dir))
    with pytest.raises(
        BadInput, match=rf"^config.data_dir: these are not the data that .*summary.json was made from \({what}\)"
    ):
        train(birds)
    shutil.copytree(birds.data_dir, tmp_path / "other")  # it is the same from another place
    birds.data_dir = str(tmp_path / "other")
    with pytest.raises(BadInput, match=what):
        train(birds)
    assert json.loads((Path(done["run_directory"]) / "summary.json").read_text())["score"] == done["score"]


def test_other_data_in_memory_are_refused_under_the_name_data(tmp_path):
    def run(offset):
        examples = torch.arange(40.0).reshape(20, 2) + offset, torch.arange(20) % 2
        data = dict.fromkeys(("train", "val", "test"), examples)
        return imbalance.run("arrays_erm", {"trainer.epochs": 1}, directory=tmp_path / "run", data=data)

    run(0)
    with pytest.raises(
        BadInput, match="^data: these are not the data that .*; restore those data, use another directory=,"
    ):
        run(1)


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_a_run_that_was_stopped_is_not_resumed_on_other_data(birds, monkeypatch, change, what):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "newly_interpolating", lambda *_: (_ for _ in ()).throw(Interrupted(15)))
        with pytest.raises(Interrupted):
            train(birds)
    change(Path(birds.data_dir))
    with pytest.raises(
        BadInput, match=rf"^config.data_dir: these are not the data that .*last.pt was made from \({what}\)"
    ):
        train(birds)


@pytest.mark.parametrize("stopped", [False, True])
def test_the_same_data_elsewhere_are_not_other_data(birds, tmp_path, monkeypatch, stopped, capfd):
    if stopped:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "newly_interpolating", lambda *_: (_ for _ in ()).throw(Interrupted(15)))
            with pytest.raises(Interrupted):
                train(birds)
    else:
        train(birds)
    shutil.copytree(birds.data_dir, tmp_path / "copy", copy_function=shutil.copyfile)  # without times
    shutil.rmtree(birds.data_dir)
    shutil.rmtree(tmp_path / "copy" / "decoded")
    birds.data_dir = str(tmp_path / "copy")
    capfd.readouterr()
    assert train(birds)["status"] == "done"
    assert ("resumed at" if stopped else "done before") in capfd.readouterr().out


def test_a_finished_run_stays_done_without_its_data_and_says_that_it_could_not_look(birds, capfd):
    score = train(birds)["score"]
    shutil.rmtree(birds.data_dir)
    capfd.readouterr()
    assert train(birds)["score"] == score
    assert "WARNING: cannot compare the data with those of" in capfd.readouterr().out


def test_data_that_a_program_gives_are_compared_and_checked_too(config, tmp_path):
    config.score = config.callbacks.monitor = "val/balanced_accuracy"
    targets, inputs = np.arange(60) % 2, torch.linspace(0, 1, 240).view(60, 4)
    data = dataset_of(inputs, targets)
    score = train(config, tmp_path / "run", data)["score"]
    assert train(config, tmp_path / "run", data)["score"] == score
    with pytest.raises(BadInput, match=r"train: other inputs; val: other inputs; test: other inputs"):
        train(config, tmp_path / "run", dataset_of(1 - inputs, targets))
    with pytest.raises(BadInput, match="the train split has only class 'a'"):
        imbalance.run(config, directory=tmp_path / "other", data=dataset_of(inputs, np.zeros(60, dtype=np.int64)))


def test_runs_that_are_trained_at_once_look_at_their_data_too(config, tmp_path):
    config.model, config.weights = create(name="linear", init="default"), create(name="uniform")
    runs = [(ConfigDict(config.to_dict() | {"seed": seed}), tmp_path / str(seed)) for seed in (0, 1)]
    train_stacked(runs)
    summary = json.loads((tmp_path / "1" / "summary.json").read_text())
    assert summary["data"] == digest(load(config.data, "", 1))
    summary["data"]["val"]["targets"] = "another"
    save_summary(tmp_path / "1", summary)
    with pytest.raises(BadInput, match=r"val: other targets"):
        train_stacked(runs)


def test_other_packages_get_a_warning_and_a_later_format_is_refused(config, tmp_path, monkeypatch, capfd):
    train(config, tmp_path)
    path = tmp_path / "summary.json"
    summary = json.loads(path.read_text())
    assert summary["format"] == FORMAT and summary["versions"] == versions()
    save_summary(tmp_path, summary | {"versions": summary["versions"] | {"numpy": "0.9"}})
    capfd.readouterr()
    train(config, tmp_path)
    assert f"{path} was written with numpy 0.9, now {np.__version__}" in capfd.readouterr().out
    save_summary(tmp_path, {key: summary[key] for key in summary if key not in ("data", "format")})
    train(config, tmp_path)
    assert "does not say which data it was made from" in capfd.readouterr().out
    save_summary(tmp_path, summary | {"format": FORMAT + 1})
    with pytest.raises(BadInput, match=rf"summary.json: written by a newer version of imbalance .format {FORMAT + 1},"):
        train(config, tmp_path)
    path.unlink()
    last = tmp_path / "checkpoints" / "last.pt"
    state = torch.load(last, weights_only=True)
    assert state["format"] == FORMAT and state["data"] == summary["data"] and state["versions"] == versions()
    for file in (last, checkpoint.previous(last)):
        checkpoint.write(file, state | {"format": FORMAT + 1})
    with pytest.raises(BadInput, match=r"last.pt: written by a newer version"):
        train(config, tmp_path)


@pytest.mark.parametrize("package", ["imbalance", "pillow", "pyarrow", "tokenizers", "transformers", "timm"])
def test_every_package_that_decides_what_is_computed_is_recorded_and_told_if_it_changed(package):
    assert versions()[package] == (__version__ if package == "imbalance" else version(package))
    saved = provenance({}, None) | {"versions": versions() | {package: "0.0.1"}}
    lines = []
    check_provenance(saved, {}, Path("summary.json"), lines.append)
    assert len(lines) == 1 and f"summary.json was written with {package} 0.0.1, now {versions()[package]};" in lines[0]
    # A run that lacked the package did not use it, and neither did one of an older version that did not record it.
    for before in (versions() | {package: None}, {k: v for k, v in versions().items() if k != package}):
        check_provenance(saved | {"versions": before}, {}, Path("summary.json"), lines.append)
    assert len(lines) == 1


def dataset_of(inputs: torch.Tensor, targets: np.ndarray) -> Dataset:
    rows = np.arange(len(targets))
    parts = [class_split(inputs[i::3], targets[i::3], rows[i::3]) for i in range(3)]
    return Dataset(*parts, ("a", "b"), ("a", "b"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_every_value_counts(dtype):
    """But for the last bits of float64, which are another machine's."""
    inputs, targets = (torch.rand(60, 2, 3) * 255).to(dtype), np.arange(60) % 2
    whole = digest(dataset_of(inputs, targets))
    assert differences(whole, digest(dataset_of(inputs.clone(), targets.copy()))) == []
    assert json.loads(json.dumps(whole)) == whole
    for row in range(60):
        changed = inputs.clone()
        changed[row, 1, 2] += 1
        assert differences(whole, digest(dataset_of(changed, targets))) == [
            f"{('train', 'val', 'test')[row % 3]}: other inputs"
        ]
    if dtype == torch.float64:
        assert differences(whole, digest(dataset_of(inputs * (1 + 1e-15), targets))) == []
    other = targets.copy()
    other[4] ^= 1
    assert differences(whole, digest(dataset_of(inputs, other))) == ["val: other targets, groups"]
    order = torch.randperm(20)
    data = dataset_of(inputs, targets)
    moved = digest(Dataset(data.train.subset(order), data.val, data.test, ("a", "b"), ("a", "b")))
    assert differences(whole, moved) == ["train: other inputs, targets, groups, rows"]
    renamed = digest(Dataset(data.train, data.val, data.test, ("a", "c"), ("a", "b")))
    assert differences(whole, renamed) == ["names: other classes and groups"]
    groups = Split(data.test.inputs, data.test.targets, 1 - data.test.groups, data.test.indices)
    assert differences(whole, digest(Dataset(data.train, data.val, groups, ("a", "b"), ("a", "b")))) == [
        "test: other groups"
    ]


def test_the_digest_costs_next_to_nothing_on_the_digits(config):
    data = load(config.data, "", 0)
    best = min(
        timed(
            lambda: digest(
                Dataset(
                    *(split.subset(torch.arange(len(split))) for split in (data.train, data.val, data.test)),
                    data.class_names,
                    data.group_names,
                )
            )
        )
        for _ in range(5)
    )
    assert best < 0.02  # 2 ms on a quiet machine; a start takes seconds


def timed(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def test_copies_are_reported_across_splits_and_under_other_labels():
    inputs = torch.rand(60, 4)
    assert dataset_duplicates(dataset_of(inputs, np.arange(60) % 2)) == []
    inputs[7] = inputs[6]  # of val, another class, as of train
    inputs[10] = inputs[4]  # both of val, and of one class
    inputs[5] = inputs[2]  # both of test, of two classes
    assert dataset_duplicates(dataset_of(inputs, np.arange(60) % 2)) == [
        "equal examples in train and val: 1; row 7 of val is a copy of row 6 of train",
        "equal examples with different classes or groups: 2; row 7 of val is a copy of row 6 of train, and so on",
    ]


def test_equal_checksums_of_different_images_are_no_copies(monkeypatch):
    monkeypatch.setattr("imbalance.data.splits.zlib.crc32", lambda _: 0)
    assert dataset_duplicates(dataset_of(torch.rand(60, 4), np.arange(60) % 2)) == []


def test_swapped_names_of_input_columns_are_other_data(tmp_path):
    """Training gives the same numbers, but a model finds its columns by name, so its predictions would not be these."""

    def digest_of(names: str) -> dict:
        rows = "".join(f"{i},{i * i % 7},{i % 2}\n" for i in range(40))
        (tmp_path / "table.csv").write_text(f"{names},y\n{rows}")
        return digest(
            arrays(str(tmp_path), 0, file="table.csv", delimiter=",", numeric=(), categorical=(), missing=("",), target="y",
                        classes=("0", "1"), attributes=(), split="", val_fraction=0.2, test_fraction=0.2)
        )  # fmt: skip

    before, now = digest_of("u,v"), digest_of("v,u")
    assert differences(before, now) == ["names: other input columns"]
    assert summary_digest({"data": before}) == summary_digest({"data": now})  # a score does not depend on names
    del before["names"][COLUMNS]  # as an older version wrote it
    assert differences(before, now) == []
