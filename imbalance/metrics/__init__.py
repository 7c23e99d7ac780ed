"""Metrics: counts and scores of predictions, intervals, aggregates over tasks, selection rules, warnings.

For a training loop of your own: `evaluate` returns all metrics of predictions with their intervals, and
`WorstGroupAccuracy` gathers predictions in batches.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imbalance.metrics.evaluation import evaluate
    from imbalance.metrics.worst_group import WorstGroupAccuracy

__all__ = ["WorstGroupAccuracy", "evaluate"]
# Imported when first used, because they import torch.
LAZY = {"evaluate": "imbalance.metrics.evaluation", "WorstGroupAccuracy": "imbalance.metrics.worst_group"}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
