"""Whatever call to the file system fails, a run ends with status 0 or 2, and the same command ends as if none had."""

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import outcome, shorten
from helpers.disk import Call, watched
from helpers.jobs import at_call
from ml_collections import ConfigDict

from imbalance.errors import BadInput, Interrupted
from imbalance.training import loop

ERRORS = errno.ENOSPC, errno.EIO, errno.EINTR


@pytest.fixture
def config(config: ConfigDict, monkeypatch) -> ConfigDict:
    return shorten(config, monkeypatch)


def train(config: ConfigDict, directory: Path, before: Callable[[Call], int | None]) -> int:
    """The exit status that main.py would end with; any other error is ours, and fails the test."""
    with watched(directory, before):
        try:
            loop.train(config, directory)
        except (BadInput, OSError):
            return 2
    return 0


class Fault:
    """The `number`-th call fails with `error`, and if `lasting` all after it; a write is `cut` in the middle before."""

    def __init__(self, number: int, error: int, lasting: bool = False, cut: bool = False):
        self.number, self.error, self.lasting, self.cut, self.calls = number, error, lasting, cut, []

    def __call__(self, call: Call) -> int | None:
        self.calls.append(call)
        since = len(self.calls) - self.number
        if self.cut and since == 0 and call.name == "write":
            return len(call.argument) // 2
        if since == self.cut or (since > 0 and self.lasting):
            raise OSError(self.error, os.strerror(self.error), call.path)
        return None


def faults(size: int, long: bool) -> list[Fault]:
    """Every call of `size` with every error, and on a disk that stays full; for a quick look a sample of them."""
    if long:
        kinds = [dict(error=error) for error in ERRORS]
        kinds += [dict(error=errno.ENOSPC, lasting=lasting, cut=cut) for lasting, cut in ((0, 1), (1, 0), (1, 1))]
        return [Fault(n, **kind) for n in range(1, size + 1) for kind in kinds]
    choose = random.Random(size)
    once = [Fault(n, choose.choice(ERRORS)) for n in sorted(choose.sample(range(1, size + 1), size // 4))]
    return once + [Fault(choose.randint(1, size), errno.ENOSPC, lasting=True, cut=True) for _ in range(size // 20)]


@pytest.mark.parametrize("begun", [0, 1, 3], ids=["new", "resumed", "resumed-to-evaluate"])
def test_a_call_that_fails_loses_nothing(config, tmp_path, monkeypatch, begun, request, capsys):
    """begun: the step that hears of a signal, so that one more is done; 0: none, the run is new."""
    none, whole, before = Fault(0, 0), tmp_path / "whole", tmp_path / "before"
    assert train(config, whole, Fault(0, 0)) == 0
    expected = outcome(whole)
    if begun:
        with monkeypatch.context() as patch:
            at_call(patch, torch.optim.SGD, "step", begun, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(Interrupted):
                loop.train(config, before)
    else:
        before.mkdir()
    shutil.copytree(before, tmp_path / "counted")
    assert train(config, tmp_path / "counted", none) == 0
    ended = {0: 0, 2: 0}
    for number, fault in enumerate(faults(len(none.calls), request.config.getoption("--every-fault"))):
        directory = tmp_path / str(number)
        shutil.copytree(before, directory)
        status = train(config, directory, fault)
        where = f"{fault.error} at call {fault.number}, {fault.calls[fault.number - 1]}"[:300]
        assert len(fault.calls) >= fault.number, where
        if status:
            assert train(config, directory, Fault(0, 0)) == 0, where
        assert outcome(directory) == expected, where
        assert not list(directory.rglob("*.tmp")), where
        ended[status] += 1
        shutil.rmtree(directory)
    with capsys.disabled():
        print(
            f"\n{sum(ended.values())} faults among {len(none.calls)} calls: {ended[0]} runs went on, {ended[2]} said why not"
        )
    assert all(ended.values())
