"""From an image file to pixels: the work of the processes that build a store, which therefore import no torch."""

import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Recipe(NamedTuple):
    """How a file becomes a (C, size, size) uint8 image.

    mode: "RGB" or "L", as Pillow calls it; a file of another mode is refused rather than converted unseen.
    steps: done in this order: ("square", n) resizes to n×n, ("shorter", n) the shorter side to n, both bilinear with
        antialiasing, and ("crop", n) takes the n×n in the middle. The same pixels as torchvision's transforms.
    """

    mode: str
    steps: tuple[tuple[str, int], ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what comes out."""
        size = self.steps[-1][1]
        return len(self.mode), size, size


def decode(path: str | Path, recipe: Recipe) -> np.ndarray:
    """(C, H, W) uint8.

    Raises:
        ValueError: the file is missing, damaged, or not what the recipe takes; the message says so without its name.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except UnidentifiedImageError:
        raise ValueError("not an image, or not whole") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        Image.DecompressionBombError,
    ) as error:  # whatever a codec raises
        raise ValueError(getattr(error, "strerror", None) or f"damaged, or not whole ({error})") from None
    if image.mode != recipe.mode:
        raise ValueError(f"an image of mode {image.mode}, not {recipe.mode}; convert it")
    for step, size in recipe.steps:
        width, height = image.size
        if step == "crop":
            if min(width, height) < size:
                raise ValueError(f"{width}×{height} pixels, too few for a crop of {size}×{size}")
            left, top = round((width - size) / 2), round((height - size) / 2)
            image = image.crop((left, top, left + size, top + size))
        elif step == "square":
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        else:
            shorter = min(width, height)
            image = image.resize((size * width // shorter, size * height // shorter), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(*recipe.shape[1:], -1).transpose(2, 0, 1)


def decode_into(
    store: Path, first: int, folder: Path, paths: Sequence[str], recipe: Recipe
) -> tuple[list[int], list[tuple[int, str]]]:
    """Decode `paths` and write them into the file `store` from row `first` on.

    Returns:
        The CRC-32 of each row, and what is wrong with each file that could not be decoded, as (row, reason).
    """
    checksums, problems = [], []
    descriptor = os.open(store, os.O_WRONLY)
    try:
        for row, path in enumerate(paths, first):
            try:
                pixels = decode(folder / path, recipe).tobytes()
            except ValueError as error:
                problems.append((row, str(error)))
                continue
            os.pwrite(descriptor, pixels, row * len(pixels))
            checksums.append(zlib.crc32(pixels))
    finally:
        os.close(descriptor)
    return checksums, problems


def check(first: int, folder: Path, paths: Sequence[str], recipe: Recipe) -> tuple[list[int], list[tuple[int, str]]]:
    """What is wrong with each of `paths`, as `decode_into` has it, writing nothing."""
    problems = []
    for row, path in enumerate(paths, first):
        try:
            decode(folder / path, recipe)
        except ValueError as error:
            problems.append((row, str(error)))
    return [], problems


def start_worker() -> None:
    """Leave Ctrl-C to the process that builds, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
