"""Tables of the crossing contract: kinds of data, states of a run, and commands.

A crossing is one kind of data, one state that a run on it is in, and one command that meets that run. A new kind of
data is one line of `KINDS`, and a new command is one line of `COMMANDS`; tests/test_crossings.py then crosses it with
all others. `python -m pytest tests/test_crossings.py -k "text_bag and report"` runs a few crossings.

A command is a function of a `Scene` that acts on the run and asserts what matters. `Scene.expect_refusal` says what
every refusal must be: status 2, one plain line, and no file changed.
"""

import contextlib
import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.data_files import make_folder, make_table, save_image, write_arrow, write_csv, write_people
from helpers.jobs import at_call, free_port
from helpers.server import SERVER
from helpers.texts import write_texts
from ml_collections import ConfigDict

import imbalance
from imbalance.cli.main import call
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data import Dataset
from imbalance.data import load as load_data
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.training import loop

OWN = """
import torch
import torch.nn.functional as F
from torch import nn

from imbalance.config.schema import Count, Positive
from imbalance.data import as_dataset
from imbalance.models import with_head


def blobs(seed: int, *, size: Count):
    def draw(n):
        targets = torch.arange(n) % 2
        return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed + n)) + 2 * targets[:, None], targets
    return as_dataset({"train": draw(size), "val": draw(20), "test": draw(22)}, class_names=("a", "b"))


class Scaled(nn.Module):
    def __init__(self, *, factor: Positive):
        super().__init__()
        self.factor = factor

    def forward(self, logits, targets, groups):
        return self.factor * F.cross_entropy(logits, targets, reduction="none")


def narrow(input_shape, num_classes, *, width: Count):
    return with_head(nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], width), nn.ReLU()), width, num_classes)
"""


# Kinds of data


class Kind(NamedTuple):
    """Kind of data: how to make it, and how a user asks for predictions of it.

    make: writes the files of the data into a folder, and changes a config so that it trains on them.
    files: files or folders in the folder that `imbalance predict` takes; they hold all examples in the order of their
        rows. None if there are no such files; then the inputs of test are written to an array file.
    examples: argument of `TrainedModel.predict` for all examples, made from the folder; None for the inputs of test.
    from_python: whether a program passes the data, so that a command can not load them.
    """

    make: Callable[[Path, ConfigDict], None]
    files: Callable[[Path], list[Path]] | None = None
    examples: Callable[[Path], Any] | None = None
    from_python: bool = False


def base(name: str, folder: Path) -> ConfigDict:
    """Return a config of three short epochs of at least two steps, whose checkpoints and logits are all kept."""
    config = load(ROOT / "configs" / f"{name}.py")
    config.data_dir, config.work_dir, config.score = str(folder), str(folder / "runs"), "val/balanced_accuracy"
    config.trainer.update(epochs=3, batch_size=16, eval_every=1, eval_splits=("val", "test"))
    config.callbacks.update(select="best", monitor="val/balanced_accuracy", keep_logits=True, checkpoint_minutes=1e-9)
    config.optim.update(lr=0.05)
    return config


def digits(folder: Path, config: ConfigDict) -> None:
    config.data.update(total=60, imbalance_ratio=2.0)
    config.model = dict(name="mlp", hidden=(8,))


def low_rank(folder: Path, config: ConfigDict) -> None:
    digits(folder, config)
    config.adapter = dict(name="lora", rank=2, alpha=4.0, dropout=0.1, targets=())


def images(config: ConfigDict, **data: Any) -> None:
    config.data = data | dict(
        mode="RGB",
        convert=False,
        reduce=False,
        resize=12,
        size=10,
        val_fraction=0.0,
        test_fraction=0.0,
        images_from="store",
        augment=("flip",),
    )
    config.model = dict(name="mlp", hidden=(6,))
    config.trainer.batch_size = 4


def image_folder(folder: Path, config: ConfigDict) -> None:
    make_folder(folder)
    images(config, name="folder", folder="birds")


def image_files(folder: Path, config: ConfigDict) -> None:
    image_folder(folder, config)
    config.data.update(images_from="files", augment=("inception_crop", "flip"))


def image_table(folder: Path, config: ConfigDict) -> None:
    make_table(folder)
    names = dict(path="path", target="target", classes=("water", "land"), attributes=("place",), split="split")
    images(config, name="table", file="birds.csv", delimiter=",", folder="images", **names)


