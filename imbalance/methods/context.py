"""The arguments that a run passes to the functions of a config: those before the `*` of their signatures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
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
        logits = self.predictions[split][column]
        return torch.cat([logits, one_hot(targets[len(logits) :], logits.shape[1]).to(logits)])

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
                f"{path}: damaged ({one_line(str(error))}); remove {directory / 'summary.json'}; the same command then "
                "trains the first run again"
            ) from None
    return FirstRun(predictions, json.loads((directory / "summary.json").read_text(encoding="utf-8"))["metrics"])


def shortened(config: Experiment, epochs: int) -> dict[str, Any]:
    """Return the values of `config`, changed to end after `epochs` epochs and to keep the last weights."""
    values = config.to_dict()
    values["trainer"]["epochs"] = epochs
    values["callbacks"] |= dict(select="last", patience=0, stop_at_interpolation=False)
    return values


def cross_entropy_baseline(config: Experiment, epochs: int) -> dict[str, Any]:
    """Return the values of a shortened run with the mean of cross-entropy as its objective, and without groups.

    The inference of groups reads the predictions of this run, so no part of the run may read groups.
    """
    values = shortened(config, epochs)
    names = dict(groups="data", sampler="shuffle", weights="uniform", mix="none", loss="cross_entropy",
                 objective="average", head="none")  # fmt: skip
    values |= {section: {"name": name} for section, name in names.items()}
    values["score"] = values["callbacks"]["monitor"] = "val/worst_class_recall"
    return values


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


_CONTEXT = {field.name for field in fields(RunContext)}
# For each section of a config, the arguments that its functions can ask for.
AVAILABLE_ARGUMENTS = {
    "data": {"data_dir", "seed"},
    "groups": {"dataset", "seed", "first"},
    "sampler": _CONTEXT | {"epoch", "generator"},
    "weights": _CONTEXT | {"epoch"},
    "mix": _CONTEXT | {"generator"},  # with the targets and groups of a batch
    "loss": _CONTEXT,
    "objective": _CONTEXT,
    "model": {"input_shape", "num_classes", "vocabulary", "architecture"},
    "optim": {"parameters", "head_parameters"},
    "optim.schedule": {"epoch", "epochs"},
    "head": _CONTEXT | {"head", "dataset", "features", "generator"},
}
