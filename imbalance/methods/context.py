"""The arguments that a run passes to the functions of a config: those before the `*` of their signatures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn.functional import one_hot

from imbalance.config.experiment import Experiment
from imbalance.data import Labels
from imbalance.errors import BadInput
from imbalance.utils.output import one_line


@dataclass(frozen=True)
class FirstRun:
    """The selected model of a finished first run.

    predictions: for each split, (N, K) tensors by name: "logits", and what `Objective.extra_outputs` returned.
    metrics: the metrics in the summary of the run.
    """

    predictions: Mapping[str, Mapping[str, Tensor]]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def logits(self, split: str, targets: Tensor, column: str = "logits") -> Tensor:
        """Return (N, K) logits of the examples of `split`, whose targets are `targets`.

        A debug run has logits of one batch only. All other examples get a one-hot row of their target.
        """
        found = self.predictions[split][column]
        return torch.cat([found, one_hot(targets[len(found) :], found.shape[1]).to(found)])

    def errors(self, split: str, targets: Tensor) -> Tensor:
        """Return (N,) booleans: true for an example that the first run got wrong."""
        return self.logits(split, targets).argmax(1) != targets


class GroupAssignment(NamedTuple):
    """The result of a function of `imbalance.methods.group_inference.registry`.

    environments: for each split, (N,) environments, 0 or 1.
    metrics: figures about the inference, by name.
    """

    environments: Mapping[str, Tensor]
    metrics: Mapping[str, float] = {}


def read_first_run(directory: Path) -> FirstRun:
    """Read the predictions and metrics of the finished run in `directory`.

    Raises:
        BadInput: a file of predictions is damaged.
    """
    predictions = {}
    for split in ("train", "val", "test", "held_out"):
        path = directory / "predictions" / f"{split}.npz"
        if split == "held_out" and not path.exists():
            continue
        try:
            with np.load(path) as saved:
                predictions[split] = {name: torch.from_numpy(saved[name]) for name in saved if saved[name].ndim == 2}
                predictions[split]["logits"]
        except Exception as error:  # a damaged file can fail in any way
            raise BadInput(
                f"{path}: damaged ({one_line(str(error))}); remove {directory / 'summary.json'}, and the same command makes it again"
            ) from None
    return FirstRun(predictions, json.loads((directory / "summary.json").read_text(encoding="utf-8"))["metrics"])


def shortened(config: Experiment, epochs: int) -> ConfigDict:
    """Return the values of `config`, changed to end after `epochs` epochs and to keep the last weights."""
    first = ConfigDict(config.to_dict())  # ConfigDict(config) would share its sections
    first.trainer.epochs = epochs
    first.callbacks.update(select="last", patience=0, stop_at_interpolation=False)
    return first


def plain(config: Experiment, epochs: int) -> ConfigDict:
    """Return the values of a shortened run with the mean of cross-entropy as its objective, and without groups.

    The inference of groups reads the predictions of this run, so no part of the run may read groups.
    """
    first = shortened(config, epochs)
    names = dict(groups="data", sampler="shuffle", weights="uniform", mix="none", loss="cross_entropy",
                 objective="average", head="none")  # fmt: skip
    for section, name in names.items():
        first[section] = ConfigDict({"name": name})
    first.score = first.callbacks.monitor = "val/worst_class_recall"
    return first


@dataclass(frozen=True)
class RunContext:
    """The values of a run that its methods can ask for, by the names of these fields.

    targets, groups: (N,) of the training examples; the groups are inferred ones if `config.groups` says so.
    class_counts, group_counts: (K,) and (G,) numbers of training examples.
    labels: a function from "class" or "group" to labels and counts, see `imbalance.data.Labels`.
    seed, epochs: values of the config.
    sampler: the section `config.sampler`.
    first: None if no method has a first run.
    """

    targets: Tensor
    groups: Tensor
    num_classes: int
    num_groups: int
    class_counts: Tensor
    group_counts: Tensor
    labels: Labels
    seed: int
    epochs: int
    sampler: Mapping[str, Any]
    first: FirstRun | None


_OF_RUN_CONTEXT = {field.name for field in fields(RunContext)}
# By the section of the config: what its functions may ask for.
PROVIDED = {
    "data": {"data_dir", "seed"},
    "groups": {"dataset", "seed", "first"},
    "sampler": _OF_RUN_CONTEXT | {"epoch", "generator"},
    "weights": _OF_RUN_CONTEXT | {"epoch"},
    "mix": _OF_RUN_CONTEXT | {"generator"},  # where targets and groups are those of a batch
    "loss": _OF_RUN_CONTEXT,
    "objective": _OF_RUN_CONTEXT,
    "model": {"input_shape", "num_classes", "vocabulary", "architecture"},
    "optim": {"parameters", "head_parameters"},
    "optim.schedule": {"epoch", "epochs"},
    "head": _OF_RUN_CONTEXT | {"head", "dataset", "features", "generator"},
}
