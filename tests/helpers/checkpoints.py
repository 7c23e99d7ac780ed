"""Small states to save, a short run to interrupt, and the results by which two runs are compared."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from ml_collections import ConfigDict

from imbalance.training import learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state import checkpoint
from imbalance.utils.read import seal

ONE, TWO, THREE = ({"n": n, "weight": torch.arange(2000.0) * n, "names": {"a": [n]}} for n in (1, 2, 3))


class Warnings(list):
    """A list of the lines that are logged, in place of a `RunLog`."""

    line = list.append


def load(path: Path, warnings: Warnings) -> dict[str, Any]:
    """Return the checkpoint from which a run would resume whose newest is at `path`; {} if there is none."""
    found = checkpoint.undamaged_checkpoint(path, cast(RunLog, warnings))
    return checkpoint.load_checkpoint(*found) if found else {}


def shorten(config: ConfigDict, monkeypatch: pytest.MonkeyPatch) -> ConfigDict:
    """Shorten a config in place to two epochs of two steps, and return it.

    The run writes a checkpoint after each step, and keeps its logits and the weights of the best epoch. The data set is
    loaded once, and `learner.load_dataset` then returns it.
    """
    config.model = dict(name="linear", init="zeros")
    config.data.total = 30
    config.data.imbalance_ratio = 2.0
    config.trainer.update(epochs=2, batch_size=20)
    config.callbacks.update(checkpoint_minutes=1e-9, select="best", keep_logits=True)
    dataset = learner.load_dataset(config)
    monkeypatch.setattr(learner, "load_dataset", lambda *_: dataset)
    return config


def save_summary(directory: Path, summary: dict[str, Any]) -> None:
    """Write summary.json of a run directory with the digest that belongs to it."""
    values = {key: value for key, value in summary.items() if key != "digest"}
    (directory / "summary.json").write_text(json.dumps(seal(values)))


def outcome(directory: Path) -> tuple:
    """Return the results of a run, which must not depend on interruptions and errors of the file system.

    They are metrics.jsonl, the fields of summary.json without times, the selected weights, and the prediction files.
    """
    summary = json.loads((directory / "summary.json").read_text())
    same = {key: summary[key] for key in ("status", "score", "metrics", "step", "epoch", "selected_epoch")}
    weights = torch.load(directory / "checkpoints" / "selected.pt", weights_only=True)
    files = {path.name: path.read_bytes() for path in directory.glob("predictions/*")}
    return (directory / "metrics.jsonl").read_bytes(), same, {k: v.tolist() for k, v in weights.items()}, files
