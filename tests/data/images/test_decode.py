"""Image files that cannot be read, and worker processes whose parent has gone."""

import os
import threading
from types import SimpleNamespace

import pytest

from imbalance.data.images import decode


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.png", "^no such file$"),
        (f"{'long' * 100}.png", "^File name too long$"),
        ("a/b.png", "^Not a directory$"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name, words):
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match=words):
        decode.read_image(tmp_path / name)


def test_a_worker_ends_when_its_parent_does(monkeypatch):
    gone, codes, exited = threading.Event(), [], threading.Event()
    parent = SimpleNamespace(join=lambda: gone.wait(10))
    monkeypatch.setattr(decode.multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), exited.set()))
    decode.end_with_parent()
    assert not codes
    gone.set()
    assert exited.wait(10) and codes == [1]
