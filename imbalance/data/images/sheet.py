"""Write a picture of sample images, one row for each group, to look at before training."""

from pathlib import Path

import numpy as np
import torch

from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput
from imbalance.utils.files import contains

COLUMNS, SIDE, MARGIN = 8, 96, 20  # images in a row; side of an image and height of a title, in pixels
SOFTWARE, PROGRAM = 0x0131, "imbalance data describe"  # the Exif tag of the program that wrote an image, and its value


def write_sheet(dataset: Dataset, path: Path) -> None:
    """Write a PNG to `path` with up to `COLUMNS` random images of each group.

    The images are from train, or from val if train has no example of the group.
    """
    from PIL import Image, ImageDraw

    shape = dataset.input_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise BadInput(
            f"--sheet: the inputs have shape {shape}; a sheet needs images of 1 or 3 channels, so leave --sheet out"
        )
    rows = []
    for group, name in enumerate(dataset.group_names):
        for title, split in (("train", dataset.train), ("val", dataset.eval_dataset.val)):
            chosen = sample(split, group)
            if len(chosen):
                rows.append((f"{title}: {name}", split, chosen))
                break
    exif = Image.Exif()
    exif[SOFTWARE] = PROGRAM
    sheet = Image.new("RGB", (COLUMNS * SIDE, len(rows) * (SIDE + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, split, chosen) in enumerate(rows):
        top = number * (SIDE + MARGIN)
        draw.text((4, top + 4), title, fill="black")
        for column, pixels in enumerate(split.inputs[chosen]):
            image = Image.fromarray(visible(pixels)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(image, (column * SIDE, top + MARGIN))
    try:
        sheet.save(path, exif=exif)
    except (OSError, ValueError) as error:
        raise BadInput(f"--sheet: cannot write {path}: {error}; name another file") from None


def is_sheet(path: Path) -> bool:
    """Return whether `write_sheet` wrote the file."""
    return contains(path, PROGRAM.encode())


def sample(split: Split, group: int) -> torch.Tensor:
    """Return the positions in `split` of up to `COLUMNS` random examples of a group, the same in every call."""
    rows = (split.groups == group).nonzero().squeeze(1)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:COLUMNS]]


def visible(pixels: torch.Tensor) -> np.ndarray:
    """Convert (C, H, W) uint8, or floats from 0 to 1, to the (H, W, 3) uint8 array that Pillow takes."""
    if pixels.is_floating_point():
        pixels = (pixels * 255).clamp(0, 255).byte()
    return pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
