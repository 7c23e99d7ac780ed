"""Inputs and values of published code, which the tests of the methods compare with; see tests/methods/published."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FOLDER = Path(__file__).parent.parent / "methods" / "published"


def published(name: str) -> dict[str, Any]:
    """Return the content of the file `name`: inputs, values in float64, and the repository and commit of the code."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def exact(values: Any, requires_grad: bool = False) -> Tensor:
    """Return nested lists of numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def assert_published(value: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    """Check that a tensor equals published values up to `tolerance`, relative and absolute."""
    torch.testing.assert_close(value.detach(), exact(expected), rtol=tolerance, atol=tolerance)