def published_images(folder: Path, config: ConfigDict) -> None:
    for i, path in enumerate(published_files(folder)):
        save_image(path, seed=i)
    config.data = dict(
        name="spuco", subset="birds", size=10, check_counts=False, images_from="store", augment=("flip",)
    )
    config.model = dict(name="mlp", hidden=(6,))
    config.trainer.batch_size = 4


def published_files(folder: Path) -> list[Path]:
    parts = product(("train", "val", "test"), ("landbirds", "waterbirds"), ("land", "water"), ("0.png", "1.png"))
    return [folder.joinpath("spuco_birds", *names) for names in parts]


def table_rows(folder: Path) -> list[Path]:
    with open(folder / "birds.csv", newline="") as file:
        return [folder / "images" / row["path"] for row in csv.DictReader(file)]


def columns(folder: Path, config: ConfigDict, **data: Any) -> None:
    write_people(folder)
    config.data = dict(
        file="people.csv", delimiter=",", numeric=(), categorical=(), missing=("", "?"), target="income",
        classes=("low", "high"), attributes=("sex",), split="split", val_fraction=0.0, test_fraction=0.0,
        name="arrays",
    ) | data  # fmt: skip
    config.model = dict(name="mlp", hidden=(8,))


def read_table(path: Path) -> dict[str, np.ndarray]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows], dtype=object) for name in rows[0]}


def arrow_columns(folder: Path, config: ConfigDict) -> None:
    columns(folder, config, file="people.arrow")
    write_arrow(folder / "people.arrow", read_table(folder / "people.csv"))


def arrays(folder: Path, config: ConfigDict) -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(80) // 2 % 2
    pixels = rng.integers(0, 200, (80, 6, 6)).astype(np.uint8) + 50 * targets[:, None, None].astype(np.uint8)
    splits = np.resize(["train", "val", "train", "test", "train"], 80).astype(object)
    np.savez(folder / "pixels.npz", x=pixels, target=targets, split=splits.astype("U5"))
    columns(folder, config, file="pixels.npz", target="target", classes=("0", "1"), attributes=(), missing=())


def features(folder: Path, config: ConfigDict) -> None:
    source = base("digits_erm", folder)
    digits(folder, source)
    (folder / "source.json").write_text(json.dumps(source.to_dict()))
    assert command("features", f"--config={folder / 'source.json'}", f"--output={folder / 'features'}").status == 0
    config.data = dict(name="features", folder="features", standardise=True)
    config.model = dict(name="mlp", hidden=(6,))


def texts(folder: Path, config: ConfigDict, **model: Any) -> None:
    write_texts(folder / "texts.csv", 80)
    config.data.update(classes=("no", "yes"), attributes=("place",), vocabulary=60, bucket=2)
    config.model = dict(model)


def pairs(folder: Path, config: ConfigDict) -> None:
    texts(folder, config, name="bag_of_embeddings", width=6)
    table = read_table(folder / "texts.csv")
    write_csv(folder / "texts.csv", {"premise": table["place"], "text": table["text"], "target": table["target"]})
    config.data.update(text=("premise", "text"), attributes=())


def arrow_texts(folder: Path, config: ConfigDict) -> None:
    texts(folder, config, name="bag_of_embeddings", width=6)
    config.data.file = "texts.arrow"
    write_arrow(folder / "texts.arrow", read_table(folder / "texts.csv"))


def in_memory(folder: Path, config: ConfigDict) -> None:
    config.data = dict(name="in_memory")
    config.model = dict(name="mlp", hidden=(6,))


def own(folder: Path, config: ConfigDict) -> None:
    (folder / "mods").mkdir()
    (folder / "mods" / "mine.py").write_text(OWN)
    config.data = dict(name="mods/mine.py:blobs", size=40)
    config.loss = dict(name="mods/mine.py:Scaled", factor=2.0)
    config.model = dict(name="mods/mine.py:narrow", width=3)


