"""`imbalance data`: what it prints, and that whatever is wrong is a line on stderr and exit status 2."""

import os
from collections.abc import Callable

import numpy as np
import pytest
from conftest import ROOT
from helpers.data_files import people, save_image, write_csv
from PIL import Image

from imbalance.cli.main import call
from imbalance.data import stores

CONFIG = """
from imbalance.config.resolve import load
def get_config():
    config = load({base!r})
    config.data_dir = {data_dir!r}
    config.data = dict(
        name="table", file="birds.csv", delimiter=",", folder="images", path="path", target="target",
        classes=("land", "water"), attributes=("place",), split="split", val_fraction=0.0, test_fraction=0.0,
        mode="RGB", convert=False, reduce=False, resize=20, size=16, images_from="store", augment=())
    return config
"""
DIGITS = ROOT / "configs" / "digits_poly.py"


@pytest.fixture
def main() -> Callable[[list[str]], int]:
    return lambda arguments: call(["data", *arguments])


@pytest.fixture
def birds(tmp_path) -> str:
    """A config file for a table of 24 images in 4 groups."""
    rows = [
        f"{split}-{target}-{place}-{i}.png,{target},{place},{split}"
        for split in ("train", "val", "test")
        for target in ("land", "water")
        for place in ("field", "sea")
        for i in range(2)
    ]
    (tmp_path / "birds.csv").write_text("\n".join(["path,target,place,split", *rows]))
    for seed, row in enumerate(rows):
        save_image(tmp_path / "images" / row.split(",")[0], seed=seed)
    (tmp_path / "birds.py").write_text(CONFIG.format(base=str(DIGITS), data_dir=str(tmp_path)))
    return str(tmp_path / "birds.py")


