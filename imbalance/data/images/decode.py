"""Decode image files into pixels, to build a store of decoded images or to predict."""

import io
import math
import multiprocessing
import os
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from imbalance.utils.read import open_regular

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 89_478_485  # Pillow's own limit (270 MB in RGB), for the image of a file and for the resized image
MAX_BYTES = 2**29  # the largest file that is read; an uncompressed image of MAX_PIXELS is smaller
# Only some of Pillow's formats, because other formats run programs (EPS) or are hardly used except in attacks.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Pillow's modes of 8 bits a channel: black and white, grey, palette, colour, print. Transparency is dropped, as in torchvision.
CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Pillow's modes of more bits, all grey, with the value that is white. Mode I has 32 bits, and older versions of Pillow
# use it for files of 16 bits.
WHITE = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1}
ORIENTATION_TAG = 0x0112  # the EXIF tag of the camera's orientation
# The CRC-32 of each image's file and that of its pixels; the row and reason of each failure
ChunkResult = tuple[list[tuple[int, int]], list[tuple[int, str]]]
# Pillow's operation that turns an image upright, by its EXIF orientation.
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
SIDEWAYS = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")  # operations that exchange width and height


class Recipe(NamedTuple):
    """The steps that turn an image file into uint8 pixels, with the same result as torchvision's transforms.

    mode: Pillow's mode, "RGB" or "L". A file of another mode is refused unless the first step is "convert".
    steps: (name, n) pairs, done in order:

        - ("reduce", 0) decodes a JPEG at 1/2, 1/4 or 1/8 of its size if the step after it resizes, and no side becomes
          shorter than the n of that step. This is several times as fast for large photographs, but changes pixels a
          little; only as the first step;
        - ("convert", 0) converts an image of another mode to `mode`, see `converted`; only before all steps below;
        - ("square", n) resizes to n×n, and ("shorter", n) resizes the shorter side to n; both are bilinear with
          antialiasing. ("square bicubic", n) and ("shorter bicubic", n) do the same with bicubic resizing;
        - ("crop", n) crops to the n×n pixels in the middle. ("crop floor", n) does the same, but if the middle is
          between two pixels, it rounds down, as transformers does.
    """

    mode: str
    steps: tuple[tuple[str, int], ...]

    @property
    def least_side(self) -> int:
        """The number of pixels that each side of a reduced image must have; 0 if images are not reduced."""
        if self.steps[:1] != (("reduce", 0),):
            return 0
        name, size = next(step for step in self.steps if step[1])
        return 0 if name.startswith("crop") else size  # a crop needs the pixels of the whole image

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of the pixels."""
        size = self.steps[-1][1]
        return len(self.mode), size, size

    @property
    def resampling(self) -> "PIL.Image.Resampling":
        """The kind of Pillow's resampling that the resizing steps use."""
        return resampling_named("bicubic" if any(name.endswith(" bicubic") for name, _ in self.steps) else "")


