"""Train and evaluate classifiers under class imbalance and sub-population shift."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.utils.package import __version__

if TYPE_CHECKING:
    from imbalance.deploy.load import load
    from imbalance.training.loop import Result, run

__all__ = ["BadInput", "Diverged", "Interrupted", "Result", "__version__", "load", "run"]
# Imported when first used, with torch.
LAZY = {"load": "imbalance.deploy.load", "run": "imbalance.training.loop", "Result": "imbalance.training.loop"}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'imbalance' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
