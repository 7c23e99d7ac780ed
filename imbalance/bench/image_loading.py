"""Measure how many times as long images take to load from JPEGs as from the store of decoded images.

From either source a loader yields an epoch of 224×224 images in batches of 64: uint8, or normalised float32 on the CPU. The
JPEGs have CelebA's size of 178×218. A DataLoader with torchvision's transforms decodes them, with no worker or with two. Its
workers start before the measurement and stay alive.

The last ratio compares the times to decode a photograph of 12 megapixels without and with `data.reduce`.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from imbalance.bench.timing import Row, timed_in_turns
from imbalance.data.images.decode import Recipe, decode
from imbalance.data.images.listing import MEAN, STD
from imbalance.data.images.normalise import normaliser
from imbalance.data.images.store import open_store
from imbalance.data.images.stored_images import StoredImages
from imbalance.data.splits import Dataset, Split
from imbalance.utils.malloc import keep_freed_memory
from imbalance.utils.torchvision_import import import_torchvision

BATCH = 64  # images in a batch
CPU = torch.device("cpu")
# The bar for each type of the batches and number of workers.
BARS = {("uint8", 0): "≥ 20", ("uint8", 2): "≥ 10", ("float32", 0): "≥ 5", ("float32", 2): "≥ 3"}


class Files(torch.utils.data.Dataset):
    """Data set of image files, which are decoded and transformed at every access, as in a common PyTorch program."""

    def __init__(self, folder: Path, names: list[str], transform):
        self.folder, self.names, self.transform = folder, names, transform

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Tensor:
        with Image.open(self.folder / self.names[row]) as image:
            return self.transform(image.convert("RGB"))


def make_images(folder: Path, count: int) -> list[str]:
    """Write `count` JPEGs of smooth noise, which compresses about as well as photographs, and return the file names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = rng.integers(0, 256, (27, 22, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((178, 218), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
    return [f"{i}.jpg" for i in range(count)]


@dataclass(frozen=True)
class StoreLoader:
    """Loader that yields images from a store of decoded images, in random order and in batches.

    convert: function that is applied to each batch.
    """

    stored: StoredImages
    convert: Callable[[Tensor], Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return (self.convert(self.stored[rows]) for rows in torch.randperm(len(self.stored)).split(BATCH))


def photograph_row(directory: Path, repeats: int) -> Row:
    """Return a row with ratios: the time to decode a photograph to 224×224 pixels, without / with `data.reduce`."""
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    path = directory / "photograph.jpg"
    Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC).save(path, quality=90)
    steps = (("shorter", 256), ("crop", 224))
    whole, reduced = Recipe("RGB", steps), Recipe("RGB", (("reduce", 0), *steps))
    measured = timed_in_turns(lambda: decode(path, whole), lambda: decode(path, reduced), repeats, 5)
    return Row("images: decoded whole / with data.reduce", "JPEG of 4,000×3,000 pixels", measured, "≥ 3")


def go_through(batches: Iterable[Tensor]) -> None:
    for _ in batches:
        pass


def rows(repeats: int, count: int = 640) -> Iterator[Row]:
    """Measure the loading of images, and yield the rows of the benchmark's table.

    Args:
        count: number of images.
    """
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as directory:
        yield from loader_rows(Path(directory), count, repeats)
        yield photograph_row(Path(directory), repeats)


def loader_rows(directory: Path, count: int, repeats: int) -> Iterator[Row]:
    """Write images to `directory`, and yield a row for every combination of batch type and number of workers."""
    names = make_images(directory / "images", count)
    transforms = import_torchvision().transforms
    pixels = [transforms.CenterCrop(178), transforms.Resize((224, 224)), transforms.PILToTensor()]
    normalised = [transforms.ConvertImageDtype(torch.float32), transforms.Normalize(MEAN["RGB"], STD["RGB"])]
    recipe = Recipe("RGB", (("crop", 178), ("square", 224)))
    stored = open_store(str(directory), "bench", directory / "images", names, recipe, str)
    labels = torch.zeros(count, dtype=torch.int64)
    split = Split(stored, labels, labels, torch.arange(count))
    normalise = normaliser(Dataset(split, split, split, ("0",), ("0",), MEAN["RGB"], STD["RGB"]), CPU, torch.float32)
    kinds = {"uint8": (pixels, lambda batch: batch), "float32": (pixels + normalised, normalise)}
    for (kind, workers), bar in BARS.items():
        steps, convert = kinds[kind]
        files = Files(directory / "images", names, transforms.Compose(steps))
        loader = DataLoader(files, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

        ratios = timed_in_turns(partial(go_through, loader), partial(go_through, StoreLoader(stored, convert)), repeats)
        yield Row("images: decoded / stored", f"{kind}, {workers or 'no'} workers", ratios, bar)