def passed_data() -> dict[str, Any]:
    """Return the data that a program passes for the kind "in_memory"."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        targets = np.arange(n) % 2
        return (rng.normal(size=(n, 5)) + targets[:, None]).astype(np.float32), targets, np.arange(n) % 3

    return {"train": draw(40), "val": draw(20), "test": draw(22)}


def text_columns(folder: Path) -> dict[str, np.ndarray]:
    return read_table(folder / "texts.csv")


KINDS: dict[str, tuple[str, Kind]] = {  # by name: the config to begin with, and the kind
    "digits": ("digits_erm", Kind(digits)),
    "low_rank": ("digits_erm", Kind(low_rank)),
    "folder": ("folder_erm", Kind(image_folder, lambda f: [f / "birds"], lambda f: sorted((f / "birds").rglob("*.png")))),
    "image_files": ("folder_erm", Kind(image_files, lambda f: [f / "birds"], lambda f: sorted((f / "birds").rglob("*.png")))),
    "table": ("table_erm", Kind(image_table, table_rows, table_rows)),
    "published": ("folder_erm", Kind(published_images, published_files, published_files)),
    "columns": ("arrays_erm", Kind(columns, lambda f: [f / "people.csv"], lambda f: read_table(f / "people.csv"))),
    "arrays": ("arrays_erm", Kind(arrays)),
    "arrow": ("arrays_erm", Kind(arrow_columns, lambda f: [f / "people.arrow"], lambda f: read_table(f / "people.csv"))),
    "features": ("features_erm", Kind(features, lambda f: [f / "features"])),
    "text_bag": ("text_small_erm", Kind(
        lambda f, c: texts(f, c, name="bag_of_embeddings", width=6), lambda f: [f / "texts.csv"], text_columns)),
    "text_arrow": ("text_small_erm", Kind(arrow_texts, lambda f: [f / "texts.arrow"], text_columns)),
    "text_transformer": ("text_small_erm", Kind(
        lambda f, c: texts(f, c, name="transformer", width=8, depth=1, heads=2, dropout=0.1), lambda f: [f / "texts.csv"],
        lambda f: text_columns(f)["text"].tolist())),
    "text_pairs": ("text_small_erm", Kind(
        pairs, lambda f: [f / "texts.csv"],
        lambda f: list(zip(text_columns(f)["premise"], text_columns(f)["text"])))),
    "in_memory": ("digits_erm", Kind(in_memory, from_python=True)),
    "own_module": ("digits_erm", Kind(own)),
}  # fmt: skip


# States of a run

STATES = ("done", "diverged", "interrupted", "old")
STATUS = {"done": "done", "old": "done", "diverged": "diverged", "interrupted": "interrupted"}  # in summary.json
STOP_STEP = 4  # step in the second epoch at which an interrupted run was stopped


def make_old(run: Path) -> None:
    """Rewrite the files of a run as an older version of this format wrote them: without the keys that came later."""
    config = json.loads((run / "config.json").read_text())
    for key in ("clip_norm", "ema_decay", "tf32", "images_on_device", "shard", "activation_checkpointing"):
        del config["trainer"][key]
    config["data"].pop("images_from", None)
    del config["groups"], config["optim"]["decayed"]
    if config["adapter"]["name"] == "none":  # no older version could write another one
        del config["adapter"]
    config["trainer"]["compile"] = False
    if config["data"]["name"] == "in_memory":
        config["data"]["name"] = "given"
    if "attributes" in config["data"]:
        attributes = config["data"].pop("attributes")
        config["data"]["groups"] = [config["data"]["target"], *attributes] if attributes else []
    (run / "config.json").write_text(json.dumps(config, indent=2))
    if (run / "model.json").is_file():
        about = json.loads((run / "model.json").read_text())
        for key in ("head", "imbalance", "digest"):
            about.pop(key, None)
        (run / "model.json").write_text(json.dumps(about))
    if (run / "summary.json").is_file():
        summary = json.loads((run / "summary.json").read_text())
        for key in (
            "score_name",
            "warnings",
            "together",
            "processes",
            "tf32",
            "effective_sample_size",
            "digest",
            "files",
            "digests",
        ):
            summary.pop(key, None)
        summary["versions"] = {"torch": summary["versions"]["torch"]}
        (run / "summary.json").write_text(json.dumps(summary))


class Ended(NamedTuple):
    """End of a command: its exit status, and the text of both streams."""

    status: int
    out: str
    err: str


def command(*argv: Any) -> Ended:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = call([str(argument) for argument in argv])
    return Ended(status, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file under `folder` by relative path; "" for a folder.

    Logs, stores of decoded data and the storage of a sweep are left out: they may grow, and cost no work.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.name not in ("log.txt", "checked.json")
        and not {"decoded", "tokens", "sweeps"} & set(path.relative_to(folder).parts)
    }


def results(run: Path) -> tuple:
    """Return the results of a run that do not depend on how it was interrupted, or on the paths of its files."""
    summary = json.loads((run / "summary.json").read_text())
    same = {key: summary[key] for key in ("status", "score", "metrics", "step", "epoch", "selected_epoch", "data")}
    weights = torch.load(run / "checkpoints" / "selected.pt", weights_only=True)
    arrays = {
        str(p.relative_to(run)): p.read_bytes() for d in ("predictions", "evaluations") for p in (run / d).glob("*")
    }
    return (run / "metrics.jsonl").read_bytes(), same, {key: value.tolist() for key, value in weights.items()}, arrays


class Scene:
    """A kind of data in a folder, with a run that is in one state.

    folder: the current folder, with the data and `runs/`.
    whole: run directory of an unbroken run of the same config, which no crossing changes.
    """

    def __init__(self, kind: str, state: str, folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch):
        self.kind, self.state, self.folder, self.whole, self.monkeypatch = kind, state, folder, whole, monkeypatch
        self.about, self.file = KINDS[kind][1], folder / f"{kind}.json"
        self.config = load(self.file)
        self.run = folder / "runs" / kind / "default" / "seed=0"
        self.finished, self.diverges = STATUS[state] == "done", state == "diverged"
        monkeypatch.setattr(multiprocessing.process, "ORIGINAL_DIR", str(folder))  # where a shell would start them
        monkeypatch.chdir(folder)

    # Trains by the command line, or by a program where only a program can

    def train(self, file: Path | None = None, work_dir: Path | None = None) -> Ended:
        """Train the config, or that of `file`, below its work_dir or another."""
        file = file or self.file
        if self.about.from_python:
            return from_program(file, self.run)
        return command("train", f"--config={file}", *([f"--config.work_dir={work_dir}"] if work_dir else []))

    @cached_property
    def dataset(self) -> Dataset:
        if self.about.from_python:
            return imbalance.data.as_dataset(passed_data())
        config = validate(self.config)
        return load_data(config.data, str(self.folder), config.seed)

    def expect_trained(self, ended: Ended, run: Path | None = None) -> None:
        """Check that a training in `run` ended as the unbroken run did."""
        run = run or self.run
        assert ended.status == (3 if self.diverges else 0), ended.err
        last = json.loads(ended.out.splitlines()[-1])
        summary = json.loads((run / "summary.json").read_text())
        assert last["status"] == summary["status"] == ("diverged" if self.diverges else "done")
        assert (self.folder / last["run_directory"]).resolve() == run.resolve()
        if self.diverges:
            assert_one_line(ended.err)
            assert ended.err.startswith("non-finite") and not (run / "checkpoints" / "selected.pt").exists()
        else:
            assert results(run) == results(self.whole)

    def expect_refusal(self, act: Callable[[], Ended], words: str, created: Path | None = None) -> None:
        """Check that a command ends with status 2 and one line with `words`, and leaves all files as they were."""
        before = contents(self.folder)
        ended = act()
        assert ended.status == 2, ended
        progress = " runs done", "; run directories in "
        assert_one_line(
            "".join(line for line in ended.err.splitlines(True) if not any(map(line.__contains__, progress)))
        )
        assert re.search(words, ended.err), ended.err
        assert contents(self.folder) == before
        assert not (created and created.exists())

    def expect_no_model(self, act: Callable[[], Ended], created: Path | None = None) -> None:
        """Check that a command refuses the run because it is not done."""
        self.expect_refusal(act, f"the run is {self.state}; give a run that is done", created)

    # What the run itself predicted on test

    def saved(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the (N, K) probabilities of test that the run saved, and the source rows of these examples."""
        with np.load(self.run / "predictions" / "test.npz") as arrays:
            return torch.from_numpy(arrays["logits"]).softmax(1).numpy(), arrays["indices"]

    def of_test(self, predicted: np.ndarray) -> np.ndarray:
        """Return the rows of test out of predictions of all examples, or of test alone."""
        rows = self.saved()[1]
        if self.kind == "features":  # its files hold train, val and test one after another
            return predicted[-len(rows) :]
        return predicted[rows] if self.about.files else predicted


