"""What is written is whole or not there, and what is damaged is not used."""

import errno
import os
import random
import stat
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from helpers.checkpoints import ONE, THREE, TWO, Warnings, load

from imbalance.errors import BadInput
from imbalance.training.state import checkpoint
from imbalance.training.state.provenance import FORMAT
from imbalance.utils import read
from imbalance.utils.files import write_atomic


class Power(BaseException):
    """It fails."""


def test_a_crash_at_any_moment_of_saving_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """The power fails before each call to the system in turn: the newest whole file is the old one or the new."""
    calls = (os, "fsync"), (Path, "replace"), (os, "open"), (Path, "exists")
    found = []
    for number in range(1, 20):
        path = tmp_path / str(number) / "last.pt"
        checkpoint.save(path, ONE)
        checkpoint.save(path, TWO)
        count = 0

        def counted(function, number=number):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == number:
                    raise Power
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for place, name in calls:
                patch.setattr(place, name, counted(getattr(place, name)))
            try:
                checkpoint.save(path, THREE)
            except Power:
                pass
            else:
                break
        warnings = Warnings()
        found.append(load(path, warnings)["n"])
        assert not warnings
    assert len(found) > 5 and found == sorted(found) and set(found) == {2, 3}
    assert load(path, Warnings())["n"] == 3


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "last.pt"
    checkpoint.save(path, ONE)
    checkpoint.save(path, TWO)
    return path


def load_damaged(path: Path, data: bytes) -> tuple[int, Warnings]:
    path.write_bytes(data)
    warnings = Warnings()
    return load(path, warnings)["n"], warnings


def flipped(data: bytes, position: int, bit: int = 0) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


@pytest.mark.parametrize("kept", [0, 1, 100, 4000, -1])
def test_a_truncated_checkpoint_is_passed_over_with_a_warning(path, kept):
    n, warnings = load_damaged(path, path.read_bytes()[:kept])
    assert n == 1
    assert len(warnings) == 1 and warnings[0].startswith(f"WARNING: {path} is damaged")


@pytest.mark.parametrize("part", [b"names", TWO["weight"].numpy().tobytes()[400:440]], ids=["pickle", "tensor"])
def test_a_flipped_bit_is_noticed(path, part):
    data = path.read_bytes()
    assert load_damaged(path, flipped(data, data.index(part)))[0] == 1


def test_a_flipped_bit_that_is_not_noticed_changes_nothing(path):
    """Anywhere, also in the archive's own records, padding and dates."""
    data, choose, noticed = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        n, warnings = load_damaged(path, flipped(data, choose.randrange(len(data)), choose.randrange(8)))
        assert n == (1 if warnings else 2)
        assert warnings or torch.equal(load(path, warnings)["weight"], TWO["weight"])
        noticed += bool(warnings)
    assert noticed > 200


def test_without_a_whole_checkpoint_nothing_is_trained_over(path):
    for file in (path, checkpoint.previous(path)):
        file.write_bytes(b"PK")
    with pytest.raises(BadInput, match="remove both to start anew"):
        load(path, Warnings())


def test_nothing_pickled_is_run(tmp_path):
    torch.save({"n": Path("x")}, tmp_path / "last.pt")
    with pytest.raises(BadInput):
        load(tmp_path / "last.pt", Warnings())


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"after")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "is_said"), [(errno.EIO, True), (errno.EINVAL, False), (errno.EACCES, False)])
def test_a_folder_that_cannot_be_synced_is_said_only_where_others_can(tmp_path, monkeypatch, number, is_said):
    def fail(descriptor: int, fsync=os.fsync) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) if is_said else nullcontext():
        write_atomic(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"


def test_a_disk_that_cannot_be_read_is_not_called_a_damaged_checkpoint(path, monkeypatch):
    """Whoever is asked to remove it would lose what the next try can read."""

    def unreadable(file: Path) -> BinaryIO:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))

    monkeypatch.setattr(read, "open_regular", unreadable)
    with pytest.raises(OSError, match="Input/output error"):
        load(path, Warnings())


@pytest.mark.parametrize(("version", "age"), [(0, "an older"), (FORMAT + 1, "a newer"), ("x", "another")])
def test_a_checkpoint_of_another_format_is_refused_in_words(path, version, age):
    checkpoint.write(path, ONE | {"format": version})
    with pytest.raises(BadInput, match=f"written by {age} version of imbalance"):
        load(path, Warnings())
