"""Paths of files to write: none of a run's files, no device, and through links."""

import os
from pathlib import Path

import pytest

from imbalance.errors import BadInput
from imbalance.utils.files import begins_with, contains, output_path, write_atomic


@pytest.mark.parametrize(
    "name", ["model.json", "summary.json", "checkpoints/last.pt", "new.csv", "checkpoints/new.pt2"]
)
def test_no_path_inside_a_run_directory_is_written(tmp_path, name):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for file in ("config.json", "model.json", "summary.json", "checkpoints/last.pt"):
        (run / file).write_text("kept")
    (tmp_path / "link").symlink_to(run / name)
    for path in (run / name, tmp_path / "link"):
        with pytest.raises(BadInput, match=f"^--output: .* is inside the run directory {run}; name a path outside it"):
            output_path(path, "--output", lambda path: True)


def test_pipes_devices_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    ends = os.pipe()
    for path in (
        tmp_path / "pipe",
        "/dev/full",
        "/dev/null",
        f"/dev/fd/{ends[1]}",
    ):  # the last is a link, as /dev/stdout is
        with pytest.raises(BadInput, match=f"^--output: {path} is a pipe, a socket or a device, not a file"):
            output_path(path, "--output", lambda path: True)
    for end in ends:
        os.close(end)
    with pytest.raises(BadInput, match="is a folder; name a file"):
        output_path(tmp_path, "--output", lambda path: True)
    with pytest.raises(BadInput, match="in a folder that does not exist; make the folder first"):
        output_path(tmp_path / "no" / "file", "--output", lambda path: True)


def test_a_link_stands_for_the_file_it_links_to(tmp_path):
    (tmp_path / "link").symlink_to("file")
    assert output_path(tmp_path / "link", "--output", lambda path: True) == tmp_path / "file"


def test_a_file_of_another_program_is_kept_and_an_empty_one_is_not(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert output_path(file, "--output", lambda path: begins_with(path, b"x", b"mi")) == file
    with pytest.raises(BadInput, match=f"^--output: {file} exists, and this command did not write it"):
        output_path(file, "--output", lambda path: begins_with(path, b"x", b"mine and more"))
    assert [contains(file, text) for text in (b"ine", b"mine", b"nice")] == [True, True, False]
    file.write_text("")
    assert output_path(file, "--output", lambda path: False) == file


def test_the_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    on_disk, sync, rename = [], os.fsync, Path.replace

    def synced(number):
        on_disk.append(os.fstat(number).st_size)
        sync(number)

    def renamed(path, target):
        assert on_disk == [7]
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
