"""Small states to save, a short run to stop, and the files that two runs are compared by."""

import json
from pathlib import Path

import pytest
import torch
from ml_collections import ConfigDict

from imbalance.training import learner

ONE, TWO, THREE = ({"n": n, "weight": torch.arange(2000.0) * n, "names": {"a": [n]}} for n in (1, 2, 3))


class Warnings(list):
    """Stands in for the log."""

    line = list.append


def shorten(config: ConfigDict, monkeypatch: pytest.MonkeyPatch) -> ConfigDict:
    """Two epochs of two steps, with a checkpoint after each, and logits and best weights to be kept."""
    config.model = dict(name="linear", init="zeros")
    config.data.total = 30
    config.data.imbalance_ratio = 2.0
    config.trainer.update(epochs=2, batch_size=20)
    config.callbacks.update(checkpoint_minutes=1e-9, select="best", keep_logits=True)
    dataset = learner.load_dataset(config)
    monkeypatch.setattr(learner, "load_dataset", lambda _: dataset)
    return config


def outcome(directory: Path) -> tuple:
    """What a run is for, and what must not depend on what it met."""
    summary = json.loads((directory / "summary.json").read_text())
    same = {key: summary[key] for key in ("status", "score", "metrics", "step", "epoch", "selected_epoch")}
    weights = torch.load(directory / "checkpoints" / "selected.pt", weights_only=True)
    files = {path.name: path.read_bytes() for path in directory.glob("predictions/*")}
    return (directory / "metrics.jsonl").read_bytes(), same, {k: v.tolist() for k, v in weights.items()}, files