def test_describe_counts_and_shows_every_group(main, birds, tmp_path, capsys):
    assert main(["describe", f"--config={birds}", f"--sheet={tmp_path / 'sheet.png'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["land", "4", "4", "4"] in [line.split() for line in lines]
    assert ["water,", "sea", "2", "2", "2"] in [line.split() for line in lines]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 96, 4 * 116)
        assert sheet.getpixel((48, 20 + 48)) != (255, 255, 255)


def test_describe_takes_overrides_and_data_without_groups_of_its_own(main, tmp_path, capsys):
    arguments = [f"--config={DIGITS}", "--config.data.imbalance_ratio=10", f"--sheet={tmp_path / 'sheet.png'}"]
    assert main(["describe", *arguments]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["class", "train", "val", "test"] and ["9", "10", "36", "36"] in lines
    assert not any(line[:1] == ["group"] for line in lines)


def test_build_makes_the_store_and_verify_finds_it_whole(main, birds, tmp_path, capsys):
    assert main(["build", f"--config={birds}"]) == 0
    assert len(list((tmp_path / "decoded").glob("birds-16-*/store.json"))) == 1
    assert main(["verify", f"--config={birds}"]) == 0
    assert capsys.readouterr().out.endswith("birds: 24 examples, 0 problems\n")


def test_verify_lists_everything_that_is_wrong_at_once(main, birds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stores, "SAMPLED", 1)
    assert main(["build", f"--config={birds}"]) == 0
    (pixels,) = (tmp_path / "decoded").glob("birds-16-*/images.u8")
    content = bytearray(pixels.read_bytes())
    content[768 * 5] ^= 1
    pixels.write_bytes(content)
    images = tmp_path / "images"
    (images / "train-land-sea-1.png").unlink()
    os.truncate(images / "val-land-sea-0.png", 300)
    save_image(images / "test-water-sea-1.png", mode="L")
    table = (tmp_path / "birds.csv").read_text()
    table = table.replace("train-land-field-0.png,land", "train-land-field-0.png,mud")
    (tmp_path / "birds.csv").write_text(table.replace("sea,test", "field,test") + "\nextra.png,land")
    capsys.readouterr()
    assert main(["verify", f"--config={birds}"]) == 2
    captured = capsys.readouterr()
    expected = [
        "line 26: 2 fields, but the heading has 4",
        "line 2: target is 'mud', not one of land, water",
        "the test split has no example of group 'land, sea'",
        "the test split has no example of group 'water, sea'",
        "line 5: train-land-sea-1.png: no such file",
        "line 12: val-land-sea-0.png: damaged, or incomplete",
        "line 25: test-water-sea-1.png: an image of mode L, not RGB; convert it",
        "images.u8 row 5: fails its checksum; remove",
    ]
    lines = captured.err.splitlines()
    assert len(lines) == len(expected)
    assert all(any(text in line for line in lines) for text in expected)
    assert captured.out == "birds: 23 examples, 8 problems\n"


def test_verify_counts_the_images_that_are_converted(main, birds, tmp_path, capsys):
    config = tmp_path / "birds.py"
    config.write_text(config.read_text().replace("convert=False", "convert=True"))
    for name, mode in (("train-land-sea-0", "L"), ("train-land-sea-1", "L"), ("val-land-sea-0", "RGBA")):
        save_image(tmp_path / "images" / f"{name}.png", mode=mode)
    assert main(["verify", f"--config={birds}"]) == 0
    assert "note: 3 images converted to RGB: 2 of mode L, 1 of mode RGBA\n" in capsys.readouterr().out


def test_verify_prints_equal_problems_once_and_all_if_asked(main, birds, tmp_path, capsys):
    table = tmp_path / "birds.csv"
    table.write_text(table.read_text().replace(",water,", ",sky,"))
    assert main(["verify", f"--config={birds}"]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0] == (
        f"{table} line 6: target is 'sky', not one of land, water (and 11 more like it; --all lists each)"
    )
    assert len(lines) == 4 and captured.out.endswith("12 examples, 15 problems\n")
    assert main(["verify", f"--config={birds}", "--all"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 15
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], *(row.replace(",sky,", f",{i},") for i, row in enumerate(rows[1:]))]))
    assert main(["verify", f"--config={birds}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11 and lines[-1] == "and 5 problems of 5 other kinds; --all lists each"


def test_verify_compares_the_pixels_with_the_store_s(main, birds, tmp_path, capsys):
    assert main(["build", f"--config={birds}"]) == 0
    path = tmp_path / "images" / "val-land-sea-1.png"
    save_image(path, seed=77)
    assert main(["verify", f"--config={birds}"]) == 0  # a run would see that it is new, and decode it
    (stamps,) = tmp_path.glob("decoded/birds-16-*/stamps.npy")
    before, status = np.load(stamps), path.stat()
    row = [line.split(",")[0] for line in (tmp_path / "birds.csv").read_text().splitlines()[1:]].index(path.name)
    before[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns  # as on a disk that rotted
    np.save(stamps, before)
    capsys.readouterr()
    assert main(["verify", f"--config={birds}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"{tmp_path / 'birds.csv'} line {row + 2}: {path.name}: its pixels differ from those in its store; remove"
    )


@pytest.mark.parametrize("command", ["verify", "describe"])
def test_copies_are_reported(main, birds, tmp_path, capsys, command):
    images = tmp_path / "images"
    (images / "val-land-sea-1.png").write_bytes((images / "train-land-sea-0.png").read_bytes())
    (images / "train-water-sea-1.png").unlink()
    os.link(images / "train-land-field-1.png", images / "train-water-sea-1.png")
    assert (
        main([command, f"--config={birds}", *(["--sheet", str(tmp_path / "sheet.png")] * (command == "describe"))]) == 0
    )
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert notes[0].startswith("note: equal examples in train and val: 1; ")
    assert notes[1].startswith("note: equal examples with different classes or groups: 1; ")
    if command == "verify":
        assert "val-land-sea-1.png" in notes[0] and "train-land-sea-0.png" in notes[0]


def test_one_file_under_two_names_is_refused(main, birds, tmp_path, capsys):
    (tmp_path / "images" / "val-land-sea-1.png").unlink()
    (tmp_path / "images" / "val-land-sea-1.png").symlink_to("train-land-sea-0.png")
    for command in ("build", "verify"):
        assert main([command, f"--config={birds}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "val-land-sea-1.png: the same file as train-land-sea-0.png" in line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["describe", "--config=nowhere.py"], "config: no config nowhere.py"),
        (["build", f"--config={DIGITS}", "--config.data.clases=1"], "clases"),
        (
            ["build", f"--config={DIGITS}", "--config.data.imbalance_ratio=0.5"],
            "config.data.imbalance_ratio: 0.5 given",
        ),
        (["build", f"--config={DIGITS}", "--config.data.imbalance_ratio=x"], "imbalance_ratio"),
        (
            ["build", f"--config={DIGITS}", "extra"],
            "extra: unknown; name a config as --config=extra, and type an override as --config.<key>=<value>",
        ),
        (["download", "celeba"], "celeba: cannot be downloaded by this command"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(main, arguments, reason, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["download", "cifar1000"], ["verify"], ["describe"]])
def test_missing_arguments_are_status_2(main, arguments, capsys):
    assert main(arguments) == 2 and capsys.readouterr().err.count("\n") == 1


def test_verify_names_every_bad_cell_of_a_table_and_what_was_left_out(main, tmp_path, capsys):
    columns = people()
    write_csv(tmp_path / "people.csv", {"": np.arange(120).astype(str).astype(object)} | columns)
    arguments = ["verify", "--config=arrays_ce", f"--config.data_dir={tmp_path}", "--config.data.file=people.csv", "--config.data.split=split",
                 "--config.data.target=income", "--config.data.classes=low,high", "--config.data.missing=?,", "--config.data.val_fraction=0",
                 "--config.data.test_fraction=0"]  # fmt: skip
    assert main(arguments) == 0
    assert "note: column '' is left out, as the row numbers of a data frame" in capsys.readouterr().out
    columns["income"][[3, 8]], columns["hours"][9] = "rich", "many"
    write_csv(tmp_path / "people.csv", columns)
    assert main([*arguments, "--all"]) == 2
    out, err = capsys.readouterr()
    assert [line.partition("people.csv ")[2].partition(",")[0] for line in err.splitlines()] == [
        "line 5: income is 'rich'", "line 10: income is 'rich'", "line 11: hours is 'many'",
    ]  # fmt: skip
    assert "3 problems" in out


def test_a_sheet_replaces_no_image_of_the_data_set(main, birds, tmp_path, capsys):
    image = next((tmp_path / "images").iterdir())
    before = image.read_bytes()
    (tmp_path / "link.png").symlink_to(image)
    for sheet in (image, tmp_path / "link.png"):
        assert main(["describe", f"--config={birds}", f"--sheet={sheet}"]) == 2
        assert f"--sheet: {sheet} exists, and this command did not write it" in capsys.readouterr().err
    assert image.read_bytes() == before


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg"])
def test_a_sheet_replaces_an_earlier_sheet_even_in_the_data_folder(main, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["describe", f"--config={DIGITS}", "--config.data_dir=.", f"--sheet={name}"]) == 0
    with Image.open(name) as sheet:
        assert sheet.size[0] == 8 * 96


def test_an_empty_path_of_an_image_is_named(main, birds, tmp_path, capsys):
    table = tmp_path / "birds.csv"
    lines = table.read_text().splitlines()
    lines[3] = "," + lines[3].partition(",")[2]
    table.write_text("\n".join(lines))
    assert main(["verify", f"--config={birds}"]) == 2
    printed = capsys.readouterr()
    assert "birds.csv line 4: path is empty; type the path of an image, or remove the line" in printed.err
    assert "1 problem\n" in printed.out and "a directory" not in printed.err
