"""Every file of every kind of run directory and store is damaged in seven ways, and every command that reads it is run.

A command then does one of three things: it ends with status 2 and one line that names the file, and changes no other file; it
writes the file again, and ends as without the damage; or, if it looks at many runs, it says that the run is damaged.
`--every-fault` tries all pairs of a damage and a command. Otherwise each damage of a file meets the next command, and a
third of the damages of run directories is tried.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers.data_files import make_folder, people, write_arrow
from helpers.jobs import at_call
from helpers.texts import text_config
from ml_collections import ConfigDict

from imbalance.cli.main import call
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.config.run_directory import read_summary
from imbalance.deploy import extract_features
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.report.watch import WatchedRuns
from imbalance.training import loop
from imbalance.training.learner import load_dataset

ROOT = Path(__file__).parent.parent
RUN = Path("work/experiment/default/seed=0")
SECONDS = 30  # after which a command hangs
Command = Callable[[Path], tuple[int, object]]  # from the folder of a kind to the exit status and the comparable result


class Outcome(NamedTuple):
    """Exit status of a command, its result in a form that can be compared, and its output."""

    status: int
    result: object
    out: str
    err: str

    def warnings(self) -> int:
        """Return how often the output says that a file is damaged or left out."""
        return sum((self.out + self.err).count(words) for words in ("damaged", "is left out", "cannot be read"))


class Kind(NamedTuple):
    """Kind of run directory or store.

    make: function that writes an example into a folder.
    damaged: the folder in it whose files are damaged.
    commands: the commands that read the files, by name.
    digests: whether the files have digests; those of older versions have none.
    """

    make: Callable[[Path, pytest.MonkeyPatch], None]
    damaged: str
    commands: dict[str, Command]
    digests: bool = True


# Examples of each kind


def experiment(folder: Path, **sections: dict) -> ConfigDict:
    config = load(ROOT / "configs" / "digits_poly.py")
    config.work_dir = str(folder / "work")
    config.data.update(total=60, imbalance_ratio=2.0)
    config.model = dict(name="linear", init="zeros")
    config.trainer.update(epochs=2, batch_size=30, eval_every=1, eval_splits=("val", "test"))
    config.callbacks.update(keep_logits=True, checkpoint_minutes=1e-9)
    for name, values in sections.items():
        config[name] = ConfigDict(values) if "name" in values else config[name]
        config[name].update(values)
    save(config, folder)
    np.save(folder / "inputs.npy", np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32))
    return config


def save(config: ConfigDict, folder: Path) -> None:
    (folder / "experiment.json").write_text(json.dumps(config.to_dict()))


def make_run(folder: Path, patch: pytest.MonkeyPatch) -> None:
    loop.train(experiment(folder), folder / RUN)


def make_old_run(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A run of a version that recorded no digests."""
    make_run(folder, patch)
    summary = read_summary(folder / RUN)
    del summary["files"]
    (folder / RUN / "summary.json").write_text(json.dumps(summary))
    about = json.loads((folder / RUN / "model.json").read_text())
    del about["weights"], about["digest"]
    (folder / RUN / "model.json").write_text(json.dumps(about))


def make_two_stages(folder: Path, patch: pytest.MonkeyPatch) -> None:
    weights = {"name": "just_train_twice", "first_epochs": 1, "upweight": 2.0}
    loop.train(experiment(folder, weights=weights), folder / RUN)


def make_own_model(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "own_model.py").write_text(
        "from torch import nn\nfrom imbalance.models import with_head\n"
        "def f(input_shape, num_classes):\n    return with_head(nn.Flatten(), 64, num_classes)\n"
    )
    model = {"name": f"{folder / 'own_model.py'}:f"}
    loop.train(experiment(folder, model=model), folder / RUN)