def assert_one_line(text: str) -> None:
    """Check that a message is one line in plain words, without Python's own."""
    assert text.count("\n") == 1 and len(text) > 20, text
    for word in ("Traceback", "object has no attribute", "NoneType", "<class", "Errno", "<function", "dtype("):
        assert word not in text, text


def from_program(file: Path, run: Path) -> Ended:
    """Train a config on `passed_data` as a program does, and report the end as the command line would."""
    out, err = io.StringIO(), io.StringIO()
    status, ending = 0, "done"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            result = imbalance.run(load(file), directory=run, data=passed_data())
            assert result.directory == run
        except (BadInput, Diverged, Interrupted) as error:
            status, ending = error.exit_status, getattr(error, "status", "")
            err.write(f"{error}\n")
    out.write(json.dumps({"run_directory": str(run), "status": ending}) + "\n")
    return Ended(status, out.getvalue(), err.getvalue())


# Commands


def train(scene: Scene) -> None:
    """The same command resumes an interrupted run, and leaves a finished run as it is."""
    before = contents(scene.run)
    ended = scene.train()
    scene.expect_trained(ended)
    if scene.finished:
        assert contents(scene.run) == before
        assert "was done before" in ended.out


def repeat(scene: Scene) -> None:
    """The config of a run trains to the same results elsewhere."""
    before, saved = contents(scene.run), scene.run / "config.json"
    if scene.about.from_python:
        again = ("train", f"--config={saved}", f"--config.work_dir={scene.folder / 'again'}")
        return scene.expect_refusal(lambda: command(*again), r"run that program again", scene.folder / "again")
    ended = scene.train(saved, scene.folder / "again")
    run = scene.folder / "again" / scene.kind / "default" / "seed=0"
    scene.expect_trained(ended, run)
    assert contents(scene.run) == before
    return None


