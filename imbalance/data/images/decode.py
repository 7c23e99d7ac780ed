"""From an image file to pixels: the work of the processes that build a store, which therefore import no torch."""

import io
import math
import multiprocessing
import os
import signal
import threading
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imbalance.utils.files import check_regular

MAX_PIXELS = 89_478_485  # Pillow's own limit; of a file, and of what resizing makes of it: 270 MB in RGB
MAX_BYTES = 2**29  # of a file, which is more than such an image takes uncompressed
# Not all that Pillow reads: some formats run other programs (EPS) or are seldom anything but an attack.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# What 8 bits a channel can express, grey, palette, transparency (which is dropped, as torchvision does) and print.
CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
ORIENTATION_TAG = 0x0112  # of EXIF
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


class Recipe(NamedTuple):
    """How a file becomes a (C, size, size) uint8 image.

    mode: "RGB" or "L", as Pillow calls it; a file of another mode is refused rather than converted unseen.
    steps: done in this order: ("convert", 0) first, where there is one, makes images of the modes CONVERTIBLE into
        `mode`; ("square", n) resizes to n×n, ("shorter", n) the shorter side to n, both bilinear with antialiasing, or
        as "square bicubic", "shorter bicubic"; and ("crop", n) takes the n×n in the middle, ("crop floor", n) with half
        a pixel rounded down, as transformers does. The same pixels as torchvision's transforms.
    """

    mode: str
    steps: tuple[tuple[str, int], ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what comes out."""
        size = self.steps[-1][1]
        return len(self.mode), size, size


class Preparation(NamedTuple):
    """What weights were trained on: how an image becomes the input of a network that has them.

    steps: of a `Recipe`.
    mean, std: of each channel, as fractions of 255.
    """

    steps: tuple[tuple[str, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def decode(path: str | Path, recipe: Recipe) -> np.ndarray:
    """(C, H, W) uint8.

    Raises:
        ValueError: the file is missing, damaged, or not what the recipe takes; the message says so without its name.
    """
    return pixels_of(open_image(read_image(path)), recipe)


def read_image(path: str | Path) -> bytes:
    """A file's content.

    Raises:
        ValueError: it is missing, no regular file (reading a pipe might never end), or far too large.
    """
    try:
        check_regular(path)
        if Path(path).stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except OSError as error:
        raise ValueError(error.strerror) from None


def open_image(content: bytes) -> "PIL.Image.Image":  # noqa: F821
    """The one image that a file's `content` is, decoded, and turned upright as its EXIF data say: as viewers show it.

    Raises:
        ValueError: it is damaged, no image, several, or so large that it would take gigabytes; the message says so.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below, once
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            check_pixels("an image of", *image.size)  # the header's word, before anything is decoded
            # A telephone's MPO holds a preview or a depth map behind the photograph.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frames > 1:
                raise TooMuch(
                    f"an animation, or several pages: {frames} images in one file; save the one that is meant"
                )
            image.load()
            turned = TURNS.get(image.getexif().get(ORIENTATION_TAG))
    except TooMuch:
        raise
    except UnidentifiedImageError:
        raise ValueError("not an image, or not whole") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"an image of more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except Exception as error:  # a codec may raise anything on damaged data
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"damaged, or not whole ({' '.join(reason.split())})") from None
    return image.transpose(Image.Transpose[turned]) if turned else image


def pixels_of(image: "PIL.Image.Image", recipe: Recipe) -> np.ndarray:  # noqa: F821
    """(C, H, W) uint8 of an image that is open; raises ValueError as `decode` does."""
    from PIL import Image

    steps = recipe.steps
    if steps and steps[0][0] == "convert":
        steps = steps[1:]
        if image.mode in CONVERTIBLE:
            image = (
                image.convert("RGBA").convert(recipe.mode)
                if "transparency" in image.info
                else image.convert(recipe.mode)
            )
    if image.mode != recipe.mode:
        raise ValueError(
            f"an image of mode {image.mode}, not {recipe.mode}; convert it, or where there is config.data.convert set it to True"
        )
    for step, size in steps:
        width, height = image.size
        kind, _, how = step.partition(" ")
        resampling = Image.Resampling.BICUBIC if how == "bicubic" else Image.Resampling.BILINEAR
        if kind == "crop":
            if min(width, height) < size:
                raise ValueError(f"{width}×{height} pixels, too few for a crop of {size}×{size}")
            rounded = math.floor if how == "floor" else round
            left, top = rounded((width - size) / 2), rounded((height - size) / 2)
            image = image.crop((left, top, left + size, top + size))
        elif kind == "square":
            image = image.resize((size, size), resampling)
        else:
            shorter = min(width, height)
            wide, tall = size * width // shorter, size * height // shorter
            check_pixels(f"{width}×{height} pixels, which resized are", wide, tall)
            image = image.resize((wide, tall), resampling)
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


class TooMuch(ValueError):
    """An image that is whole, and too large or too many."""


def check_pixels(what: str, width: int, height: int) -> None:
    """Refuse an image that would take gigabytes: a file of 300 bytes can say that it has 10¹⁰ pixels."""
    if width * height > MAX_PIXELS:
        raise TooMuch(f"{what} {width}×{height} pixels, more than {MAX_PIXELS:,}; make it smaller")


def decode_chunk(
    first: int, folder: Path, paths: Sequence[str], recipe: Recipe, store: Path | None = None
) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    """Decode `paths`, and write them into the file `store` from row `first` on where there is one.

    Returns:
        The CRC-32 of each file and of its pixels, and what is wrong with each that could not be decoded (whose CRCs are
        0), as (row, reason).
    """
    checksums, problems = [], []
    descriptor = os.open(store, os.O_WRONLY) if store else None
    try:
        for row, path in enumerate(paths, first):
            try:
                content = read_image(folder / path)
                pixels = pixels_of(open_image(content), recipe).tobytes()
            except ValueError as error:
                problems.append((row, str(error)))
                checksums.append((0, 0))
                continue
            if descriptor is not None:
                os.pwrite(descriptor, pixels, row * len(pixels))
            checksums.append((zlib.crc32(content), zlib.crc32(pixels)))
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return checksums, problems


def read_chunk(
    first: int, folder: Path, paths: Sequence[str], recipe: Recipe
) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    """As `decode_chunk`, reading the files without decoding them: the CRC-32 of each file, and 0."""
    checksums, problems = [], []
    for row, path in enumerate(paths, first):
        try:
            checksums.append((zlib.crc32(read_image(folder / path)), 0))
        except ValueError as error:
            problems.append((row, str(error)))
            checksums.append((0, 0))
    return checksums, problems


def start_worker() -> None:
    """Leave Ctrl-C to the process that builds, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
