"""Every command on every kind of data in every state of a run: see tests/crossings.py, which has a line for each."""

import json
import shutil
import signal
from pathlib import Path

import crossings
import pytest
from crossings import COMMANDS, KINDS, STATES, STOP_STEP, Scene, base, command, from_program, make_old
from helpers.jobs import at_call

from imbalance.training import loop

ALL = [(kind, name, state) for kind in KINDS for name in COMMANDS for state in STATES]


def is_sampled(crossing: tuple[str, str, str]) -> bool:
    """Return whether a crossing is in the sample, in which every two of kind, command and state meet."""
    kind, name, state = crossing
    return (list(KINDS).index(kind) + list(COMMANDS).index(name)) % len(STATES) == STATES.index(state)


def test_the_sample_has_every_pair():
    sample = [crossing for crossing in ALL if is_sampled(crossing)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pairs = {(crossing[first], crossing[second]) for crossing in ALL}
        assert {(crossing[first], crossing[second]) for crossing in sample} == pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function from a kind and a state to a folder with data and a run, each made once."""
    root, folders = tmp_path_factory.mktemp("crossings"), {}

    def make(kind: str, state: str) -> Path:
        if (kind, state) not in folders:
            folder = root / f"{kind}-{state}"
            if state == "old":
                shutil.copytree(make(kind, "done"), folder)
                make_old(folder / "runs" / kind / "default" / "seed=0")
            else:
                folder.mkdir()
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(folder)
                    make_run(kind, state, folder, patch)
            folders[kind, state] = folder
        return folders[kind, state]

    return make


def make_run(kind: str, state: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Write the data of a kind and its config into `folder`, and train a run to a state."""
    name, about = KINDS[kind]
    config = base(name, folder)
    about.make(folder, config)
    config.data_dir, config.work_dir = ".", "runs"
    if state == "diverged":
        config.optim.lr = 1e308
    file = folder / f"{kind}.json"
    file.write_text(json.dumps(config.to_dict()))
    if state == "interrupted":
        at_call(patch, loop, "take_step", STOP_STEP, lambda: signal.raise_signal(signal.SIGTERM))
    if about.from_python:
        ended = from_program(file, folder / "runs" / kind / "default" / "seed=0")
    else:
        ended = command("train", f"--config={file}")
    assert ended.status == {"done": 0, "diverged": 3, "interrupted": 143}[state], ended


def pytest_generate_tests(metafunc):
    """Cross all with --every-crossing, and else the sample."""
    if "crossing" in metafunc.fixturenames:
        wanted = ALL if metafunc.config.getoption("--every-crossing") else list(filter(is_sampled, ALL))
        metafunc.parametrize("crossing", wanted, ids=["-".join(crossing) for crossing in wanted])


def test_crossing(crossing, made, tmp_path, monkeypatch):
    kind, name, state = crossing
    folder = shutil.copytree(made(kind, state), tmp_path / "here")
    whole = made(kind, "done") / "runs" / kind / "default" / "seed=0"
    crossings.COMMANDS[name](Scene(kind, state, folder, whole, monkeypatch))
