"""Files of made-up data sets, in the layouts and counts of published data sets, or as a user may have them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imbalance.data.sets.celeba import FINGERPRINT, PAPERS_TRAIN, SPLIT_SIZES
from imbalance.data.sets.waterbirds import PUBLISHED

ATTRIBUTES = [f"Attribute_{i}" for i in range(40)]
ATTRIBUTES[9], ATTRIBUTES[20] = "Blond_Hair", "Male"


def save_image(path: Path, size: tuple[int, int] = (40, 32), seed: int = 0, mode: str = "RGB") -> Path:
    """Write a smooth random image, and return its path.

    Args:
        size: width and height.
        mode: the mode of Pillow, such as "RGB" or "L".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def link_images(folder: Path, names: list[str], size: tuple[int, int]) -> None:
    """Write one random image, and link it into `folder` under each name.

    Args:
        size: width and height.
    """
    image = save_image(folder / names[0], size)
    for name in names[1:]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(image, folder / name)


def make_waterbirds(root: Path, layout: str = "waterbirds_v1.0", counts=PUBLISHED, images: bool = False) -> Path:
    """Write metadata.csv of Waterbirds below `root`, and return its path.

    Args:
        layout: the folder of the data set in `root`.
        counts: for each split, the number of examples of each group.
        images: also write an image for each example.
    """
    rows, number = [], 0
    for split, group_counts in enumerate(counts):
        for group, count in enumerate(group_counts):
            for _ in range(count):
                number += 1
                place = f"/{'ocean' if group % 2 else 'bamboo_forest'}/{number}.jpg"
                rows.append(f"{number},{number % 200:03}.Bird/{number}.jpg,{group // 2},{split},{group % 2},{place}")
    file = root / layout / "metadata.csv"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(["img_id,img_filename,y,split,place,place_filename", *rows]) + "\n")
    if images:
        link_images(file.parent, [row.split(",")[1] for row in rows], (24, 20))
    return file


def make_celeba(root: Path, kind: str, line_end: str = "\n", mark: str = "") -> Path:
    """Write both metadata files of CelebA with the published counts below `root`, and return that of the attributes.

    Args:
        kind: the format of the files, "txt" or "csv".
        mark: the start of each file, such as a byte order mark.
    """
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    groups = np.concatenate([np.repeat(np.arange(4), counts) for counts in FINGERPRINT])
    # The program draws 2 % of train with seed 0, and expects the group counts of Wang et al. (ICLR 2022) in this
    # subset.
    chosen = np.random.default_rng(0).choice(SPLIT_SIZES[0], 3255, replace=False)
    others = np.setdiff1d(np.arange(SPLIT_SIZES[0]), chosen)
    groups[chosen] = np.repeat(np.arange(4), PAPERS_TRAIN)
    groups[others] = np.repeat(np.arange(4), np.subtract(FINGERPRINT[0], PAPERS_TRAIN))
    splits = np.repeat(np.arange(3), SPLIT_SIZES)
    names = [f"{i:06}.jpg" for i in range(1, len(groups) + 1)]
    between = "," if kind == "csv" else " "

    def line(group: int) -> str:
        values = ["-1"] * 40
        values[9], values[20] = ("-1", "1")[group // 2], ("-1", "1")[group % 2]
        if kind == "csv":
            return between.join(values)
        return " ".join(f"{value:>2}" for value in values)

    group_lines = [line(group) for group in range(4)]
    rows = [f"{name}{between}{group_lines[group]}" for name, group in zip(names, groups)]
    if kind == "txt":
        heading, partition = [str(len(names)), " ".join(ATTRIBUTES) + " "], []
    else:
        heading, partition = [",".join(["image_id", *ATTRIBUTES])], ["image_id,partition"]
    partition += [f"{name}{between}{split}" for name, split in zip(names, splits)]
    for stem, lines in (("list_attr_celeba", heading + rows), ("list_eval_partition", partition)):
        (folder / f"{stem}.{kind}").write_bytes((mark + line_end.join(lines) + line_end).encode())
    return folder / f"list_attr_celeba.{kind}"


def rows_of_table(n: int = 2) -> list[str]:
    """Return lines "path,target,place,split" of a CSV file, with `n` lines for each combination of the last three."""
    return [
        f"{split}/{target}/{place}/{i}.png,{target},{place},{split}"
        for split in ("train", "val", "test")
        for target in ("water", "land")
        for place in ("sea", "field")
        for i in range(n)
    ]


def make_table(
    root: Path,
    rows: list[str] | None = None,
    heading: str = "path,target,place,split",
    images: bool = True,
    start: str = "",
    end: str = "\n",
) -> None:
    """Write birds.csv, and the images that it lists.

    Args:
        rows: the lines after the heading; None for those of `rows_of_table`.
        images: false to write no images.
        start: the start of the file, such as a byte order mark.
        end: the end of each line.
    """
    rows = rows_of_table() if rows is None else rows
    (root / "birds.csv").write_bytes((start + end.join([heading, *rows]) + end).encode())
    if images:
        for i, row in enumerate(rows):
            save_image(root / "images" / row.split(",")[0], seed=i)


def make_folder(root: Path, parts=("train", "val", "test"), classes=("land", "water"), n: int = 4) -> None:
    """Write the images birds/<part>/<class>/<i>.png, with `n` images for each part and class."""
    for part in parts:
        for label in classes:
            for i in range(n):
                save_image(root / "birds" / part / label / f"{i}.png", seed=i)


def people(n: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the columns of a table of `n` people, all as text: numbers, categories, and missing values "?"."""
    rng = np.random.default_rng(seed)
    columns = {
        "age": rng.integers(17, 90, n).astype(str).astype(object),
        "hours": np.round(rng.normal(40, 5, n), 2).astype(str).astype(object),
        "work": rng.choice(["state", "private", "?"], n).astype(object),
        "sex": rng.choice(["man", "woman"], n).astype(object),
        "income": rng.choice(["low", "high"], n).astype(object),
        "split": np.resize(["train", "train", "val", "test"], n).astype(object),
    }
    columns["age"][::7] = "?"
    return columns


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write a CSV file from columns by name."""
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values()))]
    path.write_text("\n".join(lines) + "\n")


def write_arrow(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns to an Arrow file with parts of seven rows."""
    import pyarrow

    table = pyarrow.table({name: list(values) for name, values in columns.items()})
    with pyarrow.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table, max_chunksize=7)


def write_people(root: Path) -> None:
    """Write the table of `people` to people.csv in `root`."""
    write_csv(root / "people.csv", people())