def make_interrupted(folder: Path, patch: pytest.MonkeyPatch) -> None:
    config = experiment(folder)
    at_call(patch, loop, "take_step", 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        loop.train(config, folder / RUN)


def make_diverged(folder: Path, patch: pytest.MonkeyPatch) -> None:
    config = experiment(folder)
    config.optim.lr = 1e38
    save(config, folder)
    with pytest.raises(Diverged):
        loop.train(config, folder / RUN)


def make_images(folder: Path, patch: pytest.MonkeyPatch) -> None:
    make_folder(folder, parts=("train", "val", "test"), n=2)
    config = load(ROOT / "configs" / "folder_erm.py")
    config.data_dir = str(folder)
    config.data.update(
        folder="birds", val_fraction=0.0, test_fraction=0.0, resize=20, size=16, images_from="store", augment=()
    )
    config.model = dict(name="linear", init="zeros")
    save(config, folder)
    assert loaded(folder)[0] == 0


def make_texts(folder: Path, patch: pytest.MonkeyPatch) -> None:
    save(text_config(folder), folder)
    assert loaded(folder)[0] == 0


def make_encoded_table(folder: Path, patch: pytest.MonkeyPatch) -> None:
    config = load(ROOT / "configs" / "arrays_erm.py")
    config.data_dir = str(folder)
    config.data.update(file="people.arrow", target="income", classes=("low", "high"), attributes=("sex",), split="split",
                       numeric=(), categorical=(), missing=("", "?"), val_fraction=0.0, test_fraction=0.0)  # fmt: skip
    write_arrow(folder / "people.arrow", people())
    save(config, folder)
    assert loaded(folder)[0] == 0


def make_features(folder: Path, patch: pytest.MonkeyPatch) -> None:
    experiment(folder)
    assert extracted(folder)[0] == 0


def make_partial_features(folder: Path, patch: pytest.MonkeyPatch) -> None:
    experiment(folder)
    patch.setattr(extract_features, "SAVE_SECONDS", 0)
    at_call(patch, extract_features.TrainedModel, "features", 4, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert extracted(folder)[0] == 130


# Commands


def train(folder: Path) -> tuple[int, object]:
    status = call(["train", f"--config={folder / 'experiment.json'}", f"--config.work_dir={folder / 'work'}"])
    if status not in (0, 3):
        return status, None
    summary = read_summary(folder / RUN)
    return status, (summary["score"], summary["metrics"] if status == 0 else None)


def repeat(folder: Path) -> tuple[int, object]:
    status = call(["train", f"--config={folder / RUN / 'config.json'}", f"--config.work_dir={folder / 'work'}"])
    return status, read_summary(folder / RUN)["score"] if status == 0 else None


def predict(folder: Path) -> tuple[int, object]:
    output = folder / "predictions.csv"
    status = call(["predict", str(folder / RUN), str(folder / "inputs.npy"), f"--output={output}"])
    return status, [row[1:] for row in csv.reader(output.read_text().splitlines())] if status == 0 else None


def select(folder: Path) -> tuple[int, object]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = call(["select", f"--work_dir={folder / 'work'}"])
    return status, printed.getvalue()


def collect(folder: Path) -> tuple[int, object]:
    status = call(["collect", f"--work_dir={folder / 'work'}", f"--output={folder / 'runs.csv'}"])
    text = (folder / "runs.csv").read_text() if status == 0 else ""
    print(text)
    return status, text


def watch(folder: Path) -> tuple[int, object]:
    try:
        text = WatchedRuns([folder / "work"], ["balanced_accuracy"], 2).page()
    except (BadInput, OSError) as error:  # the server answers with the error
        return refused(error)
    print(text.partition("<main")[2] or text)
    return 0, re.sub(r'data-live="\w+"', "", text.replace(str(folder), ""))  # the stamp of files includes inodes


def pretrained(folder: Path) -> tuple[int, object]:
    config = experiment(folder.with_name("pretrained"), model={"name": "pretrained", "pretrained": str(folder / RUN)})
    return call(["train", f"--config={folder.with_name('pretrained') / 'experiment.json'}", "--dry_run"]), str(
        config.seed
    )


def forensics(folder: Path) -> tuple[int, object]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = call(["forensics", str(folder / RUN)])
    return status, printed.getvalue()


def loaded(folder: Path) -> tuple[int, object]:
    """The exit status of a command that loads the data, and a digest of all inputs."""
    config = validate(load(folder / "experiment.json"))
    try:
        dataset = load_dataset(config)
    except (BadInput, OSError) as error:
        return refused(error)
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.val, dataset.test):
        batch = split.inputs[:]
        for tensor in batch.values() if isinstance(batch, dict) else (batch,):
            digest.update(tensor.numpy().tobytes())
    return 0, digest.hexdigest()


def verify(folder: Path) -> tuple[int, object]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = call(["data", "verify", f"--config={folder / 'experiment.json'}"])
    print(printed.getvalue())
    return status, printed.getvalue()


def extracted(folder: Path) -> tuple[int, object]:
    status = call(["features", f"--config={folder / 'experiment.json'}", f"--output={folder / 'store'}",
                   "--config.trainer.eval_batch_size=200"])  # fmt: skip
    return status, np.load(folder / "store" / "features.npy").tobytes() if status == 0 else None


def heads(folder: Path) -> tuple[int, object]:
    """Load the features in the folder, as a run on them does."""
    config = load(ROOT / "configs" / "features_erm.py")
    config.data.update(folder=str(folder / "store"), standardise=False)
    other = folder.with_name("heads")
    other.mkdir(exist_ok=True)
    save(config, other)
    return loaded(other)


def refused(error: Exception) -> tuple[int, object]:
    print(str(error).replace("\n", " "), file=sys.stderr)
    return 2, None


RUNS = dict(
    train=train, predict=predict, collect=collect, repeat=repeat, watch=watch, select=select, pretrained=pretrained
)
KINDS = {
    "run": Kind(make_run, str(RUN), RUNS),
    "old run": Kind(make_old_run, str(RUN), RUNS, digests=False),
    "two stages": Kind(make_two_stages, str(RUN), dict(train=train)),
    "own model": Kind(make_own_model, str(RUN), dict(predict=predict, train=train)),
    "interrupted": Kind(make_interrupted, str(RUN), dict(train=train, watch=watch)),
    "diverged": Kind(make_diverged, str(RUN), dict(forensics=forensics, collect=collect, train=train)),
    "images": Kind(make_images, "decoded", dict(load=loaded, verify=verify)),
    "encoded table": Kind(make_encoded_table, "decoded", dict(load=loaded, verify=verify)),
    "texts": Kind(make_texts, "decoded", dict(load=loaded, verify=verify)),
    "features": Kind(make_features, "store", dict(heads=heads, extract=extracted)),
    "partial features": Kind(make_partial_features, "store.partial", dict(extract=extracted)),
}
LOGS = ("log.txt", ".lock")  # text for people, and no text


# Damages


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) * 3 // 5] ^= 1
        path.write_bytes(content)


def replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": cut,
    "byte": change_byte,
    "empty": lambda path: path.write_bytes(b"") and None,
    "other type": lambda path: path.write_bytes(b'["a list"]\n') and None,
    "fifo": replace(os.mkfifo),
    "folder": replace(Path.mkdir),
    "device": replace(lambda path: path.symlink_to("/dev/zero")),
}


@pytest.fixture(scope="module", params=KINDS)
def example(request, tmp_path_factory) -> tuple[Kind, Path, dict[str, Outcome]]:
    """A kind, a folder with an example of it, and the outcome of each command on it."""
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("kind") / "example"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        kind.make(folder, patch)
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept, symlinks=True)
    results = {}
    for name, command in kind.commands.items():
        results[name] = run(command, folder)
        restore(kept, folder)
    return kind, kept, results


def restore(kept: Path, folder: Path) -> None:
    """Make `folder` a copy of `kept`; paths in a run must stay, so it is always the same folder."""
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    for name in ("heads", "pretrained"):
        shutil.rmtree(folder.with_name(name), ignore_errors=True)
        folder.with_name(name).mkdir()


def run(command: Command, folder: Path) -> Outcome:
    """Run a command on a folder, and fail if it hangs."""
    out, err = io.StringIO(), io.StringIO()
    folder.with_name("pretrained").mkdir(exist_ok=True)

    def hang(*_) -> None:
        raise AssertionError(f"hangs for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status, result = command(folder)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(status, result, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_char_device()
    }


def problem(
    command: Command, file: Path, folder: Path, outcome: Outcome, expected: Outcome, before: dict[str, bytes]
) -> str:
    """Return the reason why the outcome of a command on the damaged `file` is wrong; "" if it is right."""
    status, result, out, err = outcome
    name, said = file.name, out + err
    err = re.sub(r"^reading the logits of .*\n", "", err)  # what `select` says before it reads
    if status == 2:
        left_out = "is left out" in err and err.count("\n") == 2  # and then no run is left
        reported = not err and re.search(r"\b[1-9]\d* problems", out)  # what `verify` found is on stdout
        if err.count("\n") != 1 and not left_out and not reported:
            return f"not one line: {err!r}"
        if not any(str(part) in said for part in (file, file.parent)) and "no finished run" not in err:
            return f"does not name the file: {err!r}"
        after = contents(folder)
        lost = [key for key in before if after.get(key) != before[key] and Path(key) != file.relative_to(folder)]
        lost = [key for key in lost if Path(key).name not in (*LOGS, "checked.json", "stamps.npy")]
        return f"lost {lost}" if lost else ""
    if status == expected.status and (result == expected.result or name in LOGS):
        return ""
    unfinished = name == "metrics.jsonl" and read_summary(folder / RUN)["status"] != "done"
    if command in (watch, collect) and unfinished:  # a run that was killed may end with any line
        return ""
    if status in (0, 1) and outcome.warnings() > expected.warnings():
        return ""
    return f"status {status}, another result, and nothing said about {name}: {said[-600:]!r}"


def test_no_damaged_file_is_trusted_or_takes_another_with_it(example, request, capsys):
    kind, kept, expected = example
    folder, problems, tried = kept.with_name("example"), [], 0
    names, every = list(kind.commands), request.config.getoption("--every-fault")
    files = sorted(path.relative_to(kept) for path in (kept / kind.damaged).rglob("*") if path.is_file())
    for number, name in enumerate(files):
        for way, damage in enumerate(DAMAGES):
            if not every and kind.damaged == str(RUN) and (number + way) % 3:
                continue
            if damage == "byte" and not kind.digests and name.suffix in (".json", ".jsonl", ".npy"):
                continue  # a byte of text can change to another that is as good
            for command in names if every else [names[(number + way) % len(names)]]:
                restore(kept, folder)
                DAMAGES[damage](folder / name)
                before = contents(folder)
                try:
                    outcome = run(kind.commands[command], folder)
                    wrong = problem(kind.commands[command], folder / name, folder, outcome, expected[command], before)
                except Exception as error:
                    wrong = f"{type(error).__name__}: {error}"[:400]
                tried += 1
                if wrong:
                    problems.append(f"{name}, {damage}, {command}: {wrong}")
    with capsys.disabled():
        print(f"\n{tried} damages of {len(files)} files")
    assert not problems, f"{len(problems)} of {tried}:\n" + "\n".join(problems)
