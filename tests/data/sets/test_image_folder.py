"""Folders of images of one's own: with or without splits, in every image mode."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.data_files import make_folder, save_image
from PIL import Image

from imbalance.cli.main import call
from imbalance.data import LISTINGS
from imbalance.data.images.decode import Recipe, decode
from imbalance.data.sets.image_folder import folder
from imbalance.errors import BadInput
from imbalance.utils.torchvision_import import import_torchvision

FOLDER = dict(
    folder="birds",
    val_fraction=0.0,
    test_fraction=0.0,
    mode="RGB",
    convert=False,
    reduce=False,
    resize=20,
    size=16,
    images_from="store",
    augment=(),
)


@pytest.mark.parametrize(
    ("parts", "fractions", "sizes"),
    [
        (("train", "val", "test"), dict(), [8, 8, 8]),
        (("train", "val"), dict(test_fraction=0.25), [6, 8, 2]),
        (("training", "test"), dict(val_fraction=0.5), [4, 4, 8]),
        ((".",), dict(val_fraction=0.25, test_fraction=0.5), [2, 2, 4]),
    ],
)
def test_a_folder_of_classes_is_a_data_set_with_or_without_folders_of_splits(tmp_path, parts, fractions, sizes):
    make_folder(tmp_path, parts)
    (tmp_path / "birds" / parts[0] / "land" / "notes.txt").write_text("no image")
    (tmp_path / "birds" / ".thumbnails").mkdir()
    dataset = folder(str(tmp_path), 0, **FOLDER | fractions)
    assert dataset.class_names == dataset.group_names == ("land", "water")
    for name, size in zip(("train", "val", "test"), sizes):
        assert dataset.class_counts(getattr(dataset, name)).tolist() == [size // 2] * 2
    (tmp_path / "birds" / ".thumbnails").rmdir()
    theirs = import_torchvision().datasets.ImageFolder(tmp_path / "birds" / parts[0])
    listing = LISTINGS["folder"](str(tmp_path), 0, **FOLDER | fractions)
    ours = {str(listing.folder / path): target for path, target in zip(listing.paths, listing.targets)}
    assert tuple(theirs.classes) == dataset.class_names
    assert theirs.samples == [(path, ours[path]) for path, _ in theirs.samples]


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (dict(classes=("land",)), dict(), r"config.data.folder: only the folder land in .*birds"),
        (dict(), dict(folder="cats"), r"config.data.folder: .*cats: No such file"),
        (dict(parts=("train", "val")), dict(), r"config.data.test_fraction: 0.0 given; it must be above 0"),
        (dict(), dict(val_fraction=0.1), r"config.data.val_fraction: 0.1 given; it must be 0.0, because .* has val examples"),
        (dict(parts=("train", "val", "test", "more")), dict(), r"folders of splits \(test, train, val\) beside another folder, more"),
        (dict(), dict(mode="L"), r"birds: test/land/0.png: an image of mode RGB, not L; convert it"),
        (dict(), dict(size=21), r"config.data.size: 21 given"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path, make, change, reason):
    make_folder(tmp_path, **make)
    with pytest.raises(BadInput, match=reason) as error:
        folder(str(tmp_path), 0, **FOLDER | change)
    assert "\n" not in str(error.value)


def listed(tmp_path: Path) -> list[str]:
    return sorted(LISTINGS["folder"](str(tmp_path), 0, **FOLDER).paths)


def test_images_in_hidden_folders_do_not_count(tmp_path):
    make_folder(tmp_path)
    before = listed(tmp_path)
    for place in ("land/.ipynb_checkpoints", "land/deeper/.trash/more", ".cache/land"):
        save_image(tmp_path / "birds" / "train" / place / "0.png")
    assert listed(tmp_path) == before


def test_links_to_missing_images_are_named_and_not_dropped(tmp_path):
    """git-annex and DVC leave such links where the content of a file has not been fetched."""
    make_folder(tmp_path)
    image = tmp_path / "birds" / "train" / "land" / "3.png"
    image.unlink()
    image.symlink_to("../../.git/annex/objects/x.png")
    with pytest.raises(BadInput, match="train/land/3.png: no such file"):
        folder(str(tmp_path), 0, **FOLDER)
    assert "train/land/3.png" in listed(tmp_path)
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(BadInput, match="train/land/3.png: a pipe"):
        folder(str(tmp_path), 0, **FOLDER)


def test_a_class_that_is_a_link_to_nowhere_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "birds" / "train" / "sea").symlink_to("/nowhere/sea")
    with pytest.raises(BadInput, match="train/sea is a link to /nowhere/sea, which does not exist"):
        folder(str(tmp_path), 0, **FOLDER)


def test_linked_folders_count_as_in_image_folder(tmp_path):
    make_folder(tmp_path)
    for i in range(3):
        save_image(tmp_path / "elsewhere" / f"{i}.png", seed=10 + i)
    (tmp_path / "birds" / "train" / "land" / "more").symlink_to(tmp_path / "elsewhere")
    theirs = import_torchvision().datasets.ImageFolder(tmp_path / "birds" / "train")
    ours = [path for path in listed(tmp_path) if path.startswith("train/")]
    assert ours == sorted(str(Path(path).relative_to(tmp_path / "birds")) for path, _ in theirs.samples)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="more/again: a link to a folder that contains the link"):
        listed(tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "birds" / "val" / "sea").mkdir()
    (problem,) = LISTINGS["folder"](str(tmp_path), 0, **FOLDER).problems
    assert "val/sea: no image" in str(problem)


# Modes

CONVERT = (("convert", 0), ("shorter", 20), ("crop", 16))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "RGB"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_images_of_other_modes_are_converted_on_request_only(tmp_path, mode, wanted):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    save_image(path, mode=mode)
    with Image.open(path) as image:
        expected = save_as(image.convert(wanted), tmp_path / "converted.png")
    assert (decode(path, Recipe(wanted, CONVERT)) == decode(expected, Recipe(wanted, CONVERT[1:]))).all()
    if mode != wanted:
        with pytest.raises(ValueError, match=f"an image of mode {mode}, not {wanted}; convert it"):
            decode(path, Recipe(wanted, CONVERT[1:]))


def save_as(image, path):
    image.save(path)
    return path


EVERY_GREY = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def raw_pgm(path, values):
    path.write_bytes(b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes())


@pytest.mark.parametrize("wanted", ["RGB", "L"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("deep.png", EVERY_GREY),
        ("deep.tif", EVERY_GREY),
        ("deep.pgm", EVERY_GREY),
        ("32bits.tif", EVERY_GREY.astype(np.int32)),
        ("floats.tif", np.linspace(0, 1, 65536, dtype=np.float32).reshape(256, 256)),
    ],
)
def test_every_grey_of_more_than_eight_bits_becomes_the_nearest_of_eight(tmp_path, name, values, wanted):
    if name.endswith("pgm"):
        raw_pgm(tmp_path / name, values)
    else:
        Image.fromarray(values).save(tmp_path / name)
    white = 1 if values.dtype == np.float32 else 65535
    expected = np.rint(values.astype(np.float64) * 255 / white)
    pixels = decode(tmp_path / name, Recipe(wanted, (("convert", 0), ("crop", 256))))
    assert pixels.dtype == np.uint8
    assert (pixels == expected[None]).all()
    with pytest.raises(ValueError, match=f"not {wanted}; convert it, or set config.data.convert=True"):
        decode(tmp_path / name, Recipe(wanted, (("crop", 256),)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((32, 32), 65_536, dtype=np.int32), "mode I with values from 65536 to 65536; they must be 0 to 65535"),
        (np.full((32, 32), -1, dtype=np.int32), "mode I with values from -1 to -1"),
        (np.full((32, 32), 200, dtype=np.float32), "mode F with values from 200 to 200; they must be 0 to 1; scale"),
        (np.full((32, 32), np.nan, dtype=np.float32), "mode F with values from nan to nan"),
    ],
)
def test_values_that_no_8_bits_can_stand_for_are_refused(tmp_path, values, words):
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=words):
        decode(tmp_path / "deep.tif", Recipe("L", CONVERT))


def test_images_of_formats_that_are_not_read_are_counted_and_said(tmp_path, capsys):
    make_folder(tmp_path)
    root = tmp_path / "birds"
    before = sum(map(len, folder(str(tmp_path), 0, **FOLDER).splits.values()))
    image = next(path for path in sorted(root.rglob("*.png")) if path.parent.name == "land")
    Image.open(image).convert("RGB").save(image.with_name("windows.jfif"), "JPEG")  # the name that Windows gives JPEGs
    for name in ("phone.HEIC", "web.avif", "notes.txt", ".hidden.avif"):
        image.with_name(name).touch()
    dataset = folder(str(tmp_path), 0, **FOLDER)
    assert sum(map(len, dataset.splits.values())) == before + 1
    (note,) = dataset.notes
    place = image.parent.relative_to(root)
    assert note.startswith(f"{root}: 2 images left out, because images that end in .")
    assert f"such as {place / 'phone.HEIC'}; convert them" in note
    flags = [f"--config.data.{key}={value}" for key, value in FOLDER.items() if key != "augment"]
    call(["data", "verify", "--config=folder_ce", f"--config.data_dir={tmp_path}", *flags])
    assert f"note: {note}" in capsys.readouterr().out


@pytest.mark.parametrize("place", [".", "train"])
def test_an_image_beside_the_folders_is_noted(tmp_path, place, capsys):
    make_folder(tmp_path)
    assert not folder(str(tmp_path), 0, **FOLDER).notes
    save_image(tmp_path / "birds" / place / "loose.png", seed=99)
    (tmp_path / "birds" / place / "notes.txt").touch()
    root = tmp_path / "birds" / place
    expected = f"{root}: 1 image not in a class folder, so left out, such as loose.png; move them into the folder of their class"
    assert folder(str(tmp_path), 0, **FOLDER).notes == (expected,)  # training prints the notes of its data
    flags = [f"--config.data.{key}={value}" for key, value in FOLDER.items() if key != "augment"]
    call(["data", "verify", "--config=folder_ce", f"--config.data_dir={tmp_path}", *flags])
    assert f"note: {expected}" in capsys.readouterr().out
