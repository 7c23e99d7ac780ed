"""Render examples for the pages of reports: as images, as texts, as rows of a table, or as lists of numbers."""

import base64
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imbalance.data.images.stored_images import DiskImages
from imbalance.data.tables.encoding import decode_row
from imbalance.data.texts.tokenizers import from_json
from imbalance.errors import BadInput
from imbalance.report.run_data import load_run_data

if TYPE_CHECKING:
    from imbalance.data import Dataset, Split

SIDE = 64  # largest height and width of an image, in pixels
NUMBERS = 12  # most numbers that are shown of an example that is neither an image nor a row of named columns
CELLS, CHARACTERS = 24, 400  # most cells of a row, and most characters of a text or a cell
Example = dict[str, Any]


def read_eval_dataset(directory: Path) -> tuple["Dataset | None", str | None]:
    """Read the data on which a run was evaluated; return (data set, None), or (None, error message) if they cannot be read.

    Args:
        directory: run directory.
    """
    try:
        return load_run_data(directory).eval_dataset, None
    except (BadInput, OSError) as error:
        return None, f"The data set cannot be shown: {error}"


def render_example(split: "Split", row: int, preprocessing: Mapping[str, Any]) -> Example:
    """Return example number `row` of a split in a form that a page can show.

    Args:
        preprocessing: `Dataset.preprocessing` of the data set.

    Returns:
        {"picture": data URL} for an image, with its "file" if it is on disk; {"text": text} for a text, decoded from its
        tokens. For a row of named columns {"cells": {column: value}, "columns": total number of columns}, where "cells" has the
        first columns only. Otherwise {"row": list of the first numbers, "columns": total of numbers}; for a text without a
        tokenizer {"row": {name: list}}.
    """
    batch = split.inputs[row : row + 1]
    if isinstance(batch, dict):  # a text: its tokens by the names of the model's arguments
        if "tokenizer" not in preprocessing:
            return {"row": {key: value.flatten()[:NUMBERS].tolist() for key, value in batch.items()}}
        ids, kinds = batch["input_ids"][0], batch.get("token_type_ids", batch["input_ids"] * 0)[0]
        tokenizer = cached_tokenizer(preprocessing["tokenizer"])
        parts = (tokenizer.decode(ids[kinds == kind].tolist()) for kind in kinds.unique(sorted=True))
        return {"text": " ‖ ".join(shortened(part) for part in parts)}
    example = np.asarray(batch.cpu())[0]
    if example.ndim == 3 and example.shape[0] in (1, 3):
        shown = {"picture": picture(example)}
        if isinstance(split.inputs, DiskImages) and split.inputs.paths:
            shown["file"] = split.inputs.paths[int(split.inputs.rows[row])]
        return shown
    values = example.reshape(-1)
    if preprocessing.get("kind") == "columns":
        cells = list(decode_row(values.tolist(), preprocessing["features"]).items())
        return {"cells": {name: shortened(value) for name, value in cells[:CELLS]}, "columns": len(cells)}
    return {"row": [round(float(value), 4) for value in values[:NUMBERS]], "columns": len(values)}


@functools.lru_cache(maxsize=2)
def cached_tokenizer(text: str) -> Any:
    """Return the tokenizer whose JSON is `text`; the last two are cached, because a large vocabulary takes long to parse."""
    return from_json(text)


def shortened(text: str) -> str:
    """Return `text`, cut to `CHARACTERS` characters."""
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


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