def killed_train(argv: list[str], run: Path | None, step: int, folder: Path) -> None:
    """Train in a process of its own, and kill the process before a step."""
    os.chdir(folder)
    at_call(pytest.MonkeyPatch(), loop, "take_step", step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if run:
        from_program(Path(argv[0]), run)
    else:
        command(*argv)


def kill(scene: Scene) -> None:
    """A process that is killed loses at most the steps since the checkpoint, and the same command ends as if unbroken."""
    if scene.state != "interrupted":
        shutil.rmtree(scene.run)
    step = 1 if scene.diverges else 2
    argv = [str(scene.file)] if scene.about.from_python else ["train", f"--config={scene.file}"]  # fmt: skip
    process = SERVER.Process(
        target=killed_train, args=(argv, scene.run if scene.about.from_python else None, step, scene.folder)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (scene.run / "config.json").is_file() and not list(scene.run.glob("checkpoints/selected.pt"))
    if scene.state == "old":
        make_old(scene.run)
    scene.expect_trained(scene.train())


def resume_elsewhere(scene: Scene) -> None:
    """A run directory that is moved, with its data, is resumed where it is now."""
    moved = scene.folder / "moved"
    moved.mkdir()
    for path in list(scene.folder.iterdir()):
        if path != moved:
            path.rename(moved / path.name)
    for name, value in (("folder", moved), ("file", moved / scene.file.name), ("run", moved / scene.run.relative_to(scene.folder))):  # fmt: skip
        setattr(scene, name, value)
    scene.monkeypatch.chdir(moved)
    before = contents(scene.run)
    file = scene.file if scene.about.from_python else scene.run / "config.json"
    scene.expect_trained(scene.train(file))
    assert not scene.finished or contents(scene.run) == before


def verify(scene: Scene) -> None:
    """The data of a run are checked by its config alone, whatever became of the run."""
    act = lambda: command("data", "verify", f"--config={scene.run / 'config.json'}")  # noqa: E731
    if scene.about.from_python:
        return scene.expect_refusal(act, "run that program again")
    before, ended = contents(scene.folder / "runs"), act()
    assert (ended.status, ended.err) == (0, ""), ended
    examples = sum(len(getattr(scene.dataset, split)) for split in ("train", "val", "test"))
    assert f": {examples:,} examples, 0 problems" in ended.out
    assert contents(scene.folder / "runs") == before
    return None


def describe(scene: Scene) -> None:
    """The data of a run are counted by its config alone, whatever became of the run."""
    sheet = scene.folder / "sheet.png"
    act = lambda: command("data", "describe", f"--config={scene.run / 'config.json'}",  # noqa: E731
                          f"--sheet={sheet}")  # fmt: skip
    if scene.about.from_python:
        return scene.expect_refusal(act, "run that program again", sheet)
    before, ended = contents(scene.folder / "runs"), act()
    assert (ended.status, ended.err) == (0, ""), ended
    dataset = scene.dataset
    for label, name in enumerate(dataset.class_names):
        counts = [int((getattr(dataset, split).targets == label).sum()) for split in ("train", "val", "test")]
        assert re.search(rf"^\s*{name}\s+" + r"\s+".join(str(n) if n else r"(0|-)" for n in counts), ended.out, re.M), (
            ended.out
        )
    assert sheet.exists() == (len(dataset.input_shape) == 3)
    assert contents(scene.folder / "runs") == before
    return None


def predict(scene: Scene) -> None:
    """The command predicts what the run predicted; without a trained model it leaves an older output as it is."""
    output = scene.folder / "predictions.csv"
    output.write_text("file,row,class\n")  # output of an earlier command; another file would be refused
    files = scene.about.files(scene.folder) if scene.about.files else [scene.folder / "test.npy"]
    if not scene.about.files:
        np.save(files[0], scene.dataset.test.inputs.numpy())
    act = lambda: command("predict", scene.run, *files, f"--output={output}")  # noqa: E731
    if not scene.finished:
        return scene.expect_no_model(act)
    before, ended = contents(scene.run), act()
    assert (ended.status, ended.err) == (0, ""), ended
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    names = scene.dataset.class_names
    probabilities, expected = np.array([[float(row[name]) for name in names] for row in rows]), scene.saved()[0]
    np.testing.assert_allclose(scene.of_test(probabilities), expected, atol=2e-5)
    assert [row["class"] for row in rows] == [names[i] for i in probabilities.argmax(1)]
    assert contents(scene.run) == before
    return None


def load_model(scene: Scene) -> None:
    """`imbalance.load` predicts what the run predicted, on a stranger's machine without the module and the data."""

    def act() -> Ended:
        try:
            imbalance.load(scene.run)
        except BadInput as error:
            return Ended(error.exit_status, "", f"{error}\n")
        return Ended(0, "", "")

    if not scene.finished:
        return scene.expect_no_model(act)
    examples = scene.about.examples(scene.folder) if scene.about.examples else in_python(scene)
    shutil.rmtree(scene.folder / "mods", ignore_errors=True)
    model, expected = imbalance.load(scene.run), scene.saved()[0]
    predicted = model.predict(examples, batch_size=7)
    assert predicted.probabilities.dtype == np.float32
    predictions = scene.of_test(predicted.probabilities) if scene.about.examples else predicted.probabilities
    np.testing.assert_allclose(predictions, expected, atol=2e-5)
    assert predicted.classes == [model.class_names[i] for i in predicted.probabilities.argmax(1)]
    return None


def in_python(scene: Scene) -> Any:
    """Return the inputs of test as a user passes them to `predict`."""
    if scene.kind == "features":
        return {"features": np.load(scene.folder / "features" / "features.npy")[-len(scene.dataset.test) :]}
    return scene.dataset.test.inputs


def export(scene: Scene) -> None:
    """The exported file has the weights of the selected epoch."""
    output = scene.folder / "model.safetensors"
    act = lambda: command("export", scene.run, output)  # noqa: E731
    if not scene.finished:
        return scene.expect_no_model(act, output)
    ended = act()
    assert (ended.status, ended.err) == (0, ""), ended
    from safetensors.torch import load_file

    weights, selected = load_file(output), torch.load(scene.run / "checkpoints" / "selected.pt", weights_only=True)
    assert weights.keys() == selected.keys() and all(torch.equal(weights[key], selected[key]) for key in weights)
    return None


def extract(scene: Scene) -> None:
    """The features of a run's network are those that its last layer took, and one can train on them."""
    output = scene.folder / "extracted"
    act = lambda: command("features", f"--run={scene.run}", f"--output={output}")  # noqa: E731
    if scene.about.from_python:
        return scene.expect_refusal(act, "run that program again", output)
    if not scene.finished:
        return scene.expect_no_model(act, output)
    before, ended = contents(scene.run), act()
    assert ended.status == 0 and "Traceback" not in ended.err, ended
    head = {name.removeprefix("head."): value for name, value in torch.load(scene.run / "checkpoints" / "selected.pt", weights_only=True).items() if name.startswith("head.")}  # fmt: skip
    test = torch.from_numpy(np.load(output / "features.npy")[-len(scene.saved()[0]) :])
    logits = test @ head["weight"].T + head.get("bias", 0)
    np.testing.assert_allclose(logits.softmax(1).numpy(), scene.saved()[0], atol=2e-5)
    config = base("features_erm", scene.folder)
    config.data.folder = "extracted"
    (scene.folder / "on_features.json").write_text(json.dumps(config.to_dict()))
    assert command("train", f"--config={scene.folder / 'on_features.json'}").status == 0
    assert contents(scene.run) == before
    return None


def compare(scene: Scene) -> None:
    """A finished run is read, an interrupted one is resumed, and a diverged one is counted as such."""
    argv = ("compare", f"--config={scene.file}", "--seeds=1", "--jobs=1", "--stacked=1", "--work_dir=runs")
    expect_study(scene, argv, lambda out: f"| {scene.kind} |" in out)


def sweep(scene: Scene) -> None:
    """A finished run is read, an interrupted one is resumed, and a diverged one has no score."""
    pytest.importorskip("optuna")
    argv = ("sweep", f"--config={scene.file}", "--grid=trainer.epochs=3", "--seeds=1", "--jobs=1", "--stacked=1",
            "--work_dir=runs")  # fmt: skip
    expect_study(scene, argv, lambda out: "trainer.epochs" in out)


def select(scene: Scene) -> None:
    """Other rules choose epochs from the logits that a finished run saved."""
    argv = ("select", f"--config={scene.file}", "--seeds=1", "--jobs=1", "--stacked=1", "--work_dir=runs")
    if scene.finished or scene.state == "interrupted":
        expect_study(scene, argv, lambda out: f"| {scene.kind} | oracle |" in out)
    elif scene.about.from_python:
        scene.expect_refusal(lambda: command(*argv), "run that program again")
    else:
        ended = command(*argv)
        assert ended.status == 2 and "no finished run with saved logits" in ended.err.splitlines()[-1], ended


def shift(scene: Scene) -> None:
    """The accuracy under other class shares follows from the predictions that a finished run saved."""
    before, ended = contents(scene.run), command("shift", "--ratios=2", "--work_dir=runs")
    if scene.finished:
        assert ended.status == 0 and f"| {scene.kind} | – |" in ended.out, ended
    else:
        assert ended.status == 2 and "no finished run with predictions" in ended.err.splitlines()[-1], ended
    assert contents(scene.run) == before


def failures(scene: Scene) -> None:
    """The page shows the subgroups of a finished run, and with its data at hand their examples."""
    pytest.importorskip("jinja2")
    output = scene.folder / "failures.html"
    act = lambda: command("failures", scene.run, f"--output={output}")  # noqa: E731
    if not scene.finished:
        return scene.expect_no_model(act, output)
    before, ended = contents(scene.run), act()
    assert ended.status == 0 and "Traceback" not in ended.err, ended
    page, shown = output.read_text(), not scene.about.from_python and scene.kind != "own_module"
    with np.load(scene.run / "predictions" / "test.npz") as saved:
        wrong = int((saved["logits"].argmax(1) != saved["targets"]).sum())
        assert f"{wrong} of {len(saved['targets'])} test predictions are wrong" in page
    assert ("Clusters of features" in page) == shown == ("cannot be shown" not in page)
    assert contents(scene.run) == before
    return None


def expect_study(scene: Scene, argv: tuple, shows: Callable[[str], bool]) -> None:
    """Check a command that trains what is missing and prints a table.

    Args:
        shows: whether its output shows the config.
    """
    before = contents(scene.run)
    if scene.about.from_python and not scene.finished:
        return scene.expect_refusal(lambda: command(*argv), "run that program again")
    ended = command(*argv)
    assert ended.status == 0, ended
    assert shows(ended.out), ended.out
    assert "Traceback" not in ended.err, ended.err
    if scene.diverges:
        assert not (scene.run / "checkpoints" / "selected.pt").exists()
    else:
        assert results(scene.run) == results(scene.whole)
    assert not scene.finished or contents(scene.run) == before
    return None


def collect(scene: Scene) -> None:
    """The table of runs has the run with its status and score."""
    output = scene.folder / "table.csv"
    before, ended = contents(scene.run), command("collect", "--work_dir=runs", f"--output={output}")
    assert (ended.status, ended.err) == (0, ""), ended
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = [row for row in rows if row["run"] == str(scene.run.relative_to(scene.folder / "runs"))]
    assert (row["name"], row["status"], row["seed"]) == (scene.kind, STATUS[scene.state], "0")
    summary = json.loads((scene.run / "summary.json").read_text())
    for key in ("test/balanced_accuracy", "test/auroc"):
        if scene.finished:
            assert float(row[key]) == pytest.approx(summary["metrics"][key])
        else:
            assert row.get(key, "") == ""
    assert contents(scene.run) == before


def report(scene: Scene) -> None:
    """The page shows the run and its status, and with its data at hand its surest errors."""
    pytest.importorskip("matplotlib")
    before = contents(scene.folder / "runs")
    ended = command("report", "--work_dir=runs", f"--folder={scene.folder / 'report'}", "--pictured=1")
    assert ended.status == 0 and "Traceback" not in ended.err, ended
    pages = list((scene.folder / "report").rglob("*.html"))
    check_page(scene, pages[0].read_text())
    assert contents(scene.folder / "runs") == before


def watch(scene: Scene) -> None:
    """The server answers with the page, for any run."""
    pytest.importorskip("jinja2")
    from imbalance.report.watch import serve

    before = contents(scene.folder / "runs")
    with serve([scene.folder / "runs"], free_port(), ["balanced_accuracy"], 1) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/", timeout=60) as answer:
            check_page(scene, answer.read().decode())
        server.shutdown()
        thread.join()
    assert contents(scene.folder / "runs") == before


def check_page(scene: Scene, page: str) -> None:
    """Check that a page names the run's config, and how the run ended."""
    assert scene.kind in page and "1 run of 1 setting" in page
    assert ("1 diverged" in page) == scene.diverges
    assert ("1 interrupted" in page) == (scene.state == "interrupted")
    if scene.finished and scene.kind != "own_module":
        with np.load(scene.run / "predictions" / "test.npz") as saved:
            wrong = (saved["logits"].argmax(1) != saved["targets"]).any()
        assert ('"shown":' in page) == (wrong and not scene.about.from_python)


def pretrained(scene: Scene) -> None:
    """Another config starts with the weights of a finished run."""
    config = ConfigDict(scene.config.to_dict())
    config.model = dict(name="pretrained", pretrained=str(scene.run))
    config.optim.lr, config.trainer.epochs = 1e-30, 1
    file = scene.folder / "from_it.json"
    file.write_text(json.dumps(config.to_dict()))
    run = scene.folder / "runs" / "from_it" / "default" / "seed=0"
    act = lambda: from_program(file, run) if scene.about.from_python else command("train", f"--config={file}")  # noqa: E731
    if not scene.finished:
        return scene.expect_no_model(act)
    if scene.kind == "own_module":
        return scene.expect_refusal(act, "name the function in config.model.name, and load the weights there")
    before, ended = contents(scene.run), act()
    assert ended.status == 0, ended
    ours, theirs = (torch.load(d / "checkpoints" / "selected.pt", weights_only=True) for d in (run, scene.run))
    shared = [key for key in theirs if key.startswith("features.")]
    assert shared and all(torch.equal(ours[key], theirs[key]) for key in shared)
    assert contents(scene.run) == before
    return None


COMMANDS: Mapping[str, Callable[[Scene], None]] = {
    "train": train,
    "repeat": repeat,
    "kill": kill,
    "resume_elsewhere": resume_elsewhere,
    "verify": verify,
    "describe": describe,
    "predict": predict,
    "export": export,
    "features": extract,
    "failures": failures,
    "compare": compare,
    "sweep": sweep,
    "select": select,
    "shift": shift,
    "report": report,
    "watch": watch,
    "collect": collect,
    "load": load_model,
    "pretrained": pretrained,
}