class Preparation(NamedTuple):
    """The preprocessing of images that pretrained weights were trained with.

    steps: the steps of a `Recipe`, which resize and crop.
    mean, std: the mean and standard deviation of each channel, as fractions of 255.
    """

    steps: tuple[tuple[str, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def decode(path: str | Path, recipe: Recipe) -> np.ndarray:
    """Return the (C, H, W) uint8 pixels of an image file.

    Raises:
        ValueError: the file is missing or damaged, or the recipe does not allow its mode or size. The message does not
            contain the path; callers add it.
    """
    return image_pixels(open_image(read_image(path), recipe.least_side), recipe)


def read_image(path: str | Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ValueError: the file is missing, too large, or not a regular file (reading a pipe might never end).
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes, the limit of an image file; make it smaller")
        return content
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except OSError as error:
        raise ValueError(error.strerror) from None


def image_mode(path: str | Path) -> str:
    """Return the colour mode of an image file that can be decoded, such as "RGB"; only its header is read."""
    from PIL import Image

    with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
        return image.mode


def open_image(content: bytes, least_side: int = 0) -> "PIL.Image.Image":
    """Decode an image from the bytes of its file, and turn the image upright by its EXIF data, as viewers do.

    Args:
        least_side: if it is not 0, decode a JPEG at the smallest of 1, 1/2, 1/4 and 1/8 of its size at which each side
            has at least so many pixels.

    Raises:
        ValueError: the bytes are no image, are damaged, or are several images; or the image is too large.
    """
    return loaded(read_header(content), least_side)


@contextmanager
def image_errors() -> Iterator[None]:
    """Return a context manager that turns every error of Pillow and its codecs into a ValueError with a plain message."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every problem is raised as an error below
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnacceptableImage:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"not an image, or incomplete; the formats are {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"an image of more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except Exception as error:  # a codec may raise any exception on damaged data
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"damaged, or incomplete ({' '.join(reason.split())})") from None


def read_header(content: bytes) -> "PIL.Image.Image":
    """Read the header of an image from the bytes of its file; return the image, whose pixels `loaded` decodes.

    Raises:
        ValueError: the bytes are no image, or are several images; or the image is too large.
    """
    from PIL import Image

    with image_errors():
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        check_pixels("an image of", *image.size)  # the header states the size, so nothing is decoded yet
        # The MPO file of a telephone holds a preview or a depth map after the photograph.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frames > 1:
            raise UnacceptableImage(
                f"{frames} images in one file (an animation, or several pages); save a single image"
            )
    return image


def loaded(image: "PIL.Image.Image", least_side: int = 0) -> "PIL.Image.Image":
    """Decode the pixels of `image`, a result of `read_header` or any Pillow image, and return the image upright.

    Args:
        least_side: as for `open_image`.

    Raises:
        ValueError: the file is damaged.
    """
    from PIL import Image

    with image_errors():
        if least_side:
            image.draft(None, (least_side, least_side))  # JPEG only; other formats are decoded at their size
        image.load()
        turned = TURNS.get(image.getexif().get(ORIENTATION_TAG, 1))
    return image.transpose(Image.Transpose[turned]) if turned else image


def decode_crops(
    content: bytes, recipe: Recipe, boxes_of: Callable[[int, int], Sequence[tuple[int, int, int, int]]]
) -> list[np.ndarray]:
    """Return the (C, H, W) uint8 pixels of each crop of `boxes_of`, resized to the size of `recipe`.

    The crops replace the steps of the recipe that resize and crop; they are cut out of the whole original image. If the
    recipe begins with "reduce", a JPEG is decoded at the smallest size at which every crop has at least as many pixels as
    the output.

    Args:
        content: the bytes of the image's file.
        boxes_of: a function from the width and height of the upright image to the left, top, width and height of each
            crop.

    Raises:
        ValueError: see `decode`.
    """
    image, size = read_header(content), recipe.shape[1]
    if recipe.least_side and image.format in ("JPEG", "MPO"):  # only these formats can be reduced
        width, height = image.size
        with image_errors():
            if TURNS.get(image.getexif().get(ORIENTATION_TAG, 1)) in SIDEWAYS:
                width, height = height, width
        boxes = boxes_of(width, height)
        shortest = min(min(wide, tall) for _, _, wide, tall in boxes)
        image = loaded(image, math.ceil(min(width, height) * size / shortest))
    else:
        image = loaded(image)
        width, height = image.size
        boxes = boxes_of(width, height)
    image, crops = of_mode(image, recipe), []
    # Both are 1, and the edges are whole numbers, unless the image was reduced.
    across, down = image.width / width, image.height / height
    for left, top, wide, tall in boxes:
        edges = (
            left * across,
            top * down,
            min((left + wide) * across, image.width),
            min((top + tall) * down, image.height),
        )
        first, upper = math.floor(edges[0]), math.floor(edges[1])
        crop = image.crop((first, upper, math.ceil(edges[2]), math.ceil(edges[3])))
        inner = edges[0] - first, edges[1] - upper, edges[2] - first, edges[3] - upper
        crops.append(channels_first(crop.resize((size, size), recipe.resampling, inner)))
    return crops


def image_pixels(image: "PIL.Image.Image", recipe: Recipe) -> np.ndarray:
    """Return the (C, H, W) uint8 pixels of a Pillow image after the steps of `recipe`.

    Raises:
        ValueError: the recipe does not allow the mode or size of the image.
    """
    image = of_mode(image, recipe)
    for step, size in recipe.steps:
        width, height = image.size
        kind, _, how = step.partition(" ")
        if kind in ("reduce", "convert"):
            continue
        resampling = resampling_named(how)
        if kind == "crop":
            if min(width, height) < size:
                raise ValueError(f"{width}×{height} pixels, but a crop needs at least {size}×{size}")
            round_half = math.floor if how == "floor" else round
            left, top = round_half((width - size) / 2), round_half((height - size) / 2)
            image = image.crop((left, top, left + size, top + size))
        elif kind == "square":
            image = image.resize((size, size), resampling)
        else:
            shorter = min(width, height)
            wide, tall = size * width // shorter, size * height // shorter
            check_pixels(f"{width}×{height} pixels, which resized are", wide, tall)
            image = image.resize((wide, tall), resampling)
    return channels_first(image)


def of_mode(image: "PIL.Image.Image", recipe: Recipe) -> "PIL.Image.Image":
    """Return `image` in the mode of `recipe`, after conversion if the recipe has the step "convert".

    Raises:
        ValueError: the image is still of another mode, or has no pixels.
    """
    if not image.width * image.height:
        raise ValueError(f"{image.width}×{image.height} pixels; an image has at least one")
    if ("convert", 0) in recipe.steps:
        image = converted(image, recipe.mode)
    if image.mode != recipe.mode:
        raise ValueError(
            f"an image of mode {image.mode}, not {recipe.mode}; convert it, or set config.data.convert=True if the data set has "
            "that key"
        )
    return image


def channels_first(image: "PIL.Image.Image") -> np.ndarray:
    """Return the (C, H, W) uint8 pixels of a Pillow image."""
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def resampling_named(name: str) -> "PIL.Image.Resampling":
    """Return Pillow's bicubic resampling for the name "bicubic", and its bilinear resampling for all other names."""
    from PIL import Image

    return Image.Resampling.BICUBIC if name == "bicubic" else Image.Resampling.BILINEAR


def converted(image: "PIL.Image.Image", mode: str) -> "PIL.Image.Image":
    """Convert an image to `mode`, "RGB" or "L".

    If the image's own mode is in neither `CONVERTIBLE` nor `WHITE`, return the image unchanged. Transparency is dropped: a
    transparent pixel keeps the colour that is stored for it. Grey values of 16 bits are divided by 257, and fractions are
    multiplied by 255; both are rounded to the nearest of the 256 grey values of 8 bits.

    Raises:
        ValueError: a value is below 0 or beyond the white of the image's mode, see `WHITE`.
    """
    if image.mode in WHITE:
        image = in_8_bits(image)
    if image.mode not in CONVERTIBLE:
        return image
    return image.convert("RGBA").convert(mode) if "transparency" in image.info else image.convert(mode)


def in_8_bits(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Scale an image of a mode in `WHITE` to the grey values 0 to 255, as `converted` says; the result has mode "L"."""
    from PIL import Image

    values, white = np.asarray(image), WHITE[image.mode]
    least, most = values.min(), values.max()
    if not 0 <= least <= most <= white:  # also if a value is nan
        raise ValueError(
            f"an image of mode {image.mode} with values from {least:g} to {most:g}; they must be 0 to {white}; scale them, "
            "or save the image with 8 bits a channel"
        )
    if white == 1:
        return Image.fromarray(np.rint(values * 255.0).astype(np.uint8))
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


class UnacceptableImage(ValueError):
    """Error for an undamaged image file that is too large, or that has several images."""


def check_pixels(what: str, width: int, height: int) -> None:
    """Raise `UnacceptableImage` if an image has more than `MAX_PIXELS`; a file of 300 bytes can claim 10¹⁰ pixels.

    Args:
        what: the beginning of the message, which names the image.
    """
    if width * height > MAX_PIXELS:
        raise UnacceptableImage(f"{what} {width}×{height} pixels, more than {MAX_PIXELS:,}; make it smaller")


def decode_chunk(
    first: int, folder: Path, paths: Sequence[str], recipe: Recipe, store: Path | None = None
) -> ChunkResult:
    """Decode the image files `paths`, which are relative to `folder`; write their pixels to the file `store` if given.

    Args:
        first: the position of the first of `paths` in the list of all images, and of its pixels in `store`.
        store: an existing file with space for the pixels of all images; None to check the files only.

    Returns:
        For each image the CRC-32 of its file and the CRC-32 of its pixels, both 0 if it cannot be decoded; and for each
        failure the position of the image in the list of all images, and the reason.
    """
    checksums, problems = [], []
    descriptor = os.open(store, os.O_WRONLY) if store else None
    try:
        for row, path in enumerate(paths, first):
            try:
                content = read_image(folder / path)
                pixels = image_pixels(open_image(content, recipe.least_side), recipe).tobytes()
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


def read_chunk(first: int, folder: Path, paths: Sequence[str], recipe: Recipe) -> ChunkResult:
    """Read image files without decoding them; return the result of `decode_chunk` with 0 as the CRC-32 of the pixels.

    Args:
        first: the position of the first of `paths` in the list of all images.
    """
    checksums, problems = [], []
    for row, path in enumerate(paths, first):
        try:
            checksums.append((zlib.crc32(read_image(folder / path)), 0))
        except ValueError as error:
            problems.append((row, str(error)))
            checksums.append((0, 0))
    return checksums, problems


def end_with_parent() -> None:
    """Make this worker process exit when its parent ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # the pool calls this function only in child processes

    def wait_and_exit() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()
