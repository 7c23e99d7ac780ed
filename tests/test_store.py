"""The decoded store: the same pixels as torchvision's transforms, whole or not there, checked when it is opened."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import save_image
from PIL import Image

from imbalance.data import store
from imbalance.data.decode import Recipe, decode
from imbalance.data.splits import Dataset, class_split, normaliser
from imbalance.data.store import Stored, damage, open_store
from imbalance.errors import BadInput
from imbalance.torchvision_import import import_torchvision

RECIPE = Recipe("RGB", (("shorter", 20), ("crop", 16)))


@pytest.fixture
def images(tmp_path) -> list[str]:
    names = [f"{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        save_image(tmp_path / "images" / name, (40 + i, 31), seed=i)
    return names


def opened(tmp_path: Path, images: list[str], recipe: Recipe = RECIPE) -> np.ndarray:
    return open_store(str(tmp_path), "some", tmp_path / "images", images, recipe, lambda row: f"list line {row + 2}")


def directory(tmp_path: Path) -> Path:
    (found,) = (path for path in (tmp_path / "decoded").iterdir() if path.is_dir())
    return found


@pytest.mark.parametrize("size", [(41, 33), (178, 218), (50, 50), (33, 90)])
def test_pixels_are_those_of_torchvision(tmp_path, size):
    transforms = import_torchvision().transforms
    path = save_image(tmp_path / "image.png", size)
    image = Image.open(path)
    for recipe, theirs in (
        (RECIPE, [transforms.Resize(20), transforms.CenterCrop(16)]),
        (Recipe("RGB", (("square", 18), ("crop", 15))), [transforms.Resize((18, 18)), transforms.CenterCrop(15)]),
        (Recipe("RGB", (("crop", 33), ("square", 24))), [transforms.CenterCrop(33), transforms.Resize((24, 24))]),
    ):
        expected = transforms.Compose([*theirs, transforms.PILToTensor()])(image)
        assert torch.equal(torch.from_numpy(decode(path, recipe).copy()), expected)
        assert recipe.shape == tuple(expected.shape)


def test_rows_are_the_images_in_order_and_batches_are_gathered(tmp_path, images):
    pixels = opened(tmp_path, images)
    expected = np.stack([decode(tmp_path / "images" / name, RECIPE) for name in images])
    assert (pixels == expected).all()
    stored = Stored(pixels, torch.tensor([7, 2, 9, 0]), torch.device("cpu"), torch.contiguous_format)
    assert stored.shape == (4, 3, 16, 16)
    assert (stored[torch.tensor([3, 0, 0])].numpy() == expected[[0, 7, 7]]).all()
    assert (stored[1:3].numpy() == expected[[2, 9]]).all()
    assert (stored.subset(torch.tensor([2, 1]))[:].numpy() == expected[[9, 2]]).all()
    last = stored.to(torch.device("cpu"), torch.float32, memory_format=torch.channels_last)
    assert last[0:2].is_contiguous(memory_format=torch.channels_last)


def test_images_are_decoded_once(tmp_path, images, monkeypatch):
    opened(tmp_path, images)
    monkeypatch.setattr(store, "build", lambda *_: pytest.fail("built again"))
    opened(tmp_path, images)


def test_another_recipe_list_file_or_version_is_another_store(tmp_path, images, monkeypatch):
    opened(tmp_path, images)
    opened(tmp_path, images, Recipe("RGB", (("shorter", 24), ("crop", 16))))
    opened(tmp_path, images, Recipe("RGB", (("shorter", 20), ("crop", 12))))
    opened(tmp_path, images[::-1])
    before = opened(tmp_path, images)[0].copy()
    save_image(tmp_path / "images" / images[0], (44, 31), seed=99)
    assert (opened(tmp_path, images)[0] != before).any()
    os.utime(tmp_path / "images" / images[0], (0, 0))  # as many bytes, changed at another time
    opened(tmp_path, images)
    monkeypatch.setattr(store, "VERSION", 2)
    opened(tmp_path, images)
    assert len(list((tmp_path / "decoded").glob("*/store.json"))) == 7


def test_workers_make_the_same_store(tmp_path, images, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    pixels = opened(tmp_path, images)
    assert (pixels == np.stack([decode(tmp_path / "images" / name, RECIPE) for name in images])).all()
    assert damage(directory(tmp_path), (10, 3, 16, 16), 0) == []


def die(**_):
    os._exit(1)


def test_a_worker_that_dies_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(store, "get_context", lambda _: multiprocessing.get_context("fork"))  # quicker than "spawn"
    with pytest.raises(BadInput, match="^decoding: a worker process died: out of memory"):
        store.run_chunks(die, tmp_path, ["image.png"] * 5, RECIPE, "decoding")


def test_the_map_is_read_only(tmp_path, images):
    pixels = opened(tmp_path, images)
    with open("/proc/self/maps") as maps:
        assert {line.split()[1] for line in maps if "images.u8" in line} == {"r--s"}
    del pixels


@pytest.mark.parametrize("change", ["flip", "cut", "longer", "description", "checksums", "no checksums"])
def test_damage_is_found_on_opening(tmp_path, images, change):
    opened(tmp_path, images)
    folder = directory(tmp_path)
    pixels = folder / "images.u8"
    if change == "flip":
        content = bytearray(pixels.read_bytes())
        content[5000] ^= 1
        pixels.write_bytes(content)
    elif change == "cut":
        os.truncate(pixels, 5000)
    elif change == "longer":
        pixels.write_bytes(pixels.read_bytes() + b"\0")
    elif change == "description":
        description = json.loads((folder / "store.json").read_text())
        (folder / "store.json").write_text(json.dumps(description | {"version": 0}))
    elif change == "checksums":
        np.save(folder / "checksums.npy", np.zeros(10, dtype=np.uint32))
    else:
        (folder / "checksums.npy").unlink()
    with pytest.raises(BadInput, match=r"remove .*some-16-"):
        opened(tmp_path, images)


def test_every_row_is_compared_when_asked(tmp_path, images):
    opened(tmp_path, images)
    folder = directory(tmp_path)
    content = bytearray((folder / "images.u8").read_bytes())
    for row in (1, 4):
        content[row * 768 + 3] ^= 1
    (folder / "images.u8").write_bytes(content)
    assert damage(folder, (10, 3, 16, 16), sampled=2) == []  # the first and the last row
    assert [line.split()[2] for line in damage(folder, (10, 3, 16, 16), sampled=0)] == ["1", "4"]
    checksums = np.load(folder / "checksums.npy")
    checksums[4] += 1
    np.save(folder / "checksums.npy", checksums)
    (problem,) = damage(folder, (10, 3, 16, 16), sampled=2)
    assert problem.endswith("store.json: checksums is not that of its files")


def test_a_missing_and_a_truncated_image_are_named_with_their_line(tmp_path, images):
    path = save_image(tmp_path / "images" / "cut.jpg", (60, 60))
    for size in (path.stat().st_size - 60, 200):
        os.truncate(path, size)
        with pytest.raises(BadInput, match=r"^list line 4: cut.jpg: damaged, or not whole"):
            opened(tmp_path, [*images[:2], "cut.jpg"])
    with pytest.raises(BadInput, match=r"^list line 3: gone.png: no such file or directory \(and 1 more: .* verify"):
        opened(tmp_path, [images[0], "gone.png", "gone too.png", "cut.jpg"])
    assert list((tmp_path / "decoded").glob("*/store.json")) == []
    assert list((tmp_path / "decoded").glob("*.building")) == []


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: save_image(path, mode="L"), "mode L, not RGB"),
        (lambda path: save_image(path, mode="RGBA"), "mode RGBA, not RGB"),
        (lambda path: save_image(path, mode="P"), "mode P, not RGB"),
        (lambda path: path.write_text("<html>Quota exceeded</html>"), "not an image"),
        (lambda path: path.write_bytes(b""), "not an image"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_what_is_no_rgb_image_is_named(tmp_path, images, make, reason):
    make(tmp_path / "images" / "odd.png")
    with pytest.raises(BadInput, match=f"^list line 3: odd.png: .*{reason}"):
        opened(tmp_path, [images[0], "odd.png"])


@pytest.mark.parametrize("error", [OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError])
def test_whatever_a_codec_raises_names_the_file(tmp_path, images, monkeypatch, error):
    def load(_):
        raise error("odd chunk")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(BadInput, match=r"^list line 2: 0.png: damaged, or not whole \(odd chunk\)"):
        opened(tmp_path, images)


def test_a_crop_larger_than_the_image_is_refused(tmp_path, images):
    with pytest.raises(BadInput, match="40×31 pixels, too few for a crop of 32×32"):
        opened(tmp_path, images, Recipe("RGB", (("crop", 32), ("square", 16))))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, images, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(BadInput, match=r"the decoded images take 0.0 MB, and the disk of .* free$"):
            opened(tmp_path, images)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(BadInput, match=r"had 0.0 MB free"):
        opened(tmp_path, images)
    assert [path.suffix for path in (tmp_path / "decoded").iterdir()] == [".lock"]


def test_a_data_dir_that_cannot_be_written_is_one_line(tmp_path, images):
    (tmp_path / "decoded").write_text("a file")
    with pytest.raises(BadInput, match=r"^config.data_dir: cannot write .*decoded"):
        opened(tmp_path, images)


def test_a_killed_build_is_not_taken_for_whole_and_is_cleared_away(tmp_path, images):
    child = os.fork()
    if not child:
        decoded = store.run_chunks

        def die(*args, **kwargs):
            decoded(*args, **kwargs)  # every pixel is written by now
            os.kill(os.getpid(), signal.SIGKILL)

        store.run_chunks = die
        opened(tmp_path, images)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list((tmp_path / "decoded").glob("*.building/images.u8"))) == 1
    assert list((tmp_path / "decoded").glob("*/store.json")) == []
    pixels = opened(tmp_path, images)
    assert (pixels[3] == decode(tmp_path / "images" / images[3], RECIPE)).all()
    assert list((tmp_path / "decoded").glob("*.building")) == []


def test_of_two_that_build_at_once_one_does_and_the_other_waits(tmp_path, images, monkeypatch, capsys):
    builds, go, decoded = [], threading.Event(), store.run_chunks

    def slow(*args, **kwargs):
        builds.append(threading.get_ident())
        assert go.wait(60)
        return decoded(*args, **kwargs)

    monkeypatch.setattr(store, "run_chunks", slow)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(opened, tmp_path, images) for _ in range(2)]
        printed = ""
        while "waiting for another process" not in printed and not all(future.done() for future in futures):
            time.sleep(0.01)
            printed += capsys.readouterr().err
            if len(builds) > 1:
                break
        go.set()
        first, second = (future.result() for future in futures)
    assert len(builds) == 1
    assert (first == second).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_normalising_is_subtracting_and_dividing(dtype, layout, count):
    raw = torch.randint(0, 256, (count, 3, 300, 500), dtype=torch.uint8).to(memory_format=layout)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    labels = np.arange(count)
    splits = [class_split(raw, labels, labels)] * 3
    normalise = normaliser(Dataset(*splits, ("0",), ("0",), mean, std), torch.device("cpu"), dtype)
    for batch in (raw, raw.to(torch.float32)):
        result = normalise(batch)
        assert result.dtype == dtype and result.shape == raw.shape
        expected = (raw.numpy() / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
        assert not count or result.is_contiguous(memory_format=layout)
