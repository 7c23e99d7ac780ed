"""Examples as a reader sees them: pictures, text, or rows of numbers."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imbalance.config.resolve import load
from imbalance.errors import BadInput

if TYPE_CHECKING:
    from imbalance.data import Split

SIDE = 64  # pixels of a picture
NUMBERS = 12  # of a row of many columns
Shown = dict[str, Any]


def examples_of(directory: Path) -> tuple["Split | None", str | None]:
    """The test split that a run was evaluated on, or why it cannot be read."""
    from imbalance.config.schema import build
    from imbalance.data import DATASETS

    config = load(directory / "config.json")
    try:
        dataset = build(DATASETS, config.data, data_dir=config.data_dir, seed=config.seed)
    except (BadInput, OSError) as error:
        return None, f"the data are not at hand: {error}"
    return dataset.eval_dataset.test, None


def shown(split: "Split", row: int) -> Shown:
    """{"picture": data URL}, {"text": words} or {"row": numbers} of an example."""
    inputs = split.inputs
    if isinstance(inputs, dict):
        return {"row": {key: value[row].flatten()[:NUMBERS].tolist() for key, value in inputs.items()}}
    example = np.asarray(inputs[row : row + 1].cpu())[0]
    if example.ndim == 3 and example.shape[0] in (1, 3):
        return {"picture": picture(example)}
    values = example.reshape(-1)
    return {"row": [round(float(value), 4) for value in values[:NUMBERS]], "columns": len(values)}


def picture(example: np.ndarray) -> str:
    """(C, H, W) as a data URL: bytes as they are, floats stretched from the smallest to the largest."""
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
