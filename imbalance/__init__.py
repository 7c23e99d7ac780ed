"""Training and evaluating classifiers under class imbalance and sub-population shift."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imbalance.inference import load
    from imbalance.training.loop import Result, run

__version__ = "0.1.0"
__all__ = ["Result", "load", "run"]
# Imported when first used, with torch.
WHERE = {"load": "imbalance.inference", "run": "imbalance.training.loop", "Result": "imbalance.training.loop"}


def __getattr__(name: str) -> Any:
    if name in WHERE:
        return getattr(import_module(WHERE[name]), name)
    raise AttributeError(f"module 'imbalance' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *WHERE])
