"""Render test examples for the report page, as images or as lists of numbers."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imbalance.errors import BadInput
from imbalance.report.run_data import load_run_data

if TYPE_CHECKING:
    from imbalance.data import Split

SIDE = 64  # largest height and width of an image, in pixels
NUMBERS = 12  # most numbers that are shown of an example that is not an image
Example = dict[str, Any]


def read_test_split(directory: Path) -> tuple["Split | None", str | None]:
    """Read the test split that a run was evaluated on; return (split, None), or (None, error message) if that fails.

    Args:
        directory: run directory.
    """
    try:
        return load_run_data(directory).eval_dataset.test, None
    except (BadInput, OSError) as error:
        return None, f"The data set cannot be shown: {error}"


def render_example(split: "Split", row: int) -> Example:
    """Return example number `row` as {"picture": data URL} if it is an image, else as {"row": list of its numbers}.

    The numbers of a text are its token ids.
    """
    batch = split.inputs[row : row + 1]
    if isinstance(batch, dict):  # a text: its tokens by the names of the model's arguments
        return {"row": {key: value.flatten()[:NUMBERS].tolist() for key, value in batch.items()}}
    example = np.asarray(batch.cpu())[0]
    if example.ndim == 3 and example.shape[0] in (1, 3):
        return {"picture": picture(example)}
    values = example.reshape(-1)
    return {"row": [round(float(value), 4) for value in values[:NUMBERS]], "columns": len(values)}


def picture(example: np.ndarray) -> str:
    """Encode a (C, H, W) image as a data URL; floats are scaled so that the smallest is black and the largest white."""
    from PIL import Image

    if example.dtype != np.uint8:
        low, high = float(example.min()), float(example.max())
        example = ((example - low) / ((high - low) or 1) * 255).round().astype(np.uint8)
    pixels = example.transpose(1, 2, 0)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85, lossless=max(image.size) <= 32)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
