"""The decoded store: the same pixels as torchvision's transforms, whole or not there, checked when it is opened."""

import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import struct
import threading
import time
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_files import save_image
from PIL import Image, ImageOps

from imbalance.data import stores
from imbalance.data.images import decode_pool, store
from imbalance.data.images.decode import Recipe, decode, decode_chunk, image_pixels, open_image
from imbalance.data.images.normalise import normaliser
from imbalance.data.images.store import damage, open_store
from imbalance.data.images.stored_images import StoredImages
from imbalance.data.splits import Dataset, class_split
from imbalance.data.stores import StoreCheck
from imbalance.errors import BadInput
from imbalance.utils import workers
from imbalance.utils.torchvision_import import import_torchvision

RECIPE = Recipe("RGB", (("shorter", 20), ("crop", 16)))


@pytest.fixture
def images(tmp_path) -> list[str]:
    names = [f"{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        save_image(tmp_path / "images" / name, (40 + i, 31), seed=i)
    return names


def opened(tmp_path: Path, images: list[str], recipe: Recipe = RECIPE) -> np.ndarray:
    return open_store(
        str(tmp_path), "some", tmp_path / "images", images, recipe, lambda row: f"list line {row + 2}"
    ).images


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


REDUCED = (("reduce", 0), ("convert", 0))


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        ((("shorter", 60), ("crop", 56)), 8),
        ((("shorter", 61), ("crop", 56)), 4),
        ((("square bicubic", 240), ("crop", 200)), 2),
        ((("shorter", 300), ("crop", 56)), 1),
        ((("crop", 60), ("square", 56)), 1),
    ],
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_on_request(tmp_path, steps, part):
    """libjpeg's reduced pixels are about the means of squares of pixels, which Pillow computes from the whole image."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).resize((640, 480)).save(tmp_path / "large.jpg", quality=95, exif=turned)
    content, recipe = (tmp_path / "large.jpg").read_bytes(), Recipe("RGB", REDUCED + steps)
    whole, reduced = open_image(content), open_image(content, recipe.least_side)
    assert (whole.size, reduced.size) == ((480, 640), (480 // part, 640 // part))
    assert np.abs(np.asarray(whole.reduce(part)).astype(int) - np.asarray(reduced)).max() < 6
    assert (decode(tmp_path / "large.jpg", recipe) == image_pixels(reduced, Recipe("RGB", steps))).all()


def test_images_that_are_no_jpegs_are_not_reduced(tmp_path):
    path = save_image(tmp_path / "image.png", (640, 480))
    assert (decode(path, Recipe("RGB", REDUCED + RECIPE.steps)) == decode(path, RECIPE)).all()


def test_rows_are_the_images_in_order_and_batches_are_gathered(tmp_path, images):
    pixels = opened(tmp_path, images)
    expected = np.stack([decode(tmp_path / "images" / name, RECIPE) for name in images])
    assert (pixels == expected).all()
    stored = StoredImages(pixels, np.zeros(10), torch.tensor([7, 2, 9, 0]), torch.device("cpu"))
    assert stored.shape == (4, 3, 16, 16)
    assert (stored[torch.tensor([3, 0, 0])].numpy() == expected[[0, 7, 7]]).all()
    assert (stored[1:3].numpy() == expected[[2, 9]]).all()
    assert (stored.subset(torch.tensor([2, 1]))[:].numpy() == expected[[9, 2]]).all()


def test_images_are_decoded_once(tmp_path, images, monkeypatch):
    opened(tmp_path, images)
    monkeypatch.setattr(store, "build", lambda *_: pytest.fail("built again"))
    opened(tmp_path, images)


def test_another_recipe_list_content_or_version_is_another_store(tmp_path, images, monkeypatch):
    opened(tmp_path, images)
    opened(tmp_path, images, Recipe("RGB", (("shorter", 24), ("crop", 16))))
    opened(tmp_path, images, Recipe("RGB", (("shorter", 20), ("crop", 12))))
    opened(tmp_path, images[::-1])
    before = opened(tmp_path, images)[0].copy()
    save_image(tmp_path / "images" / images[0], (44, 31), seed=99)
    assert (opened(tmp_path, images)[0] != before).any()
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    opened(tmp_path, images)
    assert len(list((tmp_path / "decoded").glob("*/store.json"))) == 6


def replace_unseen(path: Path, by: Path) -> None:
    """As `rsync -t` or `cp -p` may: another image of the same size and time, to the nanosecond."""
    before, content = path.stat(), by.read_bytes()
    assert len(content) == before.st_size and content != path.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def test_images_replaced_by_others_of_the_same_size_and_time_are_decoded_anew(tmp_path, images):
    for i in range(10):  # uncompressed, so that all have one size
        save_image(tmp_path / "images" / f"{i}.bmp", seed=i)
    names = [f"{i}.bmp" for i in range(10)]
    before = opened(tmp_path, names)
    replace_unseen(tmp_path / "images" / "3.bmp", tmp_path / "images" / "7.bmp")
    pixels = opened(tmp_path, names)
    assert (pixels[3] == before[7]).all() and (before[3] != before[7]).any()  # an open store stays what it was
    assert (pixels[[0, 1, 2, 4, 5, 6, 7, 8, 9]] == before[[0, 1, 2, 4, 5, 6, 7, 8, 9]]).all()
    assert len(list((tmp_path / "decoded").glob("*/store.json"))) == 2


def test_files_that_were_touched_and_are_the_same_are_read_once_and_not_decoded(tmp_path, images, monkeypatch):
    """A folder that was copied, unpacked anew, or had its permissions changed."""
    before, done = opened(tmp_path, images).copy(), []
    chunks = store.run_chunks

    def note(function, folder, paths, *args, **kwargs):
        done.append((function.__name__, list(paths)))
        return chunks(function, folder, paths, *args, **kwargs)

    monkeypatch.setattr(store, "run_chunks", note)
    (tmp_path / "images" / images[2]).chmod(0o600)
    (tmp_path / "images" / images[5]).touch()
    assert (opened(tmp_path, images) == before).all()
    assert done == [("read_chunk", [images[2], images[5]])]
    shutil.copytree(tmp_path, tmp_path / "moved")
    shutil.rmtree(tmp_path / "images")
    for _ in range(2):
        assert (opened(tmp_path / "moved", images) == before).all()
    assert done[1:] == [("read_chunk", images)]


def test_the_store_goes_where_the_environment_says(tmp_path, images, monkeypatch):
    opened(tmp_path, images[:3])
    (tmp_path / "decoded").rename(tmp_path / "before")
    (tmp_path / "decoded").write_text("as good as read-only")
    with pytest.raises(
        BadInput, match=r"^config.data_dir: cannot write .*decoded.*; set IMBALANCE_STORE=<folder> in the"
    ):
        opened(tmp_path, images)
    monkeypatch.setenv("IMBALANCE_STORE", str(tmp_path / "scratch" / "stores"))
    opened(tmp_path, images)
    assert len(list((tmp_path / "scratch" / "stores").glob("some-16-*/store.json"))) == 1
    assert (tmp_path / "decoded").is_file()


def test_workers_make_the_same_store(tmp_path, images, monkeypatch):
    monkeypatch.setattr(decode_pool, "CHUNK", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    pixels = opened(tmp_path, images)
    assert (pixels == np.stack([decode(tmp_path / "images" / name, RECIPE) for name in images])).all()
    assert damage(directory(tmp_path), (10, 3, 16, 16), 0) == []


def die(**_):
    os._exit(1)


def test_a_worker_that_dies_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "CHUNK", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(workers, "SPAWN", multiprocessing.get_context("fork"))  # quicker than "spawn"
    with pytest.raises(BadInput, match="^decoding: a worker process died; free some memory"):
        decode_pool.run_chunks(die, tmp_path, ["image.png"] * 5, RECIPE, "decoding")


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


def test_every_row_is_compared_when_asked(tmp_path, images, monkeypatch):
    opened(tmp_path, images)
    folder = directory(tmp_path)
    content = bytearray((folder / "images.u8").read_bytes())
    for row in (1, 4):
        content[row * 768 + 3] ^= 1
    monkeypatch.setattr(stores, "SAMPLED", 2)  # the first and the last row
    (folder / "images.u8").write_bytes(content)
    StoreCheck(folder, ["images.u8"]).remember()  # as if the disk had decayed below the file system
    assert damage(folder, (10, 3, 16, 16), every_row=False) == []
    assert [place.split()[-1] for place, _ in damage(folder, (10, 3, 16, 16), every_row=True)] == ["1", "4"]
    os.utime(folder / "images.u8")
    for _ in range(2):  # a check that finds damage is not remembered
        assert len(damage(folder, (10, 3, 16, 16), every_row=False)) == 2
    checksums = np.load(folder / "checksums.npy")
    checksums[4] += 1
    np.save(folder / "checksums.npy", checksums)
    (problem,) = damage(folder, (10, 3, 16, 16), every_row=False)
    assert str(problem).endswith("store.json: checksums does not match the files of the store")


def test_a_missing_and_a_truncated_image_are_named_with_their_line(tmp_path, images):
    path = save_image(tmp_path / "images" / "cut.jpg", (60, 60))
    for size in (path.stat().st_size - 60, 200):
        os.truncate(path, size)
        with pytest.raises(BadInput, match=r"^list line 4: cut.jpg: damaged, or incomplete"):
            opened(tmp_path, [*images[:2], "cut.jpg"])
    with pytest.raises(BadInput, match=r"^list line 3: gone.png: no such file \(and 1 more\)"):
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
        (lambda path: path.mkdir(), "a directory, not a file"),
    ],
)
def test_what_is_no_rgb_image_is_named(tmp_path, images, make, reason):
    make(tmp_path / "images" / "odd.png")
    with pytest.raises(BadInput, match=f"^list line 3: odd.png: .*{reason}"):
        opened(tmp_path, [images[0], "odd.png"])


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it is `width`×`height` and black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(min(height * (1 + 3 * width), 10**6)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1, 60000), r"1×60000 pixels, which resized are 224×13440000 pixels, more than 89,478,485; make it smaller"),
        ((60000, 1), r"60000×1 pixels, which resized are 13440000×224 pixels, more than .*"),
        ((10000, 10000), r"an image of more than 89,478,485 pixels; make it smaller"),
        ((2**31 - 1, 2**31 - 1), r"an image of more than 89,478,485 pixels; make it smaller"),
    ],
)
def test_an_image_that_would_take_gigabytes_is_refused_before_it_is_decoded(tmp_path, images, size, reason):
    path = tmp_path / "images" / "bomb.png"
    path.write_bytes(png_of(*size))
    assert path.stat().st_size < 1200
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning would be more than one line
        with pytest.raises(BadInput, match=f"^list line 2: bomb.png: {reason}$"):
            opened(tmp_path, ["bomb.png"], Recipe("RGB", (("shorter", 224), ("crop", 224))))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 200_000  # KB


def test_a_file_of_many_gigabytes_is_not_read(tmp_path, images):
    path = tmp_path / "images" / "huge.png"
    path.write_bytes(png_of(8, 8))
    os.truncate(path, 2**40)  # of which the disk holds a block
    with pytest.raises(BadInput, match="huge.png: larger than 536,870,912 bytes"):
        opened(tmp_path, ["huge.png"])


def test_images_of_a_size_that_no_memory_holds_are_refused(tmp_path, images):
    with pytest.raises(
        BadInput,
        match="^config.data.size: 1000000000000 given; 1000000000000×1000000000000 pixels are more than the allowed 89,478,485",
    ):
        opened(tmp_path, images, Recipe("RGB", (("square", 10**12),)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "a pipe, a socket or a device, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe, a socket or a device, not a file"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
        (lambda path: path.symlink_to("0.png"), r"the same file as 0.png \(list line 2\); list each file once"),
    ],
)
def test_what_is_no_file_of_its_own_is_named_and_never_waited_for(tmp_path, images, make, reason):
    make(tmp_path / "images" / "odd.png")
    with pytest.raises(BadInput, match=f"^list line 3: odd.png: {reason}"):
        opened(tmp_path, [images[0], "odd.png"])
    if "same" not in reason:
        _, ((_, found),) = decode_chunk(0, tmp_path / "images", ["odd.png"], RECIPE)
        assert re.match(reason, found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0.png", "'a\\\\x00.png': embedded null byte in the name"),
        ("x" * 300, "x+: File name too long"),
        ("./0.png", r"./0.png: the same file as 0.png \(list line 2\); list each file once"),
        ("", ": a directory, not a file"),
        (
            "Vo\u0308gel.png",
            "Vögel.png: no such file, but one whose accents are written in another way .NFC of Unicode.; write the name in that form",
        ),
    ],
)
def test_odd_names_are_one_line(tmp_path, images, name, reason):
    save_image(tmp_path / "images" / "V\u00f6gel.png")
    with pytest.raises(BadInput, match=unicodedata.normalize("NFD", f"^list line 3: {reason}$")) as error:
        opened(tmp_path, [images[0], name])
    assert str(error.value).replace("o\u0308", "").isprintable()


def pixels_from(tmp_path: Path, save: Callable[[Path], None], mode: str = "RGB") -> np.ndarray:
    save(tmp_path / "odd")
    return decode(tmp_path / "odd", Recipe(mode, (("crop", 16),)))


def test_photographs_are_turned_upright(tmp_path):
    """EXIF's orientation says where the first row and column of a file belong; viewers and Pillow's transposition agree."""
    for orientation in range(1, 9):
        image = Image.open(save_image(tmp_path / "image.png", (16, 16), seed=3))
        exif = Image.Exif()
        exif[0x0112] = orientation
        found = pixels_from(tmp_path, lambda path, image=image, exif=exif: image.save(path, "PNG", exif=exif))
        upright = ImageOps.exif_transpose(Image.open(tmp_path / "odd"))
        assert (found == np.asarray(upright).transpose(2, 0, 1)).all()
        assert orientation == 1 or (found != np.asarray(image).transpose(2, 0, 1)).any()


def noise(mode: str, size: tuple[int, int] = (16, 16)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode)


def grey_in_16_bits(path: Path) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257).save(path, "PNG")


@pytest.mark.parametrize(
    ("save", "mode", "reason"),
    [
        (lambda path: noise("CMYK").save(path, "JPEG"), "RGB", "an image of mode CMYK, not RGB; convert it"),
        (lambda path: noise("LA").save(path, "PNG"), "L", "an image of mode LA, not L; convert it"),
        (lambda path: noise("L").convert("1").save(path, "PNG"), "L", "an image of mode 1, not L; convert it"),
        (grey_in_16_bits, "L", "an image of mode I;16, not L; convert it"),
        (lambda path: noise("L").save(path, "GIF", save_all=True, append_images=[noise("L").rotate(90)]), "L",
         "2 images in one file .an animation, or several pages.; save a single image"),
        (lambda path: noise("RGB").save(path, "PNG", save_all=True, append_images=[noise("RGB").rotate(90)]), "RGB",
         "2 images in one file .an animation, or several pages.; save a single image"),
        (lambda path: noise("RGB").save(path, "TIFF", save_all=True, append_images=[noise("RGB")]), "RGB",
         "2 images in one file .an animation, or several pages.; save a single image"),
        (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(run me) print\n"), "RGB",
         "not an image, or incomplete"),
    ],
)  # fmt: skip
def test_what_would_have_to_be_converted_unseen_is_refused(tmp_path, save, mode, reason):
    with pytest.raises(ValueError, match=reason):
        pixels_from(tmp_path, save, mode)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_every_format_without_loss_has_the_same_pixels_whatever_its_name(tmp_path, kind):
    image = noise("RGB")
    found = pixels_from(tmp_path, lambda path: image.save(path, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert (found == np.asarray(image).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP"])
def test_a_damaged_image_of_any_format_is_a_line_or_an_image(tmp_path, kind):
    """Cut at any length, or with any byte changed: `ValueError` in words, or pixels of the right shape."""
    choose = np.random.default_rng(0)
    noise("L").save(tmp_path / "whole", kind)
    mode = Image.open(tmp_path / "whole").mode
    whole = (tmp_path / "whole").read_bytes()
    refused = 0
    for trial in range(120):
        content = bytearray(whole)
        if trial % 3:
            content[choose.integers(len(content))] = choose.integers(256)
        else:
            del content[choose.integers(len(content)) :]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow, on damaged TIFF
                assert image_pixels(open_image(bytes(content)), Recipe(mode, (("crop", 8),))).shape == (
                    1 if mode == "L" else 3,
                    8,
                    8,
                )
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("error", [OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error])
def test_whatever_a_codec_raises_names_the_file(tmp_path, images, monkeypatch, error):
    def load(_):
        raise error("odd chunk")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(BadInput, match=r"^list line 2: 0.png: damaged, or incomplete \(.?odd chunk.?\)"):
        opened(tmp_path, images)


def test_a_crop_larger_than_the_image_is_refused(tmp_path, images):
    with pytest.raises(BadInput, match="40×31 pixels, but a crop needs at least 32×32"):
        opened(tmp_path, images, Recipe("RGB", (("crop", 32), ("square", 16))))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, images, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(
            BadInput,
            match=r"the decoded images need 0.0 MB, but the disk of .* free; set IMBALANCE_STORE=<folder> in the environment",
        ):
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
    raw = torch.randint(0, 256, (count, 3, 300, 500), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    labels = np.arange(count)
    splits = [class_split(raw, labels, labels)] * 3
    normalise = normaliser(Dataset(*splits, ("0",), ("0",), mean, std), torch.device("cpu"), dtype, layout)
    for batch in (raw, raw.to(torch.float32)):
        result = normalise(batch)
        assert result.dtype == dtype and result.shape == raw.shape
        expected = (raw.numpy() / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
        assert not count or result.is_contiguous(memory_format=layout)
