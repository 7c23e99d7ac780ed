"""One reader for every file: kind, size, format and digest."""

import ast
import errno
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from imbalance.cli.main import call
from imbalance.errors import Damaged
from imbalance.utils import read

# Files of the package itself, of the system or of other programs; a stream that is no file; and writers.
OTHER_READERS = {
    "utils/read.py": "the reader",
    "utils/memory.py": "/proc and /sys",
    "cli/main.py": "docstrings of this package",
    "cli/listing.py": "docstrings of this package and of configs",
    "report/run_index.py": "code of this package",
    "report/page/__init__.py": "style and scripts of the page, and figures that the same command has drawn",
    "deploy/export.py": "a file that the same function has just written",
    "report/plot_style.py": "a figure that the same function has just written",
    "data/download.py": "an archive whose published checksum is compared",
    "data/sets/digits.py": "a file of scikit-learn",
    "data/images/decode.py": "an open image in memory",
    "data/files.py": "gzip of a file that the reader has opened",
    "data/sets/fashion.py": "gzip of a file that the reader has opened",
    "sweep/lease.py": "/proc",
    "bench/": "measurements",
}
READS = {"read_text", "read_bytes", "loadtxt", "load_file", "from_file"}
LOADS = {("np", "load"), ("torch", "load"), ("json", "load"), ("pickle", "load"), ("Image", "open"), ("gzip", "open")}


