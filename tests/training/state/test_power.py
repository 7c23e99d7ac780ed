"""The power fails: what was not synced is lost or torn, and yet a whole checkpoint is found, at every moment."""

import itertools
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.checkpoints import ONE, THREE, TWO, Warnings, load, outcome, shorten
from helpers.disk import Call, watched
from ml_collections import ConfigDict

from imbalance.training import loop
from imbalance.training.state import checkpoint


@pytest.fixture
def config(config: ConfigDict, monkeypatch) -> ConfigDict:
    return shorten(config, monkeypatch)


@dataclass
class File:
    """Its bytes, and those that a sync has brought to the disk."""

    data: bytes = b""
    synced: bytes = b""

    def after_power_loss(self) -> list[bytes]:
        """What may be there: what was synced, all, half of what is new, or zeros in its place."""
        kept = next((i for i, (a, b) in enumerate(zip(self.data, self.synced)) if a != b), len(self.synced))
        half = self.data[: (kept + len(self.data)) // 2]
        return list(dict.fromkeys([self.synced, self.data, half, self.data[:kept].ljust(len(self.data), b"\0")]))


FOLDER, GONE = "folder", "gone"
State = dict[Path, bytes | str]


class Disk:
    """A file system that promises no more than POSIX: a sync of a file keeps its bytes, one of a folder its names.

    Each change to the names of a folder since its last sync has reached the disk or not, whatever became of the others.
    """

    def __init__(self, root: Path):
        self.names = {root: FOLDER}  # what each path is, as programs see it
        self.kept = dict(self.names)  # as the disk has it
        self.pending: list[dict[Path, File | str]] = []  # changes of which nobody knows

    def do(self, call: Call) -> None:
        path, there = call.path, self.names.get(call.path, GONE)
        if call.name == "mkdir" and there is GONE and path.parent in self.names:
            self.change({path: FOLDER})
        elif call.name == "create":
            self.change({path: File()})
        elif call.name == "empty":
            there.data = b""
        elif call.name == "truncate":
            there.data = there.data[: call.argument]
        elif call.name == "write":
            start = len(there.data) if call.position is None else call.position
            there.data = (
                there.data[:start].ljust(start, b"\0") + call.argument + there.data[start + len(call.argument) :]
            )
        elif call.name == "replace":
            self.change({Path(call.argument): there, path: GONE})
        elif call.name == "unlink" and there is not GONE:
            self.change({path: GONE})
        elif call.name == "fsync" and there is FOLDER:
            self.kept |= {name: what for change in self.pending for name, what in change.items() if name.parent == path}
            self.pending = [change for change in self.pending if next(iter(change)).parent != path]
        elif call.name == "fsync":
            there.synced = there.data

    def change(self, names: dict[Path, File | str]) -> None:
        self.pending.append(names)
        self.names |= names

    def states(self) -> Iterator[State]:
        """All that the next start may find."""
        for happened in itertools.product((False, True), repeat=len(self.pending)):
            names = dict(self.kept)
            for change in itertools.compress(self.pending, happened):
                names |= change
            there = {path: what for path, what in names.items() if what is not GONE}
            there = {
                path: what for path, what in there.items() if there.keys() >= set(path.parents) & self.names.keys()
            }
            variants = [what.after_power_loss() if isinstance(what, File) else [what] for what in there.values()]
            for contents in itertools.product(*variants):
                yield dict(zip(there, contents))


def write(state: State, root: Path, copy: Path) -> None:
    """Lay `state` of what was under `root` out under `copy`."""
    shutil.rmtree(copy, ignore_errors=True)
    for path, content in sorted(state.items()):  # folders before what is in them
        path = copy / path.relative_to(root)
        path.mkdir() if content is FOLDER else path.write_bytes(content)


def recorded(root: Path, function) -> list[Call]:
    """The calls under `root` that `function` makes."""
    calls = []

    def record(call: Call) -> None:
        calls.append(call._replace(argument=bytes(call.argument)) if call.name == "write" else call)

    with watched(root, record):
        function()
    return calls


def test_a_checkpoint_that_was_saved_is_found_whatever_the_power_does(tmp_path):
    """In every state that the disk can be in, of every moment of four saves."""
    root, copy, calls, saved = tmp_path / "root", tmp_path / "copy", [], []
    root.mkdir()
    for state in (ONE, TWO, THREE, ONE | {"n": 4}):
        calls += recorded(root, lambda state=state: checkpoint.save(root / "run" / "checkpoints" / "last.pt", state))
        saved += [state["n"] - 1] * (len(calls) - len(saved))  # what has been saved before each call
    disk, seen = Disk(root), set()
    for call, before in zip([*calls, None], [*saved, 4]):
        for state in disk.states():
            key = before, frozenset(state.items())
            if key in seen:
                continue
            seen.add(key)
            write(state, root, copy)
            found = load(copy / "run" / "checkpoints" / "last.pt", Warnings())
            found = found["n"] if found else 0
            assert found in (before, before + 1), f"{found} found, {before} saved, at {call}"
        if call:
            disk.do(call)
    print(f"{len(seen)} states of {len(calls)} calls")
    assert len(seen) > 30


@pytest.mark.parametrize("saves", [True, False], ids=["with-checkpoints", "without"])
def test_a_run_ends_the_same_whatever_the_power_does(config, tmp_path, monkeypatch, saves, request, capsys):
    """The same command goes on from any state that the disk can be in; a sample of those of some moments."""
    root, copy = tmp_path / "root", tmp_path / "copy"
    root.mkdir()
    with monkeypatch.context() as patch:
        if not saves:
            patch.setattr(checkpoint, "save_run", lambda *_: None)
        calls = recorded(root, lambda: loop.train(config, root / "runs" / "run"))
    expected, choose, long = outcome(root / "runs" / "run"), random.Random(0), request.config.getoption("--every-fault")
    moments = range(len(calls) + 1)
    moments = moments if long else {*choose.sample(moments, len(calls) // 6), len(calls)}
    disk, tried = Disk(root), 0
    for moment, call in enumerate([*calls, None]):
        states = list(disk.states()) if moment in moments else []
        for state in choose.sample(states, min(len(states), 20 if long else 1 if call else 6)):
            write(state, root, copy)
            loop.train(config, copy / "runs" / "run")
            assert outcome(copy / "runs" / "run") == expected, f"at {call}"
            tried += 1
        if call:
            disk.do(call)
    with capsys.disabled():
        print(f"\n{tried} states of {len(calls)} calls")