def direct_reads(source: str) -> list[str]:
    """Return the calls in `source` that read a file without the reader."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function, text = node.func, ast.unparse(node)
        if isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            if function.attr in READS or (owner, function.attr) in LOADS:
                found.append(text)
        elif isinstance(function, ast.Name) and function.id == "open":
            mode = next((ast.literal_eval(arg) for arg in node.args[1:2] if isinstance(arg, ast.Constant)), "r")
            if not set(str(mode)) & set("wax+"):
                found.append(text)
    return found


def test_direct_reads_are_found():
    source = "a.read_text()\nnp.load(f)\nopen(f)\nopen(f, 'wb')\ntorch.load(f)\nread_json(f)\nopen(f, 'r+b')"
    assert direct_reads(source) == ["a.read_text()", "np.load(f)", "open(f)", "torch.load(f)"]


def test_every_file_is_read_by_the_reader():
    package, problems = ROOT / "imbalance", []
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package))
        if name.startswith(("experiments/", "configs/")) or any(name.startswith(other) for other in OTHER_READERS):
            continue
        problems += [f"imbalance/{name}: {call}; use imbalance.utils.read" for call in direct_reads(path.read_text())]
    assert problems == []


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize(
    "function", [read.read_bytes, read.read_text, read.read_json, read.read_arrays, read.map_array, read.read_torch]
)
def test_only_regular_files_are_read(tmp_path, make, function):
    make(tmp_path / "file")
    with pytest.raises(OSError, match=r"a directory|a pipe, a socket or a device"):
        function(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        function(tmp_path / "missing")


def test_each_byte_of_a_sealed_file_counts(tmp_path):
    """A space, or a letter of the key `digest` itself, changes no value."""
    path, values = tmp_path / "file.json", {"a": [1.5, None], 10: "ü", 9: {"b": True}}
    text = json.dumps(read.seal(values), indent=1).encode()
    path.write_bytes(text)
    expected = json.loads(json.dumps(values))
    assert read.read_json(path) == expected
    for place in range(len(text)):
        for bit in (1, 4, 32):
            path.write_bytes(text[:place] + bytes([text[place] ^ bit]) + text[place + 1 :])
            try:
                found = read.read_json(path)
            except Damaged:
                continue
            found = {key: value for key, value in found.items() if key in expected}
            assert found == expected, place


@pytest.mark.parametrize("kind", ["npz", "pt"])
def test_each_byte_of_an_archive_counts(tmp_path, kind):
    """A byte that is no part of the content, as in the date of a member, may change."""
    path = tmp_path / f"file.{kind}"
    array = np.arange(30, dtype=np.float32)
    if kind == "npz":
        np.savez_compressed(path, a=array)
    else:
        torch.save({"a": torch.from_numpy(array)}, path)
    content = path.read_bytes()
    digest = read.short_hash(content)
    load = read.read_npz if kind == "npz" else read.read_torch
    for place in range(0, len(content), 1 if kind == "npz" else 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(Damaged, match="its content is not the one that was written"):
            load(path, digest)
        try:
            found = load(path)
        except Damaged:
            continue
        assert "a" not in found or np.array_equal(np.asarray(found["a"]), array), place


@pytest.mark.parametrize("kind", ["npy", "npz", "pt"])
def test_a_file_cut_anywhere_is_damaged(tmp_path, kind):
    path, array = tmp_path / f"file.{kind}", np.arange(30_000, dtype=np.float32)
    if kind == "pt":
        torch.save({"a": torch.from_numpy(array)}, path)
    elif kind == "npz":
        np.savez(path, a=array)
    else:
        np.save(path, array)
    content = path.read_bytes()
    loads = {"npy": [read.read_array, read.map_array], "npz": [read.read_npz, read.map_npz], "pt": [read.read_torch]}[
        kind
    ]
    for size in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:size])
        for load in loads:
            with pytest.raises(Damaged, match=re.escape(str(path))):
                load(path)


def test_an_error_of_an_open_file_names_the_file(tmp_path):
    """A read from a descriptor fails without the name of the file."""

    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))) as caught:
        read.checked_format(tmp_path / "file", fail)
    assert caught.value.errno == errno.EIO


def test_no_pickled_code_is_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object))
    torch.save(Bomb(), tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Bomb()))
    for path, load in (("a.npy", read.read_array), ("b.pt", read.read_torch), ("c.pt", read.read_torch)):
        with pytest.raises(Damaged):
            load(tmp_path / path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    with open(path, "wb") as file:
        file.truncate(2**40)  # takes no space on the disk
    with pytest.raises(Damaged, match=r"1,099,511,627,776 bytes, and at most"):
        read.read_json(path)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6))
    monkeypatch.setattr("imbalance.utils.memory.available_memory", lambda: 10**6)
    with pytest.raises(ValueError, match="GB are needed"):
        read.read_npz(tmp_path / "a.npz")


def test_deep_json_is_damaged(tmp_path):
    (tmp_path / "file.json").write_text("[" * 100_000)
    with pytest.raises(Damaged, match="no JSON"):
        read.read_json(tmp_path / "file.json")


def test_a_rank_that_is_no_number_is_one_line(monkeypatch, capsys):
    command = [sys.executable, "main.py", "--config=digits_poly", "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"RANK": "abc"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("RANK: 'abc' given in the environment")
    for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "-1")
            assert call(["list", "data"]) == 2
        assert capsys.readouterr().err.startswith(f"{name}: '-1' given in the environment")


def test_commands_of_a_single_process_are_refused_under_a_launcher(monkeypatch, capsys, tmp_path):
    """Two processes of `compare` would train stacked runs in parts, and report other numbers than one process."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            for command in (
                ["compare", "--config=digits_erm"],
                ["select"],
                ["collect"],
                ["sweep", "--config=digits_erm"],
            ):
                assert call([*command, f"--work_dir={tmp_path / 'runs'}"]) == 2
                error = capsys.readouterr().err
                assert error.startswith(f"imbalance {command[0]}: {name}=2 in the environment, as under torchrun")
                assert ("--processes_per_run" in error) == (command[0] == "sweep")
            assert call(["features", "--config=none", "--output=x"]) == 2
            assert "launcher" not in capsys.readouterr().err  # but its own refusal
    assert not list(tmp_path.iterdir())


def test_variables_that_an_ended_launcher_left_are_one_line(monkeypatch, capsys):
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "LOCAL_RANK"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            patch.delenv("MASTER_ADDR", raising=False)
            assert call(["list", "data"]) == 2
            error = capsys.readouterr().err
            assert error.startswith(
                f"{name}: 2 given in the environment, as for several processes, but MASTER_ADDR is not set"
            )
            assert name in error.partition("unset ")[2]
            patch.setenv("MASTER_ADDR", "localhost")
            assert call(["list", "data"]) == 0
            patch.setenv("MASTER_ADDR", "no host")  # torch would look for it for half an hour
            assert call(["list", "data"]) == 2
            assert capsys.readouterr().err.startswith(
                "MASTER_ADDR: 'no host' given in the environment, but no host has this name"
            )
